"""Score a Stable Diffusion 1.5-size pipeline with random weights, and check the times directly.

Every candidate goes through the real `bin/score` and, beside it, through `direct.py`: the same
files, the same prompts, one plain process, no Speedtrap. Both speedups are medians of paired
ratios over the same number of batches, and should agree within 1 %. FOLDER keeps both results of
each row as JSON, with every batch's time. `--endings` adds one run on a busy card and one with a
real out-of-memory. Needs a free GPU; all rows take 17 minutes on an H200. docs/benchmarks.md keeps
the table and says what its columns are.

    python benchmarks/sd15_table.py FOLDER [--rows base deepcache-3 ...] [--batches 12] [--endings]
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MODEL = "runwayml/stable-diffusion-v1-5"

CANDIDATE = """\
import torch
from diffusers import StableDiffusionPipeline


def load_pipe():
    pipe = StableDiffusionPipeline.from_pretrained(
        "runwayml/stable-diffusion-v1-5", torch_dtype=torch.float16, safety_checker=None
    ).to("cuda")
    pipe.set_progress_bar_config(disable=True)
{method}
    return pipe


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=50).images
"""

DEEPCACHE = """\
    from DeepCache import DeepCacheSDHelper
    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval={interval}, cache_branch_id=0)
    helper.enable()
"""
TOME = """\
    import tomesd
    tomesd.apply_patch(pipe, ratio=0.5)
"""
METHODS = {
    "base": "",
    **{f"deepcache-{n}": DEEPCACHE.format(interval=n) for n in (2, 3, 5, 10)},
    "tomesd-0.5": TOME,
    "deepcache-3+tomesd-0.5": DEEPCACHE.format(interval=3) + TOME,
    "torch.compile": "    pipe.unet = torch.compile(pipe.unet)\n",
}
OUT_OF_MEMORY = """\
    torch.empty(int(torch.cuda.mem_get_info()[1] * 2), dtype=torch.uint8, device="cuda")
"""
HEADER = (
    "| candidate | witnessed: base s | cand. s | speedup | direct: base s | cand. s | speedup |"
    " difference | witness ms | reported | wall s |"
)
HOLD_MEMORY = (
    "import torch, time\n"
    "block = torch.empty(4 * 1024**3, dtype=torch.uint8, device='cuda')\n"
    "print('holding', flush=True)\n"
    "time.sleep(600)\n"
)


def write_inputs(folder: Path, batches: int) -> Path:
    """Write one file per method and enough distinct prompts; returns the prompt file."""
    for name, method in {**METHODS, "out-of-memory": OUT_OF_MEMORY}.items():
        (folder / f"{name}.py").write_text(CANDIDATE.format(method=method))
    natural = (ROOT / "prompts" / "natural-20.txt").read_text().splitlines()
    wanted = (batches + 1) * 5
    lines = [f"{natural[n % 20]}, picture number {n}" for n in range(wanted)]
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(lines) + "\n")
    return prompts


def score(folder: Path, name: str, prompts: Path, *more: str) -> tuple[int, str, str, float]:
    """Run `bin/score`: exit status, stdout, stderr, wall seconds."""
    start_s = time.perf_counter()
    run = subprocess.run(
        [
            *(str(ROOT / "bin" / "score"), str(folder / f"{name}.py")),
            *("--baseline", str(folder / "base.py"), "--prompts", str(prompts)),
            *("--stand-in", f"{MODEL}={folder / 'model'}", "--clip", "ViT-g-14:random"),
            *("--device", "cuda", "--target-speedup", "2", "--json", *more),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return run.returncode, run.stdout, run.stderr, time.perf_counter() - start_s


def direct(folder: Path, name: str, prompts: Path, batches: int) -> dict[str, Any]:
    """Run `direct.py` in a plain process with the same stand-in."""
    hub = folder / "hub" / f"models--{MODEL.replace('/', '--')}"
    if not hub.exists():
        (hub / "snapshots").mkdir(parents=True)
        (hub / "snapshots" / ("0" * 40)).symlink_to(folder / "model")
        (hub / "refs").mkdir()
        (hub / "refs" / "main").write_text("0" * 40)
    run = subprocess.run(
        [
            *(sys.executable, str(ROOT / "benchmarks" / "direct.py")),
            *(str(folder / "base.py"), str(folder / f"{name}.py"), str(prompts)),
            *("--batches", str(batches)),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": "1"},
    )
    if run.returncode != 0:
        sys.exit(f"direct timing of {name} failed:\n{run.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return result


@dataclass(frozen=True)
class Paired:
    """Seconds a batch of both sides, and what follows from the pairs."""

    baseline_s: list[float]
    candidate_s: list[float]

    @property
    def ratios(self) -> list[float]:
        """Speedup of each pair of batches."""
        return [slow / fast for slow, fast in zip(self.baseline_s, self.candidate_s, strict=True)]

    @property
    def speedup(self) -> float:
        """Median of the pairs' speedups."""
        return statistics.median(self.ratios)

    @property
    def doubt(self) -> float:
        """Two standard errors of `speedup`, as a share of it, from the median deviation."""
        deviation = statistics.median(abs(ratio / self.speedup - 1) for ratio in self.ratios)
        return 2 * 1.2533 * 1.4826 * deviation / math.sqrt(len(self.ratios))

    def cells(self) -> str:
        """Three cells of the table: median seconds of both sides, speedup."""
        medians = statistics.median(self.baseline_s), statistics.median(self.candidate_s)
        return f"{medians[0]:.3f} | {medians[1]:.3f} | {self.speedup:.3f}"


