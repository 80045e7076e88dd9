"""From how many images on CMMD means something: the figures behind `runner.distribution`.

    python benchmarks/fidelity.py OUT.json --captions 60 --sheets FOLDER
    python benchmarks/distance.py FOLDER [--counts 15 30 45] [--lpips]

The first command makes each method's images of the same captions and seeds. Of them runs of some
images are drawn, without repetition, and held against the plain pipeline's. Runs of more than half
of the images have most of them in common: their shares are no estimates, only their means.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, from anywhere

from models import render
from runner import distribution, paths
from runner.scorer_process import load_clip

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.distribution import Cmmd, Floats
    from runner.scorer_process import Clip

RUNS: Final = 60
RUNS_SEED: Final = 3
PLAIN: Final = "plain"
FOUND: Final = 0.05


def load(sheet: Path) -> list[Image.Image]:
    """The images that stand side by side on a sheet."""
    with Image.open(sheet) as opened:
        pixels = np.asarray(opened)
    count = pixels.shape[1] // render.SIDE
    return [Image.fromarray(part) for part in np.split(pixels, count, axis=1)]


def embed(images: Sequence[Image.Image], clip: Clip) -> Floats:
    """Unit CLIP embeddings, in double precision."""
    rows = clip.embed(images).double()
    return torch.nn.functional.normalize(rows, dim=-1).cpu().numpy()


def draw(plain: Floats, rows: Floats, count: int) -> Iterator[Cmmd]:
    """CMMD of `RUNS` runs of `count` images."""
    rng = np.random.default_rng(RUNS_SEED)
    for _ in range(RUNS):
        chosen = rng.permutation(len(plain))[:count]
        found = distribution.cmmd(plain[chosen], rows[chosen])
        assert not isinstance(found, distribution.Withheld)
        yield found


def cells(runs: Sequence[Cmmd]) -> str:
    """Mean and deviation of the distance, mean published one, mean noise, share that is found."""
    values = [run.value for run in runs]
    found = sum(run.p_value <= FOUND for run in runs) / len(runs)
    published, noise = (
        statistics.fmean(getattr(run, name) for run in runs) for name in ("published", "noise")
    )
    mean, sd = statistics.fmean(values), statistics.stdev(values)
    return f"{mean:.3f} \u00b1 {sd:.3f}; {published:.3f}; {noise:.3f}; {found:.0%}"


def lpips(plain: Sequence[Image.Image], images: Sequence[Image.Image]) -> str:
    """Mean LPIPS with its standard error, or why there is none."""
    metric = distribution.load_lpips("cpu")
    if isinstance(metric, distribution.Withheld):
        return metric.reason
    metric.add(plain, images)
    found = metric.value()
    assert isinstance(found, distribution.Mean)
    return f"{found.value:.4f} \u00b1 {found.error:.4f}"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sheets", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[15, 30, 45])
    parser.add_argument("--lpips", action="store_true")
    arguments = parser.parse_args()
    clip = load_clip(f"local-dir:{paths.ROOT / 'models' / 'tiny-clip'}", None)
    plain = load(arguments.sheets / f"{PLAIN}.png")
    names = [f"{count} images" for count in arguments.counts]
    names += ["LPIPS"] if arguments.lpips else []
    print("Distance \u00b1 SD; published formula; noise; share of runs with p <= 0.05.\n")
    print(f"| method | {' | '.join(names)} |\n{'|---' * (len(names) + 1)}|")
    for sheet in sorted(arguments.sheets.glob("*.png")):
        images = load(sheet)
        sides = embed(plain, clip), embed(images, clip)
        row = [cells(list(draw(*sides, count))) for count in arguments.counts]
        row += [lpips(plain, images)] if arguments.lpips else []
        print(f"| {sheet.stem} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
