import ast
import io
import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from runner import assemble, paths, verify

SEGMENTS = sorted(paths.TEMPLATES.glob("*.py"))
RED = np.zeros((4, 6, 3), np.uint8)
RED[..., 0] = 200
RED[1, 2] = (10, 20, 30)


def tree(name):
    return ast.parse((paths.TEMPLATES / f"{name}.py").read_text(encoding="utf-8"))


def namespace(name, skipped=ast.Expr, **names):
    """Run a segment without its calls at the top level."""
    module = tree(name)
    module.body = [node for node in module.body if not isinstance(node, skipped)]
    space = {"__name__": name, **names}
    exec(compile(module, f"{name}.py", "exec"), space)
    return space


@pytest.fixture(scope="module")
def block():
    return namespace("exec_block")


@pytest.fixture
def pixels(block):
    """Turn one image of any kind into an array of 8-bit RGB."""

    def convert(image):
        (found,) = block["_speedtrap_to_images"]([image], 1)
        assert isinstance(found, Image.Image)
        assert found.mode == "RGB"
        return np.asarray(found)

    return convert


@pytest.fixture
def refused(block, capsys):
    def refuse(output, count=1):
        with pytest.raises(SystemExit) as caught:
            block["_speedtrap_to_images"](output, count)
        assert caught.value.code == verify.EXIT_BAD_OUTPUT
        text = capsys.readouterr().err
        assert text.startswith("speedtrap: ")
        return text.removeprefix("speedtrap: ").strip()

    return refuse


@pytest.mark.parametrize("path", SEGMENTS, ids=lambda path: path.stem)
def test_each_segment_is_python_by_itself(path):
    text = path.read_text(encoding="utf-8")
    compile(text, str(path), "exec", dont_inherit=True)
    assert text.startswith('"""Segment ')
    assert text.endswith("\n")
    assert text.isascii()


def test_there_is_a_segment_for_each_place_of_each_form():
    names = {path.stem for path in SEGMENTS}
    either = {f"{part}_{form}" for part in ("prompts", "clip") for form in assemble.Form}
    assert names == {"imports", "exec_block", *either}


def test_exit_statuses_are_those_of_the_verdicts(block):
    assert block["EXIT_BAD_OUTPUT"] == verify.EXIT_BAD_OUTPUT
    assert block["EXIT_NO_INTERFACE"] == verify.EXIT_NO_INTERFACE


@pytest.mark.parametrize("part", ["prompts", "clip"])
def test_both_forms_define_the_same_functions(part):
    defined = [
        {node.name for node in tree(f"{part}_{form}").body if isinstance(node, ast.FunctionDef)}
        for form in assemble.Form
    ]
    wanted = {"prompts": {"get_dataset", "_speedtrap_batches"}, "clip": {"calculate_clip_score"}}
    assert wanted[part] <= defined[0] & defined[1]


def test_standalone_prompts_come_in_batches_whatever_is_redefined(monkeypatch):
    monkeypatch.setitem(sys.modules, "speedtrap_candidate", None)
    module = tree("prompts_standalone")
    space = {"__name__": "__main__"}
    text = ast.unparse(module).replace("= []", "= ['a', 'b', 'c', 'd', 'e']").replace("= 5", "= 2")
    exec(compile(text, "x.py", "exec"), space)
    assert space["get_dataset"]() == ["a", "b", "c", "d", "e"]
    space.update(PROMPTS=[], FIRST_SEED=0, BATCH_SIZE=0)
    batches = list(space["_speedtrap_batches"]())
    assert batches == [(42, ["a", "b"]), (43, ["c", "d"]), (44, ["e"])]


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(RED),
        RED,
        RED.astype(np.int64),
        RED.astype(np.float32),
        RED / 255,
        (RED / 255).astype(np.float32),
        RED.transpose(2, 0, 1),
        RED.transpose(2, 0, 1) / 255,
        np.asfortranarray(RED),
        RED[::-1][::-1],
        torch.tensor(RED),
        torch.tensor(RED).permute(2, 0, 1),
        torch.tensor(RED).permute(2, 0, 1).to(torch.int32),
        torch.tensor(RED).float(),
        torch.tensor(RED / 255),
        (torch.tensor(RED) / 255).permute(2, 0, 1).requires_grad_(),
    ],
)
def test_every_layout_and_range_gives_the_same_pixels(pixels, image):
    assert np.array_equal(pixels(image), RED)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near_enough(pixels, dtype):
    found = pixels((torch.tensor(RED) / 255).to(dtype))
    assert np.abs(found.astype(int) - RED).max() <= 1


@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_whole_numbers_are_never_stretched(pixels, make, dtype):
    dark = (RED > 100).astype(dtype)
    assert dark.max() == 1
    assert np.array_equal(pixels(make(dark)), dark)


@pytest.mark.parametrize("value", [0, 0.0, 1.0, 255])
def test_constant_images_pass(pixels, value):
    found = pixels(np.full((2, 2, 3), value))
    assert found.min() == found.max() == (255 if value == 1.0 else value)


def test_out_of_range_is_clipped(pixels):
    found = pixels(np.array([[[-0.5, 0.5, 1.0]]]))
    assert found.tolist() == [[[0, 128, 255]]]
    found = pixels(np.array([[[-7.0, 300.0, 99.6]]]))
    assert found.tolist() == [[[0, 255, 100]]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "1", "P", "CMYK", "I"])
