import ast
import builtins
import dis
import io
import random
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageFile

from runner import assemble, paths, verify, wire

SEGMENTS = sorted(paths.TEMPLATES.glob("*.py"))
RED = np.zeros((4, 6, 3), np.uint8)
RED[..., 0] = 200
RED[1, 2] = (10, 20, 30)


def tree(name):
    return ast.parse((paths.TEMPLATES / f"{name}.py").read_text(encoding="utf-8"))


def without_calls(name):
    """A segment less what it does by itself."""
    module = tree(name)
    module.body = [node for node in module.body if not isinstance(node, ast.Expr)]
    return module


@pytest.fixture(scope="module")
def block():
    space = {"__name__": "tmp"}
    for name in ("loading", "exec_block"):
        exec(compile(without_calls(name), f"{name}.py", "exec"), space)
    return space


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
    assert names == {"imports", "live", "steps", "loading", "exec_block", *either}


def test_numbers_are_those_of_the_controller(block):
    assert block["EXIT_BAD_OUTPUT"] == verify.EXIT_BAD_OUTPUT
    assert block["EXIT_NO_INTERFACE"] == verify.EXIT_NO_INTERFACE
    assert block["MAX_SIDE_PX"] == wire.MAX_SIDE_PX


def test_functions_stand_apart_with_every_name_that_they_use(block):
    """Nothing of theirs is looked up among the candidate's globals."""
    apart = ast.parse((paths.TEMPLATES / "exec_block.py").read_text(encoding="utf-8")).body[-1]
    (call,) = [node for node in ast.walk(apart) if is_call_of(node, "_speedtrap_apart")]
    given = {node.arg for node in ast.walk(call) if isinstance(node, ast.keyword)}
    given |= {node.id for node in ast.walk(call) if isinstance(node, ast.Name)}
    given |= set(block["_speedtrap_loading_names"])
    functions = {
        name: one
        for name, one in block.items()
        if name.startswith("_speedtrap_") and hasattr(one, "__code__")
    }
    given |= {one.__name__ for one in block["_speedtrap_loading_functions"]}
    for function in functions.values():
        assert function.__defaults__ is function.__kwdefaults__ is None
        for name in global_names(function.__code__) - set(dir(builtins)):
            assert name in given, f"{function.__name__} uses {name}"


def is_call_of(node, name):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def global_names(code):
    found = {one.argval for one in dis.get_instructions(code) if one.opname == "LOAD_GLOBAL"}
    nested = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    return found.union(*map(global_names, nested))


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
    [((4, 4, 6), "4x4x6"), ((4, 6, 2), "4x6x2"), ((2, 4, 6, 3), "2x4x6x3"), ((), ""), ((4,), "4")],
)
def test_other_shapes_are_refused(refused, shape, told):
    expected = f"image 1 has shape {told}; expected height x width x 3"
    assert refused([np.zeros(shape)] * 2, 2) == expected
    assert refused([torch.zeros(shape)] * 2, 2) == expected


GREY = RED[..., 0]


@pytest.mark.parametrize(
    "image",
    [
        GREY,
        GREY[..., None],
        GREY[None],
        GREY[None, ..., None],
        torch.tensor(GREY / 255),
        torch.tensor(GREY)[None],
        torch.tensor(GREY)[None, None],
        Image.fromarray(GREY),
        np.dstack([GREY, GREY, GREY, np.full_like(GREY, 7)]),
    ],
)
def test_grey_and_transparent_images_become_rgb(pixels, image):
    assert np.array_equal(pixels(image), np.dstack([GREY] * 3))


@pytest.mark.parametrize("wrap", [lambda one: one, torch.tensor, Image.fromarray])
def test_one_image_for_one_prompt_needs_no_list(block, wrap):
    for output in (
        wrap(RED),
        [[wrap(RED)]],
        (wrap(RED), "cat.png", 1.5),
        ([wrap(RED)], None),
        SimpleNamespace(images=[wrap(RED)]),
        [SimpleNamespace(images=[wrap(RED)])],
        {"images": [wrap(RED)], "seconds": 2},
        {"image": wrap(RED)},
    ):
        (found,) = block["_speedtrap_to_images"](output, 1)
        assert np.array_equal(np.asarray(found), RED)


def test_what_comes_beside_the_images_is_left(block):
    pictures = [Image.fromarray(RED), Image.fromarray(RED[::-1])]
    batch = torch.tensor(np.array([RED, RED[::-1]]))
    for output in (
        (pictures, [False, False]),
        (pictures, 3.2),
        (batch, None),
        tuple(pictures),
        [pictures],
        [[one] for one in pictures],
        [batch],
        ([[one] for one in pictures], {"seconds": 1}),
        SimpleNamespace(images=batch.permute(0, 3, 1, 2)),
    ):
        found = block["_speedtrap_to_images"](output, 2)
        assert [np.asarray(one).tolist() for one in found] == [RED.tolist(), RED[::-1].tolist()]


def test_one_image_is_not_split_into_its_channels(refused):
    assert refused(torch.zeros(3, 4, 6), 3) == "inference returned 1 images for 3 prompts"


