"""Images held against the baseline's: honest ones, ones that follow from no seed, and fakes."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import fidelity
from runner.records import Batch, Likeness, Measured, Purpose, Side, Traces

SIZE = 5
PUBLIC, FRESH, AGAIN, OTHER = Purpose.FIXED, Purpose.AUDIT, Purpose.REPEAT, Purpose.OTHER_SEED
MEASURES = ("psnr_db", "ssim", "clip_cosine")
EQUAL = Likeness(psnr_db=100.0, ssim=1.0, clip_cosine=1.0)


def alike(psnr_db, ssim, clip_cosine):
    return Likeness(
        psnr_db=min(100.0, max(0.0, psnr_db)),
        ssim=min(1.0, max(-1.0, ssim)),
        clip_cosine=min(1.0, max(-1.0, clip_cosine)),
    )


def around(rng, psnr_db, ssim, clip_cosine, spread=1.0):
    """Draw one likeness about as far from these as images of different prompts are."""
    return alike(
        rng.gauss(psnr_db, 2 * spread),
        rng.gauss(ssim, 0.08 * spread),
        rng.gauss(clip_cosine, 0.05 * spread),
    )


def of_other_seeds(rng):
    return around(rng, 12.0, 0.4, 0.8)


def honest(rng):
    return around(rng, 25.0, 0.85, 0.96, spread=0.5)


def cut(images):
    return [tuple(images[at : at + SIZE]) for at in range(0, len(images), SIZE)]


def side(batches):
    return Side(time_s=1.0, score=80.0, batches=tuple(batches))


def batch(images, same=(), other=(), *, purpose=FRESH, counts=True):
    return Batch(
        phase="timed",
        purpose=purpose,
        counts=counts,
        seed=1,
        time_s=1.0,
        scores=tuple(80.0 + number for number in range(images)),
        same_seed=same,
        other_seed=other,
    )


def measured(between, same, other=None):
    """Both sides in batches of `SIZE`, with a public batch of nonsense that does not count."""
    other = between if other is None else other
    nonsense = batch(1, (alike(0, -1, -1),), (alike(0, -1, -1),), purpose=PUBLIC, counts=False)
    ours = [batch(len(some), other=some) for some in cut(between)]
    theirs = [
        batch(len(some), some, others) for some, others in zip(cut(same), cut(other), strict=True)
    ]
    return Measured(side([nonsense, *ours]), side([nonsense, *theirs]), "", "alternate")


def drawn(draw, seed=1, count=15):
    rng = random.Random(seed)
    return [draw(rng) for _ in range(count)]


def scores_of(found):
    return fidelity.scores(found, fidelity.judge(found))


def test_honest_images_are_tied_and_all_count():
    found = measured(drawn(of_other_seeds), drawn(honest), drawn(of_other_seeds, 2))
    judged = fidelity.judge(found)
    assert (judged.images, judged.discarded, judged.below, judged.tied) == (15, 0, (), True)
    assert judged.tie_t > 5
    assert scores_of(found) == [80.0, 81.0, 82.0, 83.0, 84.0] * 3


def wider(sds):
    return sds + (sds**3 + sds) / 16  # five pairs


def test_the_floor_is_what_the_baselines_other_seeds_say():
    between = [alike(10 + n, 0.2 + n / 50, 0.7 + n / 100) for n in range(5)]
    floor = fidelity.judge(measured(between, [EQUAL] * 5)).psnr_db
    assert floor.mean == pytest.approx(12.0)
    assert floor.sd == pytest.approx(math.sqrt(2.5))
    error = math.sqrt(2.5) * math.sqrt(1 / 5 + 1 / 5)
    mean_sds, image_sds = (wider(sds) for sds in (fidelity.MEAN_SDS, fidelity.IMAGE_SDS))
    assert floor.at_least == pytest.approx(12.0 - mean_sds * error)
    assert floor.image_at_least == pytest.approx(12.0 - image_sds * math.sqrt(2.5))
    assert floor.seen == 100.0


def test_the_baselines_own_images_are_as_tied_as_can_be():
    between = drawn(of_other_seeds)
    found = measured(between, [EQUAL] * 15)
    judged = fidelity.judge(found)
    assert (judged.below, judged.discarded, judged.tied) == ((), 0, True)


def test_images_of_no_seed_are_not_tied():
    between = drawn(of_other_seeds)
    found = measured(between, between[1:] + between[:1], between[2:] + between[:2])
    judged = fidelity.judge(found)
    assert abs(judged.tie_t) < fidelity.TIE_T
    assert (judged.tied, judged.below, judged.discarded) == (False, (), 0)
    assert scores_of(found) == [80.0, 81.0, 82.0, 83.0, 84.0] * 3


def test_images_tied_to_the_wrong_seed_are_not_tied():
    judged = fidelity.judge(
        measured(drawn(of_other_seeds), drawn(of_other_seeds, 2), drawn(honest))
    )
    assert judged.tie_t < -fidelity.TIE_T
    assert not judged.tied


def test_one_image_again_and_again_has_no_tie():
    judged = fidelity.judge(measured(drawn(of_other_seeds), [alike(12, 0.4, 0.8)] * 15, None))
    assert not judged.tied


@pytest.mark.parametrize("name", MEASURES)
def test_one_measure_below_its_floor_is_enough_and_nothing_counts(name):
    fake = [one.model_copy(update={name: 0.0}) for one in drawn(honest)]
    found = measured(drawn(of_other_seeds), fake)
    assert fidelity.judge(found).below == (name,)
    assert scores_of(found) == [0.0] * 15


def test_other_images_altogether_are_below_every_floor():
    found = measured(drawn(of_other_seeds), [alike(5, 0.01, 0.2)] * 15)
    assert fidelity.judge(found).below == MEASURES
    assert scores_of(found) == [0.0] * 15


@pytest.mark.parametrize("broken", [1, 2])
def test_a_few_broken_images_count_as_nothing(broken):
    between = drawn(of_other_seeds)
    same = drawn(honest)
    for place in range(broken):
        same[4 * place] = alike(3, -0.1, 0.3)
    found = measured(between, same)
    judged = fidelity.judge(found)
    assert (judged.discarded, judged.below, judged.tied) == (broken, (), True)
    expected = [80.0 + n % SIZE for n in range(15)]
    for place in range(broken):
        expected[4 * place] = 0.0
    assert scores_of(found) == expected


@pytest.mark.parametrize("ssim", [1.0, 0.9987], ids=["ssim 1", "bright and flat"])
def test_a_baseline_that_ignores_the_seed_gives_no_floor(ssim):
    found = measured([EQUAL.model_copy(update={"ssim": ssim})] * 15, drawn(honest))
    assert fidelity.ignores_seed(found)
    assert fidelity.judge(found) is None
    assert len(scores_of(found)) == 15
    assert 0.0 not in scores_of(found)


def test_a_baseline_that_ignores_it_for_some_prompts_gives_one():
    between = [EQUAL, *drawn(of_other_seeds, count=14)]
    found = measured(between, drawn(honest))
    assert not fidelity.ignores_seed(found)
    assert fidelity.judge(found) is not None


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_give_no_floor(count):
    found = measured(drawn(of_other_seeds, count=count), drawn(honest, count=count))
    assert fidelity.judge(found) is None
    assert scores_of(found) == [80.0] * count


def test_two_images_are_the_fewest():
    judged = fidelity.judge(measured(drawn(of_other_seeds, count=2), drawn(honest, count=2)))
    assert judged.images == 2


likenesses = st.builds(
    Likeness,
    psnr_db=st.floats(0, 100),
    ssim=st.floats(-1, 1),
    clip_cosine=st.floats(-1, 1),
)


@given(st.lists(st.tuples(likenesses, likenesses, likenesses), min_size=2, max_size=12))
def test_any_likenesses_give_numbers(triples):
    found = measured(*map(list, zip(*triples, strict=True)))
    judged = fidelity.judge(found)
    assert (judged is None) == fidelity.ignores_seed(found)
    kept = fidelity.scores(found, judged)
    assert len(kept) == len(triples)
    if judged is not None:
        assert math.isfinite(judged.tie_t)
        discarded = len(triples) if judged.below else judged.discarded
        assert kept.count(0.0) == discarded
        share = judged.tied_images / len(triples)
        assert judged.credit == fidelity.credit(share)
        near = judged.closeness >= fidelity.CLOSENESS
        assert judged.tied == (judged.tie_t >= fidelity.TIE_T and near)


@pytest.mark.parametrize(
    ("same", "other", "tied"),
    [
        (0.9, 0.4, True),
        (0.55, 0.4, True),
        (0.54, 0.4, False),
        (0.4, 0.4, False),
        (0.3, 0.9, False),
        (0.95, 0.95, False),
    ],
)
def test_an_image_is_tied_a_quarter_of_the_way_to_the_baselines(same, other, tied):
    pair = [Likeness(psnr_db=20.0, ssim=one, clip_cosine=0.9) for one in (same, other)]
    assert fidelity.is_tied(*pair) is tied


def test_an_image_that_is_the_baselines_is_tied_whatever_another_seed_gives():
    equal = Likeness(psnr_db=100.0, ssim=0.9987, clip_cosine=1.0)  # as a bright flat image has it
    assert fidelity.is_tied(equal, equal)


@pytest.mark.parametrize(
    ("share", "credit"), [(0.0, 0.01), (0.2, 0.01), (0.6, 0.5), (0.8, 0.75), (1.0, 1.0)]
)
def test_credit_takes_out_what_chance_ties(share, credit):
    assert fidelity.credit(share) == pytest.approx(credit)


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_tied_images_never_get_less_credit(one, other):
    low, high = sorted((one, other))
    assert 0 < fidelity.credit(low) <= fidelity.credit(high) <= 1


def test_a_few_images_that_are_not_tied_cost_credit():
    between = drawn(of_other_seeds)
    same = drawn(honest)
    same[:3] = between[1:4]
    judged = fidelity.judge(measured(between, same))
    assert judged.tied_images in {12, 13}
    assert judged.credit == fidelity.credit(judged.tied_images / 15) < 1


@given(st.integers(0, 2**32))
def test_the_baseline_itself_is_never_below_or_discarded(seed):
    between = drawn(of_other_seeds, seed)
    judged = fidelity.judge(measured(between, [EQUAL] * 15))
    assert (judged.below, judged.discarded, judged.tied) == ((), 0, True)


RUNS = 500


def test_honest_images_are_never_accused():
    for seed in range(RUNS):
        between, same = drawn(of_other_seeds, seed), drawn(honest, seed + RUNS)
        judged = fidelity.judge(measured(between, same, drawn(of_other_seeds, seed + 2 * RUNS)))
        assert (judged.below, judged.discarded, judged.tied) == ((), 0, True)


def test_images_of_no_seed_are_seldom_mistaken_for_anything_else():
    judged = [
        fidelity.judge(measured(*(drawn(of_other_seeds, seed + more * RUNS) for more in range(3))))
        for seed in range(RUNS)
    ]
    assert sum(one.tied for one in judged) <= RUNS / 50
    assert sum(bool(one.below) for one in judged) <= RUNS / 30
    assert sum(one.discarded > 0 for one in judged) <= RUNS / 50


def with_digests(ours, theirs, purposes=(PUBLIC, FRESH, AGAIN)):
    """Batches that are only of interest for their images' digests, a list a batch."""
    both = [
        side([batch(len(images), purpose=one) for one, images in zip(purposes, some, strict=False)])
        for some in (ours, theirs)
    ]
    traces = [Traces(digests=dict(enumerate(map(tuple, some)))) for some in (ours, theirs)]
    return Measured(*both, "", "alternate", *traces)