def test_every_mode_of_pil_becomes_rgb(pixels, mode):
    assert pixels(Image.new(mode, (6, 4))).shape == (4, 6, 3)


def test_a_batch_tensor_is_a_list_of_images(block):
    batch = torch.rand(3, 3, 4, 6)
    for output in (batch, batch.numpy(), list(batch), tuple(batch), SimpleNamespace(images=batch)):
        found = block["_speedtrap_to_images"](output, 3)
        assert [image.size for image in found] == [(6, 4)] * 3


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("make", [list, np.array, lambda images: torch.tensor(np.array(images))])
def test_a_wrong_count_is_refused(refused, make, count):
    assert refused(make([RED, RED]), count) == f"inference returned 2 images for {count} prompts"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
def test_pixels_that_are_no_numbers_are_refused(refused, make, bad):
    image = RED / 255
    image[3, 5, 2] = bad
    assert refused([make(image)]) == "image 1 has NaN or infinite pixels"


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((4, 6), "4x6"),
        ((4, 6, 1), "4x6x1"),
        ((4, 6, 4), "4x6x4"),
        ((4, 4, 6), "4x4x6"),
        ((1, 4, 6, 3), "1x4x6x3"),
        ((), ""),
    ],
)
def test_other_shapes_are_refused(refused, shape, told):
    expected = f"image 1 has shape {told}; expected height x width x 3"
    assert refused([np.zeros(shape)]) == expected
    assert refused([torch.zeros(shape)]) == expected


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 4, 3), (4, 0, 3), (3, 0, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_empty_images_are_refused(refused, shape, dtype):
    assert "image 1 has" in refused([np.zeros(shape, dtype)])


@pytest.mark.parametrize("image", ["x.png", b"", None, 1, [[[1, 2, 3]]], io.BytesIO()])
def test_other_kinds_of_image_are_refused(refused, image):
    kind = type(image).__name__
    expected = f"image 2 is a {kind}; return PIL images, arrays or tensors"
    assert refused([RED, image], 2) == expected


@pytest.mark.parametrize(
    "output", [None, "xx", 5, {"images": 1}, iter([RED]), Image.new("L", (1, 1))]
)
def test_other_kinds_of_output_are_refused(refused, output):
    kind = type(output).__name__
    assert (
        refused(output) == f"inference returned a {kind}; return a list with one image per prompt"
    )


floats = st.floats(allow_nan=True, allow_infinity=True, width=32)


@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=4, max_side=5), elements=floats))
def test_any_array_is_an_image_or_refused(block, array):
    try:
        (found,) = block["_speedtrap_to_images"]([array], 1)
    except SystemExit as error:
        assert error.code == verify.EXIT_BAD_OUTPUT  # noqa: PT017  (either way is right)
    else:
        assert sorted((*found.size, 3)) == sorted(array.shape)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"load_pipe": lambda: "loaded", "pipe": "global"}, "loaded"),
        ({"pipe": "global"}, "global"),
        ({"load_pipe": None, "pipe": "global"}, "global"),
        ({"load_pipe": 5, "pipe": "global"}, "global"),
    ],
)
def test_pipeline_comes_from_the_function_or_the_name(block, names, expected):
    assert block["_speedtrap_load"](names) == expected


@pytest.mark.parametrize("names", [{}, {"pipe": None}, {"load_pipe": 5}])
def test_nothing_to_call_is_refused(block, names, capsys):
    with pytest.raises(SystemExit) as caught:
        block["_speedtrap_load"](names)
    assert caught.value.code == verify.EXIT_NO_INTERFACE
    assert "define load_pipe()" in capsys.readouterr().err


def test_inference_is_the_candidates_or_the_pipelines_own(block):
    def pipe(prompts):
        return SimpleNamespace(images=[prompts, "pipe"])

    own = {"inference": lambda given, prompts: [given is pipe, prompts]}
    assert block["_speedtrap_infer"](own, pipe, ["a"]) == [True, ["a"]]
    assert block["_speedtrap_infer"]({}, pipe, ["a"]) == [["a"], "pipe"]


def test_main_seeds_times_scores_and_claims(block, capsys):
    drawn, scored = [], []

    def inference(_, prompts):
        numpy_drawn = np.random.rand()  # noqa: NPY002  (the generator that candidates draw from)
        drawn.append((random.random(), numpy_drawn, float(torch.rand(1))))
        return [RED] * len(prompts)

    def score(prompts, images):
        scored.append((prompts, len(images)))
        return {"warm": 1.0, "a": 60.0, "c": 90.0}[prompts[0]]

    batches = [(7, ["warm"]), (8, ["a", "b"]), (7, ["c"])]
    block["_speedtrap_main"]({"pipe": 1, "inference": inference}, iter(batches), score)
    assert scored == [(["warm"], 1), (["a", "b"], 2), (["c"], 1)]
    assert drawn[0] == drawn[2] != drawn[1]
    claim = verify.read_claim(capsys.readouterr().out)
    assert claim is not None
    assert claim.score == 70.0
    assert 0 <= claim.time_s < 5
