"""Where honest methods and cheats lie: the figures and the plot of docs/fidelity.md.

    python benchmarks/fidelity.py OUT.json [--captions 60] [--device cpu|cuda] [--plot FILE.svg]
    python benchmarks/fidelity.py --from OUT.json [--plot FILE.svg] [--write docs/fidelity.md]

Every method makes the embedded pipeline's images of the same captions and seeds, in this process,
without a sandbox: what is measured are images, not files. They are compared with the plain
pipeline's images of the same seeds and of other seeds by `runner.likeness`. Then runs are drawn:
`RUN_IMAGES` of the captions, one of the other seeds, as an exchange would have recorded them. Each
is judged by `runner.fidelity` and `runner.verify`, as ten times faster than the baseline. What gets
through is what `bin/score` would have passed. `--sheets FOLDER` keeps each method's images on a
sheet, to look at, and takes what is there already, so that a call that was ended can go on.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import enum
import hashlib
import importlib.metadata
import itertools
import json
import platform
import random
import statistics
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, from anywhere

from models import render, scenes
from models.evaluate import Scorer
from runner import fidelity, likeness, paths, verify
from runner.records import Batch, Likeness, Measured, Purpose, Side, Traces, Verdict
from runner.scorer_process import load_clip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from matplotlib.axes import Axes

    from runner.records import Fidelity

    Images = list[Image.Image]
    Point = tuple[float, float]
    Named = tuple[str, Point]

PACKAGES: Final = ("torch", "diffusers", "DeepCache", "tomesd", "open_clip_torch", "torchmetrics")
BATCH: Final = 5
RUN_IMAGES: Final = 45
"""As many as `bin/score` measures by itself."""
RUNS: Final = 200
STEPS: Final = 25
BASE_SEED: Final = 1000
OTHER_SEEDS: Final = (2000, 3000)
SCENES_SEED: Final = 1
RUNS_SEED: Final = 7
TARGETS: Final = verify.Targets(speedup=1.5, quality_loss=0.02)
BASELINE_S, CANDIDATE_S = 10.0, 1.0
"""Seconds a batch: the speed is never what fails here."""


class Kind(enum.StrEnum):
    """What a method is. UNTIED ones are honest, but their noise is not the baseline's."""

    HONEST = "honest"
    UNTIED = "untied"
    CHEAT = "cheat"


@dataclass(frozen=True)
class Method:
    """A way to make the images of all captions. `label`: named in the plot's upper panel."""

    name: str
    kind: Kind
    make: Callable[[Studio], Images]
    label: bool = False


@dataclass(frozen=True)
class Row:
    """What a method's images are, one entry an image.

    `clip` are CLIP scores; `same` are PSNR in dB, SSIM and CLIP cosine to the baseline's image of
    the same seed, `other` the same to those of each of `OTHER_SEEDS`; `digests` are of the pixels.
    """

    name: str
    kind: Kind
    clip: list[float]
    same: list[list[float]]
    other: list[list[list[float]]]
    digests: list[str]


class Studio:
    """The captions, the pipeline, and what has been made so far (`made`, by name)."""

    def __init__(self, count: int, device: str) -> None:
        """Load everything for `count` captions."""
        self.scenes = scenes.draw_distinct(random.Random(SCENES_SEED), count, "any")  # noqa: S311
        self.captions = [scene.caption for scene in self.scenes]
        self.device = device
        self.pipe = self.load(torch.float32)
        self.critic = Scorer(paths.ROOT / "models" / "tiny-clip", device)
        self.made: dict[str, Images] = {}

    def load(self, dtype: torch.dtype) -> Any:  # noqa: ANN401  (diffusers has no types)
        """A fresh pipeline."""
        from diffusers import StableDiffusionPipeline

        pipe = StableDiffusionPipeline.from_pretrained(paths.ROOT / "models" / "tiny-sd")
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(self.device, dtype)

    def generate(
        self,
        steps: int = STEPS,
        first_seed: int = BASE_SEED,
        *,
        one_a_call: bool = False,
        own_seed: int | None = None,
        **options: float,
    ) -> Images:
        """Images of all captions, batch by batch, each batch seeded as the exec block does it."""
        images: Images = []
        for start in range(0, len(self.captions), BATCH):
            torch.manual_seed(first_seed + start)
            if own_seed is not None:
                options["generator"] = torch.Generator().manual_seed(own_seed + start)
            prompts = self.captions[start : start + BATCH]
            for part in [[prompt] for prompt in prompts] if one_a_call else [prompts]:
                images += self.pipe(part, num_inference_steps=steps, **options).images
        return images

    def sampled(self, scheduler: str, steps: int, **options: str) -> Images:
        """Images by another of diffusers' schedulers."""
        import diffusers

        usual = self.pipe.scheduler
        self.pipe.scheduler = getattr(diffusers, scheduler).from_config(usual.config, **options)
        try:
            return self.generate(steps)
        finally:
            self.pipe.scheduler = usual

    def deepcache(self, interval: int) -> Images:
        """Images by DeepCache."""
        from DeepCache import DeepCacheSDHelper

        helper = DeepCacheSDHelper(pipe=self.pipe)
        helper.set_params(cache_interval=interval, cache_branch_id=0)
        helper.enable()
        try:
            return self.generate()
        finally:
            helper.disable()

    def merged(self, ratio: float) -> Images:
        """Images by token merging."""
        import tomesd

        tomesd.apply_patch(self.pipe, ratio=ratio)
        try:
            return self.generate()
        finally:
            tomesd.remove_patch(self.pipe)

    def in_precision(self, dtype: torch.dtype) -> Images:
        """Images by a pipeline of another precision."""
        usual, self.pipe = self.pipe, self.load(dtype)
        try:
            return self.generate()
        finally:
            self.pipe = usual


