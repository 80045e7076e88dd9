import ast
import contextlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import shapes, verify, wire
from runner.assemble import Form, Values, assemble
from runner.records import Config, PlannedBatch, Purpose, Refused, Script, Source
from runner.wire import Channel, Image, Kind

PROMPTS = [
    "a cat",
    "a \"quoted\" 'dog'",
    "back\\slash \\n",
    "{braces} %s ${x}",
    "snow ☃ 雪 \u2028 é",
]
BATCHES = tuple(
    PlannedBatch(42 + number, (prompt,), Purpose.FIXED if number else Purpose.WARM_UP)
    for number, prompt in enumerate(PROMPTS)
)
CANDIDATE = "def load_pipe():\n    return 1\n"
NEWLINES = {"LF": "\n", "CRLF": "\r\n", "CR": "\r"}

FUTURES = {
    "plain": "from __future__ import annotations\n",
    "two names": "from __future__ import annotations, division\n",
    "parenthesised": "from __future__ import (annotations)\n",
    "over lines": "from __future__ import (\n    annotations,  # why\n    division,\n)\n",
    "comma and comment": "from __future__ import (annotations,  # why\n)  # end\n",
    "backslash": "from __future__ import \\\n    annotations\n",
    "split keyword": "from \\\n  __future__ \\\n  import annotations\n",
    "after docstring": '"""What it is."""\nfrom __future__ import annotations\n',
    "after long docstring": '"""What\n\nit is."""\n\n# c\nfrom __future__ import annotations\n',
    "on the docstring's line": '"""What é is."""; from __future__ import annotations\n',
    "before semicolon": "from __future__ import annotations; import os\n",
    "over lines, before semicolon": "from __future__ import (\n  annotations\n); import os\n",
    "after and before": '"doc"; from __future__ import (\n  annotations\n); import os\n',
    "three on a line": (
        "from __future__ import (\n  annotations\n); from __future__ import division; "
        "from __future__ import (\n  generators\n); x = 1\n"
    ),
    "several": "from __future__ import annotations\n\nfrom __future__ import division\n",
    "alias": "from __future__ import annotations as later\nlater.compiler_flag\n",
    "form feed": "\x0cfrom __future__ import annotations\n",
    "comment": "#!/usr/bin/env python\n# é\nfrom __future__ import annotations  # why\n",
    "no space after": "from __future__ import(annotations);import os\n",
}
"""Spellings of a `from __future__` import, each with text that can be followed by more."""

BODIES = {
    "plain": CANDIDATE,
    "no newline at the end": CANDIDATE.rstrip(),
    "spaces at the end": CANDIDATE + "    ",
    "comment at the end": CANDIDATE + "# end \\",
    "tabs": "def load_pipe():\n\tif True:\n\t\treturn 1\n",
    "form feed": "x = 1\n\x0c\ndef load_pipe():\n    return 1\n\x0c\n",
    "line separators": "x = '\u2028 \u2029 \x85 \x0b \x1c'\ndef load_pipe():\n    return 'ä雪'\n",
    "raw control characters": 'x = """\x0b\x0c\x1c\x1d\x1e\x85\u2028"""\npipe = 1\n',
    "long strings": "x = '''\n\n  a\n'''\npipe = '''b\n'''\n",
    "continuation": "pipe = 1 + \\\n  2\n",
    "docstring": '"""What it is."""\npipe = 1\n',
    "blank lines": "\n\n\npipe = 1\n\n\n",
    "non-ASCII names": "größe = 1\npipe = größe\n",
    "looks like a segment": "PROMPTS: list[str] = []\nSEED = 7\nMODELS = {}\npipe = 1\n",
}

