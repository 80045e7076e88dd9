"""Measures the tiny pipeline and the tiny CLIP on captions that training never saw.

    python -m models.evaluate --models models --speed

The score of an image is the cosine between its CLIP embedding and its caption's; the loss is how
much of the 25-step score is missing. PSNR compares with the 25-step image of the same caption and
seed.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from models import render, scenes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Images = NDArray[np.uint8]
"""(N, 64, 64, 3) RGB."""

PACKAGES = ("torch", "diffusers", "transformers", "open_clip_torch", "DeepCache", "tomesd")
INTERVALS = (2, 3, 5, 10, 20)
BASE_STEPS = 25
STEPS = (50, 10, 5, 3)
GUIDANCES = (1.0, 3.0, 5.0)


@dataclass(frozen=True)
class Row:
    """One line of the table: mean cosine, and PSNR in dB where it has a meaning."""

    name: str
    cosine: float
    psnr: float | None = None


class Scorer:
    """The tiny CLIP, loaded the way any user loads it."""

    def __init__(self, folder: Path, device: str) -> None:
        import open_clip

        name = f"local-dir:{folder}"
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(name)
        self.model.eval().to(device)
        self.tokenizer = open_clip.get_tokenizer(name)
        self.device = device

    @torch.no_grad()
    def texts(self, captions: list[str]) -> torch.Tensor:
        """Unit embeddings (N, D)."""
        tokens = self.tokenizer(captions).to(self.device)
        features: torch.Tensor = self.model.encode_text(tokens, normalize=True)
        return features

    @torch.no_grad()
    def images(self, images: Images) -> torch.Tensor:
        """Unit embeddings (N, D)."""
        batch = torch.stack([self.preprocess(Image.fromarray(i)) for i in images])
        features: torch.Tensor = self.model.encode_image(batch.to(self.device), normalize=True)
        return features

    def cosine(self, images: Images, captions: list[str]) -> float:
        """The mean cosine of image and caption, pair by pair."""
        return float((self.images(images) * self.texts(captions)).sum(1).mean())


class Generator:
    """The tiny pipeline, with one seed per image whatever the batch."""

    def __init__(self, folder: Path, device: str, guidance: float, batch: int) -> None:
        from diffusers import StableDiffusionPipeline

        self.pipe = StableDiffusionPipeline.from_pretrained(folder).to(device)
        self.pipe.set_progress_bar_config(disable=True)
        self.guidance, self.batch = guidance, batch

    def __call__(
        self,
        captions: list[str],
        steps: int = BASE_STEPS,
        seed: int = 0,
        guidance: float | None = None,
    ) -> Images:
        """One image per caption; image k has the seed `seed + k`."""
        images: list[NDArray[np.uint8]] = []
        for start in range(0, len(captions), self.batch):
            part = captions[start : start + self.batch]
            seeds = range(seed + start, seed + start + len(part))
            output = self.pipe(
                part,
                num_inference_steps=steps,
                guidance_scale=self.guidance if guidance is None else guidance,
                generator=[torch.Generator().manual_seed(s) for s in seeds],
            )
            images += [np.asarray(image) for image in output.images]
        return np.stack(images)

    @contextmanager
    def deepcache(self, interval: int) -> Iterator[None]:
        """Cache deep features for `interval` steps, with the real DeepCache."""
        from DeepCache import DeepCacheSDHelper

        helper = DeepCacheSDHelper(pipe=self.pipe)
        helper.set_params(cache_interval=interval, cache_branch_id=0)
        helper.enable()
        try:
            yield
        finally:
            helper.disable()

    @contextmanager
    def tomesd(self, ratio: float) -> Iterator[None]:
        """Merge tokens with the real tomesd."""
        import tomesd

        tomesd.apply_patch(self.pipe, ratio=ratio)
        try:
            yield
        finally:
            tomesd.remove_patch(self.pipe)

    @torch.no_grad()
    def round_trip(self, images: Images) -> Images:
        """Encode and decode with the VAE."""
        vae = self.pipe.vae
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().to(vae.device) / 127.5 - 1
        restored = torch.cat(
            [vae.decode(vae.encode(p).latent_dist.mean).sample for p in pixels.split(self.batch)]
        )
        scaled = (restored.clamp(-1, 1) + 1) * 127.5
        result: Images = scaled.round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return result


def psnr(images: Images, reference: Images) -> float:
    """The mean over images of the peak signal-to-noise ratio in dB; equal images count as 100."""
    error = np.square(images.astype(np.float64) - reference).mean((1, 2, 3))
    with np.errstate(divide="ignore"):
        return float(np.minimum(100, 10 * np.log10(255**2 / error)).mean())


def quality(scorer: Scorer, generate: Generator, count: int, seed: int) -> list[Row]:
    """All quality figures on `count` held-out captions."""
    rng = random.Random(seed)
    drawn = scenes.draw_distinct(rng, count, "held-out")
    captions = [s.caption for s in drawn]
    shifted = captions[1:] + captions[:1]
    near = [scenes.near_misses(rng, s, 1)[0].caption for s in drawn]
    real = np.stack([render.render(s, rng) for s in drawn])
    restored = generate.round_trip(real)
    base = generate(captions)
    other = generate(captions, seed=1_000_000)
    rows = [
        Row("real images", scorer.cosine(real, captions)),
        Row("real images, one word or order wrong", scorer.cosine(real, near)),
        Row("real images, another caption", scorer.cosine(real, shifted)),
        Row(
            "VAE round trip (PSNR to real)", scorer.cosine(restored, captions), psnr(restored, real)
        ),
        Row("25 steps", scorer.cosine(base, captions)),
        Row("25 steps, another caption", scorer.cosine(base, shifted)),
        Row("25 steps, another seed", scorer.cosine(other, captions), psnr(other, base)),
    ]

    def add(name: str, images: Images) -> None:
        rows.append(Row(name, scorer.cosine(images, captions), psnr(images, base)))

    for steps in STEPS:
        add(f"{steps} steps", generate(captions, steps))
    for guidance in GUIDANCES:
        add(f"guidance {guidance:g}", generate(captions, guidance=guidance))
    for interval in INTERVALS:
        with generate.deepcache(interval):
            add(f"DeepCache, interval {interval}", generate(captions))
    with generate.tomesd(0.5):
        add("tomesd, ratio 0.5", generate(captions))
    return rows


def seconds(work: Callable[[], object]) -> float:
    """The wall time of the second of two calls."""
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def speed(folder: Path, guidance: float) -> dict[str, float]:
    """CPU seconds for 20 prompts in batches of 5 at 25 steps, in float32."""
    generate = Generator(folder, "cpu", guidance, batch=5)
    rng = random.Random(0)
    captions = [scenes.draw_caption(rng, "held-out").caption for _ in range(20)]
    figures = {"plain": seconds(lambda: generate(captions))}
    for interval in (3, 5):
        with generate.deepcache(interval):
            figures[f"DeepCache {interval}"] = seconds(lambda: generate(captions))
    return figures


def sizes(root: Path, generate: Generator, scorer: Scorer) -> dict[str, float]:
    """Parameters in millions and folder sizes in MB."""
    parts = {name: getattr(generate.pipe, name) for name in ("unet", "vae", "text_encoder")}
    parts["clip"] = scorer.model
    found = {
        f"{k}, M parameters": sum(p.numel() for p in m.parameters()) / 1e6 for k, m in parts.items()
    }
    for name in ("tiny-sd", "tiny-clip"):
        total = sum(f.stat().st_size for f in (root / name).rglob("*") if f.is_file())
        found[f"{name}, MB"] = total / 1e6
    return found


def machine(device: str) -> dict[str, str]:
    """What the figures were measured on."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    facts = {"device": name, "threads": str(torch.get_num_threads())}
    facts |= {p: version(p) for p in PACKAGES}
    return facts | {"python": platform.python_version(), "date": time.strftime("%Y-%m-%d")}