def witnessed_times(result: dict[str, Any]) -> Paired:
    """The timed batches of a result of `bin/score --json`."""
    return Paired(
        *(
            [batch["time_s"] for batch in result[side]["batches"] if batch["phase"] == "timed"]
            for side in ("baseline", "candidate")
        )
    )


def line(name: str, result: dict[str, Any], plain: dict[str, Any]) -> str:
    """One line of the table, from the result of `bin/score` and that of `direct.py`."""
    witnessed = witnessed_times(result)
    directly = Paired(plain["baseline_s"], plain["candidate_s"])
    difference = witnessed.speedup / directly.speedup - 1
    doubt = math.hypot(witnessed.doubt, directly.doubt)
    beyond_s = sum(witnessed.candidate_s) - result["claim"]["time_s"]
    overhead_ms = 1000 * beyond_s / len(witnessed.candidate_s)
    share = beyond_s / sum(witnessed.candidate_s)
    return (
        f"| {name} | {witnessed.cells()} | {directly.cells()} |"
        f" {difference:+.2%} ± {doubt:.2%} | {overhead_ms:.1f} ({share:.2%}) |"
        f" {result['speedup']:.3f} | {result['circumstances']['wall_s']:.0f} |"
    )


def row(folder: Path, name: str, prompts: Path, batches: int) -> str:
    """Measure one method both ways, keep both results as JSON, and return the table's line."""
    status, stdout, stderr, _ = score(folder, name, prompts)
    (folder / f"{name}.json").write_text(stdout)
    result = json.loads(stdout) if status in {0, 1} else {"candidate": None}
    if result["candidate"] is None:
        return f"| {name} | failed, exit status {status}: {(stdout + stderr)[-3000:]} |"
    plain = direct(folder, name, prompts, batches)
    (folder / f"{name}.direct.json").write_text(json.dumps(plain))
    return line(name, result, plain)


def cards() -> list[str]:
    """What NVML shows of each card: name, driver, memory in use, processes."""
    import pynvml

    pynvml.nvmlInit()
    shown = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        card = pynvml.nvmlDeviceGetHandleByIndex(index)
        used_gib = pynvml.nvmlDeviceGetMemoryInfo(card).used / 1024**3
        pids = [one.pid for one in pynvml.nvmlDeviceGetComputeRunningProcesses(card)]
        shown.append(
            f"{pynvml.nvmlDeviceGetName(card)}, driver {pynvml.nvmlSystemGetDriverVersion()},"
            f" {used_gib:.1f} GiB in use by {len(pids)} processes"
        )
    return shown


def surroundings() -> str:
    """Date, machine and versions, for the page that keeps the table."""
    packages = ("torch", "diffusers", "transformers", "open_clip_torch", "DeepCache", "tomesd")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    now = dt.datetime.now(tz=dt.UTC).isoformat(timespec="minutes")
    host = f"{os.cpu_count()} cores, Linux {platform.release()}"
    return f"{now}; {'; '.join(cards())}; {host}; Python {platform.python_version()}, {versions}"


def busy_and_out_of_memory(folder: Path, prompts: Path) -> None:
    """Print what happens on a card with a foreign process, and on a real out-of-memory."""
    command = [sys.executable, "-c", HOLD_MEMORY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        status, _, stderr, wall_s = score(folder, "deepcache-3", prompts, "--wait", "5")
        print(f"busy card: process {holder.pid} holds 4 GiB; exit status {status}", end=" ")
        print(f"after {wall_s:.0f} s: {stderr.strip()[-300:]}", flush=True)
        holder.kill()
    status, stdout, stderr, wall_s = score(folder, "out-of-memory", prompts)
    result = json.loads(stdout)
    attempts = len(result["circumstances"]["attempts"])
    print(
        f"out of memory: exit status {status} after {wall_s:.0f} s, verdict {result['verdict']},"
        f" loss {result['loss']}, attempts {attempts}: {result['reason'][:400]}"
    )
    print("afterwards: " + "; ".join(cards()))


def main() -> None:
    """Read the arguments, build the model if need be, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--endings", action="store_true", help="also the busy card and the OOM")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    prompts = write_inputs(folder, arguments.batches)
    if not (folder / "model" / "model_index.json").exists():
        build = [str(ROOT / "benchmarks" / "random_pipeline.py"), str(folder / "model")]
        subprocess.run([sys.executable, *build, "--device", "cuda"], check=True)
    print(surroundings())
    print(f"\n{HEADER}\n|{'---|' * (HEADER.count('|') - 1)}", flush=True)
    for name in arguments.rows:
        print(row(folder, name, prompts, arguments.batches), flush=True)
    if arguments.endings:
        busy_and_out_of_memory(folder, prompts)


if __name__ == "__main__":
    main()
