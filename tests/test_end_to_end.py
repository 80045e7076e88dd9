"""The real command on honest, broken and hostile files: real sandbox, real scorer, real clock.

What each specimen is, and what is expected of it, stands in its header. The default set holds one
specimen for each way through the code; `-m slow` adds the rest.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from e2e import (
    EXAMPLES,
    HAS_EMBEDDED_MODEL,
    MEASURED,
    SPECIMENS,
    Session,
    Specimen,
    make_stand_in,
    model_flags,
    planned,
    read_specimen,
    shown_of,
    specimens,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e import Run

pytestmark = pytest.mark.timeout(1200)  # the host's one CPU slot may have to be waited for

BASELINE = EXAMPLES / "base.py"
LANES = {"default": [], "slow": [pytest.mark.slow], "gpu": [pytest.mark.gpu]}
MOST_BUSY_S = 150.0
"""A run takes 10 to 25 s on two idle cores; a timeout of 10 s inside it included."""
AUDIT = ("--audit-batches", "1", "--audit-seed", "1")
"""Of the runs here: quick, and with the same prompts each time."""
BY_DEFAULT = 9
"""As many audit batches as there are fixed ones."""
NUMBERS = (
    "speedup",
    "credited_speedup",
    "accuracy",
    "quality_loss",
    "speed_achievement",
    "accuracy_achievement",
)


@pytest.fixture(scope="session")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What makes the command run on the tests' model; the one place that chooses it."""
    return model_flags(make_stand_in(tmp_path_factory.mktemp("model")))


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path)


@pytest.fixture
def speedtrap(session: Session, flags: list[str]) -> Callable[..., Run]:
    def run(candidate: Path, *more: str | Path, baseline: Path = BASELINE) -> Run:
        return session.finish(
            session.start(candidate, "--baseline", baseline, "--json", *flags, *AUDIT, *more)
        )

    return run


def assert_nothing_left(run: Run) -> None:
    assert run.processes_left == []
    assert run.files_left == []


def as_parameters() -> list[object]:
    return [pytest.param(one, id=one.path.stem, marks=LANES[one.lane]) for one in specimens()]


@pytest.mark.parametrize("specimen", as_parameters())
def test_verdict_of_specimen(specimen: Specimen, speedtrap: Callable[..., Run], quick: Path):
    # What is always refused is so beside any baseline.
    baseline = BASELINE if specimen.verdicts & {*MEASURED, "inconclusive"} else quick
    # A single audit batch is too little to tell answers that were prepared or kept.
    audit = ("--audit-batches", "3") if specimen.family == "C" else ()
    run = speedtrap(specimen.path, *audit, *specimen.flags, baseline=baseline)
    result = run.result
    has_loss = result["loss"] is not None
    assert specimen.expects(result["verdict"], has_loss=has_loss), result["reason"]
    assert_nothing_left(run)
    assert run.busy_s < MOST_BUSY_S
    assert run.status == (0 if result["verdict"] == "ok" else 1)
    assert result["passed"] is (result["verdict"] == "ok")
    assert specimen.reason in result["reason"]
    assert len(result["circumstances"]["attempts"]) <= 1
    if has_loss:
        assert_measured(result)
    elif result["verdict"] != "inconclusive":
        assert all(result[name] is None for name in (*NUMBERS, "loss"))
    if specimen.phase is not None:
        assert_failure(result, specimen)


def assert_measured(result: dict) -> None:
    assert 0 <= result["loss"] <= 1
    assert result["failure"] is None
    assert_batches(result)
    assert result["isolation"]["network"] is False
    assert result["isolation"]["host_files"] is False


def assert_batches(result: dict) -> None:
    """Hold the batches of both sides, and the claim, against what was planned."""
    for side in ("baseline", "candidate"):
        batches = result[side]["batches"]
        audit = sum(batch["purpose"] == "audit" for batch in batches)
        assert audit >= 1
        mixed = sorted(batch["purpose"] for batch in batches[1 : 4 + audit])
        assert mixed == ["audit"] * audit + ["fixed"] * 3
        rest = ["repeat", *(["other seed"] * audit if side == "baseline" else [])]
        once = planned(batches)
        assert [batch["purpose"] for batch in once[4 + audit :]] == rest
        assert len(batches) - len(once) <= (audit if side == "baseline" else 0)
        assert batches[0]["purpose"] == "warm-up"
        assert {len(batch["scores"]) for batch in batches} == {5}
        counted = [batch for batch in batches if batch["counts"]]
        assert [batch["purpose"] for batch in counted] == ["audit"] * audit
        assert result[side]["time_s"] == pytest.approx(sum(one["time_s"] for one in counted))
        assert all(len(one["other_seed"]) == 5 for one in counted)
    timed = [one for one in result["candidate"]["batches"] if one["phase"] == "timed"]
    assert all(len(one["same_seed"]) == 5 for one in timed)
    scores = [score for one in timed for score in one["scores"]]
    assert result["claim"]["score"] == pytest.approx(sum(scores) / len(scores), abs=1e-3)
    assert result["audit"]["suspicion"] is None
    if HAS_EMBEDDED_MODEL:
        assert result["fidelity"]["images"] == sum(len(one["same_seed"]) for one in counted)