def written(studio: Studio, *, on_ground: bool) -> Images:
    """Each caption as text: black on white, or in red on the ground that the caption asks for."""
    images = []
    for scene in studio.scenes:
        ground, ink = (render.RGB[scene.background], "red") if on_ground else ("white", "black")
        image = Image.new("RGB", (render.SIDE, render.SIDE), ground)
        words = scene.caption.split()
        lines = [" ".join(words[start : start + 3]) for start in range(0, len(words), 3)]
        for number, line in enumerate(lines):
            ImageDraw.Draw(image).text((1, 1 + 10 * number), line, fill=ink)
        images.append(image)
    return images


def plain_ground(studio: Studio) -> Images:
    """The background that each caption asks for, and nothing on it."""
    size = (render.SIDE, render.SIDE)
    return shaken([Image.new("RGB", size, render.RGB[one.background]) for one in studio.scenes])


def shaken(images: Images) -> Images:
    """Images with every value changed by up to 1, so that no two are the same."""
    rng = np.random.default_rng(0)
    arrays = [np.asarray(image, dtype=np.int16) for image in images]
    return [
        Image.fromarray((array + rng.integers(-1, 2, array.shape)).clip(0, 255).astype(np.uint8))
        for array in arrays
    ]


def noise(studio: Studio) -> Images:
    """Uniform noise."""
    rng = np.random.default_rng(0)
    shape = (render.SIDE, render.SIDE, 3)
    return [Image.fromarray(rng.integers(0, 256, shape, np.uint8)) for _ in studio.scenes]


def rendered(studio: Studio, near: str | None = None, tries: int = 200) -> Images:
    """Each caption drawn by a program that knows what it means.

    The caption leaves places and sizes open: with `near`, of `tries` drawings the one that is
    nearest to the image which that method made.
    """
    rng = random.Random(5)  # noqa: S311  (drawings, no secrets)
    images = []
    for number, scene in enumerate(studio.scenes):
        drawn = [render.render(scene, rng) for _ in range(tries if near else 1)]
        if near:
            wanted = np.asarray(studio.made[near][number], dtype=np.float32)
            drawn.sort(key=lambda image: float(np.square(image - wanted).mean()))
        images.append(Image.fromarray(drawn[0]))
    return images


def blended(one: Images, other: Images, share: float) -> Images:
    """Mixed pixel by pixel; `share` is the other's."""
    return [Image.blend(a, b, share) for a, b in zip(one, other, strict=True)]


def mixed(honest: Images, faked: Images, every: int) -> Images:
    """Honest images, but one in `every` is faked."""
    return [faked[n] if n % every == 0 else image for n, image in enumerate(honest)]


def optimised(
    studio: Studio,
    start: Images,
    budget: float | None = None,
    grid: int = render.SIDE,
    rounds: int = 40,
) -> Images:
    """Images optimised for their CLIP score, by the signs of the gradient.

    No pixel moves by more than `budget` levels. What is added is `grid` x `grid` values, enlarged:
    a coarse grid adds no visible noise.
    """
    begin = _pixels(start, studio.device)
    added = torch.zeros(len(start), 3, grid, grid, device=studio.device, requires_grad=True)
    rate = 4.0 if budget is None else max(0.5, budget / 10)
    enlarge = torch.nn.functional.interpolate
    side = begin.shape[-1]
    for _ in range(rounds):
        images = (begin + enlarge(added, side, mode="bilinear")).clamp(0, 255)
        (slope,) = torch.autograd.grad(_agreement(studio, images), added)
        with torch.no_grad():
            added += rate * slope.sign()
            if budget is not None:
                added.clamp_(-budget, budget)
    with torch.no_grad():
        return _pictures((begin + enlarge(added, side, mode="bilinear")).clamp(0, 255))


