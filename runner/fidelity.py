"""Stage 9: are the candidate's images the baseline's, only faster?

A CLIP score alone can be fooled: by an image that spells its prompt, or by one that was optimised
against CLIP. So every image is compared with the baseline's image of the same prompt and seed, in
three measures. How alike is alike enough is measured in the same run: `other_seed` of the baseline
says how alike two of its own images of one prompt are.

- The floor of a measure is the mean of those pairs less `MEAN_SDS` standard errors. A candidate
  whose mean is below it makes other images than the baseline would: none of them counts.
- An image that is `IMAGE_SDS` standard deviations below that mean is not one of them: its CLIP
  score counts as 0, so what was skipped by faking a few images is paid for in quality.
- The tie: images that were made from the seed are more like the baseline's images of that seed than
  like those of another. How far they are on the way from another seed's images to the baseline's
  own, in SSIM, is their closeness. Where it is under `CLOSENESS`, the images may be good, but
  nothing shows that the pipeline made them; see `Settings.allow_untied`.
- A single image that is not even `TIE_SHARE` of that way counts as untied: chance or a fake made
  it. Speed is credited for the others only, so nothing is gained by faking a few.

docs/fidelity.md shows where honest methods and cheats lie.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from runner.records import Fidelity, Floor, Purpose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.records import Likeness, Measured, Side

MEAN_SDS: Final = 4.0
"""Images from another seed, which are as good, are below it once in some hundred runs."""
IMAGE_SDS: Final = 5.0
IMAGE_CEILINGS: Final = {"clip_cosine": 0.5}
"""The cosine has a long tail among good images, so that some standard deviations of a few pairs say
little; images of something else are below a half."""
TIE_T: Final = 3.0
TIE_SHARE: Final = 0.25
"""Of honest images at most 7 in 100 are further away (5 steps of 25, DeepCache 5), of images from
another seed 4 in 5."""
CLOSENESS: Final = 0.5
"""Of the embedded model: 0.57 for DeepCache 5 (its worst hundredth of runs); 0.48 for three steps
optimised against CLIP, 0.15 for drawn scenes (their best hundredth). Unproven at full size."""
CHANCE: Final = 0.2
"""Share of images from another seed that look tied."""
MEASURES: Final = ("psnr_db", "ssim", "clip_cosine")
SEEDLESS_SSIM: Final = 0.95
"""A baseline whose images of different seeds are this alike mostly ignores the seed."""
EQUAL_PSNR_DB: Final = 50.0
"""From here on two images are one: the SSIM of equal images is not quite 1 in single precision."""
BLACK_SHARE: Final = 0.2
LEAST_CREDIT: Final = 0.01
"""No image is tied: a hundredth of any speedup is still a number that the loss can be made from."""
_PAIRS_NEEDED: Final = 2
_LEAST_ERROR: Final = 1e-6
_LEAST_WAY: Final = 0.01


def judge(measured: Measured) -> Fidelity | None:
    """Hold the images that count against the baseline's; None where that cannot be measured.

    It cannot where the baseline's images do not depend on the seed, or there is a single image.
    """
    between = _likenesses(measured.baseline, "other_seed")
    same = _likenesses(measured.candidate, "same_seed")
    other = _likenesses(measured.candidate, "other_seed")
    if len(between) < _PAIRS_NEEDED or ignores_seed(measured):
        return None
    floors = {name: _floor(name, between, same) for name in MEASURES}
    tie_t = _one_sample_t([_way_gone(a, b) for a, b in zip(same, other, strict=True)])
    nearness = closeness(same, other)
    tied = sum(is_tied(a, b) for a, b in zip(same, other, strict=True))
    return Fidelity(
        **floors,
        images=len(same),
        discarded=sum(not one for one in keeps(floors, same)),
        below=tuple(name for name, floor in floors.items() if floor.seen < floor.at_least),
        tie_t=tie_t,
        tied_images=tied,
        closeness=nearness,
        tied=tie_t >= TIE_T and nearness >= CLOSENESS,
        credit=credit(tied / len(same)),
    )


def is_tied(same: Likeness, other: Likeness) -> bool:
    """Whether an image is nearer to its own seed's image than to another's, by `TIE_SHARE`."""
    if same.psnr_db > EQUAL_PSNR_DB:
        return True
    return same.ssim - other.ssim >= TIE_SHARE * (1 - other.ssim)


def closeness(same: Sequence[Likeness], other: Sequence[Likeness]) -> float:
    """How far images are on the way from another seed's (0) to the baseline's own (1), on average.

    1 where other seeds give the very same images.
    """
    way = math.fsum(1 - one.ssim for one in other)
    gone = math.fsum(a.ssim - b.ssim for a, b in zip(same, other, strict=True))
    return gone / way if way > _LEAST_ERROR else 1.0


def credit(share: float) -> float:
    """Share of images that the seed made, from the share that look so (Abbott 1925)."""
    return max(LEAST_CREDIT, (share - CHANCE) / (1 - CHANCE))


def ignores_seed(measured: Measured) -> bool:
    """Whether the baseline's images are much the same for every seed."""
    between = _likenesses(measured.baseline, "other_seed")
    alike = [one.psnr_db > EQUAL_PSNR_DB or one.ssim > SEEDLESS_SSIM for one in between]
    return sum(alike) * 2 > len(alike)


