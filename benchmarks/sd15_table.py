"""Score a Stable Diffusion 1.5-size pipeline with random weights, and check the times directly.

Every candidate goes through the real `bin/score` and, beside it, through `direct.py`: the same
files, the same prompts, plain processes, no Speedtrap. Both speedups are medians of paired ratios
over the same number of batches, and should agree within 1 %. One and the same file differs by up
to 1 % from one process to the next, so that a comparison of single processes says little; rounds
with fresh processes are averaged. FOLDER keeps both results of each round as JSON, with every
batch's time. `--endings` adds one run on a busy card and one with a real out-of-memory. Needs a
free GPU; all rows take 20 minutes on an H200. docs/benchmarks.md keeps the table and says what its
columns are.

    python benchmarks/sd15_table.py FOLDER [--rows base deepcache-3 ...] [--rounds 3] [--batches 4]
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
    blocks = [torch.empty(2**30, dtype=torch.uint8, device="cuda") for _ in range(10_000)]
"""
HEADER = (
    "| candidate | pairs | witnessed: base s | cand. s | speedup | direct: base s | cand. s |"
    " speedup | difference | of single rounds | witness ms | reported | wall s |"
)
HOLD_MEMORY = (
    "import torch, time\n"
    "block = torch.empty(4 * 1024**3, dtype=torch.uint8, device='cuda')\n"
    "print('holding', flush=True)\n"
    "time.sleep(600)\n"
)