SHADOWS = [
    "time = None",
    "import time",
    "class time: ...",
    "def get_dataset(): return ['x']",
    "BATCH_SIZE = FIRST_SEED = SEED = WARMUP_BATCHES = None",
    "PROMPTS = []",
    "CLIP_MODEL = CLIP_PRETRAINED = None",
    "def calculate_clip_score(*_): raise ValueError",
    "os = sys = random = np = torch = numpy = None",
    "Image = Sequence = Iterator = Any = Callable = None",
    "device = 'mine'",
    "number = seed = prompts = scores = total_s = namespace = batches = None",
    "__name__ = 'mine'",
    "wire = channel = None",
    "from __future__ import annotations",
    "if __name__ == '__main__': raise ValueError",
    "import dataclasses\n@dataclasses.dataclass\nclass A:\n    x: 'int' = 1",
]


def values(prompts=PROMPTS):
    batches = tuple(
        PlannedBatch(7 + n, (text,), Purpose.FIXED if n else Purpose.WARM_UP)
        for n, text in enumerate(prompts)
    )
    return Values(42, batches, "ViT-g-14", "laion", {"a/b": "/x y/'z'"})


def source(text):
    usage = shapes.usage(ast.parse(text))
    return Source(Path("mine.py"), text, "", (), Config(), usage)


def script(text, form=Form.WITNESSED, prompts=PROMPTS):
    made = assemble(source(text), form, values(prompts))
    assert isinstance(made, Script), made
    return made


def constant(text, name):
    for node in ast.parse(text).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=target)])
                | ast.AnnAssign(target=ast.Name(id=target))
            ) if target == name:
                return ast.literal_eval(node.value)
    raise KeyError(name)


def placed(text, line=lambda number: number):
    """Top-level statements with the lines on which they start and end."""
    return [
        (line(node.lineno), line(node.end_lineno), ast.dump(node))
        for node in ast.parse(text).body
        if line(node.lineno) is not None and not _is_future(node)
    ]


def _is_future(node):
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def shows_every_line(made, text):
    """The script holds the candidate's statements, each on the line that the map tells."""
    mapped = [one for one in placed(made.text, made.original_line) if one[2] != "Pass()"]
    return mapped == [one for one in placed(text) if one[2] != "Pass()"]


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("newline", NEWLINES.values(), ids=NEWLINES)
@pytest.mark.parametrize("text", BODIES.values(), ids=BODIES)
def test_candidate_is_in_the_script_byte_for_byte(text, newline, form):
    text = text.replace("\n", newline)
    made = script(text, form)
    assert made.text.encode().count(text.encode()) == 1
    assert shows_every_line(made, text)


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("newline", NEWLINES.values(), ids=NEWLINES)
@pytest.mark.parametrize("head", FUTURES.values(), ids=FUTURES)
def test_future_imports_are_hoisted_and_nothing_moves(head, newline, form):
    text = (head + "pipe = 1\nraise ValueError\n").replace("\n", newline)
    compile(text, "mine.py", "exec", dont_inherit=True)
    made = script(text, form)
    assert shows_every_line(made, text)
    assert made.text.startswith("from __future__ import ")
    code = compile(made.text, "tmp.py", "exec", dont_inherit=True)
    assert code.co_flags == compile(text, "mine.py", "exec", dont_inherit=True).co_flags


@pytest.mark.parametrize("head", ["", "from __future__ import annotations\n"])
@pytest.mark.parametrize("newline", NEWLINES.values(), ids=NEWLINES)
def test_all_but_the_future_import_stays_byte_for_byte(head, newline):
    rest = ("x = '\u2028\x0c'\n\tpass\n".replace("\tpass", "pipe = 1\t# é")).replace("\n", newline)
    assert rest in script(head.replace("\n", newline) + rest).text


def test_without_future_imports_nothing_is_hoisted():
    text = (
        "# from __future__ import annotations\nx = 'from __future__ import annotations'\npipe=1\n"
    )
    made = script(text)
    assert text in made.text
    assert not made.text.startswith("from")


