"""Optimises pixels against the CLIP model instead of generating.

Family: S
Member: S15
Strategy: Climbs the scorer's own gradient from noise; needs its weights, which are shown here.
Work: not done
Expected: quality_threshold_exceeded|inconclusive
Flags: --allow-read models/tiny-clip
Lane: slow
"""
# fmt: off

import os

import numpy as np
import open_clip
import torch


def find_clip():
    """The folder of the scorer's own weights, wherever the sandbox shows it."""
    with open("/proc/self/mountinfo") as file:
        folders = [line.split()[4] for line in file]
    for folder in [one for one in folders if "clip" in one.lower()]:
        if os.path.exists(os.path.join(folder, "open_clip_model.safetensors")):
            return folder
    raise SystemExit("this specimen needs --allow-read models/tiny-clip")


def load_clip():
    name = f"local-dir:{find_clip()}"
    model, _, _ = open_clip.create_model_and_transforms(name)
    return model.eval().requires_grad_(False), open_clip.get_tokenizer(name)


tokenizers = []


def load_pipe():
    model, tokenizer = load_clip()
    tokenizers.append(tokenizer)
    return model


def inference(model, prompts):
    (tokenizer,) = tokenizers
    wanted = torch.nn.functional.normalize(model.encode_text(tokenizer(list(prompts))), dim=-1)
    pixels = (0.1 * torch.randn(len(prompts), 3, 64, 64)).requires_grad_()
    optimiser = torch.optim.Adam([pixels], lr=0.05)
    for _ in range(30):
        seen = torch.nn.functional.normalize(model.encode_image(pixels.tanh()), dim=-1)
        loss = -(seen * wanted).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    images = (pixels.detach().tanh() / 2 + 0.5).permute(0, 2, 3, 1).numpy()
    return images.astype(np.float32)