DISTINCT = (["a", "b"], ["c", "d"], ["c", "d"], ["x", "y"])
"""Public, fresh, repeated, and of another seed (for the baseline alone)."""


@pytest.mark.parametrize(
    ("theirs", "count"),
    [
        ((["1", "2"], ["3", "4"], ["3", "4"]), 0),
        ((["1", "1"], ["3", "4"], ["3", "4"]), 1),
        ((["1", "2"], ["1", "4"], ["1", "4"]), 1),
        ((["1", "1"], ["1", "1"], ["1", "1"]), 3),
        ((["1", "2"], ["3", "4"], ["1", "1"]), 0),
        ((["a", "b"], ["c", "d"], ["c", "d"]), 0),
    ],
)
def test_images_that_come_again_are_counted(theirs, count):
    assert fidelity.duplicates(with_digests(DISTINCT, theirs)) == count


def test_a_repeated_batch_may_have_other_images_or_the_same():
    for again in (["3", "4"], ["5", "6"]):
        assert fidelity.duplicates(with_digests(DISTINCT, (["1", "2"], ["3", "4"], again))) == 0


def test_images_that_the_baseline_repeats_too_are_nobodys_fault():
    black = (["0", "0"], ["0", "d"], ["0", "d"], ["0", "0"])
    assert fidelity.duplicates(with_digests(black, (["0", "0"], ["0", "4"], ["0", "4"]))) == 0
    assert fidelity.duplicates(with_digests(black, (["0", "0"], ["0", "0"], ["0", "0"]))) == 1


def test_the_warm_up_counts_for_duplicates():
    purposes = (Purpose.WARM_UP, FRESH, AGAIN)
    found = with_digests(DISTINCT, (["1", "2"], ["1", "2"], ["1", "2"]), purposes)
    assert fidelity.duplicates(found) == 2


@given(
    st.lists(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=2), min_size=3, max_size=3)
)
def test_the_baselines_own_images_are_never_duplicates(images):
    images[2] = images[1]
    assert fidelity.duplicates(with_digests([*images, ["x", "y"]], images)) == 0