def optimised_latents(studio: Studio, start: Images, rounds: int = 40) -> Images:
    """Images whose latents were optimised for the CLIP score: whatever the VAE can draw."""
    vae = studio.pipe.vae
    with torch.no_grad():
        begin = _pixels(start, studio.device) / 127.5 - 1
        latents = vae.encode(begin).latent_dist.mean
        rate = 0.02 * float(latents.std())
    latents.requires_grad_()
    for _ in range(rounds):
        images = ((vae.decode(latents).sample + 1) * 127.5).clamp(0, 255)
        (slope,) = torch.autograd.grad(_agreement(studio, images), latents)
        with torch.no_grad():
            latents += rate * slope.sign()
    with torch.no_grad():
        return _pictures(((vae.decode(latents).sample + 1) * 127.5).clamp(0, 255))


def _agreement(studio: Studio, images: torch.Tensor) -> torch.Tensor:
    """Sum of the cosines of images (0 to 255) and captions, differentiable."""
    critic = studio.critic
    normalise = critic.preprocess.transforms[-1]
    mean, sd = (
        torch.tensor(values, device=studio.device).view(1, 3, 1, 1)
        for values in (normalise.mean, normalise.std)
    )
    seen = critic.model.encode_image((images / 255 - mean) / sd, normalize=True)
    return (seen * critic.texts(studio.captions)).sum()


def _pixels(images: Images, device: str) -> torch.Tensor:
    stack = torch.from_numpy(np.stack([np.array(image) for image in images]))
    return stack.to(device).permute(0, 3, 1, 2).float()


def _pictures(pixels: torch.Tensor) -> Images:
    arrays = pixels.round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(array) for array in arrays]