def contact_sheet(generate: Generator, path: Path, rows: int = 8, columns: int = 12) -> None:
    """Save a sheet of generated images for held-out captions."""
    drawn = scenes.draw_distinct(random.Random(0), rows * columns, "held-out")
    images = generate([s.caption for s in drawn])
    side = render.SIDE
    sheet = images.reshape(rows, columns, side, side, 3).transpose(0, 2, 1, 3, 4)
    flat = sheet.reshape(rows * side, columns * side, 3)
    Image.fromarray(flat).resize((columns * side * 2, rows * side * 2)).save(path)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", type=Path, default=Path(__file__).parent)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--count", type=int, default=256, help="held-out captions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--speed", action="store_true", help="also time 20 prompts on the CPU")
    parser.add_argument("--sheet", type=Path, help="save a contact sheet as PNG")
    parser.add_argument("--json", type=Path, help="save every figure")
    return parser.parse_args()


def show(report: dict[str, Any]) -> None:
    """Print the figures as one table."""
    print(
        f"guidance {report['guidance']}, {report['captions']} held-out captions, "
        + ", ".join(f"{k} {v}" for k, v in report["machine"].items())
    )
    base = next(r["cosine"] for r in report["quality"] if r["name"] == f"{BASE_STEPS} steps")
    print(f"{'':<40}{'cosine':>8}{'loss %':>8}{'PSNR dB':>9}")
    for row in report["quality"]:
        noise = "" if row["psnr"] is None else f"{row['psnr']:.1f}"
        loss = 100 * (1 - row["cosine"] / base)
        print(f"{row['name']:<40}{row['cosine']:>8.4f}{loss:>8.2f}{noise:>9}")
    for name, value in report["sizes"].items():
        print(f"{name:<40}{value:>8.2f}")
    for name, value in report["cpu_seconds"].items():
        print(f"{'CPU seconds, ' + name:<40}{value:>8.2f}")


def main() -> None:
    """Measure and print."""
    args = parse()
    scorer = Scorer(args.models / "tiny-clip", args.device)
    generate = Generator(args.models / "tiny-sd", args.device, args.guidance, args.batch)
    rows = quality(scorer, generate, args.count, args.seed)
    report = {
        "guidance": args.guidance,
        "captions": args.count,
        "machine": machine(args.device),
        "quality": [vars(row) for row in rows],
        "sizes": sizes(args.models, generate, scorer),
        "cpu_seconds": speed(args.models / "tiny-sd", args.guidance) if args.speed else {},
    }
    if args.sheet:
        contact_sheet(generate, args.sheet)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    show(report)


if __name__ == "__main__":
    main()
