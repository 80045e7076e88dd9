"""The benchmark judges as `bin/score` does: what its records are, and what its runs come to."""

import random
import subprocess
import sys

import pytest
from PIL import Image

from benchmarks import fidelity as benchmark
from benchmarks.fidelity import End, Kind, Row
from runner import exchange, fidelity, paths, wire
from runner.records import Likeness, PlannedBatch, Purpose, Role

COUNT = 60
PLAIN_OTHER = (18.0, 0.75, 0.93)


def near(middle, rng, spread=0.03):
    """Likenesses of all captions around one, as a library would give them."""
    psnr_db, ssim, cosine = middle
    moves = [rng.gauss(0, spread) for _ in range(COUNT)]
    return [[psnr_db * (1 + d), min(1.0, ssim + d), min(1.0, cosine + d)] for d in moves]


def row(name, same, score=94.0, digests=None):
    rng = random.Random(name)
    return Row(
        name=name,
        kind=Kind.HONEST,
        clip=[score] * COUNT,
        same=[list(same)] * COUNT if name == "plain" else near(same, rng),
        other=[near(PLAIN_OTHER, rng) for _ in benchmark.OTHER_SEEDS],
        digests=digests or [f"{name} {number}" for number in range(COUNT)],
    )


PLAIN = row("plain", (100.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("candidate", "end"),
    [
        (row("fast", (30.0, 0.94, 0.97)), End.OK),
        (row("poor", (30.0, 0.94, 0.97), score=90.0), End.LOSS),
        (row("own noise", PLAIN_OTHER), End.UNTIED),
        (row("optimised", (8.0, 0.05, 0.92)), End.BELOW),
        (row("repeating", (30.0, 0.94, 0.97), digests=["the same"] * COUNT), End.REPEATED),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_method_comes_to_the_end_that_its_images_deserve(candidate, end):
    _, tally = benchmark.judge([PLAIN, candidate], runs=20)
    assert tally.share(end) >= 0.9
    assert tally.ends.total() == 20


def test_one_image_that_is_nothing_like_the_baselines_is_discarded():
    honest = row("fast", (30.0, 0.94, 0.97))
    faked = [[1.0, 0.0, 0.0] if number % 23 == 0 else one for number, one in enumerate(honest.same)]
    mixed = Row(**{**vars(honest), "same": faked})
    chosen = range(benchmark.RUN_IMAGES)
    found = fidelity.judge(benchmark.as_measured(PLAIN, mixed, chosen, 0))
    assert found.discarded == 2


def test_untied_images_pass_where_that_is_allowed():
    _, tally = benchmark.judge([PLAIN, row("own noise", PLAIN_OTHER)], runs=20)
    assert tally.ok_untied >= 18


class Reading:
    """A scorer that gives each image the numbers of a row.

    The red value is the caption's number, the green one says whose image it is; nothing stands on
    the scores of images of another seed.
    """

    def __init__(self, candidate):
        self.rows = {Role.BASELINE: PLAIN, Role.CANDIDATE: candidate}

    def score(self, _prompts, images):
        if self.role(images[0]) is None:
            return [0.0] * len(images)
        return [self.rows[self.role(one)].clip[one.rgb[0]] for one in images]

    def compare(self, references, images, prompts):
        assert bool(prompts) == (self.role(references[0]) is not None)
        tables = [
            self.rows[self.role(image)].other[0]
            if self.role(reference) is None
            else self.rows[self.role(image)].same
            for reference, image in zip(references, images, strict=True)
        ]
        return [
            Likeness(**dict(zip(fidelity.MEASURES, table[image.rgb[0]], strict=True)))
            for table, image in zip(tables, images, strict=True)
        ]

    @staticmethod
    def role(image):
        return {0: Role.BASELINE, 1: Role.CANDIDATE}.get(image.rgb[1])


def test_a_run_is_judged_as_the_exchange_would_have_recorded_it():
    candidate = row("fast", (30.0, 0.94, 0.97))
    starts = range(0, benchmark.RUN_IMAGES, benchmark.BATCH)
    prompts = ("a red circle",) * benchmark.BATCH
    plan = [PlannedBatch(0, prompts, Purpose.AUDIT) for _ in starts]
    plan += [PlannedBatch(1, prompts, Purpose.OTHER_SEED, of) for of in range(len(starts))]
    gallery = exchange.Gallery(plan, Reading(candidate))
    for place, planned in enumerate(plan):
        for number, role in enumerate(Role):
            if role is Role.CANDIDATE and not planned.for_candidate:
                continue
            green = number if planned.for_candidate else 2
            first = starts[place % len(starts)]
            images = [wire.Image(1, 1, bytes([first + n, green, 0])) for n in range(len(prompts))]
            gallery.hang(role, place, images)
    measured = benchmark.as_measured(PLAIN, candidate, range(benchmark.RUN_IMAGES), 0)
    for role, side in ((Role.BASELINE, measured.baseline), (Role.CANDIDATE, measured.candidate)):
        for place, batch in enumerate(side.counted):
            assert batch.scores == gallery.scores[role, place]
            assert batch.other_seed == gallery.other_seed[role, place]
            assert batch.same_seed == gallery.same_seed.get((role, place), batch.same_seed)
    assert all(batch.same_seed for batch in measured.candidate.counted)


def test_what_is_saved_is_judged_the_same_later(tmp_path):
    rows = [PLAIN, row("fast", (30.0, 0.94, 0.97))]
    benchmark.save(tmp_path / "out.json", {"captions": COUNT}, rows)
    facts, loaded = benchmark.load_rows(tmp_path / "out.json")
    assert facts == {"captions": COUNT}
    assert loaded == rows


def test_a_sheet_gives_back_the_images_that_were_put_there(tmp_path):
    size = (benchmark.render.SIDE, benchmark.render.SIDE)
    images = [Image.new("RGB", size, colour) for colour in ("red", "green", "blue")]
    made = benchmark.on_sheet("CLIP: some", tmp_path, lambda: images)
    again = benchmark.on_sheet("CLIP: some", tmp_path, lambda: pytest.fail("made a second time"))
    assert [one.tobytes() for one in made] == [one.tobytes() for one in again]


def test_the_figures_of_a_page_are_replaced_and_its_words_are_kept(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{benchmark.FIGURES}\nold\n{benchmark.FIGURES}\nafter\n")
    benchmark.write_between_marks(page, "new")
    benchmark.write_between_marks(page, "newer")
    assert page.read_text() == f"before\n{benchmark.FIGURES}\nnewer\n{benchmark.FIGURES}\nafter\n"


def test_no_two_methods_have_the_same_name():
    names = [method.name for method in benchmark.METHODS]
    assert len(names) == len(set(names))
    assert names[0] == benchmark.PLAIN


def test_the_command_asks_for_a_place_or_a_source():
    command = [sys.executable, str(paths.ROOT / "benchmarks" / "fidelity.py")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "OUT.json" in run.stderr