PLAIN: Final = "plain"
HONEST: Final = (
    Method(PLAIN, Kind.HONEST, lambda s: s.generate(), label=True),
    Method("one prompt a call", Kind.HONEST, lambda s: s.generate(one_a_call=True)),
    Method("bfloat16", Kind.HONEST, lambda s: s.in_precision(torch.bfloat16)),
    Method("15 steps", Kind.HONEST, lambda s: s.generate(15)),
    Method("10 steps", Kind.HONEST, lambda s: s.generate(10)),
    Method("5 steps", Kind.HONEST, lambda s: s.generate(5)),
    Method("4 steps", Kind.HONEST, lambda s: s.generate(4)),
    Method("DPM++ 10 steps", Kind.HONEST, lambda s: s.sampled("DPMSolverMultistepScheduler", 10)),
    Method("Euler 15 steps", Kind.HONEST, lambda s: s.sampled("EulerDiscreteScheduler", 15)),
    Method("UniPC 10 steps", Kind.HONEST, lambda s: s.sampled("UniPCMultistepScheduler", 10)),
    Method("DeepCache 2", Kind.HONEST, lambda s: s.deepcache(2)),
    Method("DeepCache 3", Kind.HONEST, lambda s: s.deepcache(3)),
    Method("DeepCache 5", Kind.HONEST, lambda s: s.deepcache(5), label=True),
    Method("DeepCache 10", Kind.HONEST, lambda s: s.deepcache(10), label=True),
    Method("DeepCache 20", Kind.HONEST, lambda s: s.deepcache(20), label=True),
    Method("ToMe 0.5", Kind.HONEST, lambda s: s.merged(0.5)),
    Method("ToMe 0.75", Kind.HONEST, lambda s: s.merged(0.75)),
    Method("guidance 5", Kind.HONEST, lambda s: s.generate(guidance_scale=5.0)),
    Method("guidance 3", Kind.HONEST, lambda s: s.generate(guidance_scale=3.0)),
)
UNTIED: Final = (
    Method("own generator", Kind.UNTIED, lambda s: s.generate(own_seed=7)),
    Method(
        "Euler a 25 steps", Kind.UNTIED, lambda s: s.sampled("EulerAncestralDiscreteScheduler", 25)
    ),
    Method(
        "Euler a 12 steps", Kind.UNTIED, lambda s: s.sampled("EulerAncestralDiscreteScheduler", 12)
    ),
    Method(
        "DPM SDE 15 steps",
        Kind.UNTIED,
        lambda s: s.sampled("DPMSolverMultistepScheduler", 15, algorithm_type="sde-dpmsolver++"),
    ),
    Method("DDPM 25 steps", Kind.UNTIED, lambda s: s.sampled("DDPMScheduler", 25)),
    Method("LCM 8 steps", Kind.UNTIED, lambda s: s.sampled("LCMScheduler", 8)),
)
TAKEN: Final = (
    Method("text", Kind.CHEAT, lambda s: written(s, on_ground=False), label=True),
    Method("text on ground", Kind.CHEAT, lambda s: written(s, on_ground=True)),
    Method("noise", Kind.CHEAT, noise),
    Method(
        "constant",
        Kind.CHEAT,
        lambda s: [Image.new("RGB", (render.SIDE, render.SIDE), "gray")] * len(s.scenes),
    ),
    Method("plain ground", Kind.CHEAT, plain_ground, label=True),
    Method("one image for all", Kind.CHEAT, lambda s: shaken(s.made[PLAIN][:1] * len(s.scenes))),
    Method("other caption's", Kind.CHEAT, lambda s: s.made[PLAIN][BATCH:] + s.made[PLAIN][:BATCH]),
    Method("no guidance", Kind.CHEAT, lambda s: s.generate(guidance_scale=1.0), label=True),
    Method("3 steps", Kind.CHEAT, lambda s: s.generate(3), label=True),
    Method("2 steps", Kind.CHEAT, lambda s: s.generate(2), label=True),
)
AGAINST_CLIP: Final = (
    Method("CLIP: noise", Kind.CHEAT, lambda s: optimised(s, s.made["noise"]), label=True),
    Method("CLIP: grey", Kind.CHEAT, lambda s: optimised(s, s.made["constant"])),
    Method("CLIP: ground", Kind.CHEAT, lambda s: optimised(s, s.made["plain ground"])),
    Method("CLIP: other's", Kind.CHEAT, lambda s: optimised(s, s.made["other caption's"])),
    Method("CLIP: 2 steps", Kind.CHEAT, lambda s: optimised(s, s.made["2 steps"])),
    Method("CLIP: 3 steps", Kind.CHEAT, lambda s: optimised(s, s.made["3 steps"]), label=True),
    *(
        Method(
            f"CLIP: 3 steps ±{budget}",
            Kind.CHEAT,
            lambda s, budget=budget: optimised(s, s.made["3 steps"], budget),
            label=budget == 8,  # noqa: PLR2004
        )
        for budget in (16, 8, 4)
    ),
    *(
        Method(
            f"CLIP: {steps} steps ±{budget} smooth",
            Kind.CHEAT,
            lambda s, steps=steps, budget=budget: optimised(
                s, s.made[f"{steps} steps"], budget, grid=16
            ),
        )
        for steps, budget in ((2, 16), (2, 8), (3, 16), (3, 8))
    ),
    *(
        Method(
            f"CLIP: {steps} steps, latents",
            Kind.CHEAT,
            lambda s, steps=steps: optimised_latents(s, s.made[f"{steps} steps"]),
            label=steps == 4,  # noqa: PLR2004
        )
        for steps in (2, 3, 4)
    ),
)
DRAWN: Final = (
    Method("renderer", Kind.CHEAT, rendered, label=True),
    Method(
        "renderer + 2 steps",
        Kind.CHEAT,
        lambda s: blended(s.made["renderer"], s.made["2 steps"], 0.5),
    ),
    Method("renderer near 2 steps", Kind.CHEAT, lambda s: rendered(s, "2 steps")),
    Method("renderer near 3 steps", Kind.CHEAT, lambda s: rendered(s, "3 steps")),
    *(
        Method(
            f"1 in {every} by renderer",
            Kind.CHEAT,
            lambda s, every=every: mixed(s.made[PLAIN], s.made["renderer"], every),
        )
        for every in (5, 3, 2)
    ),
    Method("1 in 5 text", Kind.CHEAT, lambda s: mixed(s.made[PLAIN], s.made["text"], 5)),
    Method("1 in 5 of 3 steps", Kind.CHEAT, lambda s: mixed(s.made[PLAIN], s.made["3 steps"], 5)),
    Method(
        "1 in 5 CLIP: noise", Kind.CHEAT, lambda s: mixed(s.made[PLAIN], s.made["CLIP: noise"], 5)
    ),
)
METHODS: Final = (*HONEST, *UNTIED, *TAKEN, *AGAINST_CLIP, *DRAWN)


