"""Time a baseline and a candidate in one plain process, without Speedtrap.

The yardstick for `sd15_table.py`: both files are loaded side by side, warmed up, and timed batch by
batch in ABBA order between two device synchronisations. Prints one JSON object.

    python benchmarks/direct.py base.py candidate.py prompts.txt --batches 12
"""

from __future__ import annotations

import argparse
import json
import runpy
import statistics
import time
from pathlib import Path
from typing import Any

import torch

WARMUP_BATCHES = 1


class Side:
    """One loaded file and its times."""

    def __init__(self, path: Path) -> None:
        """Load `path` and its pipeline."""
        self.namespace: dict[str, Any] = runpy.run_path(str(path))
        self.pipe = self.namespace["load_pipe"]()
        self.times_s: list[float] = []

    def run(self, seed: int, prompts: list[str]) -> None:
        """Time one batch."""
        torch.manual_seed(seed)
        torch.cuda.synchronize()
        start_s = time.perf_counter()
        self.namespace["inference"](self.pipe, prompts)
        torch.cuda.synchronize()
        self.times_s.append(time.perf_counter() - start_s)


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("baseline", type=Path)
    parser.add_argument("candidate", type=Path)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=5)
    arguments = parser.parse_args()
    prompts = arguments.prompts.read_text().splitlines()
    sides = Side(arguments.baseline), Side(arguments.candidate)
    for number in range(arguments.batches + WARMUP_BATCHES):
        start = number * arguments.batch_size
        batch = prompts[start : start + arguments.batch_size]
        for side in sides if number % 2 == 0 else reversed(sides):
            side.run(42 + number, batch)
    baseline_s, candidate_s = (side.times_s[WARMUP_BATCHES:] for side in sides)
    ratios = [slow / fast for slow, fast in zip(baseline_s, candidate_s, strict=True)]
    print(
        json.dumps(
            {
                "baseline_s": baseline_s,
                "candidate_s": candidate_s,
                "speedup": statistics.median(ratios),
            }
        )
    )


if __name__ == "__main__":
    main()
