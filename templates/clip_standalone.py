"""Segment 4 of tmp.py, standalone: the CLIP score, computed here with open_clip.

It stands after the candidate's code, which may have hidden any builtin: none is used. The trusted
scorer process runs this very file, so both forms of a script score alike.
"""

import functools
import statistics

import torch

CLIP_MODEL = "ViT-g-14"
CLIP_PRETRAINED = "laion2b_s34b_b88k"
"""A tag that open_clip knows; None stands for random weights, whose scores mean nothing."""


@functools.cache
def load_clip(device):
    """Load the CLIP model once: (model, image transform, tokenizer)."""
    import open_clip

    torch.manual_seed(0)  # random weights, where asked for, are the same in every process
    model, _, transform = open_clip.create_model_and_transforms(
        CLIP_MODEL, pretrained=CLIP_PRETRAINED, device=device
    )
    return model.eval(), transform, open_clip.get_tokenizer(CLIP_MODEL)


def embed_images(images):
    """Unit embeddings of images, a row each."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, transform, _ = load_clip(device)
    with torch.no_grad():
        pixels = torch.stack([transform(image) for image in images]).to(device)
        return torch.nn.functional.normalize(model.encode_image(pixels).float(), dim=-1)


def calculate_clip_scores(prompts, images):
    """Score each image against its prompt: 100 x max(cosine, 0), in [0, 100].

    The formula is that of torchmetrics' CLIPScore (Hessel et al. 2021, arXiv 2104.08718, with
    weight 100), and the one of DeepCache's experiments.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, _, tokenizer = load_clip(device)
    of_images = embed_images(images)
    with torch.no_grad():
        of_prompts = model.encode_text(tokenizer([*prompts]).to(device)).float()
        of_prompts = torch.nn.functional.normalize(of_prompts, dim=-1)
        cosines = (of_images * of_prompts).sum(dim=-1)
    return (100.0 * cosines.double().clamp(min=0.0)).tolist()


def calculate_clip_score(prompts, images):
    """Return the mean CLIP score of the images."""
    return statistics.fmean(calculate_clip_scores(prompts, images))