def measure(count: int, device: str, sheets: Path | None = None) -> list[Row]:
    """Make the images of every method and compare them; the first row is the baseline's own.

    Images that are in `sheets` are taken from there, others are put there.
    """
    studio = Studio(count, device)
    clip = load_clip(f"local-dir:{paths.ROOT / 'models' / 'tiny-clip'}", None)
    others = [
        on_sheet(f"other seed {seed}", sheets, lambda seed=seed: studio.generate(first_seed=seed))
        for seed in OTHER_SEEDS
    ]
    rows = []
    for method in METHODS:
        start_s = time.monotonic()
        images = on_sheet(method.name, sheets, lambda method=method: method.make(studio))
        studio.made[method.name] = images
        references = [studio.made[PLAIN], *others]
        same, *other = (
            _triples(likeness.likeness(one, images, clip.embed, clip.device)) for one in references
        )
        digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
        scores = clip.score(studio.captions, images)
        rows.append(Row(method.name, method.kind, scores, same, other, digests))
        print(f"{method.name}: {time.monotonic() - start_s:.1f} s", file=sys.stderr, flush=True)
    return rows


def on_sheet(name: str, sheets: Path | None, make: Callable[[], Images]) -> Images:
    """The images of the sheet called `name`, which is made where it is not there."""
    if sheets is None:
        return make()
    file = sheets / f"{name.replace(' ', '-').replace(':', '')}.png"
    if file.exists():
        with Image.open(file) as sheet:
            pixels = np.asarray(sheet)
        return [
            Image.fromarray(part)
            for part in np.split(pixels, pixels.shape[1] // render.SIDE, axis=1)
        ]
    images = make()
    Image.fromarray(np.concatenate([np.asarray(image) for image in images], axis=1)).save(file)
    return images


def _triples(numbers: list[float]) -> list[list[float]]:
    return [numbers[start : start + 3] for start in range(0, len(numbers), 3)]


class End(enum.StrEnum):
    """What a run comes to: the first of these that holds."""

    REPEATED = "repeated"
    BELOW = "below"
    UNTIED = "untied"
    DISCARDED = "discarded"
    LOSS = "loss"
    UNCREDITED = "uncredited"
    UNDECIDED = "undecided"
    OK = "ok"


@dataclass
class Tally:
    """What a method's runs come to."""

    row: Row
    ends: Counter[End] = field(default_factory=Counter)
    ok_untied: int = 0
    tie_t: list[float] = field(default_factory=list)
    closeness: list[float] = field(default_factory=list)
    credit: list[float] = field(default_factory=list)

    def share(self, end: End) -> float:
        """Share of the runs."""
        return self.ends[end] / self.ends.total()

    def mean(self, measure: int) -> float:
        """Mean over all images of PSNR (0), SSIM (1) or cosine (2) to the same seed's image."""
        return statistics.fmean(image[measure] for image in self.row.same)


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """What 5 %, 50 % and 95 % of the values are below."""
    cuts = statistics.quantiles(values, n=20, method="inclusive")
    return cuts[0], statistics.median(values), cuts[-1]


def judge(rows: Sequence[Row], runs: int = RUNS) -> list[Tally]:
    """Draw `runs` runs and judge every method in each of them."""
    rng = random.Random(RUNS_SEED)  # noqa: S311  (a sample, no secrets)
    baseline = rows[0]
    tallies = [Tally(row) for row in rows]
    for _ in range(runs):
        chosen = rng.sample(range(len(baseline.clip)), RUN_IMAGES)
        other = rng.randrange(len(OTHER_SEEDS))
        for tally in tallies:
            _judge_run(tally, as_measured(baseline, tally.row, chosen, other))
    return tallies


def _judge_run(tally: Tally, measured: Measured) -> None:
    found = fidelity.judge(measured)
    assert found is not None  # the embedded pipeline's images depend on the seed
    strict, lenient = (
        verify.judge(
            verify.Evidence(
                measured,
                fidelity.scores(measured, found),
                fidelity=found,
                duplicates=fidelity.duplicates(measured),
                allow_untied=allow_untied,
            ),
            TARGETS,
        ).verdict
        for allow_untied in (False, True)
    )
    tally.ends[_end(strict, found)] += 1
    tally.ok_untied += lenient is Verdict.OK
    tally.tie_t.append(found.tie_t)
    tally.closeness.append(found.closeness)
    tally.credit.append(found.credit)


def _end(verdict: Verdict, found: Fidelity) -> End:
    match verdict:
        case Verdict.OK:
            return End.OK
        case Verdict.BAD_OUTPUT:
            return End.REPEATED
        case Verdict.INCONCLUSIVE:
            return End.UNDECIDED if found.tied else End.UNTIED
        case Verdict.SPEEDUP_TARGET_NOT_MET:
            return End.UNCREDITED
        case Verdict.QUALITY_THRESHOLD_EXCEEDED if found.below:
            return End.BELOW
        case Verdict.QUALITY_THRESHOLD_EXCEEDED:
            return End.DISCARDED if found.discarded else End.LOSS
    message = f"these records cannot come to {verdict}"
    raise AssertionError(message)


def as_measured(baseline: Row, row: Row, chosen: Sequence[int], other: int) -> Measured:
    """The record of a run over the `chosen` captions, as `runner.exchange` would have made it.

    `other` is the number of the other seed that the baseline was given.
    """
    ours = _side(baseline, chosen, other, BASELINE_S, same_seed=False)
    theirs = _side(row, chosen, other, CANDIDATE_S, same_seed=True)
    return Measured(
        baseline=ours,
        candidate=theirs,
        claim_stdout=f"{theirs.time_s:.6f},{theirs.score:.6f}",
        order="alternate",
        baseline_traces=Traces(digests=dict(_batches(baseline.digests, chosen))),
        candidate_traces=Traces(digests=dict(_batches(row.digests, chosen))),
    )


def _side(row: Row, chosen: Sequence[int], other: int, time_s: float, *, same_seed: bool) -> Side:
    batches = [
        Batch(
            phase="timed",
            purpose=Purpose.AUDIT,
            counts=True,
            seed=BASE_SEED,
            time_s=time_s,
            scores=scores,
            same_seed=tuple(map(_likeness, same)) if same_seed else (),
            other_seed=tuple(map(_likeness, others)),
        )
        for (_, scores), (_, same), (_, others) in zip(
            _batches(row.clip, chosen),
            _batches(row.same, chosen),
            _batches(row.other[other], chosen),
            strict=True,
        )
    ]
    return Side(
        time_s=time_s * len(batches),
        score=statistics.fmean(row.clip[number] for number in chosen),
        batches=tuple(batches),
    )


def _batches(values: Sequence[Any], chosen: Sequence[int]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    for place, start in enumerate(range(0, len(chosen), BATCH)):
        yield place, tuple(values[number] for number in chosen[start : start + BATCH])


def _likeness(numbers: Sequence[float]) -> Likeness:
    psnr_db, ssim, clip_cosine = numbers
    return Likeness(psnr_db=psnr_db, ssim=min(ssim, 1.0), clip_cosine=clip_cosine)


def table(tallies: Sequence[Tally]) -> Iterator[str]:
    """The table as lines of Markdown."""
    ends = [end for end in End if any(tally.ends[end] for tally in tallies)]
    names = ["method", "CLIP", "loss %", "PSNR dB", "SSIM", "cosine", "tie t", "close", "credit"]
    names += [*ends, "ok untied"]
    level = statistics.fmean(tallies[0].row.clip)
    for kind in Kind:
        yield f"\n**{kind}**\n"
        yield f"| {' | '.join(names)} |"
        yield "|---" * len(names) + "|"
        for tally in tallies:
            if tally.row.kind is kind:
                yield f"| {' | '.join(_cells(tally, ends, level))} |"


def _cells(tally: Tally, ends: Sequence[End], level: float) -> Iterator[str]:
    clip = statistics.fmean(tally.row.clip)
    low, middle, high = spread(tally.tie_t)
    yield tally.row.name
    yield f"{clip:.1f}"
    yield f"{100 * (1 - clip / level):.1f}"
    yield f"{tally.mean(0):.1f}"
    yield f"{tally.mean(1):.3f}"
    yield f"{tally.mean(2):.3f}"
    yield f"{middle:.1f} ({low:.1f} to {high:.1f})"
    yield f"{statistics.fmean(tally.closeness):.2f}"
    yield f"{statistics.fmean(tally.credit):.2f}"
    for end in ends:
        yield f"{100 * tally.share(end):.3g} %" if tally.ends[end] else ""
    yield f"{100 * tally.ok_untied / tally.ends.total():.3g} %" if tally.ok_untied else ""


def floors(baseline: Row) -> dict[str, tuple[float, float, float, float]]:
    """By measure: mean and SD between two seeds, floor of the mean of 15 images, of one image."""
    found = {}
    for number, name in enumerate(fidelity.MEASURES):
        values = [image[number] for other in baseline.other for image in other]
        mean, sd = statistics.fmean(values), statistics.stdev(values)
        limits = fidelity.limits(name, mean, sd, pairs=RUN_IMAGES, images=RUN_IMAGES)
        found[name] = (mean, sd, *limits)
    return found


FIGURES: Final = "<!-- figures: benchmarks/fidelity.py --write -->"
TIE_END: Final = 20.0
DOT_PX, NEAR_PX = 5, 12
"""Half a mark's width; how far from its mark a name needs a line."""
MARKS: Final[dict[str, dict[str, Any]]] = {
    "honest, loss under 2 %": {"marker": "o", "color": "black"},
    "honest, loses more": {"marker": "o", "color": "black", "markerfacecolor": "white"},
    "honest, own noise": {"marker": "^", "color": "0.45"},
    "cheat": {"marker": "x", "color": "#c22", "markeredgewidth": 1.6},
}


def mark(tally: Tally, level: float) -> str:
    """Which of `MARKS` a method gets."""
    if tally.row.kind is Kind.CHEAT:
        return "cheat"
    if tally.row.kind is Kind.UNTIED:
        return "honest, own noise"
    loses = statistics.fmean(tally.row.clip) < level * (1 - TARGETS.quality_loss)
    return "honest, loses more" if loses else "honest, loss under 2 %"


def plot(tallies: Sequence[Tally], path: Path) -> None:
    """Draw SSIM against CLIP score, and below it the tie of every method."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    mpl.rcParams |= {"font.size": 9, "svg.hashsalt": "speedtrap", "axes.grid": False}
    row_in = 0.165
    heights = [4.6, row_in * (len(tallies) + 2)]
    figure = plt.figure(figsize=(5.2, sum(heights) + 1.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=heights)
    upper = figure.add_subplot(grid[0, :])
    lower = figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[1, 1])
    named, points = _plot_likeness(upper, tallies)
    _plot_tie(lower, tallies)
    _name_points(upper, named, points)
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    figure.savefig(path, metadata=metadata, dpi=150)
    plt.close(figure)


def _plot_likeness(axes: Axes, tallies: Sequence[Tally]) -> tuple[list[Named], list[Point]]:
    """Returns the points that want a name, and all points."""
    level = statistics.fmean(tallies[0].row.clip)
    mean, _, at_least, _ = floors(tallies[0].row)["ssim"]
    axes.set(xlim=(-2, 112), ylim=(-0.04, 1.06), xticks=range(0, 101, 20))
    axes.set(xlabel="CLIP score", ylabel="SSIM to the baseline's image of the same seed")
    axes.axhspan(-0.04, at_least, color="0.9", linewidth=0)
    axes.axhline(mean, color="0.4", linewidth=0.8, linestyle="--")
    below, above = {"va": "top", "color": "0.25"}, {"va": "bottom", "color": "0.25"}
    axes.text(30, at_least - 0.015, "floor: below it, nothing counts", **below)
    axes.text(0, mean + 0.008, "baseline, another seed", **above)
    points = []
    for tally in tallies:
        x, y = statistics.fmean(tally.row.clip), tally.mean(1)
        axes.plot(x, y, linestyle="", markersize=6, **MARKS[mark(tally, level)])
        points.append((x, y))
    for name, style in MARKS.items():
        axes.plot([], [], linestyle="", markersize=6, label=name, **style)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    labelled = {method.name for method in METHODS if method.label}
    named = [(tally.row.name, at) for tally, at in zip(tallies, points, strict=True)]
    return [one for one in named if one[0] in labelled], points


def _name_points(axes: Axes, named: Sequence[Named], points: Sequence[Point]) -> None:
    """Write names beside points where they cover neither one another nor a point."""
    from matplotlib.transforms import Bbox

    axes.figure.canvas.draw()
    axes.figure.set_layout_engine("none")  # what follows finds everything at its place
    bounds = axes.get_window_extent()
    taken = [text.get_window_extent() for text in axes.texts]
    dots = axes.transData.transform(points)
    taken += [Bbox.from_bounds(x - DOT_PX, y - DOT_PX, 2 * DOT_PX, 2 * DOT_PX) for x, y in dots]
    reach = [(d, k * np.pi / 8) for d in range(2, 200, 6) for k in (0, 8, 4, 12, *range(16))]
    for name, at in named:
        text = axes.annotate(name, at, (0, 0), textcoords="offset points", fontsize=8, ha="center")
        size = text.get_window_extent()
        half = np.array([size.width, size.height]) / 2 + 1
        dot = axes.transData.transform(at)
        for distance, angle in reach:
            way = np.array([np.cos(angle), np.sin(angle)])
            middle = dot + way * (half + DOT_PX + distance)
            box = Bbox([middle - half, middle + half])
            inside = bounds.contains(*box.min) and bounds.contains(*box.max)
            if inside and not box.count_overlaps(taken):
                taken.append(box)
                text.set_position((middle - dot - [0, half[1] / 2]) * 72 / axes.figure.dpi)
                if distance > NEAR_PX:
                    end = dot + way * (half + DOT_PX + distance) - way * half
                    line = axes.transData.inverted().transform([dot, end])
                    axes.plot(*line.T, color="0.5", linewidth=0.6, zorder=0)
                break


def _plot_tie(axes: tuple[Axes, Axes], tallies: Sequence[Tally]) -> None:
    level = statistics.fmean(tallies[0].row.clip)
    kinds = itertools.pairwise(tally.row.kind for tally in tallies)
    borders = [before + 0.5 for before, (one, other) in enumerate(kinds) if one is not other]
    left, right = axes
    limits = (fidelity.TIE_T, fidelity.CLOSENESS)
    for side, limit, values in zip(axes, limits, ("tie_t", "closeness"), strict=True):
        for place, tally in enumerate(tallies):
            low, middle, high = spread(getattr(tally, values))
            side.hlines(place, low, high, color="0.6", linewidth=1)
            side.plot(
                min(middle, TIE_END) if values == "tie_t" else middle,
                place,
                linestyle="",
                markersize=5,
                **MARKS[mark(tally, level)],
            )
        for border in borders:
            side.axhline(border, color="0.4", linewidth=0.8)
        edge, end = (-4.0, TIE_END + 1) if values == "tie_t" else (side.get_xlim()[0], None)
        side.axvspan(edge, limit, color="0.9", linewidth=0, zorder=0)
        side.set(xlim=(edge, end), ylim=(len(tallies) - 0.4, -0.6))
    left.set_yticks(range(len(tallies)), [tally.row.name for tally in tallies], fontsize=8)
    left.set_xlabel("tie, t (20: and more)")
    right.set_yticks([])
    right.set_xlabel("closeness")
    right.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])


def report(facts: dict[str, Any], tallies: Sequence[Tally]) -> Iterator[str]:
    """All figures as lines of Markdown."""
    yield ", ".join(f"{name} {value}" for name, value in facts.items()) + "."
    yield f"{RUNS} runs of {RUN_IMAGES} images a method.\n"
    yield "| measure | between seeds | SD | floor of the mean | of one image |"
    yield "|---|---|---|---|---|"
    for name, values in floors(tallies[0].row).items():
        yield f"| `{name}` | {' | '.join(f'{value:.3f}' for value in values)} |"
    yield from table(tallies)


def write_between_marks(path: Path, figures: str) -> None:
    """Replace what stands between the two `FIGURES` marks of a Markdown file."""
    before, _, after = path.read_text().split(FIGURES)
    path.write_text(f"{before}{FIGURES}\n{figures}\n{FIGURES}{after}")


def circumstances(count: int, device: str) -> dict[str, Any]:
    """Where and with what this was measured."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    facts = {"device": name, "captions": count, "threads": torch.get_num_threads()}
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {**facts, "python": platform.python_version(), **versions, "date": _today()}


def _today() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%d")


def load_rows(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """The circumstances and rows that `save` wrote."""
    saved = json.loads(path.read_text())
    return saved["circumstances"], [
        Row(**{**row, "kind": Kind(row["kind"])}) for row in saved["rows"]
    ]


def save(path: Path, facts: dict[str, Any], rows: Sequence[Row]) -> None:
    """Write what was measured, as JSON."""
    path.write_text(json.dumps({"circumstances": facts, "rows": [asdict(row) for row in rows]}))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path, nargs="?", help="where the numbers are written")
    parser.add_argument("--from", dest="source", type=Path, help="numbers of an earlier call")
    parser.add_argument("--captions", type=int, default=60, help="a multiple of 5, 15 or more")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plot", type=Path, help="an SVG or PNG file")
    parser.add_argument("--write", type=Path, help="a page whose figures are replaced")
    parser.add_argument("--sheets", type=Path, help="a folder for the images")
    arguments = parser.parse_args()
    if (arguments.out is None) == (arguments.source is None):
        parser.error("name either OUT.json or --from OUT.json")
    if arguments.captions < RUN_IMAGES or arguments.captions % BATCH:
        parser.error(f"--captions must be a multiple of {BATCH}, {RUN_IMAGES} or more")
    return arguments


def main() -> None:
    """Measure or load, judge, print, draw."""
    arguments = parse()
    if arguments.source is not None:
        facts, rows = load_rows(arguments.source)
    else:
        with contextlib.redirect_stdout(sys.stderr):  # libraries greet
            rows = measure(arguments.captions, arguments.device, arguments.sheets)
        facts = circumstances(arguments.captions, arguments.device)
        save(arguments.out, facts, rows)
    tallies = judge(rows)
    figures = "\n".join(report(facts, tallies))
    print(figures)
    if arguments.write:
        write_between_marks(arguments.write, figures)
    if arguments.plot:
        plot(tallies, arguments.plot)


if __name__ == "__main__":
    main()
