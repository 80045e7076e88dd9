"""Say to the author of a candidate, often an LLM, what to change: short, and nothing else.

Verdict, the candidate's own file and line, the end of the traceback without Speedtrap's frames,
the fields that differ from the ground truth, methods that took no effect, and one remedy.

It is plain text, harmless in a terminal and in a log, and nothing in it that the candidate wrote
looks like a line of ours. It is not HTML: a page that shows it has to escape it. A model that reads
it reads the candidate's words in it, which may be instructions: they are in the lines `file`,
`reason`, `no effect`, `changed` and in the indented traceback.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from runner.plain import one_line, printable
from runner.records import Outcome, Verdict, said

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.records import ConfigMatch, Failure, Refused, Result

MAX_CHARS: Final = 2000
TRACEBACK_LINES: Final = 12

_MAX_LINE_CHARS: Final = 300
_MAX_SENTENCES: Final = 4
_FRAME: Final = re.compile(r'^ {2}File "(?P<file>[^"\n]*)", line \d+')
_OUR_FILES: Final = re.compile(
    r"(?:^|/)(?:tmp\.py|speedtrap_wire\.py)$|^<frozen (?:runpy|importlib\.)|(?:^|/)runpy\.py$"
)
_OUR_MESSAGES: Final = "speedtrap: "
_OUR_MODULE: Final = "speedtrap_candidate."
_PACKAGES: Final = re.compile(r'(File ")[^"\n]*/(?:site|dist)-packages/')
_DEFINE: Final = (
    "Define load_pipe(), which returns the pipeline, and inference(pipe, prompts), which returns"
    " a list with one PIL image per prompt."
)
_SAVED: Final = "The sandbox has no network and only the models of the caller's cache."

_CRASHES: Final = (
    # What reading the file finds.
    (
        (
            r"^No such file|^[Ii]s a directory|^is not a regular file|^Permission denied"
            r"|^Not a directory|^File name too long|^Too many levels|^embedded null byte"
        ),
        "Nothing to change in the candidate: the caller named no file that can be read.",
    ),
    (r"null bytes", "Save it as plain text in UTF-8, without NUL bytes."),
    (r"^syntax error", "Return plain Python source only: no Markdown fences, no prose."),
    (r"^is empty", _DEFINE),
    (r"cannot be decoded", "Save it as UTF-8."),
    (r"is larger than|to parse; write|cannot be parsed", "Write a short, plain program."),
    (
        r"outside of `if __name__",
        (
            "Move the loading out of the main guard into load_pipe(), and the generation into"
            " inference(pipe, prompts)."
        ),
    ),
    (r"^requires|\(\) requires", "Give every other parameter a default."),
    (r"defines no|takes no prompts|nothing to call", _DEFINE),
    # What loading it finds.
    (
        r"^reads its command line",
        "Do not parse the command line, or give each argument a default and require none.",
    ),
    (r"\(\) returned None; return the pipeline", "End load_pipe() with `return pipe`."),
    (
        r"takes a pipeline and nothing makes one",
        "Define load_pipe() without parameters; it makes the pipeline and returns it.",
    ),
    # What the libraries raise.
    (
        (
            r"not in the model cache|is not a local folder|couldn't connect"
            r"|could not connect|offline mode|LocalEntryNotFound|ConnectionError|Cannot find the"
            r" requested files|no file named"
        ),
        "Name a model that is in the cache, without a variant or revision that is not. " + _SAVED,
    ),
    (
        r"No module named|ModuleNotFoundError",
        (
            "Use installed packages only: torch, diffusers, transformers, accelerate, DeepCache,"
            " tomesd."
        ),
    ),
    (
        r"RecursionError",
        "Enable and patch each method once: enabling DeepCache twice calls itself without end.",
    ),
    (r"^ImportError", "Import only names that the installed version has."),
    (
        (
            r"DeepCacheSDHelper|'(?:NoneType|dict)' object has no attribute 'cache|function_dict"
            r"|set_params"
        ),
        "DeepCache: call helper.set_params(...) first, then helper.enable(), each once.",
    ),
    (
        r"Tgate\w*Loader|\.tgate",
        (
            "T-GATE: wrap the pipeline with the loader of its family and generate through"
            " pipe.tgate(...)."
        ),
    ),
    (r"tomesd|merge_attn", "tomesd: only UNet pipelines (SD, SDXL); patch once."),
    (
        r"no attribute '(?:enable|disable)_(?:vae_)?(?:slicing|tiling)'",
        "Call pipe.vae.enable_slicing() or pipe.vae.enable_tiling() instead.",
    ),
    (r"enable_cache|CacheMixin|CacheConfig", "Built-in caches exist on transformers only."),
    (r"xformers", "xformers is not there; leave attention to PyTorch."),
    (
        r"riton|torch\._dynamo|torch\._inductor|BackendCompilerFailed|InductorError|C\+\+ compiler",
        "Leave torch.compile out, or compile one module with a mode that works here.",
    ),
    (
        r"Expected all tensors to be on the same device|on different devices",
        "Move the whole pipeline to one device, and make generators and tensors there.",
    ),
    (
        (
            r"not implemented for 'Half'|expected scalar type|must have the same dtype"
            r"|should be the same"
        ),
        "Use one dtype for the whole pipeline, and float32 where there is no GPU.",
    ),
    (
        (
            r"CUDA is not available|No CUDA|not compiled with CUDA|Found no NVIDIA|invalid device"
            r" ordinal"
        ),
        (
            'Choose the device with "cuda" if torch.cuda.is_available() else "cpu"; never an index'
            " above 0."
        ),
    ),
    (r"unexpected keyword argument", "Pass only arguments that this pipeline's call takes."),
    (r"missing \d+ required", "Call it with all it requires; give own parameters defaults."),
    (r"FileNotFoundError|No such file", "Read no files of your own. " + _SAVED),
    (
        r"Read-only file system|PermissionError",
        "Write only below the working folder or the temporary folder.",
    ),
    (
        r"Network is unreachable|Name or service|Temporary failure in name resolution",
        _SAVED,
    ),
    (r"^NameError|^UnboundLocalError", "Import or define that name before it is used."),
    (
        r"exited with status|SystemExit",
        "Do not exit, and do not parse the command line: define functions that return.",
    ),
    (r"was ended by SIG", "A native library crashed: leave out the last method added."),
)
"""Pattern of a crash's message, with what to do."""