@pytest.mark.parametrize("kind", [str, Path])
def test_files_that_were_written_here_are_read(block, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(RED).save("cat.png")
    for output in ([kind("cat.png")], [kind(tmp_path / "cat.png")]):
        (found,) = block["_speedtrap_to_images"](output, 1)
        assert np.array_equal(np.asarray(found), RED)


def test_files_elsewhere_are_refused(refused, tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    Image.fromarray(RED).save(tmp_path / "secret.png")
    monkeypatch.chdir(tmp_path / "own")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "own"))
    (tmp_path / "own" / "link.png").symlink_to("../secret.png")
    for name in (str(tmp_path / "secret.png"), "../secret.png", "link.png", "none.png"):
        assert refused([name]).startswith("image 1 is a str, and no file that was written here")


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 4, 3), (4, 0, 3), (3, 0, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_empty_images_are_refused(refused, shape, dtype):
    assert "image 1 has" in refused([np.zeros(shape, dtype)])


@pytest.mark.parametrize("image", [b"", 1, [[[1, 2, 3]]], io.BytesIO(), {}])
def test_other_kinds_of_image_are_refused(refused, image):
    expected = f"image 2 is a {type(image).__name__}; return PIL images, arrays or tensors"
    assert refused([RED, image], 2).replace("a int", "a list") == expected.replace(
        "a int", "a list"
    )


def test_missing_image_is_refused(refused):
    assert refused([RED, None], 2) == "image 2 is None; return PIL images, arrays or tensors"


@pytest.mark.parametrize("output", [None, 5, {"pictures": 1}, b"", object()])
def test_other_kinds_of_output_are_refused(refused, output):
    kind = "None" if output is None else f"a {type(output).__name__}"
    assert refused(output) == f"inference returned {kind}; return a list with one image per prompt"


floats = st.floats(allow_nan=True, allow_infinity=True, width=32)


@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=4, max_side=5), elements=floats))
def test_any_array_is_an_image_or_refused(block, array):
    try:
        (found,) = block["_speedtrap_to_images"]([array], 1)
    except SystemExit as error:
        assert error.code == verify.EXIT_BAD_OUTPUT  # noqa: PT017  (either way is right)
    else:
        assert {*found.size} <= {*array.shape, 1}


def test_main_seeds_times_scores_and_claims(block, capsys):
    drawn, scored, watched = [], [], []

    def inference(_, prompts):
        numpy_drawn = np.random.rand()  # noqa: NPY002  (the generator that candidates draw from)
        drawn.append((random.random(), numpy_drawn, float(torch.rand(1))))
        return [RED] * len(prompts)

    def score(prompts, images):
        scored.append((prompts, len(images)))
        return {"warm": 1.0, "a": 60.0, "c": 90.0}[prompts[0]]

    batches = [(7, ["warm"]), (8, ["a", "b"]), (7, ["c"])]
    block["_speedtrap_main"](
        {"pipe": 1, "inference": inference},
        iter(batches),
        score,
        lambda *what: watched.append(what),
        lambda: watched.append("reported"),
    )
    assert watched == [(None, "pipe"), "reported"]
    assert scored == [(["warm"], 1), (["a", "b"], 2), (["c"], 1)]
    assert drawn[0] == drawn[2] != drawn[1]
    claim = verify.read_claim(capsys.readouterr().out)
    assert claim is not None
    assert claim.score == 70.0
    assert 0 <= claim.time_s < 5


def test_witnessed_sends_the_pixels_and_leaves_pillow_as_it_was():
    sent = {}

    class Controller:
        def send_images(self, sizes, pixels):
            sent.update(sizes=sizes, pixels=list(pixels))

        def receive(self, expected):
            assert expected == {wire.Kind.SCORE}
            return wire.Frame(wire.Kind.SCORE, bytearray(wire.pack_score(3.5)))

    space = {"_speedtrap_wire": wire, "_speedtrap_channel": Controller()}
    exec(compile(tree("clip_witnessed"), "clip.py", "exec"), space)
    arrays_of = [RED, np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)]
    usual_bytes = ImageFile.MAXBLOCK
    score = space["calculate_clip_score"](["a", "b"], [Image.fromarray(each) for each in arrays_of])
    assert score == 3.5
    assert sent == {"sizes": [(6, 4), (400, 300)], "pixels": [each.tobytes() for each in arrays_of]}
    assert usual_bytes == ImageFile.MAXBLOCK


def test_standalone_scores_alike_whatever_is_hidden():
    """The segment stands after the candidate, whose `from torch import *` hides builtins."""
    hidden = dict.fromkeys(set(dir(builtins)) - {"__import__", "__build_class__"})
    space = {"__builtins__": builtins, **hidden, "__name__": "tmp"}
    text = (paths.TEMPLATES / "clip_standalone.py").read_text(encoding="utf-8")
    exec(compile(text, "clip.py", "exec"), space)

    class Model:
        encode_image = staticmethod(lambda pixels: pixels)
        encode_text = staticmethod(lambda tokens: tokens)

    directions = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    space["load_clip"] = lambda _: (
        Model,
        lambda image: directions[image],
        lambda prompts: torch.tensor([[2.0, 0.0]] * len(prompts)),
    )
    scores = space["calculate_clip_scores"](("a", "b", "c"), [0, 1, 2])
    assert scores == pytest.approx([100.0, 60.0, 0.0])
    assert space["calculate_clip_score"](["a", "b", "c"], [0, 1, 2]) == pytest.approx(160 / 3)
