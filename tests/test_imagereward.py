"""ImageReward of random weights in the published layout, against a forward pass written out."""

import io
import itertools
import json
import math
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from runner import report, scorer, wire
from runner.distribution import Gathering, Pairs, Withheld
from runner.imagereward import ImageReward, Rewards, load_imagereward
from runner.prompts import ClipModel
from runner.records import Device, Distances
from runner.scorer_process import report as told_by

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH, BLOCKS, PATCH_PX, SIDE_PX = 128, 2, 8, 24
TEXT = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 40,
    "vocab_size": 20,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "encoder_width": 768,  # the published file says so, and it is not the image encoder's
    "add_cross_attention": True,
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS += ["a", "red", "blue", "circle", "square", "beside", "##s"]
VISION, READER = "blip.visual_encoder.", "blip.text_encoder."
PROMPTS = ["a red circle", "a blue square beside a red circle", "circles"]


def linear(name, wide, narrow):
    return {f"{name}.weight": (wide, narrow), f"{name}.bias": (wide,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def attention(name, width, seen):
    shapes = linear(f"{name}.self.query", width, width) | norm(f"{name}.output.LayerNorm", width)
    for part in ("key", "value"):
        shapes |= linear(f"{name}.self.{part}", width, seen)
    return shapes | linear(f"{name}.output.dense", width, width)


def layout():
    """Name and shape of each tensor in the published file, for a small network."""
    text, inner = TEXT["hidden_size"], TEXT["intermediate_size"]
    shapes = {
        f"{VISION}cls_token": (1, 1, WIDTH),
        f"{VISION}pos_embed": (1, 1 + (SIDE_PX // PATCH_PX) ** 2, WIDTH),
        f"{VISION}patch_embed.proj.weight": (WIDTH, 3, PATCH_PX, PATCH_PX),
        f"{VISION}patch_embed.proj.bias": (WIDTH,),
        f"{READER}embeddings.word_embeddings.weight": (TEXT["vocab_size"], text),
        f"{READER}embeddings.position_embeddings.weight": (TEXT["max_position_embeddings"], text),
        f"{READER}embeddings.position_ids": (1, TEXT["max_position_embeddings"]),
    }
    shapes |= norm(f"{VISION}norm", WIDTH) | norm(f"{READER}embeddings.LayerNorm", text)
    shapes |= linear("blip.vision_proj", 256, WIDTH) | linear("blip.text_proj", 256, text)
    for number in range(BLOCKS):
        block = f"{VISION}blocks.{number}"
        shapes |= norm(f"{block}.norm1", WIDTH) | norm(f"{block}.norm2", WIDTH)
        shapes |= linear(f"{block}.attn.qkv", 3 * WIDTH, WIDTH)
        shapes |= linear(f"{block}.attn.proj", WIDTH, WIDTH)
        shapes |= linear(f"{block}.mlp.fc1", 4 * WIDTH, WIDTH)
        shapes |= linear(f"{block}.mlp.fc2", WIDTH, 4 * WIDTH)
    for number in range(TEXT["num_hidden_layers"]):
        layer = f"{READER}encoder.layer.{number}"
        shapes |= attention(f"{layer}.attention", text, text)
        shapes |= attention(f"{layer}.crossattention", text, WIDTH)
        shapes |= linear(f"{layer}.intermediate.dense", inner, text)
        shapes |= linear(f"{layer}.output.dense", text, inner)
        shapes |= norm(f"{layer}.output.LayerNorm", text)
    widths = {0: 1024, 2: 128, 4: 64, 6: 16, 7: 1}
    narrow = text
    for number, wide in widths.items():
        shapes |= linear(f"mlp.layers.{number}", wide, narrow)
        narrow = wide
    return shapes


def random_weights():
    rng = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(shape, generator=rng) * 0.1 + ("norm" in name.lower())
        for name, shape in layout().items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("imagereward")
    torch.save(random_weights(), made / "ImageReward.pt")
    (made / "med_config.json").write_text(json.dumps(TEXT))
    (made / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return made


@pytest.fixture
def judge(folder):
    found = load_imagereward("cpu", folder)
    assert isinstance(found, ImageReward), found
    return found


def noise(count, seed, size_px=(SIDE_PX, SIDE_PX)):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, size_px[1], size_px[0], 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in pixels]


class Plain:
    """The published forward pass of one image and its tokens, written out."""

    def __init__(self, weights):
        self.weights = weights

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name, x, epsilon):
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt()
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    @staticmethod
    def mix(queries, keys, values, heads):
        parts = []
        for q, k, v in zip(*(x.chunk(heads, -1) for x in (queries, keys, values)), strict=True):
            parts.append((q @ k.T / math.sqrt(q.shape[-1])).softmax(-1) @ v)
        return torch.cat(parts, -1)

    def image(self, image):
        pixels = torch.tensor(np.array(image)).permute(2, 0, 1).float() / 255
        means = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
        deviations = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
        patches = functional.conv2d(
            ((pixels - means) / deviations)[None],
            self.weights[f"{VISION}patch_embed.proj.weight"],
            self.weights[f"{VISION}patch_embed.proj.bias"],
            stride=PATCH_PX,
        )
        x = torch.cat([self.weights[f"{VISION}cls_token"][0], patches[0].flatten(1).T])
        x = x + self.weights[f"{VISION}pos_embed"][0]
        for number in range(BLOCKS):
            block = f"{VISION}blocks.{number}"
            qkv = self.linear(f"{block}.attn.qkv", self.norm(f"{block}.norm1", x, 1e-6))
            mixed = self.mix(*qkv.chunk(3, -1), WIDTH // 64)
            x = x + self.linear(f"{block}.attn.proj", mixed)
            inner = self.linear(f"{block}.mlp.fc1", self.norm(f"{block}.norm2", x, 1e-6))
            x = x + self.linear(f"{block}.mlp.fc2", functional.gelu(inner))
        return self.norm(f"{VISION}norm", x, 1e-6)

    def attend(self, name, x, seen):
        parts = (
            self.linear(f"{name}.self.query", x),
            *(self.linear(f"{name}.self.{part}", seen) for part in ("key", "value")),
        )
        mixed = self.linear(f"{name}.output.dense", self.mix(*parts, TEXT["num_attention_heads"]))
        return self.norm(f"{name}.output.LayerNorm", mixed + x, 1e-12)

    def reward(self, image, tokens):
        seen = self.image(image)
        x = self.weights[f"{READER}embeddings.word_embeddings.weight"][tokens]
        x = x + self.weights[f"{READER}embeddings.position_embeddings.weight"][: len(tokens)]
        x = self.norm(f"{READER}embeddings.LayerNorm", x, 1e-12)
        for number in range(TEXT["num_hidden_layers"]):
            layer = f"{READER}encoder.layer.{number}"
            x = self.attend(f"{layer}.attention", x, x)
            x = self.attend(f"{layer}.crossattention", x, seen)
            inner = functional.gelu(self.linear(f"{layer}.intermediate.dense", x))
            x = x + self.linear(f"{layer}.output.dense", inner)
            x = self.norm(f"{layer}.output.LayerNorm", x, 1e-12)
        x = x[0]
        for number in (0, 2, 4, 6, 7):
            x = self.linear(f"mlp.layers.{number}", x)
        return float((x - 0.16717362830052426) / 1.0333394966054072)


def test_rewards_are_those_of_the_published_network(judge):
    plain = Plain(random_weights())
    images = noise(3, 1)
    tokens = [[2, 5, 6, 8, 3], [2, 5, 7, 9, 10, 5, 6, 8, 3], [2, 8, 11, 3]]
    expected = [plain.reward(*pair) for pair in zip(images, tokens, strict=True)]
    assert judge.rewards(PROMPTS, images) == pytest.approx(expected, abs=1e-4)


def test_a_reward_follows_from_image_and_prompt_alone(judge):
    images = noise(20, 1, (30, 40))
    prompts = [PROMPTS[number % 3] for number in range(20)]
    together = judge.rewards(prompts, images)
    assert judge.rewards(prompts, images) == together
    alone = [judge.rewards([p], [i])[0] for p, i in zip(prompts, images, strict=True)]
    assert alone == pytest.approx(together, abs=1e-5)
    assert min(abs(a - b) for a, b in itertools.pairwise(together)) > 1e-3
    other_prompt = judge.rewards([PROMPTS[1]] * 3, images[:1] * 2 + images[2:3])
    assert abs(other_prompt[0] - together[0]) > 1e-3
    assert other_prompt[0] == pytest.approx(other_prompt[1], abs=1e-5)


def test_the_middle_of_an_image_is_looked_at(judge):
    wide = noise(1, 1, (5 * SIDE_PX, SIDE_PX))[0]
    changed = wide.copy()
    changed.paste((255, 0, 0), (0, 0, SIDE_PX, SIDE_PX))
    middle = wide.crop((2 * SIDE_PX, 0, 3 * SIDE_PX, SIDE_PX))
    rewards = judge.rewards(["a"] * 3, [wide, changed, middle])
    assert rewards == pytest.approx([rewards[0]] * 3, abs=1e-5)


def test_of_a_long_prompt_the_first_words_are_read(judge):
    long = "a red circle " * 11  # 33 words, and two tokens around them
    images = noise(1, 1) * 3
    read, longer, shorter = judge.rewards([long, f"{long} a blue square", "a red circle"], images)
    assert longer == pytest.approx(read, abs=1e-5)
    assert abs(read - shorter) > 1e-3


def test_both_sides_are_paired_and_a_difference_is_told_either_way(folder, judge):
    dull, fine = sorted(noise(40, 1), key=lambda one: judge.rewards(["a"], [one])[0])[::39]
    rest = noise(12, 2)
    prompts = ["a"] * 12
    values = []
    for ours, theirs in (([dull] * 12, [fine] * 12), ([fine] * 12, [dull] * 12), (rest, rest)):
        taken = load_imagereward("cpu", folder)
        taken.add(Pairs(prompts[:5], ours[:5], theirs[:5]))
        taken.add(Pairs(prompts[5:], ours[5:], theirs[5:]))
        values.append(taken.value())
    up, down, same = values
    assert up.difference == pytest.approx(up.candidate - up.baseline)
    assert up.difference == pytest.approx(-down.difference) == pytest.approx(up.difference_ci[0])
    assert up.difference > 0.01
    assert same.baseline == pytest.approx(np.mean(judge.rewards(prompts, rest)), abs=1e-5)
    assert same.difference_ci == (0.0, 0.0)


def test_of_few_pairs_there_is_no_interval_and_of_none_no_number(judge):
    assert "an image of each side" in judge.value().reason
    judge.add(Pairs(["a"] * 4, noise(4, 1), noise(4, 2)))
    found = judge.value()
    assert isinstance(found, Rewards)
    assert found.difference_ci is None
    judge.add(Pairs(["a"], noise(1, 3), noise(1, 4)))
    low, high = judge.value().difference_ci
    assert low < judge.value().difference < high


def test_a_reward_that_is_no_number_is_withheld(folder, tmp_path):
    made = copied(folder, tmp_path)
    weights = random_weights()
    weights["mlp.layers.7.bias"] += math.inf
    torch.save(weights, made / "ImageReward.pt")
    gathering = Gathering({"image_reward": load_imagereward("cpu", made)})
    embeddings = torch.ones(2, 4), torch.ones(2, 4)
    gathering.add(Pairs(["a"] * 2, noise(2, 1), noise(2, 2)), embeddings)
    told = Distances.model_validate_json(told_by(gathering))
    assert told.image_reward is None
    assert "ImageReward came to no number" in told.withheld


def copied(folder, target):
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.mark.parametrize("name", ["ImageReward.pt", "med_config.json", "vocab.txt"])
def test_without_a_file_it_is_withheld_and_names_the_file(folder, tmp_path, name):
    made = copied(folder, tmp_path)
    (made / name).unlink()
    found = load_imagereward("cpu", made)
    assert found == Withheld(f"ImageReward needs {name}, which is not in {made}")


def cache(folder, home, repositories):
    """Lay out files as huggingface_hub does."""
    for repository, names in repositories.items():
        snapshot = home / f"models--{repository.replace('/', '--')}" / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (snapshot.parent.parent / "refs").mkdir()
        (snapshot.parent.parent / "refs" / "main").write_text("abc")
        for name in names:
            (snapshot / name).symlink_to(folder / name)


def test_it_is_found_in_the_cache_under_either_name(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    bare = load_imagereward("cpu")
    assert "hf download THUDM/ImageReward ImageReward.pt med_config.json" in bare.reason
    assert "hf download bert-base-uncased vocab.txt" in bare.reason
    cache(folder, tmp_path, {"THUDM/ImageReward": ["ImageReward.pt", "med_config.json"]})
    assert load_imagereward("cpu").reason.startswith("ImageReward needs vocab.txt, which the")
    cache(folder, tmp_path, {"google-bert/bert-base-uncased": ["vocab.txt"]})
    assert isinstance(load_imagereward("cpu"), ImageReward)


class Dangerous:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def without(name):
    return {key: value for key, value in random_weights().items() if key != name}


HEAD = "mlp.layers.7.weight"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda made: torch.save(without(HEAD), made / "ImageReward.pt"), f"there is no {HEAD}"),
        (
            lambda made: torch.save(without(f"{VISION}pos_embed"), made / "ImageReward.pt"),
            f"there is no {VISION}pos_embed",
        ),
        (
            lambda made: torch.save(
                random_weights() | {HEAD: torch.ones(2, 16)}, made / "ImageReward.pt"
            ),
            f"{HEAD} has the shape (2, 16), not (1, 16)",
        ),
        (lambda made: (made / "ImageReward.pt").write_bytes(b"no weights"), ""),
        (lambda made: torch.save([1.0], made / "ImageReward.pt"), ""),
        (lambda made: (made / "med_config.json").write_text("{}"), "there is no hidden_size"),
        (lambda made: (made / "med_config.json").write_text("no json"), ""),
        (
            lambda made: (made / "vocab.txt").write_text("\n".join([*WORDS, *"bcdefghij"])),
            "has more than the 20 tokens it knows",
        ),
    ],
)
def test_files_of_another_kind_are_withheld_and_say_what_is_wrong(folder, tmp_path, spoil, reason):
    made = copied(folder, tmp_path)
    spoil(made)
    found = load_imagereward("cpu", made)
    assert isinstance(found, Withheld)
    assert f"{made}/ImageReward.pt could not be loaded" in found.reason
    assert reason in found.reason
    assert "\n" not in found.reason


def test_code_in_the_weights_is_not_run(folder, tmp_path):
    made = copied(folder, tmp_path)
    trace = tmp_path / "was run"
    torch.save(random_weights() | {"more": Dangerous(trace)}, made / "ImageReward.pt")
    assert "not tensors alone" in load_imagereward("cpu", made).reason
    assert not trace.exists()
    torch.load(made / "ImageReward.pt", weights_only=False)
    assert trace.exists()  # it would have been


def sent(images):
    return [wire.Image(*one.size, one.tobytes()) for one in images]


def test_the_real_scorer_gives_the_rewards_of_the_pairs_that_count(folder, judge):
    plain, other = noise(8, 1), noise(8, 2)
    prompts = [PROMPTS[number % 3] for number in range(8)]
    clip = ClipModel("local-dir:tiny-clip", None)
    extras = [f"imagereward={folder}"]
    with scorer.start(clip, Device(kind="cpu", name="CPU"), extras) as running:
        running.wait_until_loaded()
        running.compare(sent(other), sent(other))
        running.compare(sent(plain), sent(other), prompts)
        told = running.distances()
    judge.add(Pairs(prompts, plain, other))
    expected = judge.value()
    assert told.images == 8
    assert told.image_reward.baseline == pytest.approx(expected.baseline, abs=1e-4)
    assert told.image_reward.candidate == pytest.approx(expected.candidate, abs=1e-4)
    assert told.image_reward.difference_ci == pytest.approx(expected.difference_ci, abs=1e-4)
    assert not any("ImageReward" in reason for reason in told.withheld)


@pytest.mark.parametrize(
    ("interval", "told"),
    [
        ((-0.3, -0.1), "0.300, baseline 0.500; difference -0.200 (-0.300 to -0.100): surely below"),
        ((-0.3, 0.1), "0.300, baseline 0.500; difference -0.200 (-0.300 to +0.100)"),
        ((0.1, 0.3), "0.300, baseline 0.500; difference -0.200 (+0.100 to +0.300): surely above"),
        (None, "0.300, baseline 0.500; difference -0.200"),
    ],
)
def test_a_person_reads_both_means_and_which_way_they_differ(make_result, interval, told):
    rewards = {"baseline": 0.5, "candidate": 0.3, "difference": -0.2, "difference_ci": interval}
    distances = Distances(images=9, image_reward=rewards, withheld=())
    result = make_result(distances=distances)
    assert dict(report.rows(result))["ImageReward"] == told
    file = io.StringIO()
    report.show(result, file)
    assert told in file.getvalue()