def assert_failure(result: dict, specimen: Specimen) -> None:
    failure = result["failure"]
    assert failure["file"] == str(specimen.path)
    if specimen.has_certain_line:
        assert failure["line"] == specimen.line
    assert failure["phase"] == specimen.phase
    line = "" if failure["line"] is None else f"{failure['line']}:"
    assert result["reason"] == f"{specimen.path}:{line} {failure['message']}"
    assert "tmp.py" not in result["reason"]


@pytest.mark.parametrize(
    "specimen", [one for one in specimens() if one.line is not None], ids=lambda one: one.path.stem
)
def test_header_names_the_marked_line(specimen: Specimen):
    lines = specimen.path.read_text(encoding="utf-8").splitlines()
    marked = [number for number, line in enumerate(lines, start=1) if "# fails here" in line]
    assert marked == [specimen.line]


def test_sandboxed_candidate_finds_nothing_of_the_host(
    speedtrap: Callable[..., Run], quick: Path, tmp_path: Path
):
    run = speedtrap(SPECIMENS / "probe_host.py", "--keep", tmp_path / "kept", baseline=quick)
    assert run.result["loss"] is not None
    stderr = (tmp_path / "kept" / "candidate" / "stderr.txt").read_text(encoding="utf-8")
    (line,) = re.findall(r"^PROBE (.*)$", stderr, re.MULTILINE)
    found = json.loads(line)
    assert found["root"].startswith("denied: ") or found["root"] == repr(shown_of("/root"))
    assert found["work"].startswith("denied: ") or found["work"] == repr(shown_of("/work"))
    for name in ("shadow", "loopback", "script"):
        assert found[name].startswith("denied: "), (name, found[name])
    assert found["parent_environment"] == "''"
    assert found["interpreter"] == "denied: OSError"
    assert found["passwd"].splitlines() == [
        "candidate:x:65534:65534:candidate:/home/candidate:/bin/sh"
    ]
    assert found["homes"] == "['candidate']"
    assert found["uid"] == 65534
    assert found["interfaces"] == ["lo"]
    assert "sesame" not in stderr
    assert not {"SPEEDTRAP_TEST_SECRET", "SPEEDTRAP_CHANNEL"} & set(found["environment"])
    assert found["weights"] >= 3
    assert set(found["poison"]) | set(found["replace"]) == {"denied: OSError"}
    assert sorted(found["processes"].values()) == ["bwrap", "python"]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The baseline in a fifth of its steps."""
    file = tmp_path_factory.mktemp("quick") / "base.py"
    file.write_text(BASELINE.read_text("utf-8").replace("STEPS = 25", "STEPS = 5"), "utf-8")
    return file


@pytest.fixture(scope="module")
def kept(
    tmp_path_factory: pytest.TempPathFactory, quick: Path, flags: list[str]
) -> tuple[Run, Path]:
    folder = tmp_path_factory.mktemp("kept")
    session = Session(folder)
    arguments = ("--baseline", quick, "--json", "--keep", folder / "run", *flags)  # no AUDIT
    return session.finish(session.start(quick, *arguments)), folder / "run"


class TestKeptRun:
    """One run with `--keep`, looked at from several sides."""

    def test_json_is_all_that_stdout_holds(self, kept: tuple[Run, Path]):
        run, _ = kept
        value, end = json.JSONDecoder().raw_decode(run.stdout)
        assert run.stdout[end:] == "\n"
        assert value["schema_version"] == "1.3"
        assert_measured(value)
        assert_nothing_left(run)

    def test_a_file_against_itself_is_as_fast_and_as_good(self, kept: tuple[Run, Path]):
        result = kept[0].result
        assert result["speedup"] == pytest.approx(1.0, abs=0.35)
        assert result["accuracy"] == pytest.approx(1.0, abs=1e-6)
        assert result["quality_loss"] == pytest.approx(0.0, abs=1e-6)
        assert result["quality_loss_ci"] == pytest.approx([0.0, 0.0], abs=1e-6)
        low, high = result["speedup_ci"]
        assert low <= result["speedup"] <= high
        assert result["confidence"] == 0.95
        assert result["fidelity"]["psnr_db"]["seen"] == 100
        assert result["fidelity"]["tied"] is True

    def test_there_are_three_audit_batches_for_each_fixed_one(self, kept: tuple[Run, Path]):
        result = kept[0].result
        assert sum(one["counts"] for one in result["candidate"]["batches"]) == BY_DEFAULT
        assert result["audit"]["prompts"] == "tiny grammar"
        assert 0 <= result["audit"]["seed"] < 2**53
        assert not any("audit" in text for text in result["circumstances"]["warnings"])

    def test_result_json_is_what_was_printed(self, kept: tuple[Run, Path]):
        run, folder = kept
        assert json.loads((folder / "result.json").read_text(encoding="utf-8")) == run.result

    @pytest.mark.parametrize("role", ["baseline", "candidate"])
    def test_each_side_has_its_script_logs_and_images(
        self, kept: tuple[Run, Path], quick: Path, role: str
    ):
        folder = kept[1] / role
        assert sorted(path.name for path in folder.iterdir()) == [
            *("images", "stderr.txt", "stdout.txt", "tmp.py")
        ]
        images = sorted(path.name for path in (folder / "images").iterdir())
        assert images == [
            f"batch-{batch:03d}-image-{number:02d}.png"
            for batch in range(len(kept[0].result[role]["batches"]))
            for number in range(5)
        ]
        assert all(is_png(folder / "images" / name) for name in images)
        assert quick.read_text(encoding="utf-8") in (folder / "tmp.py").read_text("utf-8")
        last = (folder / "stdout.txt").read_text(encoding="utf-8").splitlines()[-1]
        assert re.fullmatch(r"\d+\.\d{6},\d+\.\d{6}", last)

    def test_both_sides_made_the_same_images(self, kept: tuple[Run, Path]):
        for path in (kept[1] / "candidate" / "images").iterdir():
            twin = kept[1] / "baseline" / "images" / path.name
            assert path.read_bytes() == twin.read_bytes()

    def test_standalone_script_agrees_with_the_witness(
        self, kept: tuple[Run, Path], quick: Path, session: Session, flags: list[str]
    ):
        script = session.folder / "tmp.py"
        emitted = session.finish(session.start(quick, "--emit", script, *flags))
        assert emitted.status == 0
        assert emitted.stdout == ""
        run = subprocess.run(
            [sys.executable, script],
            cwd=session.folder,
            env=session.environment() | {"CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr[-2000:]
        time_s, score = map(float, run.stdout.splitlines()[-1].split(","))
        batches = kept[0].result["candidate"]["batches"]
        public = [one for one in batches if one["purpose"] == "fixed"]
        scores = [score for one in public for score in one["scores"]]
        assert score == pytest.approx(sum(scores) / len(scores), abs=1e-3)
        assert 0.4 < time_s / sum(one["time_s"] for one in public) < 2.5
        assert session.files() == []


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG\r\n")


@pytest.mark.slow
def test_run_without_isolation_says_so(speedtrap: Callable[..., Run]):
    run = speedtrap(BASELINE, "--sandbox", "none")
    assert_nothing_left(run)
    result = run.result
    assert result["loss"] is not None
    assert result["isolation"] == {
        "backend": "none",
        "version": None,
        "network": True,
        "host_files": True,
        "namespaces": [],
        "seccomp": False,
        "gaps": [],
    }
    assert any("without isolation" in text for text in result["circumstances"]["warnings"])


@pytest.mark.slow
def test_an_audit_seed_repeats_the_prompts_and_the_order(
    kept: tuple[Run, Path], quick: Path, session: Session, flags: list[str]
):
    """The images of a few steps differ from those of a kept run, the plan does not."""
    first = kept[0].result
    seed = str(first["audit"]["seed"])
    arguments = ("--baseline", quick, "--json", "--audit-seed", seed, *flags)
    again = session.finish(session.start(SPECIMENS / "honest_few_steps.py", *arguments)).result
    for side in ("baseline", "candidate"):
        one, other = (
            [(batch["purpose"], batch["seed"]) for batch in planned(result[side]["batches"])]
            for result in (first, again)
        )
        assert one == other
    assert [one["scores"] for one in planned(again["baseline"]["batches"])] == [
        one["scores"] for one in planned(first["baseline"]["batches"])
    ]
    assert any("audit seed was given" in text for text in again["circumstances"]["warnings"])


@pytest.mark.slow
def test_without_audit_batches_the_numbers_stand_on_public_prompts(speedtrap: Callable[..., Run]):
    result = speedtrap(BASELINE, "--audit-batches", "0").result
    purposes = [one["purpose"] for one in result["candidate"]["batches"]]
    assert purposes == ["warm-up", "fixed", "fixed", "fixed"]
    assert result["audit"] is None
    assert result["fidelity"]["images"] == 15
    assert any("without audit batches" in text for text in result["circumstances"]["warnings"])


@pytest.mark.skipif(not HAS_EMBEDDED_MODEL, reason="needs the trained model of models/")
def test_deepcache_example_keeps_its_quality(speedtrap: Callable[..., Run]):
    result = speedtrap(EXAMPLES / "deepcache.py").result
    assert result["quality_loss"] < 0.02
    assert result["fidelity"]["tied"] is True
    assert result["speedup"] > 1.1


@pytest.mark.parametrize(
    ("number", "status"),
    [
        pytest.param(signal.SIGINT, 130, id="ctrl-c"),
        pytest.param(signal.SIGTERM, 130, id="sigterm", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, id="sigkill"),
    ],
)
def test_signal_to_the_controller_ends_everything(
    session: Session, flags: list[str], number: int, status: int
):
    candidate = SPECIMENS / "endless_load.py"
    process = session.start(candidate, "--baseline", BASELINE, "--json", *flags)
    assert process.stderr is not None
    for line in process.stderr:
        if "loading the candidate" in line:
            break
    time.sleep(0.5)
    running = "\n".join(session.processes())
    assert running.count("bwrap (") >= 2, running
    assert running.count("python (mountinfo)") >= 1, running
    process.send_signal(number)
    run = session.finish(process)
    assert run.status == status
    assert run.stdout == ""
    assert run.processes_left == []
    if number != signal.SIGKILL:
        assert run.files_left == []
        assert "interrupted; everything that was started has been ended" in run.stderr


class TestRefusedBeforeAnythingStarts:
    """We failed: exit status 2, a message that says what to do, nothing on stdout."""

    @pytest.fixture
    def fails(self, session: Session) -> Callable[..., str]:
        def run(*arguments: str | Path) -> str:
            start_s = time.monotonic()
            ended = session.finish(session.start(*arguments))
            assert ended.status == 2, ended.stderr
            assert ended.stdout == ""
            assert "Traceback" not in ended.stderr
            assert "starting" not in ended.stderr
            assert_nothing_left(ended)
            assert time.monotonic() - start_s < 30
            return ended.stderr

        return run

    def test_without_candidate(self, fails: Callable[..., str]):
        assert "name the candidate" in fails()

    def test_without_baseline(self, fails: Callable[..., str], tmp_path: Path):
        nameless = tmp_path / "nameless.py"
        nameless.write_text("def apply_optimizations(pipe):\n    return pipe\n")
        assert "name one with --baseline" in fails(nameless)

    def test_baseline_that_is_not_there(self, fails: Callable[..., str], tmp_path: Path):
        message = fails(BASELINE, "--baseline", tmp_path / "nowhere.py")
        assert f"the baseline cannot be used: {tmp_path}/nowhere.py: No such file" in message

    def test_baseline_that_is_no_python(self, fails: Callable[..., str]):
        message = fails(BASELINE, "--baseline", SPECIMENS / "syntax_error.py")
        assert "the baseline cannot be used" in message
        assert "syntax error" in message

    @pytest.mark.parametrize(
        ("flag", "value", "says"),
        [
            ("--no-such-flag", "1", "No such option"),
            ("--timeout", "soon", "not a valid float"),
            ("--timeout", "0", "the timeout must be above 0"),
            ("--target-speedup", "-1", "the target speedup must be above 0"),
            ("--target-quality-loss", "7", "the target quality loss must be in 0 to 1"),
            ("--seed", "-1", "the seed must be in"),
            ("--batch-size", "0", "the batch size must be 1 to 64"),
            ("--preset", "grand", "choose one of embedded, natural"),
            ("--prompts", "nobody-has-this", "no prompt set 'nobody-has-this'"),
            ("--clip", "ViT", "cannot read the CLIP model 'ViT'"),
            ("--sandbox", "maybe", "'maybe' is not one of"),
            ("--device", "tpu", "cannot read the device 'tpu'"),
            ("--memory", "-1", "the memory limit must be above 0"),
            ("--memory", "nan", "the memory limit must be above 0"),
            ("--allow-read", "/nowhere", "/nowhere is not a folder"),
            ("--audit-batches", "-1", "the number of audit batches must be 0 to 1000"),
            ("--audit-seed", "-1", "the audit seed must be in"),
            ("--audit-prompts", "/nowhere", "cannot read the audit prompts /nowhere"),
            ("--stand-in", "no-equals-sign", "write NAME=OTHER"),
            ("--stand-in", "a/b=/nowhere", "neither a cached model nor a folder"),
            ("--stand-in", "../evil=/tmp", "is no model name"),
        ],
    )
    def test_flag(
        self, fails: Callable[..., str], tmp_path: Path, flag: str, value: str, says: str
    ):
        stand_in = ("--stand-in", f"speedtrap/tiny-sd={tmp_path}")
        message = fails(BASELINE, "--baseline", BASELINE, "--json", *stand_in, flag, value)
        assert says in " ".join(message.split())

    def test_keep_in_a_folder_in_use(self, fails: Callable[..., str], tmp_path: Path):
        (tmp_path / "kept").mkdir()
        (tmp_path / "kept" / "thesis.txt").write_text("unsaved")
        stand_in = ("--stand-in", f"speedtrap/tiny-sd={tmp_path}")
        message = fails(BASELINE, "--baseline", BASELINE, "--keep", tmp_path / "kept", *stand_in)
        assert "is not empty; --keep takes a new folder" in message
        assert (tmp_path / "kept" / "thesis.txt").read_text() == "unsaved"

    def test_keep_where_nothing_can_be_made(self, fails: Callable[..., str], tmp_path: Path):
        stand_in = ("--stand-in", f"speedtrap/tiny-sd={tmp_path}")
        message = fails(BASELINE, "--baseline", BASELINE, "--keep", "/proc/kept", *stand_in)
        assert "cannot use /proc/kept" in message

    def test_keep_in_a_file(self, fails: Callable[..., str], tmp_path: Path):
        (tmp_path / "file").write_text("")
        message = fails(BASELINE, "--baseline", BASELINE, "--keep", tmp_path / "file")
        assert "--keep takes a folder" in message

    def test_model_that_is_not_in_the_cache(self, fails: Callable[..., str], tmp_path: Path):
        baseline = tmp_path / "base.py"
        baseline.write_text(BASELINE.read_text().replace("speedtrap/tiny-sd", "acme/huge-model"))
        message = fails(BASELINE, "--baseline", baseline)
        assert "the baseline cannot be used: model 'acme/huge-model' is not in the" in message
        assert "`hf download acme/huge-model`" in message
        assert "--stand-in acme/huge-model=OTHER" in message


def test_candidate_whose_model_is_not_in_the_cache_is_told_so(
    speedtrap: Callable[..., Run], tmp_path: Path
):
    candidate = tmp_path / "candidate.py"
    candidate.write_text(BASELINE.read_text().replace("speedtrap/tiny-sd", "acme/huge-model"))
    run = speedtrap(candidate)
    assert run.status == 1
    assert run.result["verdict"] == "crashed"
    assert run.result["loss"] is None
    assert "model 'acme/huge-model' is not in the model cache" in run.result["reason"]
    assert run.busy_s < 5
    assert_nothing_left(run)


def test_baseline_that_fails_is_our_failure(session: Session, flags: list[str]):
    baseline = SPECIMENS / "raise_at_import.py"
    line = read_specimen(baseline).line
    run = session.finish(
        session.start(BASELINE, "--baseline", baseline, "--preset", "embedded", *flags)
    )
    assert run.status == 2
    assert run.stdout == ""
    assert f"speedtrap: the baseline failed: {baseline}:{line}: ModuleNotFoundError" in run.stderr
    assert_nothing_left(run)


def test_what_looks_for_leftovers_finds_one(session: Session):
    sleeper = subprocess.Popen(["/usr/bin/sleep", "60"], env=session.environment())
    try:
        assert session.processes() == [f"{sleeper.pid} sleep (environ)"]
    finally:
        sleeper.kill()
        sleeper.wait()
    assert session.processes() == []
