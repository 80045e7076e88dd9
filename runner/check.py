"""Stage 1: read a candidate file. The text is parsed with `ast` and never executed."""

from __future__ import annotations

import ast
import codecs
import hashlib
import io
import tokenize
import warnings
from typing import TYPE_CHECKING

from runner.records import Failure, Refused, Source, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_SOURCE_BYTES = 1024 * 1024
"""Larger than any program that a person or an LLM writes by hand, small enough to parse at once."""

_SLOW_CODECS = frozenset({"punycode", "idna"})
"""They take time in the square of the length: minutes for a file that is allowed."""
_PIPELINE_NAMES = frozenset({"load_pipe", "pipe"})
_DYNAMIC_NAMES = frozenset({"globals", "exec", "eval", "setattr", "vars", "__import__"})


def read(path: Path) -> Source | Refused:
    """Read and parse the file at `path`: its source, or the verdict that it cannot be run."""
    try:
        data = _read_bytes(path)
        text = _decode(data)
        tree = _parse(text, path)
    except _UnusableError as error:
        reason = f"{path}: {error.message}"
        line = error.line
        return Refused(
            Verdict.CRASHED,
            reason if line is None else f"{path}:{line}: {error.message}",
            Failure(file=str(path), line=line, phase="check", message=error.message, traceback=""),
        )
    return Source(
        path=path,
        text=text,
        digest=hashlib.sha256(data).hexdigest(),
        models=tuple(dict.fromkeys(_models(tree))),
    )


class _UnusableError(Exception):
    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        message = "is a directory; name a Python file"
        raise _UnusableError(message)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SOURCE_BYTES + 1)
    except OSError as error:
        raise _UnusableError(error.strerror or str(error)) from error
    if len(data) > MAX_SOURCE_BYTES:
        message = f"is larger than {MAX_SOURCE_BYTES} bytes"
        raise _UnusableError(message)
    if not data.strip():
        message = "is empty; define load_pipe() and inference(pipe, prompts)"
        raise _UnusableError(message)
    return data


def _decode(data: bytes) -> str:
    try:
        return data.decode(_encoding(data)).removeprefix("\N{BYTE ORDER MARK}")
    except (SyntaxError, UnicodeError, LookupError) as error:
        message = f"cannot be decoded: {error}; save it as UTF-8"
        raise _UnusableError(message) from error


def _encoding(data: bytes) -> str:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    if codecs.lookup(encoding).name in _SLOW_CODECS:
        message = f"no program is written in {encoding}"
        raise LookupError(message)
    return encoding


def _parse(text: str, path: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the candidate's style is its own affair
            tree = ast.parse(text, filename=str(path))
            compile(text, str(path), "exec", dont_inherit=True)  # finds a stray `return`
    except SyntaxError as error:
        message = f"syntax error: {error.msg}"
        raise _UnusableError(message, error.lineno) from error
    except (ValueError, RecursionError, MemoryError) as error:
        message = f"cannot be parsed: {str(error) or type(error).__name__}"
        raise _UnusableError(message) from error
    if not _may_define_pipeline(tree):
        message = (
            "defines no pipeline; define load_pipe() that returns it and"
            " inference(pipe, prompts) that returns one image per prompt"
        )
        raise _UnusableError(message)
    return tree


def _may_define_pipeline(tree: ast.Module) -> bool:
    """Whether any statement could bind one of the names that the exec block looks for."""
    return any(name in _PIPELINE_NAMES | _DYNAMIC_NAMES for name in _mentioned(tree))


def _mentioned(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.AsyncFunctionDef(name=name) | ast.MatchAs(name=str(name)):
                yield name
            case ast.alias(name=name, asname=alias):
                yield "exec" if name == "*" else (alias or name)


def _models(tree: ast.Module) -> Iterator[str]:
    """Model names that `from_pretrained` certainly receives, as far as the text tells.

    Calls behind a condition or a `try` may never run or may be allowed to fail: not counted.
    """
    constants = _constants(tree)
    for node in _unconditional(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="from_pretrained"), args=[first, *_]):
                pass
            case _:
                continue
        match first:
            case ast.Constant(value=str(name)):
                yield name
            case ast.Name(id=name) if name in constants:
                yield constants[name]


def _constants(tree: ast.Module) -> dict[str, str]:
    """Names that are bound exactly once in the file, to a string, at module level."""
    bound = [
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    bound += [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]
    found = {}
    for statement in tree.body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(value)))
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=str(value)))
            ) if bound.count(name) == 1:
                found[name] = value
    return found


def _unconditional(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes in the order of the text; with a stack of its own, since trees may be deep."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, ast.If | ast.IfExp | ast.Try | ast.TryStar | ast.Match):
            yield node
            waiting.extend(reversed(list(ast.iter_child_nodes(node))))