REMEDIES: Final = (
    *((Verdict.CRASHED, pattern, sentence) for pattern, sentence in _CRASHES),
    (
        Verdict.CONFIG_MISMATCH,
        r"",
        "Build exactly the pipeline that is asked for: change the fields above and nothing else.",
    ),
    (
        Verdict.BAD_OUTPUT,
        r"images? for \d+ prompts?|images for",
        "Return exactly one image per prompt, in the order of the prompts.",
    ),
    (
        Verdict.BAD_OUTPUT,
        r"images again for other prompts",
        "Make an image of its own for each prompt and each call.",
    ),
    (
        Verdict.BAD_OUTPUT,
        r"",
        "Return pipe(prompts).images: RGB PIL images, all of the size that the baseline has.",
    ),
    (
        Verdict.TIMEOUT,
        r"",
        "Load once, in load_pipe(); avoid long compilation, benchmarks and loops in the file.",
    ),
    (
        Verdict.OOM,
        r"",
        (
            "Use less memory: half precision, one pipeline only, enable_model_cpu_offload(), or"
            " smaller batches inside inference."
        ),
    ),
    (
        Verdict.TAMPERED,
        r"",
        (
            "Leave clocks, scores and the protocol alone, print nothing after the end, and really"
            " generate each image when inference is called."
        ),
    ),
    (Verdict.POLICY, r"", "Print less, write less and start fewer processes."),
    (
        Verdict.QUALITY_THRESHOLD_EXCEEDED,
        r"nothing like the baseline's|less like the baseline's",
        "Make the images with the baseline's pipeline, for these prompts and this seed.",
    ),
    (
        Verdict.QUALITY_THRESHOLD_EXCEEDED,
        r"",
        "Accelerate less: a smaller cache interval or merge ratio, or more steps.",
    ),
    (
        Verdict.SPEEDUP_TARGET_NOT_MET,
        r"of their seed than",
        (
            "Draw noise as the baseline does (global generator, one draw for the batch), and"
            " change fewer images: only those that follow from the seed are credited."
        ),
    ),
    (
        Verdict.SPEEDUP_TARGET_NOT_MET,
        r"",
        "Accelerate more, and check that each method takes effect on this pipeline.",
    ),
    (
        Verdict.INCONCLUSIVE,
        r"nothing shows that they come from the pipeline",
        (
            "Draw noise as the baseline does: no generator of your own, one draw for the batch, a"
            " sampler that adds none (no ancestral, SDE or LCM)."
        ),
    ),
    (
        Verdict.INCONCLUSIVE,
        r"running pipelines differ",
        "Build exactly the pipeline that the text says: steps, guidance, scheduler, model, dtype.",
    ),
    (
        Verdict.INCONCLUSIVE,
        r"made from the candidate's text failed",
        "Call the pipeline with arguments that it takes, or have a baseline named.",
    ),
    (
        Verdict.INCONCLUSIVE,
        r"cannot tell yet",
        (
            "Too few images to decide. Be clearly faster, lose clearly less quality, or have more"
            " images measured (--until-decided)."
        ),
    ),
    (
        Verdict.INCONCLUSIVE,
        r"CLIP score of 0",
        "Nothing to change in the candidate: the baseline's images have no score.",
    ),
    (
        Verdict.INCONCLUSIVE,
        r"",
        "Nothing to change in the candidate: have it measured again as the reason says.",
    ),
    (
        Verdict.CRASHED,
        r"",
        "Make the file run from the top to the end in a fresh process.",
    ),
)
"""Verdict and pattern of its message, with what to do; the first that fits counts."""