@pytest.mark.parametrize("form", list(Form))
def test_five_segments_in_their_order(form):
    text = script(CANDIDATE, form).text
    places = [
        text.index(mark)
        for mark in (
            "Segment 1 of tmp.py",
            f"Segment 2 of tmp.py, {form}",
            CANDIDATE,
            f"Segment 4 of tmp.py, {form}",
            "Segment 5 of tmp.py",
        )
    ]
    assert places == sorted(places)


@pytest.mark.parametrize("form", list(Form))
def test_values_are_filled_in(form):
    text = script(CANDIDATE, form).text
    assert constant(text, "SEED") == 42
    assert constant(text, "WARMUP_BATCHES") == 1
    assert constant(text, "MODELS") == {"a/b": "/x y/'z'"}


def test_standalone_script_carries_prompts_and_clip_model():
    text = script(CANDIDATE, Form.STANDALONE).text
    assert constant(text, "PROMPTS") == PROMPTS
    assert constant(text, "FIRST_SEED") == 7
    assert constant(text, "BATCH_SIZE") == 1
    assert constant(text, "CLIP_MODEL") == "ViT-g-14"
    assert constant(text, "CLIP_PRETRAINED") == "laion"


def test_witnessed_script_carries_no_prompt():
    text = script(CANDIDATE, Form.WITNESSED).text
    assert not [prompt for prompt in PROMPTS if prompt in text or repr(prompt) in text]


@given(st.lists(st.text(st.characters(exclude_characters="\r\n"), max_size=40), min_size=2))
def test_any_prompt_survives(prompts):
    assert constant(script(CANDIDATE, Form.STANDALONE, prompts).text, "PROMPTS") == prompts


def test_lines_that_are_not_the_candidates_have_no_original():
    made = script("pipe = 1\nx = 2\n")
    last = made.first_line + made.line_count
    assert made.original_line(made.first_line - 1) is None
    assert made.original_line(made.first_line) == 1
    assert made.original_line(last - 1) == made.line_count
    assert made.original_line(last) is None
    assert made.text.split("\n")[made.first_line - 1] == "pipe = 1"


@pytest.mark.parametrize("newline", NEWLINES.values(), ids=NEWLINES)
@pytest.mark.parametrize("line", [1, 2, 7, 11])
@pytest.mark.parametrize("future", [False, True])
def test_error_at_a_line_is_found_at_that_line(newline, line, future, tmp_path, stub_libraries):
    lines = ["x = '\x0c \u2028 ä'", "pipe = 1", *["pass"] * 9]
    if future:
        lines[0] = "from __future__ import (annotations,"
        lines[1] = "  division); pipe = 1"
        line = max(line, 2)
    lines[line - 1] = "  division); 1 / 0" if (future and line == 2) else "pipe = 1; 1 / 0"
    made = script(newline.join(lines), Form.STANDALONE)
    stderr = run_file(made, tmp_path, stub_libraries).stderr
    (found,) = re.findall(r'tmp\.py", line (\d+)', stderr)
    assert made.original_line(int(found)) == line
    assert "ZeroDivisionError" in stderr


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("text", SHADOWS)
def test_candidates_that_use_our_names_assemble(text, form):
    text += "\npipe = 1\n"
    assert shows_every_line(script(text, form), text)


@pytest.mark.parametrize("text", SHADOWS)
def test_candidates_that_use_our_names_run_to_their_claim(text, tmp_path, stub_libraries):
    text += """
import PIL.Image as _pictures
def load_pipe(): return "mine"
def inference(pipe, prompts):
    assert pipe == "mine"
    return [_pictures.Image(1, 2, b"abcdef") for _ in prompts]
"""
    images, claim = converse(script(text), tmp_path, stub_libraries)
    assert images == [[Image(1, 2, b"abcdef")]] * len(PROMPTS)
    assert claim is not None
    assert claim.score == 50
    assert claim.time_s < 5


