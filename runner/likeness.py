"""How alike two images are: PSNR, SSIM, and the cosine of their CLIP embeddings.

Part of the trusted scorer's process; it is the only place that knows torchmetrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL.Image import Image

    Embed = Callable[[Sequence[Image]], torch.Tensor]
    Keep = Callable[[torch.Tensor, torch.Tensor], None]

MAX_PSNR_DB: Final = 100.0
"""Stands for infinity, the PSNR of equal images; of images that hardly differ, too."""
_WINDOW_PX: Final = 11
"""Side of SSIM's Gaussian window (sigma 1.5, Wang et al. 2004)."""
_LEVELS: Final = 255.0


def likeness(
    references: Sequence[Image],
    images: Sequence[Image],
    embed: Embed,
    device: str,
    keep: Keep | None = None,
) -> list[float]:
    """PSNR in dB (0 to 100), SSIM and CLIP cosine (-1 to 1) of each pair, one pair after another.

    Both images of a pair are RGB and of one size. `embed` gives unit CLIP embeddings, (N, D);
    `keep` is handed those of both sides, so that nobody has to make them again.
    """
    embeddings = embed(references), embed(images)
    if keep is not None:
        keep(*embeddings)
    cosines = (embeddings[0] * embeddings[1]).sum(dim=-1).clamp(-1, 1).tolist()
    numbers: list[float] = []
    for reference, image, cosine in zip(references, images, cosines, strict=True):
        ours, theirs = _pixels(reference, device), _pixels(image, device)
        psnr = float(peak_signal_noise_ratio(theirs, ours, data_range=_LEVELS))
        ssim = structural_similarity_index_measure(theirs, ours, data_range=_LEVELS)
        assert isinstance(ssim, torch.Tensor)  # it is a tuple where a map of it is asked for
        # Single precision: to itself, a bright flat image is 0.9987 alike.
        numbers += [min(max(psnr, 0.0), MAX_PSNR_DB), max(-1.0, min(float(ssim), 1.0)), cosine]
    return numbers


def _pixels(image: Image, device: str) -> torch.Tensor:
    """Pixels as (1, 3, height, width), 0 to 255; what is smaller than SSIM's window is enlarged."""
    pixels = torch.from_numpy(np.array(image)).to(device).permute(2, 0, 1)[None].float()
    factor = -(-_WINDOW_PX // min(image.size))
    return pixels.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
