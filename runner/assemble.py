"""Stage 2: put the five segments together into `tmp.py`.

The candidate's text stands between the segments byte for byte (a byte order mark aside, which
Python allows only at the head of a file), so a line map is one subtraction. There is one
exception that Python forces: `from __future__ import ...` may stand only at the head of a file. It
is hoisted there, and `pass` takes its place, with as many lines as before.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from runner import paths, shapes
from runner.records import Config, Refused, Script, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.records import PlannedBatch, Source


NAMES: Final = {
    "LOADERS": shapes.LOADERS,
    "INFERENCE_NAMES": shapes.INFERENCE_NAMES,
    "OPTIMISERS": shapes.OPTIMISERS,
    "PIPE_NAMES": shapes.PIPE_NAMES,
    "MODEL_PARAMETERS": shapes.MODEL_PARAMETERS,
    "PROMPT_WORDS": shapes.PROMPT_WORDS,
    "LOAD_PARAMETERS": shapes.LOAD_PARAMETERS,
}
"""Constants of the exec block that list names."""
_BUILT_FROM: Final = {"pipeline_name", "model_id", "scheduler_name", "dtype"}


class Form(enum.StrEnum):
    """The two forms of the same script; only segments 2 and 4 differ."""

    STANDALONE = "standalone"
    WITNESSED = "witnessed"


@dataclass(frozen=True, slots=True)
class Values:
    """What is filled into the segments' constants.

    `models` maps names to folders that the script itself has to show; none inside a sandbox.
    `build` is the config of the pipeline that is asked for, the baseline's: by it one is built for
    a file that only changes a pipeline. None: not known. `deep` has the live reading carry
    settings and fingerprints of all weights. Another `steps_factor` than 1 changes the number of
    inference steps of every pipeline's call.
    """

    seed: int
    batches: Sequence[PlannedBatch]
    clip_model: str
    clip_pretrained: str | None
    models: Mapping[str, str] = field(default_factory=dict)
    build: Config | None = None
    deep: bool = False
    steps_factor: float = 1.0

    def constants(self) -> dict[str, object]:
        """Value of each constant by the name it has in the segments."""
        return {
            "MODELS": dict(self.models),
            "SEED": self.seed,
            "DEEP": self.deep,
            "STEPS_FACTOR": self.steps_factor,
            "FIRST_SEED": self.batches[0].seed if self.batches else self.seed,
            "BATCH_SIZE": len(self.batches[0].prompts) if self.batches else 1,
            "WARMUP_BATCHES": sum(not batch.timed for batch in self.batches),
            "PROMPTS": [prompt for batch in self.batches for prompt in batch.prompts],
            "CLIP_MODEL": self.clip_model,
            "CLIP_PRETRAINED": self.clip_pretrained,
            **NAMES,
        }


def assemble(source: Source, form: Form, values: Values) -> Script | Refused:
    """Assemble the script of one side; refused when it does not compile as a whole."""
    constants = values.constants() | loading(source, values.build)
    if form is Form.WITNESSED:
        constants |= {"PROMPTS": []}
    head = [_segment(name, constants) for name in ("imports", f"prompts_{form}")]
    steps = () if values.steps_factor == 1 else ("steps",)
    names = (f"clip_{form}", "live", *steps, "loading", "exec_block")
    tail = [_segment(name, constants) for name in names]
    future, own = _hoist_future(source.text)
    before = "".join([*future, *(text + "\n" for text in head)])
    own_lines = own if own.endswith(("\n", "\r")) else own + "\n"
    script = Script(
        text=before + own_lines + "\n" + "\n".join(tail),
        source=source.path,
        first_line=_count_lines(before) + 1,
        line_count=_count_lines(own_lines),
    )
    try:
        compile(script.text, "tmp.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        return Refused(Verdict.CRASHED, f"{source.path}: does not fit into a script: {error}")
    return script


def loading(source: Source, build: Config | None) -> dict[str, object]:
    """How this side's file is loaded and its pipeline called, for the constants of `loading`."""
    usage, config, asked = source.usage, source.config, build or Config()
    return {
        "LOADERS": usage.loaders,
        "LOADED": usage.loaded,
        "TAKES_ALL": usage.takes_all,
        "CLASS": dataclasses.asdict(usage.use_class) if usage.use_class else None,
        "APPLY_OPTIMISER": usage.apply_optimiser,
        "LOAD_ARGUMENTS": {
            "model_id": config.model_id or asked.model_id,
            "dtype": config.dtype or asked.dtype,
        },
        "CALL_METHOD": config.call_method,
        "CALL_ARGUMENTS": config.call_arguments,
        "BUILD": asked.model_dump(include=_BUILT_FROM) if build else None,
    }


def _segment(name: str, constants: Mapping[str, object]) -> str:
    """Text of a template with its top-level constants replaced by `constants`."""
    text = (paths.TEMPLATES / f"{name}.py").read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in reversed(ast.parse(text).body):
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=target)])
                | ast.AnnAssign(target=ast.Name(id=target))
            ) if target in constants:
                lines[node.lineno - 1 : node.end_lineno] = _assignment(target, constants[target])
    return "\n".join(lines) + "\n"


def _assignment(target: str, value: object) -> list[str]:
    if isinstance(value, list) and value:
        return [f"{target} = [", *(f"    {item!r}," for item in value), "]"]
    return [f"{target} = {value!r}"]


def _hoist_future(text: str) -> tuple[list[str], str]:
    """Split `from __future__` imports off: (lines for the head of the file, the remaining text)."""
    imports = [
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
    ]
    if not imports:
        return [], text
    lines = list(io.StringIO(text, newline=""))
    for node in reversed(imports):
        _blank(lines, node)
    return [ast.unparse(node) + "\n" for node in imports], "".join(lines)


def _blank(lines: list[str], node: ast.ImportFrom) -> None:
    """Put `pass` in the place of a statement; ast counts columns in UTF-8 bytes."""
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    start, end = node.col_offset, node.end_col_offset or 0
    before, after = lines[first].encode()[:start], lines[last].encode()[end:]
    if first == last:
        lines[first] = before.decode() + "pass" + after.decode()
        return
    lines[first : last + 1] = [
        *(before.decode() + "\n", *["\n"] * (last - first - 1)),
        "pass" + after.decode(),
    ]


def _count_lines(text: str) -> int:
    """Lines as Python's parser counts them: LF, CR LF and CR end a line, nothing else does."""
    return text.replace("\r\n", "\n").replace("\r", "\n").count("\n")