def test_candidate_does_not_run_what_it_keeps_for_main(tmp_path, stub_libraries):
    text = "if __name__ == '__main__':\n    1 / 0\nraise SystemExit(7)\n"
    ended = run_file(script(text, Form.STANDALONE), tmp_path, stub_libraries)
    assert ended.returncode == 7


def test_candidate_can_look_itself_up(tmp_path, stub_libraries):
    text = (
        "import dataclasses, pickle, sys, typing\n"
        "@dataclasses.dataclass\nclass A:\n    x: 'int'\n"
        "assert typing.get_type_hints(A) == {'x': int}\n"
        "assert pickle.loads(pickle.dumps(A(1))) == A(1)\n"
        "raise SystemExit(7)\n"
    )
    ended = run_file(script(text, Form.STANDALONE), tmp_path, stub_libraries)
    assert (ended.returncode, ended.stderr) == (7, "")


def test_what_does_not_fit_into_a_script_is_refused():
    made = assemble(source("global device\npipe = 1\n"), *_any())
    assert isinstance(made, Refused)
    assert "mine.py" in made.reason


@pytest.mark.parametrize("depth", range(500, 1000, 20))
def test_deep_expressions_fit_or_are_refused(depth):
    text = "pipe = " + "+".join(["1"] * depth) + "\n"
    assert isinstance(assemble(source(text), *_any()), Script | Refused)


def _any():
    return Form.WITNESSED, values()


statements = st.sampled_from(
    [
        "x = 1",
        "def f(a):\n    return a",
        "def load_pipe():\n\treturn 1",
        "if 1:\n  pass\nelse:\n  pass",
        "'''a\n\nb'''",
        "x = (1,\n  2)",
        "x = '\x0c\u2028é'",
        "# comment \x0c ☃",
        "x = 1; y = 2",
        "x = 1 + \\\n 2",
        "",
        "\x0c",
        "  # indented comment",
        "class A:\n    '''d'''\n\n    x: int = 1",
    ]
)


@given(
    st.sampled_from(["", *FUTURES.values()]),
    st.lists(statements, max_size=8),
    st.lists(st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\r\n\r"]), min_size=8, max_size=8),
    st.sampled_from(["", "\n", "\r", "\r\n", "\n\n \n"]),
    st.sampled_from(list(Form)),
)
def test_any_candidate_keeps_its_lines(head, parts, ends, last, form):
    body = "".join(part + end for part, end in zip(parts, ends, strict=False))
    text = head + body + "pipe = 1" + last
    compile(text, "mine.py", "exec", dont_inherit=True)
    made = script(text, form)
    assert shows_every_line(made, text)
    assert body + "pipe = 1" + last in made.text


def run_file(made, folder, stubs, channel_fd=None):
    path = folder / "tmp.py"
    path.write_text(made.text, encoding="utf-8", newline="")
    environment = {"PYTHONPATH": str(stubs)}
    if channel_fd is not None:
        environment["SPEEDTRAP_CHANNEL"] = str(channel_fd)
    return subprocess.run(
        [sys.executable, "-S", "-s", str(path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        pass_fds=() if channel_fd is None else (channel_fd,),
    )


def converse(made, folder, stubs):
    """Play the controller, with every answer sent ahead: images of each batch, and the claim."""
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    with contextlib.closing(channel):
        channel.send(Kind.GO)
        for batch in BATCHES:
            channel.send(Kind.BATCH, wire.pack_batch(batch.seed, batch.prompts))
            channel.send(Kind.SCORE, wire.pack_score(50.0))
        channel.send(Kind.END)
        ended = run_file(made, folder, stubs, theirs.fileno())
        os.close(theirs.detach())
        assert ended.stderr == ""
        images = []
        channel.receive({Kind.HELLO})
        for _ in BATCHES:
            channel.receive({Kind.READY})
            images.append(wire.unpack_images(channel.receive({Kind.IMAGES}).payload))
        channel.receive({Kind.READY})
    return images, verify.read_claim(ended.stdout)
