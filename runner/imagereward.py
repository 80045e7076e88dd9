"""ImageReward: how well people would like an image for its prompt.

By Xu et al., NeurIPS 2023, arXiv 2304.05977. Part of the trusted scorer's process. Nothing is
downloaded: where weights are missing, the number is withheld, and says which file is missing.

Theory of operation
-------------------
A vision transformer reads the image; a BLIP text encoder reads the prompt and, in each layer, the
image; five linear layers make one number of its first token. That number is standardised with the
mean and the deviation over the authors' own training set: 0 is an average image of theirs, 1 a
deviation above it.

The package `image-reward` 1.5 cannot stand beside what this project needs. It asks for timm 0.6.13
exactly, open_clip for 1.0.17 or later; it imports `clip`, which it does not declare, and functions
that transformers 5 no longer has. So the same network is put together here from timm's vision
transformer and transformers' BLIP text encoder. Both call their weights what the published file
calls them, so it is loaded name by name; a name that is missing is an error. What the file has
beside them (two projections that the reward does not use, a buffer of positions) is left out.

The weights are read as tensors only (`weights_only`): no code in the file is run.
"""

from __future__ import annotations

import json
import math
import pickle
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from runner import estimate
from runner.distribution import Withheld, first_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image

    from runner.distribution import Pairs

WEIGHTS: Final = "ImageReward.pt"
TEXT_CONFIG: Final = "med_config.json"
VOCABULARY: Final = "vocab.txt"
_REPOSITORIES: Final = {
    WEIGHTS: ("THUDM/ImageReward", "zai-org/ImageReward"),
    TEXT_CONFIG: ("THUDM/ImageReward", "zai-org/ImageReward"),
    VOCABULARY: ("bert-base-uncased", "google-bert/bert-base-uncased"),
}
"""Where each file is published. Both repositories have moved: a cache has them by either name."""

MEAN: Final = 0.16717362830052426
DEVIATION: Final = 1.0333394966054072
"""Of the rewards of the training set, from the authors' code: in no file of weights."""
MAX_TOKENS: Final = 35
"""Words of a prompt that come after them are not read; the network was trained so."""
HEAD_WIDTHS: Final = (1024, 128, 64, 16, 1)
HEAD_NUMBERS: Final = (0, 2, 4, 6, 7)
"""Places of the linear layers in the published file: between them was dropout."""
_WIDTH_OF_A_HEAD: Final = 64
_CHANNEL_MEANS: Final = (0.48145466, 0.4578275, 0.40821073)
_CHANNEL_DEVIATIONS: Final = (0.26862954, 0.26130258, 0.27577711)
_AT_ONCE: Final = 8
_TEXT_FIELDS: Final = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("max_position_embeddings", "vocab_size", "layer_norm_eps", "hidden_act"),
)


@dataclass(frozen=True, slots=True)
class Rewards:
    """Mean rewards of both sides, in deviations of the training set's rewards.

    `difference` is the candidate's less the baseline's; `difference_ci` its 95 % interval over
    pairs of one prompt and seed, None where there are too few of them.
    """

    baseline: float
    candidate: float
    difference: float
    difference_ci: tuple[float, float] | None