def scores(measured: Measured, fidelity: Fidelity | None) -> list[float]:
    """CLIP scores of the candidate's images that count; 0 for those below a floor."""
    found = [score for batch in measured.candidate.counted for score in batch.scores]
    if fidelity is None:
        return found
    if fidelity.below:
        return [0.0] * len(found)
    floors = {name: getattr(fidelity, name) for name in MEASURES}
    kept = keeps(floors, _likenesses(measured.candidate, "same_seed"))
    return [score if keep else 0.0 for score, keep in zip(found, kept, strict=True)]


def keeps(floors: dict[str, Floor], images: Sequence[Likeness]) -> list[bool]:
    """For each image, whether it is above the floor in every measure."""
    return [
        all(getattr(image, name) >= floor.image_at_least for name, floor in floors.items())
        for image in images
    ]


def duplicates(measured: Measured) -> int:
    """How many of the candidate's images it returned before, for a prompt or seed of another image.

    Images that the baseline repeats too are nobody's fault. Nor are a few black ones, which is how
    a safety checker blots out what it takes for harmful.
    """
    ours, theirs = measured.baseline_traces.digests, measured.candidate_traces.digests
    # Places of the plan that the candidate got, in order, as its batches are.
    batches = zip(sorted(theirs), measured.candidate.batches, strict=False)
    repeats = {place for place, batch in batches if batch.purpose is Purpose.REPEAT}
    references = defaultdict[str, set[str]](set)
    for place in theirs.keys() - repeats:
        for one, reference in zip(theirs[place], ours[place], strict=True):
            references[one].add(reference)
    width_px, height_px = measured.candidate_traces.size_px or (0, 0)
    black = hashlib.sha256(bytes(width_px * height_px * 3)).hexdigest()
    shown = [one for place in theirs.keys() - repeats for one in theirs[place]]
    if shown.count(black) <= BLACK_SHARE * len(shown):
        references.pop(black, None)
    return sum(len(several) - 1 for several in references.values())


def _floor(name: str, between: Sequence[Likeness], same: Sequence[Likeness]) -> Floor:
    values = [getattr(one, name) for one in between]
    mean, sd = statistics.fmean(values), statistics.stdev(values)
    at_least, image_at_least = limits(name, mean, sd, pairs=len(values), images=len(same))
    return Floor(
        mean=mean,
        sd=sd,
        at_least=at_least,
        image_at_least=image_at_least,
        seen=statistics.fmean(getattr(one, name) for one in same),
    )


def limits(name: str, mean: float, sd: float, *, pairs: int, images: int) -> tuple[float, float]:
    """Floors of the mean of `images` and of one image, by what `pairs` of two seeds have."""
    error = sd * math.sqrt(1 / pairs + 1 / images)
    of_one = mean - _wide(IMAGE_SDS, pairs) * sd
    return mean - _wide(MEAN_SDS, pairs) * error, min(of_one, IMAGE_CEILINGS.get(name, math.inf))


def _way_gone(same: Likeness, other: Likeness) -> float:
    """How far one image is on the way from another seed's image (0) to the baseline's own (1).

    Not below -1, where other seeds hardly differ and any small step is many times the way.
    """
    return max(-1.0, (same.ssim - other.ssim) / max(1 - other.ssim, _LEAST_WAY))


def _one_sample_t(values: Sequence[float]) -> float:
    """Mean in standard errors (Student's t)."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values) / max(error, _LEAST_ERROR)


def _wide(deviations: float, pairs: int) -> float:
    """Standard deviations that leave out as much when the deviation was estimated from `pairs`.

    Student's quantile by the first term of its expansion (Abramowitz and Stegun, 26.7.5).
    """
    return deviations + (deviations**3 + deviations) / (4 * (pairs - 1))


def _likenesses(side: Side, field: str) -> list[Likeness]:
    return [one for batch in side.counted for one in getattr(batch, field)]
