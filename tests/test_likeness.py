"""PSNR and SSIM against plain numpy, and what images of a few pixels come to."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from runner.likeness import MAX_PSNR_DB, likeness
from runner.records import Likeness

pytestmark = pytest.mark.usefixtures("one_thread")

SINGLE = 2e-3
"""SSIM takes differences of squares, in single precision: a bright flat image is the worst case."""


def embed(images):
    """Stand in for CLIP: unit vectors of the colours' means, and a one for black."""
    means = [[*np.asarray(image).reshape(-1, 3).mean(0), 1.0] for image in images]
    return torch.nn.functional.normalize(torch.tensor(means), dim=-1)


def compare(reference, image):
    """PSNR, SSIM and cosine of two arrays of pixels."""
    return compare_all([(reference, image)])[0]


def compare_all(pairs):
    images = [
        [Image.fromarray(np.asarray(one, np.uint8)) for one in side]
        for side in zip(*pairs, strict=True)
    ]
    numbers = likeness(*images, embed, "cpu")
    assert len(numbers) == 3 * len(pairs)
    return [
        Likeness(psnr_db=psnr, ssim=ssim, clip_cosine=cosine)
        for psnr, ssim, cosine in zip(*[iter(numbers)] * 3, strict=True)
    ]


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def flat(value, side=64):
    return np.full((side, side, 3), value, np.uint8)


def plain_psnr(reference, image):
    error = np.mean((reference.astype(float) - image.astype(float)) ** 2)
    return 10 * math.log10(255**2 / error)


def plain_ssim(reference, image):
    """Wang et al. 2004 on the places where the whole window lies inside, mean over the channels."""
    offsets = np.arange(11) - 5
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2

    def blur(plane):
        places = np.lib.stride_tricks.sliding_window_view(plane, (11, 11))
        return (places * window).sum((-1, -2))

    found = []
    for channel in range(3):
        a, b = (one[..., channel].astype(float) for one in (reference, image))
        mean_a, mean_b = blur(a), blur(b)
        var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
        both = blur(a * b) - mean_a * mean_b
        one, two = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        found.append(
            (2 * mean_a * mean_b + one)
            * (2 * both + two)
            / ((mean_a**2 + mean_b**2 + one) * (var_a + var_b + two))
        )
    return float(np.mean(found))


@pytest.mark.parametrize(
    "pixels",
    [noise(64, 64), noise(31, 80), flat(0), flat(255), flat(210), noise(200, 200)],
    ids=["noise", "not square", "black", "white", "grey", "large"],
)
def test_equal_images_are_as_alike_as_can_be(pixels):
    found = compare(pixels, pixels)
    assert found.psnr_db == MAX_PSNR_DB == 100.0
    assert found.ssim == pytest.approx(1.0, abs=SINGLE)
    assert found.clip_cosine == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("one", "other", "psnr_db"),
    [
        (0, 255, 0.0),
        (100, 101, 20 * math.log10(255)),
        (100, 110, 20 * math.log10(25.5)),
        (0, 51, 20 * math.log10(5)),
    ],
)
def test_psnr_of_flat_images_by_hand(one, other, psnr_db):
    assert compare(flat(one), flat(other)).psnr_db == pytest.approx(psnr_db, abs=1e-4)
    assert compare(flat(other), flat(one)).psnr_db == pytest.approx(psnr_db, abs=1e-4)


def test_hardly_a_difference_in_a_large_image_is_none():
    image = flat(100, 256)
    image[0, 0, 0] += 1
    assert plain_psnr(flat(100, 256), image) > 101
    assert compare(flat(100, 256), image).psnr_db == MAX_PSNR_DB
    image[:8, :8] += 1
    found = compare(flat(100, 256), image).psnr_db
    assert found == pytest.approx(plain_psnr(flat(100, 256), image), abs=1e-3)
    assert found < MAX_PSNR_DB


@pytest.mark.parametrize("seed", range(3))
def test_psnr_and_ssim_are_those_of_plain_numpy(seed):  # SSIM but for what is done at the edges
    reference = noise(40, 56, seed)
    rough = (0.6 * reference + 0.4 * noise(40, 56, seed + 100)).astype(np.uint8)
    found = compare(reference, rough)
    assert found.psnr_db == pytest.approx(plain_psnr(reference, rough), abs=1e-3)
    inner = plain_ssim(reference, rough)
    assert found.ssim == pytest.approx(inner, abs=0.02)


def test_ssim_is_symmetric_and_falls_with_noise():
    reference = np.kron(noise(8, 8), np.ones((8, 8, 1), np.uint8))
    ssims = []
    for share in (0.05, 0.2, 0.5, 1.0):
        rough = ((1 - share) * reference + share * noise(64, 64, 9)).astype(np.uint8)
        assert compare(reference, rough).ssim == pytest.approx(compare(rough, reference).ssim)
        ssims.append(compare(reference, rough).ssim)
    assert ssims == sorted(ssims, reverse=True)


def test_a_negative_is_unlike_what_it_is_of():
    reference = np.kron(noise(8, 8), np.ones((8, 8, 1), np.uint8))
    assert compare(reference, 255 - reference).ssim < 0


def test_pairs_do_not_mix_and_keep_their_order():
    pairs = [(flat(n), flat(n + 10 * n)) for n in (0, 3, 9)]
    together = compare_all(pairs)
    assert [one.psnr_db for one in together] == [compare(*pair).psnr_db for pair in pairs]
    assert [one.ssim for one in together] == [compare(*pair).ssim for pair in pairs]


def test_embeddings_are_handed_on_references_first():
    sides = [[Image.fromarray(flat(level))] for level in (10, 200)]
    kept = []
    assert likeness(*sides, embed, "cpu", lambda *both: kept.extend(both)) == likeness(
        *sides, embed, "cpu"
    )
    assert [one.tolist() for one in kept] == [embed(side).tolist() for side in sides]


@pytest.mark.parametrize("height", [1, 2, 5, 10, 11, 12, 20])
@pytest.mark.parametrize("width", [1, 3, 10, 11, 20])
def test_images_of_a_few_pixels_can_be_compared(height, width):
    reference, image = noise(height, width, 1), noise(height, width, 2)
    found = compare(reference, image)
    assert found.psnr_db == pytest.approx(plain_psnr(reference, image), abs=1e-3)
    assert found.ssim < 0.9
    assert compare(reference, reference).psnr_db == 100.0
    assert compare(reference, reference).ssim == pytest.approx(1.0, abs=SINGLE)


sides_px = st.integers(1, 24)


@settings(max_examples=20)
@given(sides_px, sides_px, st.integers(0, 1000), st.sampled_from([0, 1, 3, 40, 255]))
def test_any_images_have_a_likeness(height, width, seed, step):
    reference = noise(height, width, seed)
    moved = np.clip(reference.astype(int) + step, 0, 255).astype(np.uint8)
    for image in (moved, noise(height, width, seed + 1), np.zeros_like(reference)):
        found = compare(reference, image)  # the record refuses what is no number or out of range
        assert found.psnr_db >= 0