@dataclass(frozen=True)
class Bench:
    """What all rows have in common."""

    folder: Path
    device: str
    batches: int

    @property
    def prompts(self) -> Path:
        """A file with enough distinct prompts."""
        return self.folder / "prompts.txt"

    def write_inputs(self) -> None:
        """Write one file per method, and the prompts."""
        for name, method in {**METHODS, "out-of-memory": OUT_OF_MEMORY}.items():
            (self.folder / f"{name}.py").write_text(CANDIDATE.format(method=method))
        natural = (ROOT / "prompts" / "natural-20.txt").read_text().splitlines()
        wanted = (self.batches + 1) * 5
        lines = [f"{natural[n % 20]}, picture number {n}" for n in range(wanted)]
        self.prompts.write_text("\n".join(lines) + "\n")

    def environment(self) -> dict[str, str]:
        """The environment of a plain process: the same card, the same stand-in."""
        hub = self.folder / "hub"
        cache = hub / f"models--{MODEL.replace('/', '--')}"
        if not cache.exists():
            (cache / "snapshots").mkdir(parents=True)
            (cache / "snapshots" / ("0" * 40)).symlink_to(self.folder / "model")
            (cache / "refs").mkdir()
            (cache / "refs" / "main").write_text("0" * 40)
        environment = {**os.environ, "HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"}
        if number := self.device.partition(":")[2]:
            environment |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": number}
        return environment

    def score(self, name: str, *more: str) -> tuple[int, str, str, float]:
        """Run `bin/score`: exit status, stdout, stderr, wall seconds."""
        start_s = time.perf_counter()
        run = subprocess.run(
            [
                *(str(ROOT / "bin" / "score"), str(self.folder / f"{name}.py")),
                *("--baseline", str(self.folder / "base.py"), "--prompts", str(self.prompts)),
                *("--stand-in", f"{MODEL}={self.folder / 'model'}", "--clip", "ViT-g-14:random"),
                *("--device", self.device, "--target-speedup", "2", "--json", *more),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        return run.returncode, run.stdout, run.stderr, time.perf_counter() - start_s

    def direct(self, name: str) -> dict[str, Any]:
        """Run `direct.py`."""
        run = subprocess.run(
            [
                *(sys.executable, str(ROOT / "benchmarks" / "direct.py")),
                *(str(self.folder / "base.py"), str(self.folder / f"{name}.py")),
                *(str(self.prompts), "--batches", str(self.batches)),
            ],
            capture_output=True,
            text=True,
            check=False,
            env=self.environment(),
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


def witnessed_times(result: dict[str, Any]) -> Paired:
    """The timed batches of a result of `bin/score --json`."""
    return Paired(
        *(
            [batch["time_s"] for batch in result[side]["batches"] if batch["phase"] == "timed"]
            for side in ("baseline", "candidate")
        )
    )


@dataclass(frozen=True)
class Round:
    """A candidate measured both ways, in processes of its own."""

    witnessed: Paired
    directly: Paired
    witness_s: float
    """What the witness adds to a candidate's batch."""
    reported: float
    wall_s: float

    @property
    def difference(self) -> float:
        """Witnessed speedup over direct speedup, less 1."""
        return self.witnessed.speedup / self.directly.speedup - 1

    @property
    def doubt(self) -> float:
        """Two standard errors of `difference`, as far as the batches of these processes show it."""
        return math.hypot(self.witnessed.doubt, self.directly.doubt)


def pooled(rounds: list[Round]) -> Round:
    """All batches of all rounds as one."""
    return Round(
        witnessed=together([each.witnessed for each in rounds]),
        directly=together([each.directly for each in rounds]),
        witness_s=statistics.fmean(each.witness_s for each in rounds),
        reported=statistics.median(each.reported for each in rounds),
        wall_s=statistics.fmean(each.wall_s for each in rounds),
    )


def together(pairs: list[Paired]) -> Paired:
    """Batches of several processes as one."""
    return Paired(
        [time_s for each in pairs for time_s in each.baseline_s],
        [time_s for each in pairs for time_s in each.candidate_s],
    )


def line(name: str, rounds: list[Round]) -> str:
    """One line of the table: medians over the batches of all rounds."""
    every = pooled(rounds)
    single = ", ".join(f"{each.difference:+.2%}" for each in rounds)
    batch_s = statistics.median(every.witnessed.candidate_s)
    return (
        f"| {name} | {len(every.witnessed.ratios)} | {cells(every.witnessed)} |"
        f" {cells(every.directly)} | {every.difference:+.2%} ± {every.doubt:.2%} | {single} |"
        f" {1000 * every.witness_s:.1f} ({every.witness_s / batch_s:.2%}) |"
        f" {every.reported:.3f} | {every.wall_s:.0f} |"
    )


def cells(pairs: Paired) -> str:
    """Three cells of the table: median seconds of both sides, and the speedup."""
    medians = [statistics.median(each) for each in (pairs.baseline_s, pairs.candidate_s)]
    return f"{medians[0]:.3f} | {medians[1]:.3f} | {pairs.speedup:.3f}"


def measure(bench: Bench, name: str, number: int) -> str:
    """Measure one method both ways and keep both results as JSON; returns what failed, if any."""
    status, stdout, stderr, _ = bench.score(name)
    if status not in {0, 1} or json.loads(stdout).get("candidate") is None:
        return f"exit status {status}: {(stdout + stderr)[-3000:]}"
    plain = bench.direct(name)
    (bench.folder / f"{name}.{number}.json").write_text(stdout)
    (bench.folder / f"{name}.{number}.direct.json").write_text(json.dumps(plain))
    return ""


def kept_rounds(bench: Bench, name: str) -> list[Round]:
    """What was measured of a method, from the files that were kept."""
    found = []
    for path in sorted(bench.folder.glob(f"{name}.[0-9].json")):
        result = json.loads(path.read_text())
        plain = json.loads(path.with_suffix(".direct.json").read_text())
        witnessed = witnessed_times(result)
        beyond_s = sum(witnessed.candidate_s) - result["claim"]["time_s"]
        found.append(
            Round(
                witnessed=witnessed,
                directly=Paired(plain["baseline_s"], plain["candidate_s"]),
                witness_s=beyond_s / len(witnessed.candidate_s),
                reported=result["speedup"],
                wall_s=result["circumstances"]["wall_s"],
            )
        )
    return found


def row(bench: Bench, name: str, rounds: int) -> str:
    """Measure one method and return the table's line."""
    for number in range(1, rounds + 1):
        if problem := measure(bench, name, number):
            return f"| {name} | failed, {problem} |"
    found = kept_rounds(bench, name)
    return line(name, found) if found else f"| {name} | not measured |"


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


def busy_and_out_of_memory(bench: Bench) -> None:
    """Print what happens on a card with a foreign process, and on a real out-of-memory."""
    command = [sys.executable, "-c", HOLD_MEMORY]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=bench.environment()
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        status, _, stderr, wall_s = bench.score("deepcache-3", "--wait", "5")
        print(f"busy card: process {holder.pid} holds 4 GiB; exit status {status}", end=" ")
        print(f"after {wall_s:.0f} s: {stderr.strip()[-300:]}", flush=True)
        holder.kill()
    status, stdout, stderr, wall_s = bench.score("out-of-memory")
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
    parser.add_argument(
        "--rounds", type=int, default=3, help="with fresh processes, default 3; 0: what was kept"
    )
    parser.add_argument("--batches", type=int, default=4, help="timed, a round; default: 4")
    parser.add_argument("--device", default="cuda", help="cuda:N where there are several")
    parser.add_argument("--endings", action="store_true", help="also the busy card and the OOM")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, arguments.device, arguments.batches)
    bench.write_inputs()
    if not (folder / "model" / "model_index.json").exists():
        build = [str(ROOT / "benchmarks" / "random_pipeline.py"), str(folder / "model")]
        subprocess.run([sys.executable, *build, "--device", "cuda"], check=True)
    print(surroundings())
    print(f"\n{HEADER}\n|{'---|' * (HEADER.count('|') - 1)}", flush=True)
    for name in arguments.rows:
        print(row(bench, name, arguments.rounds), flush=True)
    if arguments.endings:
        busy_and_out_of_memory(bench)


if __name__ == "__main__":
    main()