def for_result(result: Result) -> str:
    """What helps the author of the candidate, out of a whole result."""
    failure = result.failure
    message = failure.message if failure else result.reason
    doubts = (*result.no_ops, *result.contradictions)
    match = result.config_match
    has_fields = match is not None and bool(match.mismatches)  # the reason would repeat them
    return _join(
        [
            f"verdict: {result.verdict}{' (passed)' if result.passed else ''}",
            *_where(failure),
            *([f"reason: {message}"] if message and not has_fields else []),
            *_fields(result.config_match),
            *_numbers(result),
            *(f"no effect: {one}" for one in result.no_ops[:_MAX_SENTENCES]),
            *(f"changed: {one}" for one in result.contradictions[:_MAX_SENTENCES]),
        ],
        _traceback(failure),
        remedy(result.verdict, message) if not result.passed or doubts else None,
    )


def for_refusal(refused: Refused) -> str:
    """What helps the author of a file that cannot be read, or that defines nothing to call."""
    failure = refused.failure
    message = failure.message if failure else refused.reason
    lines = [f"verdict: {refused.verdict}", *_where(failure), f"reason: {message}"]
    return _join(lines, _traceback(failure), remedy(refused.verdict, message))


def for_match(match: ConfigMatch, differences: Sequence[str] = ()) -> str:
    """What helps the author of a file that was compared with a ground truth.

    `differences` are those of the live pipelines.
    """
    seen = [f"loaded pipeline: {one}" for one in differences[:_MAX_SENTENCES]]
    verdict = Verdict.CONFIG_MISMATCH
    if match.mismatches or differences:
        return _join([f"verdict: {verdict}", *_fields(match), *seen], [], remedy(verdict, ""))
    if match.matched:
        return f"verdict: {Verdict.OK}"
    advice = "Write the fields above as constants, so that they can be read from the text."
    return _join(["verdict: unknown", *_fields(match)], [], advice)


def remedy(verdict: Verdict, message: str) -> str | None:
    """The one sentence that says what to do about a failure; None for a success."""
    if verdict is Verdict.OK:
        return None
    for wanted, pattern, sentence in REMEDIES:
        if wanted is verdict and re.search(pattern, message):
            return sentence
    return None


def own_traceback(text: str) -> list[str]:
    """The last lines of a traceback, less Speedtrap's own frames and messages; none without one."""
    kept: list[str] = []
    is_ours = False
    for line in text.splitlines():
        if frame := _FRAME.match(line):
            is_ours = _OUR_FILES.search(frame["file"]) is not None
        elif not line.startswith("    "):
            is_ours = line.startswith(_OUR_MESSAGES)
        if not is_ours and line.strip():
            kept.append(_PACKAGES.sub(r"\1", line).replace(_OUR_MODULE, "")[:_MAX_LINE_CHARS])
    starts = [place for place, line in enumerate(kept) if line.startswith("Traceback (")]
    return kept[starts[0] :][-TRACEBACK_LINES:] if starts else []


def _traceback(failure: Failure | None) -> list[str]:
    """Indented: a message of several lines must not look like lines of ours."""
    lines = own_traceback(failure.traceback) if failure is not None else []
    return ["traceback:", *(f"  {line}" for line in lines)] if lines else []


def _where(failure: Failure | None) -> Iterator[str]:
    if failure is not None:
        yield f"file: {failure.file}" + (f", line {failure.line}" if failure.line else "")


def _fields(match: ConfigMatch | None) -> Iterator[str]:
    for one in match.fields if match is not None else ():
        if one.match is Outcome.NO:
            yield f"{one.field}: is {said(one.candidate)}, asked for is {said(one.ground_truth)}"
        elif one.match is Outcome.UNKNOWN:
            yield f"{one.field}: not known, asked for is {said(one.ground_truth)}"


def _numbers(result: Result) -> Iterator[str]:
    if result.speedup is not None:
        credited = result.credited_speedup
        less = "" if credited in {None, result.speedup} else f" (credited: {credited:.2f}x)"
        yield f"speedup: {result.speedup:.2f}x{less}, target {result.target_speedup:g}x"
    if result.quality_loss is not None:
        yield f"quality loss: {result.quality_loss:.2%}, target {result.target_quality_loss:.2%}"


def _join(lines: list[str], traceback: list[str], advice: str | None) -> str:
    """All of it within `MAX_CHARS`: head and remedy are kept, the traceback gives way first.

    What the candidate wrote stays in its line: a name with line ends would make lines like ours.
    """
    head = [_head(line) for line in lines]
    tail = [f"fix: {advice}"] if advice else []
    room = MAX_CHARS - sum(len(line) + 1 for line in tail)
    while head and sum(len(line) + 1 for line in head) > room:
        head.pop()
    room -= sum(len(line) + 1 for line in head)
    while traceback and sum(len(line) + 1 for line in traceback) > room:
        traceback = [traceback[0], *traceback[2:]] if len(traceback) > 2 else []  # noqa: PLR2004
    return "\n".join([*head, *map(printable, traceback), *tail])


def _head(line: str) -> str:
    words = " ".join(one_line(line.replace(_OUR_MODULE, "")).split())
    return words if len(words) <= _MAX_LINE_CHARS else words[: _MAX_LINE_CHARS - 3] + "..."
