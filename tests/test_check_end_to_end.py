"""The real commands, sandbox and embedded model: a live comparison, and a baseline made here."""

import json
import os
import subprocess
import sys

import pytest

from runner import paths

CANDIDATE = """
import torch
from diffusers import StableDiffusionPipeline
def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")
def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=2).images
"""


@pytest.fixture
def run():
    def run_command(name, *arguments):
        return subprocess.run(
            [paths.ROOT / "bin" / name, *arguments, "--device", "cpu", "--quiet"],
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
            env={**os.environ, "SPEEDTRAP_PYTHON": sys.executable},
        )

    return run_command


def test_live_pipelines_are_compared(run, write):
    truth = write(CANDIDATE, "truth.py")
    other = write(CANDIDATE.replace('sd")', 'sd", torch_dtype=torch.bfloat16)'), "other.py")
    flags = ("--against", truth, "--open", "acceleration_methods", "--live", "--json")
    same = run("check", write(CANDIDATE), *flags)
    assert same.returncode == 0, same.stderr
    assert json.loads(same.stdout)["live"] == {"matched": True, "differences": []}
    found = json.loads(run("check", other, *flags).stdout)
    assert found["matched"]
    assert found["live"]["matched"] is False
    assert any("dtype float32 is bfloat16" in one for one in found["live"]["differences"])


def test_a_candidate_that_breaks_live_is_refused(run, write):
    broken = write(
        CANDIDATE.replace("pipe(prompts,", "pipe(prompts , ") + "\nraise ValueError(1)\n"
    )
    ran = run("check", broken, "--against", write(CANDIDATE, "truth.py"), "--live", "--feedback")
    assert ran.returncode == 1
    assert "verdict: crashed" in ran.stdout
    assert "ValueError: 1" in ran.stdout
    assert "tmp.py" not in ran.stdout


def test_a_baseline_is_made_kept_and_measured(run, write, tmp_path):
    audit = ("--audit-batches", "1", "--audit-seed", "1")
    ran = run("score", write(CANDIDATE), "--json", "--keep", tmp_path / "kept", *audit)
    found = json.loads(ran.stdout)
    assert ran.returncode in {0, 1}, ran.stderr
    assert found["baseline"]["time_s"] > 0
    assert found["synthesised_baseline"] == (tmp_path / "kept" / "baseline.py").read_text()
    assert found["config"]["baseline"]["num_inference_steps"] == 2
    assert found["config_match"] is None
