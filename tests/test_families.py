"""Five families of pipelines, and images as input, through the real command.

Each family has random weights and a candidate of another shape; what it is called with, and what
it returns, differs as well. Scores mean nothing here, so any verdict of a measured run will do.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from e2e import MEASURED, ROOT, Session, planned

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(600)  # the host's one CPU slot may have to be waited for

PROMPTS = """\
a large red circle above a small blue square on a white background
a small green triangle on a black background
a large yellow cross below a small red circle on a gray background
a small blue square on a white background
"""
SIZE = "height=64, width=64"

SD = "runwayml/stable-diffusion-v1-5"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
SD3 = "stabilityai/stable-diffusion-3-medium-diffusers"
FLUX = "black-forest-labs/FLUX.1-dev"
PIXART = "PixArt-alpha/PixArt-XL-2-512x512"


@dataclass(frozen=True)
class Family:
    """A baseline and a candidate of one family, and how the candidate is loaded."""

    model: str
    baseline: str
    candidate: str
    loads: str


def plain(pipeline: str, model: str, call: str) -> str:
    return f"""
        from diffusers import {pipeline}

        def load_pipe():
            return {pipeline}.from_pretrained("{model}")

        def inference(pipe, prompts):
            return pipe(prompts, {call}).images
        """


FAMILIES_RUN = {
    "sd": Family(
        SD,
        plain("StableDiffusionPipeline", SD, "num_inference_steps=4"),
        """
        import argparse
        import torch
        from diffusers import StableDiffusionPipeline, UniPCMultistepScheduler

        parser = argparse.ArgumentParser()
        parser.add_argument("--model", default="runwayml/stable-diffusion-v1-5")
        parser.add_argument("--prompt", default="a small red circle")
        args = parser.parse_args()

        device = "cuda" if torch.cuda.is_available() else "cpu"
        pipe = StableDiffusionPipeline.from_pretrained(args.model, safety_checker=None)
        pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config)
        pipe = pipe.to(device)

        image = pipe(args.prompt, num_inference_steps=2, negative_prompt="blurry").images[0]
        image.save("image.png")
        print(f"saved image.png with {device}")
        """,
        "pipe",
    ),
    "sdxl": Family(
        SDXL,
        plain("StableDiffusionXLPipeline", SDXL, "num_inference_steps=4"),
        """
        import torch
        from diffusers import AutoPipelineForText2Image

        class FastXL:
            def __init__(self, model_id="stabilityai/stable-diffusion-xl-base-1.0", device="cpu"):
                self.model_id, self.device = model_id, device
                self.pipe = None

            def load(self):
                self.pipe = AutoPipelineForText2Image.from_pretrained(self.model_id)
                self.pipe.to(self.device)

            @torch.inference_mode()
            def generate(self, prompts: list[str], steps: int = 2):
                return self.pipe(prompt=prompts, num_inference_steps=steps, output_type="np")
        """,
        "class",
    ),
    "sd3": Family(
        SD3,
        plain("StableDiffusion3Pipeline", SD3, "num_inference_steps=4"),
        """
        import time
        from diffusers import StableDiffusion3Pipeline

        def build_pipeline(model_id, device):
            pipe = StableDiffusion3Pipeline.from_pretrained(model_id).to(device)
            return pipe, {"loaded": time.time()}

        def generate(pipe, prompt: str, steps: int = 2):
            start = time.time()
            image = pipe(prompt, num_inference_steps=steps).images[0]
            return image, time.time() - start
        """,
        "load_pipe+inference",
    ),
    "flux": Family(
        FLUX,
        plain("FluxPipeline", FLUX, f"num_inference_steps=4, {SIZE}"),
        f"""
        def apply_optimizations(pipe):
            pipe.transformer.eval()
            pipe.set_progress_bar_config(disable=True)

        async def inference(pipe, prompts):
            return pipe(prompts, num_inference_steps=2, {SIZE}, return_dict=False)
        """,
        "apply_optimizations",
    ),
    "pixart": Family(
        PIXART,
        plain(
            "PixArtAlphaPipeline",
            PIXART,
            f"num_inference_steps=4, use_resolution_binning=False, {SIZE}",
        ),
        f"""
        import functools
        from diffusers import DiffusionPipeline

        @functools.cache
        def pipeline_for(name):
            return DiffusionPipeline.from_pretrained(name)

        def run(prompts):
            pipe = pipeline_for("PixArt-alpha/PixArt-XL-2-512x512")
            yield from pipe(
                prompts, num_inference_steps=2, use_resolution_binning=False, {SIZE},
                output_type="pt",
            ).images
        """,
        "inference",
    ),
    "img2img": Family(
        SD,
        plain("StableDiffusionPipeline", SD, "num_inference_steps=4"),
        """
        from diffusers import StableDiffusionImg2ImgPipeline
        from PIL import Image

        def load_pipe():
            return StableDiffusionImg2ImgPipeline.from_pretrained("runwayml/stable-diffusion-v1-5")

        def inference(pipe, prompts):
            start = [Image.new("RGB", (64, 64), (200, 30, 30))] * len(prompts)
            return pipe(prompts, image=start, strength=0.5, num_inference_steps=4).images
        """,
        "load_pipe+inference",
    ),
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the tiny pipelines, made by a process of its own: no thread of torch here."""
    folder = tmp_path_factory.mktemp("models")
    command = [sys.executable, "-m", "tests.tiny_pipelines", folder]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return folder


@pytest.fixture
def score(tmp_path: Path, models: Path):
    """Run the command on a family and a candidate's text: its result."""

    def run(family: Family, candidate: str):
        texts = {"base.py": family.baseline, "mine.py": candidate, "prompts.txt": PROMPTS}
        for name, text in texts.items():
            (tmp_path / name).write_text(textwrap.dedent(text), encoding="utf-8")
        session = Session(tmp_path)
        flags = ("--device", "cpu", "--preset", "embedded", "--json", "--batch-size", "2")
        flags += ("--audit-batches", "1", "--audit-seed", "1")
        mine, base, prompts = (tmp_path / name for name in ("mine.py", "base.py", "prompts.txt"))
        stand_in = f"{family.model}={models / family.model.rpartition('/')[2]}"
        arguments = (mine, "--baseline", base, "--prompts", prompts, "--stand-in", stand_in)
        run = session.finish(session.start(*arguments, *flags))
        assert run.stdout, run.stderr
        assert run.processes_left == run.files_left == []
        return run.result

    return run


QUICK = ("sd", "sd3")  # one with a UNet, one with a transformer


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
        for name in FAMILIES_RUN
    ],
)
def test_family_is_scored(score, name: str):
    family = FAMILIES_RUN[name]
    result = score(family, family.candidate)
    assert result["verdict"] in MEASURED | {"inconclusive"}, result["reason"]
    for side, count in (("baseline", 5), ("candidate", 4)):
        batches = planned(result[side]["batches"])
        assert [len(batch["scores"]) for batch in batches] == [2] * count
    assert result["speedup"] > 0
    assert result["live"]["candidate"]["loads"] == family.loads


def test_pipeline_that_needs_an_image_says_so(score):
    family = FAMILIES_RUN["img2img"]
    text = textwrap.dedent(family.candidate)
    result = score(family, text[: text.index("def inference")])
    assert result["verdict"] == "crashed"
    assert result["failure"]["message"] == (
        "StableDiffusionImg2ImgPipeline needs image; define inference(pipe, prompts) that supplies"
        " it"
    )