class Network(nn.Module):
    """The reward network; its weights have the names of the published file.

    It takes square images of `side_px` and knows `vocabulary_size` tokens.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], text_config: Mapping[str, Any]) -> None:
        """Make a network of the shapes of `weights`, and load them.

        Raises `ValueError` for weights that are missing or do not fit.
        """
        super().__init__()
        image_encoder = _image_encoder(weights)
        text_encoder = _text_encoder(text_config, image_encoder.embed_dim)
        self.blip = nn.ModuleDict({"visual_encoder": image_encoder, "text_encoder": text_encoder})
        self.mlp = nn.ModuleDict({"layers": _head(int(text_config["hidden_size"]))})
        self.load_state_dict(_fitting(weights, self.state_dict()))
        self.eval().requires_grad_(requires_grad=False)
        self.side_px: Final[int] = image_encoder.patch_embed.img_size[0]
        self.vocabulary_size: Final[int] = text_encoder.config.vocab_size

    def forward(
        self, pixels: torch.Tensor, tokens: torch.Tensor, is_token: torch.Tensor
    ) -> torch.Tensor:
        """Rewards (N,) of normalised images (N, 3, side, side) for N prompts.

        `tokens` and `is_token` are (N, `MAX_TOKENS`), the latter 0 for padding.
        """
        read = self.blip["text_encoder"](
            input_ids=tokens,
            attention_mask=is_token,
            encoder_hidden_states=self.blip["visual_encoder"](pixels),
        )
        rewards: torch.Tensor = self.mlp["layers"](read.last_hidden_state[:, 0])
        return (rewards.squeeze(-1) - MEAN) / DEVIATION


def _fitting(
    weights: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    for name, tensor in wanted.items():
        found = _taken(weights, name).shape
        if found != tensor.shape:
            message = f"{name} has the shape {tuple(found)}, not {tuple(tensor.shape)}"
            raise ValueError(message)
    return {name: weights[name] for name in wanted}


def _taken(named: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401  (a tensor or a setting)
    if name not in named:
        message = f"there is no {name}"
        raise ValueError(message)
    return named[name]


def _image_encoder(weights: Mapping[str, torch.Tensor]) -> Any:  # noqa: ANN401  (timm's own class)
    from timm.models.vision_transformer import VisionTransformer  # deferred: nobody else needs it

    prefix = "blip.visual_encoder."
    width, _, patch_px, _ = _taken(weights, f"{prefix}patch_embed.proj.weight").shape
    patches = _taken(weights, f"{prefix}pos_embed").shape[1] - 1  # one more for the class token
    blocks = {name.split(".")[3] for name in weights if name.startswith(f"{prefix}blocks.")}
    return VisionTransformer(
        img_size=math.isqrt(patches) * patch_px,
        patch_size=patch_px,
        embed_dim=width,
        depth=len(blocks),
        num_heads=width // _WIDTH_OF_A_HEAD,
        num_classes=0,
        global_pool="",  # all tokens, not one for the image
        weight_init="skip",
    )


def _text_encoder(text_config: Mapping[str, Any], image_width: int) -> Any:  # noqa: ANN401
    from transformers import BlipTextConfig, BlipTextModel

    config = BlipTextConfig(
        **{name: _taken(text_config, name) for name in _TEXT_FIELDS},
        encoder_hidden_size=image_width,
        is_decoder=True,  # gives it layers that look at the image; it is not run as a decoder
    )
    return BlipTextModel(config, add_pooling_layer=False)


def _head(width: int) -> nn.Sequential:
    places: list[nn.Module] = [nn.Identity() for _ in range(HEAD_NUMBERS[-1] + 1)]
    for number, wide in zip(HEAD_NUMBERS, HEAD_WIDTHS, strict=True):
        places[number] = nn.Linear(width, wide)
        width = wide
    return nn.Sequential(*places)


class ImageReward:
    """Gathers the rewards of both sides' images."""

    def __init__(self, network: Network, vocabulary: Path, device: str) -> None:
        """Take over a loaded network; `vocabulary` has a token a line, as BERT's has.

        Raises `ValueError` if the network does not know all of its tokens.
        """
        from torchvision import transforms
        from transformers import BertTokenizer

        self._network = network.to(device)
        self._device = device
        self._tokenizer: Any = BertTokenizer(str(vocabulary))
        if max(self._tokenizer.get_vocab().values()) >= network.vocabulary_size:
            message = f"{vocabulary} has more than the {network.vocabulary_size} tokens it knows"
            raise ValueError(message)
        self._prepared = transforms.Compose(
            [
                transforms.Resize(network.side_px, transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(network.side_px),
                transforms.ToTensor(),
                transforms.Normalize(_CHANNEL_MEANS, _CHANNEL_DEVIATIONS),
            ]
        )
        self._baseline: list[float] = []
        self._candidate: list[float] = []

    def rewards(self, prompts: Sequence[str], images: Sequence[Image]) -> list[float]:
        """Reward of each RGB image for the prompt at the same place."""
        found: list[float] = []
        for start in range(0, len(images), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            text = self._tokenizer(
                list(prompts[some]),
                padding="max_length",
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            ).to(self._device)
            pixels = torch.stack([self._prepared(image) for image in images[some]])
            with torch.inference_mode():
                rewards = self._network(
                    pixels.to(self._device), text["input_ids"], text["attention_mask"]
                )
            found += rewards.tolist()
        return found

    def add(self, pairs: Pairs) -> None:
        """Take the rewards of both sides."""
        baseline = self.rewards(pairs.prompts, pairs.references)
        self._candidate += self.rewards(pairs.prompts, pairs.images)
        self._baseline += baseline

    def value(self) -> Rewards | Withheld:
        """Both means and their difference; withheld where there are no images."""
        if not self._baseline:
            return Withheld("ImageReward needs an image of each side")
        if not all(map(math.isfinite, (*self._baseline, *self._candidate))):
            return Withheld("ImageReward came to no number")
        difference = estimate.difference(self._baseline, self._candidate, estimate.LEVEL)
        return Rewards(
            baseline=statistics.fmean(self._baseline),
            candidate=statistics.fmean(self._candidate),
            difference=difference.value,
            difference_ci=difference.interval,
        )


def load_imagereward(device: str, folder: Path | None = None) -> ImageReward | Withheld:
    """Load the network from `folder`, or from the Hugging Face cache where none is named.

    A folder holds `WEIGHTS`, `TEXT_CONFIG` and `VOCABULARY`. No code in them is run.
    """
    files = {name: _find(name, folder) for name in _REPOSITORIES}
    missing = ", ".join(name for name, file in files.items() if file is None)
    weights, text_config, vocabulary = files.values()
    if weights is None or text_config is None or vocabulary is None:
        return Withheld(
            f"ImageReward needs {missing}, which {'is not in ' + str(folder) if folder else _LACK}"
        )
    try:
        config = json.loads(text_config.read_text())
        tensors = torch.load(weights, map_location="cpu", weights_only=True)
        loaded = ImageReward(Network(tensors, config), vocabulary, device)
        _try(loaded, device)
    except pickle.UnpicklingError:  # torch's words for it say how to run the code in it
        return Withheld(f"ImageReward: {weights} could not be loaded: not tensors alone")
    except Exception as error:  # noqa: BLE001  (three libraries, each with errors of its own)
        return Withheld(f"ImageReward: {weights} could not be loaded: {first_line(error)}")
    return loaded


_LACK: Final = (
    f"the Hugging Face cache does not hold: `hf download THUDM/ImageReward {WEIGHTS} {TEXT_CONFIG}`"
    f" and `hf download bert-base-uncased {VOCABULARY}` fetch all (1.8 GB), or name a folder that"
    " has them: --metric imagereward=FOLDER"
)


def _find(name: str, folder: Path | None) -> Path | None:
    """Where a file lies; nothing is fetched."""
    if folder is not None:
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import try_to_load_from_cache

    for repository in _REPOSITORIES[name]:
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    return None


def _try(loaded: ImageReward, device: str) -> None:
    """Run it once, which also takes a card's memory while there is some."""
    from PIL import Image

    count = 1 if device == "cpu" else _AT_ONCE
    loaded.rewards(["a"] * count, [Image.new("RGB", (16, 16))] * count)
