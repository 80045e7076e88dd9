import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import loss, verify
from runner.records import (
    Audit,
    Batch,
    Claim,
    Ending,
    Fidelity,
    Floor,
    Measured,
    Part,
    Phase,
    Purpose,
    Role,
    Script,
    Side,
    Verdict,
    WorkerLostError,
)
from runner.verify import Evidence, Targets

SCRIPT = Script(text="", source=Path("mine.py"), first_line=101, line_count=50)
TARGETS = Targets(speedup=1.5, quality_loss=0.25)


def explained(
    stderr="", returncode=1, phase=Phase.LOAD, *, stdout="", card_was_full=False, **breach
):
    ending = Ending(returncode=returncode, stdout=stdout, stderr=stderr, **breach)
    lost = WorkerLostError(Role.CANDIDATE, phase, ending)
    return verify.explain(lost, SCRIPT, card_was_full=card_was_full)


def judged(measured, **changes):
    """The judgement where every image of the candidate's counts as it was scored."""
    scores = [score for batch in measured.candidate.counted for score in batch.scores]
    return verify.judge(Evidence(**({"measured": measured, "scores": scores} | changes)), TARGETS)


def frame(line, file="/speedtrap/tmp.py", name="f"):
    return f'  File "{file}", line {line}, in {name}\n    x\n'


def traceback(last, *frames):
    return "Traceback (most recent call last):\n" + "".join(frames) + last + "\n"


ORDINARY = traceback("ValueError: no", frame(180), frame(103), frame(9, "/usr/lib/torch/x.py"))


def test_traceback_is_told_in_the_candidates_own_lines():
    found = explained("noise\n" + ORDINARY, phase=Phase.WARMUP)
    assert found.verdict is Verdict.CRASHED
    assert found.reason == "mine.py:3: ValueError: no"
    failure = found.failure
    assert (failure.file, failure.line, failure.phase) == ("mine.py", 3, "warm-up")
    assert failure.message == "ValueError: no"
    assert 'File "mine.py", line 3, in f' in failure.traceback
    assert 'File "/speedtrap/tmp.py", line 180' in failure.traceback


@pytest.mark.parametrize(
    ("line", "expected"), [(100, None), (101, 1), (150, 50), (151, None), (1, None), (0, None)]
)
def test_only_the_candidates_lines_are_mapped(line, expected):
    assert explained(traceback("ValueError: no", frame(line))).failure.line == expected


def test_innermost_own_frame_is_named():
    stderr = traceback("E: x", frame(110), frame(105), frame(120), frame(160), frame(3, "x.py"))
    assert explained(stderr).failure.line == 20


@pytest.mark.parametrize(
    "last",
    [
        "ValueError",
        "ValueError: no",
        "Exception: no",
        "Exception",
        "torch.cuda.CudaError: no",
        "my.own.Error: no",
        "KeyboardInterrupt",
        "UserWarning: as an error",
        "ValueError: unicode ☃ 雪",
        "StopIteration",
        "subprocess.TimeoutExpired: Command 'x' timed out",
    ],
)
def test_exception_is_the_message(last):
    assert explained(traceback(last, frame(102))).failure.message == last


def test_message_over_lines_is_its_first_line():
    stderr = traceback("RuntimeError: Error(s) in loading\n\tMissing key(s)\n\n  more", frame(101))
    assert explained(stderr).failure.message == "RuntimeError: Error(s) in loading"


def test_noise_after_the_traceback_is_passed_over():
    stderr = ORDINARY + "Exception ignored in: <function f at 0x1>\nErrors: 0\nTerminated\n"
    assert explained(stderr).failure.message == "ValueError: no"


def test_chained_exceptions_are_told_by_the_last():
    stderr = (
        traceback("KeyError: 'a'", frame(110))
        + "\nDuring handling of the above exception, another exception occurred:\n\n"
        + traceback("ValueError: b", frame(170), frame(120))
        + "\nThe above exception was the direct cause of the following exception:\n\n"
        + traceback("RuntimeError: c", frame(130))
    )
    found = explained(stderr)
    assert (found.failure.line, found.failure.message) == (30, "RuntimeError: c")


def test_syntax_error_at_runtime():
    stderr = traceback(
        '  File "<string>", line 1\n    x = = 1\n        ^\nSyntaxError: invalid syntax',
        frame(104, name="<module>"),
    )
    found = explained(stderr)
    assert (found.failure.line, found.failure.message) == (4, "SyntaxError: invalid syntax")


def test_real_traceback_of_this_python(tmp_path):
    path = tmp_path / "tmp.py"
    lines = ["pass"] * 100 + ["def f():", "    raise Exception('no')", "try:", "    f()"]
    lines += ["except Exception as error:", "    raise RuntimeError('yes') from error"]
    path.write_text("\n".join(lines))
    command = [sys.executable, "-I", "-S", str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    found = explained(run.stderr, run.returncode)
    assert found.reason == "mine.py:6: RuntimeError: yes"
    assert 'File "mine.py", line 2, in f' in found.failure.traceback


def test_real_dump_of_the_fault_handler(tmp_path):
    path = tmp_path / "tmp.py"
    lines = ["import faulthandler, sys, os", *["pass"] * 99]
    lines += ["def f():", "    faulthandler.dump_traceback(sys.stderr)", "", "f()", "os._exit(134)"]
    path.write_text("\n".join(lines))
    command = [sys.executable, "-I", "-S", str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    found = explained(run.stderr, run.returncode, Phase.TIMED)
    assert found.reason == "mine.py:2: was ended by SIGABRT in the timed phase"


def test_fault_dump_is_read_from_its_top():
    stderr = (
        "Fatal Python error: Segmentation fault\n\n"
        'Thread 0x01 (most recent call first):\n  File "/speedtrap/tmp.py", line 140 in other\n\n'
        'Current thread 0x02 (most recent call first):\n  File "/usr/lib/x.py", line 3 in g\n'
        '  File "/speedtrap/tmp.py", line 111 in f\n'
        '  File "/speedtrap/tmp.py", line 120 in <module>\n'
        "\nExtension modules: numpy (total: 1)\n"
    )
    found = explained(stderr, 128 + signal.SIGSEGV, Phase.TIMED)
    assert found.verdict is Verdict.CRASHED
    assert found.reason == "mine.py:11: was ended by SIGSEGV in the timed phase"


@pytest.mark.parametrize(
    ("number", "verdict", "text"),
    [
        (signal.SIGSEGV, Verdict.CRASHED, "was ended by SIGSEGV in the load phase"),
        (signal.SIGABRT, Verdict.CRASHED, "was ended by SIGABRT in the load phase"),
        (signal.SIGXFSZ, Verdict.CRASHED, "was ended by SIGXFSZ in the load phase"),
        (72, Verdict.CRASHED, "was ended by signal 72 in the load phase"),
        (signal.SIGKILL, Verdict.CRASHED, "(by itself, or by the kernel for lack of memory)"),
    ],
)
def test_ends_by_a_signal(number, verdict, text):
    found = explained(returncode=128 + number)
    assert found.verdict is verdict
    assert text in found.failure.message
    assert found.failure.line is None


CUDA_OOM = [
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
    "torch.cuda.OutOfMemoryError: CUDA out of memory.",
    "RuntimeError: CUDA error: out of memory",
    "torch.AcceleratorError: CUDA error: out of memory",
    "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
]


@pytest.mark.parametrize("last", CUDA_OOM)
def test_out_of_memory_is_believed_where_the_card_was_seen_full(last):
    found = explained(traceback(last, frame(101)), card_was_full=True)
    assert found.verdict is Verdict.OOM
    assert found.failure.message == last


@pytest.mark.parametrize("last", CUDA_OOM)
def test_out_of_memory_that_nobody_saw_is_a_crash(last):
    found = explained(traceback(last, frame(101)))
    assert found.verdict is Verdict.CRASHED
    assert found.failure.message == f"{last} (the card was not seen full)"


@pytest.mark.parametrize("last", ["MemoryError", "MemoryError: Unable to allocate", "E: no"])
@pytest.mark.parametrize("card_was_full", [True, False])
def test_what_says_nothing_of_the_card_is_no_out_of_memory(last, card_was_full):
    found = explained(traceback(last, frame(101)), card_was_full=card_was_full)
    assert found.verdict is Verdict.CRASHED


def test_a_limit_of_host_memory_is_out_of_memory_whatever_was_printed():
    found = explained("", 137, breach=Verdict.OOM, breach_reason="used 9.0 GiB of host memory")
    assert found.verdict is Verdict.OOM


@pytest.mark.parametrize(
    "stderr",
    [
        "CUDA out of memory\n" + ORDINARY,
        traceback("MyMemoryErrors: x", frame(101)) + ORDINARY,
        "warning: CUDA error: out of memory, trying again\n",
    ],
)
def test_out_of_memory_that_was_not_the_end(stderr):
    assert explained(stderr, card_was_full=True).verdict is Verdict.CRASHED


@pytest.mark.parametrize(
    ("returncode", "verdict"),
    [
        (verify.EXIT_BAD_OUTPUT, Verdict.BAD_OUTPUT),
        (verify.EXIT_NO_INTERFACE, Verdict.CRASHED),
    ],
)
def test_refusals_of_the_exec_block(returncode, verdict):
    found = explained("noise\nspeedtrap: image 1 is a str\n", returncode)
    assert found.verdict is verdict
    assert found.failure.message == "image 1 is a str"


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        (
            "candidate.py: error: the following arguments are required: --model\n",
            "the following arguments are required: --model",
        ),
        ("Usage: candidate.py [OPTIONS]\n\nError: Missing option '--model'.\n", "Missing option"),
    ],
)
def test_missing_command_line_says_to_give_defaults(stderr, message):
    found = explained(stderr, verify.EXIT_USAGE, Phase.LOAD)
    assert found.verdict is Verdict.CRASHED
    assert "reads its command line, and there is none: " + message in found.reason
    assert found.reason.endswith("; give defaults")
    assert "exited with status 2" in explained("", verify.EXIT_USAGE).reason


@pytest.mark.parametrize("returncode", [64, 65])
def test_exit_status_of_the_exec_block_without_its_message(returncode):
    found = explained("", returncode)
    assert found.verdict is Verdict.CRASHED
    assert found.failure.message == f"exited with status {returncode}"


def test_early_clean_exit_is_a_crash():
    found = explained("", 0, Phase.WARMUP)
    assert found.verdict is Verdict.CRASHED
    assert "exited with status 0 in the warm-up phase, before it was done" in found.reason


@pytest.mark.parametrize("phase", [Phase.LOAD, Phase.WARMUP, Phase.TIMED, Phase.EXIT])
def test_early_clean_exit_with_a_result_is_tampering(phase):
    found = explained("", 0, phase, stdout="chatter\n0.000100,99.000000\nbye\n")
    assert found.verdict is Verdict.TAMPERED
    assert found.failure.message == (
        f"exited with status 0 in the {phase} phase, before it was done,"
        " and claims 0.000100,99.000000"
    )


def test_a_result_does_not_hide_an_exception():
    found = explained(ORDINARY, 1, stdout="0.000100,99.000000\n")
    assert found.verdict is Verdict.CRASHED
    assert found.failure.message == "ValueError: no"


def test_breach_is_the_verdict_whatever_was_printed():
    stderr = traceback("torch.OutOfMemoryError: CUDA out of memory", frame(105))
    found = explained(stderr, 137, breach=Verdict.TIMEOUT, breach_reason="took longer than 5 s")
    assert found.verdict is Verdict.TIMEOUT
    assert found.reason == "mine.py:5: took longer than 5 s"


@pytest.mark.parametrize(
    "forged",
    [
        'File "tmp.py", line ' + "9" * 6000,
        'File "tmp.py", line 99999999999999999999',
        'File "tmp.py", line -5',
        'File "' * 5000,
        "A" * 300_000,
        "a." * 100_000 + "Error",
        "speedtrap: " + "x" * 100_000,
        "\x1b[31m\x00\u202e",
        "(most recent call first)",
        'File "/usr/lib/not_tmp.py", line 104, in f',
    ],
)
def test_forged_output_is_no_more_than_text(forged):
    found = explained(forged)
    assert found.verdict is Verdict.CRASHED
    assert found.failure.line is None
    assert len(found.failure.message) <= 500
    assert len(found.failure.traceback) <= verify.TRACEBACK_CHARS


def test_a_forged_frame_moves_the_line_only():
    found = explained(ORDINARY + frame(149))
    assert found.verdict is Verdict.CRASHED
    assert found.failure.line == 49


@given(st.text(max_size=300), st.integers(0, 255), st.sampled_from(list(Phase)), st.booleans())
def test_any_ending_is_explained(stderr, returncode, phase, card_was_full):
    found = explained(stderr, returncode, phase, stdout=stderr, card_was_full=card_was_full)
    assert found.reason.startswith("mine.py")
    assert found.verdict in {Verdict.CRASHED, Verdict.OOM, Verdict.BAD_OUTPUT, Verdict.TAMPERED}
    assert card_was_full or found.verdict is not Verdict.OOM


@given(st.integers(0, 999_999_999_999), st.integers(0, 100_000_000))
def test_claim_of_the_exec_block_is_read(micros, score):
    time_s, score = micros / 1e6, score / 1e6
    found = verify.read_claim(f"chatter\n1,2\n{time_s:.6f},{score:.6f}\n\n")
    assert found == Claim(time_s=float(f"{time_s:.6f}"), score=float(f"{score:.6f}"))


@pytest.mark.parametrize(
    "stdout",
    [
        "",
        "\n\n",
        "1,2",
        "1.0,2.0",
        "nan,nan",
        "inf,90.000000",
        "1.000000,80.000000,1",
        "1.000000,80.000000\nbye",
        "-1.000000,80.000000",
        "1e3,80.000000",
        "1.000000;80.000000",
        "x1.000000,80.000000",
        "1.0000000,80.000000",
        "9" * 400 + ".000000,80.000000",
        "1.000000,80.000000\x00",
    ],
)
def test_anything_else_is_no_claim(stdout):
    assert verify.read_claim(stdout) is None


@given(st.text(max_size=60))
def test_any_stdout_is_a_claim_or_none(stdout):
    assert isinstance(verify.read_claim(stdout), Claim | None)


@pytest.mark.parametrize(
    ("time_s", "score", "problem"),
    [
        (2.0, 80.0, None),
        (2.0 - 0.899, 80.0, None),
        (2.0 + 0.899, 80.0, None),
        (2.0 - 0.901, 80.0, "claims 1.099 s, the witness saw 2.000 s"),
        (2.0 + 0.901, 80.0, "claims 2.901 s, the witness saw 2.000 s"),
        (0.0, 80.0, "claims 0.000 s"),
        (2.0, 80.0009, None),
        (2.0, 79.9991, None),
        (2.0, 80.0011, "claims a CLIP score of 80.001, the witness saw 80.000"),
        (2.0, 100.0, "claims a CLIP score of 100.000"),
    ],
)
def test_claims_are_held_against_the_witness(measured, time_s, score, problem):
    found = verify.tampering(Claim(time_s=time_s, score=score), measured())
    assert (found is None) == (problem is None)
    assert found is None or problem in found


def test_tolerance_counts_timed_batches_only(side, measured):
    tolerance_s = verify.CLAIM_TIME_SHARE * 2.0 + verify.CLAIM_TIME_S_PER_BATCH * 5
    assert len(side().batches) == 6
    assert verify.tampering(Claim(time_s=2 + tolerance_s + 0.01, score=80.0), measured())
    assert not verify.tampering(Claim(time_s=2 + tolerance_s - 0.01, score=80.0), measured())


TRUE_CLAIM = "2.000000,80.000000\n"


@pytest.mark.parametrize(
    ("stdout", "reason"),
    [
        (
            "0.100000,99.000000\n" + TRUE_CLAIM,
            "printed 2 result lines: 0.100000,99.000000, 2.000000,80.000000",
        ),
        (TRUE_CLAIM * 2, "printed 2 result lines: 2.000000,80.000000, 2.000000,80.000000"),
        (
            "1.000000,1.000000\n" * 9 + TRUE_CLAIM,
            "printed 10 result lines: 1.000000,1.000000, 1.000000,1.000000, 1.000000,1.000000",
        ),
        (
            TRUE_CLAIM + "bye\n",
            "the last line of stdout is not the script's `time,score`: there is output after it",
        ),
        ("bye\n", "the last line of stdout is not the script's `time,score`: there is none"),
        ("", "the last line of stdout is not the script's `time,score`: there is none"),
    ],
)
def test_one_result_line_and_nothing_after_it(measured, stdout, reason):
    found = judged(measured(claim=stdout))
    assert found.verdict is Verdict.TAMPERED
    assert found.reason == reason


@pytest.mark.parametrize(
    "chatter",
    ["loading\n", "took 2.000000,80.000000 in all\n", "2.0,80.0\n", "1,2\n", "\x1b[2K100%\r\n"],
)
def test_chatter_before_the_result_is_nobodys_business(measured, chatter):
    assert judged(measured(claim=chatter * 3 + TRUE_CLAIM + "\n \n")).verdict is Verdict.OK


def test_the_claim_is_about_all_timed_batches_and_no_others(side):
    purposes = (Purpose.WARM_UP, Purpose.FIXED, Purpose.AUDIT, Purpose.REPEAT)
    batches = tuple(
        Batch(
            phase="timed" if number else "warm-up",
            purpose=purpose,
            counts=purpose is Purpose.AUDIT,
            seed=number,
            time_s=10.0**number,
            scores=(20.0 * number, 20.0 * number),
        )
        for number, purpose in enumerate(purposes)
    )
    own = Side(time_s=100.0, score=40.0, batches=batches)
    found = Measured(side(), own, "", "alternate")
    assert verify.tampering(Claim(time_s=1110.0, score=40.0), found) is None
    problem = verify.tampering(Claim(time_s=100.0, score=40.0), found)
    assert problem == "claims 100.000 s, the witness saw 1110.000 s"


@pytest.mark.parametrize("claim", ["", "hello", "0.000001,80.000000", "2.000000,99.000000"])
def test_tampering_leaves_no_number(measured, claim):
    found = judged(measured(claim=claim))
    assert found.verdict is Verdict.TAMPERED
    assert found.reason
    numbers = (found.speedup, found.accuracy, found.speed_achievement, found.accuracy_achievement)
    assert (*numbers, found.loss) == (None,) * 5


@pytest.mark.parametrize(
    ("candidate", "verdict"),
    [
        ((2.0, 80.0), Verdict.OK),
        ((2.0, 60.0), Verdict.OK),
        ((2.0, 59.999), Verdict.QUALITY_THRESHOLD_EXCEEDED),
        ((2.0, 0.0), Verdict.QUALITY_THRESHOLD_EXCEEDED),
        ((3.0, 80.0), Verdict.OK),
        ((3.001, 80.0), Verdict.SPEEDUP_TARGET_NOT_MET),
        ((9.0, 100.0), Verdict.SPEEDUP_TARGET_NOT_MET),
        ((9.0, 10.0), Verdict.QUALITY_THRESHOLD_EXCEEDED),
    ],
)
def test_judged_at_and_around_the_targets(measured, candidate, verdict):
    found = judged(measured((4.5, 80.0), candidate))
    assert found.verdict is verdict
    assert bool(found.reason) == (verdict is not Verdict.OK)
    speedup, quality_loss = 4.5 / candidate[0], 1 - candidate[1] / 80.0
    assert found.speedup == pytest.approx(speedup)
    assert found.accuracy == pytest.approx(1 - quality_loss)
    assert found.loss == pytest.approx(loss.loss(speedup, quality_loss, 1.5, 0.25))
    assert found.claim is not None


def test_reason_tells_number_and_target(measured):
    slow = judged(measured((4.0, 80.0), (4.0, 80.0)))
    assert slow.reason == "speedup 1.00 is under 1.5"
    bad = judged(measured((4.0, 80.0), (1.0, 40.0)))
    assert bad.reason == "quality loss 50.00% is over 25.00%"


def with_times(measured, times_s):
    """The pair with these seconds for the candidate's batches; the baseline's take 3 s each."""
    ours, theirs = (
        side.model_copy(
            update={
                "batches": tuple(
                    batch.model_copy(update={"time_s": time_s})
                    for batch, time_s in zip(side.batches, (9.0, *seconds), strict=True)
                )
            }
        )
        for side, seconds in (
            (measured.baseline, [3.0] * len(times_s)),
            (measured.candidate, times_s),
        )
    )
    claim = f"{math.fsum(times_s):.6f},{theirs.score:.6f}\n"
    return replace(measured, baseline=ours, candidate=theirs, claim_stdout=claim)


def test_a_speedup_whose_interval_holds_the_target_is_not_decided(measured):
    found = judged(with_times(measured(), [1.5, 1.6, 1.9, 2.1, 2.2]))
    low, high = found.speedup_ci
    assert low == pytest.approx(3 / 2.2)
    assert high == pytest.approx(3 / 1.5)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason == (
        "cannot tell yet: speedup 1.579 (1.364 to 2.000) against 1.5; measure more prompts:"
        " --until-decided, a longer --budget, or --audit-batches N"
    )
    assert found.loss == 0
    assert found.loss_ci == pytest.approx((0.0, 1 - low / 1.5))


def test_one_disturbed_batch_does_not_move_the_speedup(measured):
    found = judged(with_times(measured(), [1.0, 1.0, 40.0, 1.0, 1.0]))
    assert found.speedup == pytest.approx(3.0)


def test_a_quality_whose_interval_holds_the_target_is_not_decided(measured):
    found = judged(measured(), scores=[80.0] * 7 + [20.0] * 3)
    low, high = found.quality_loss_ci
    assert low < 0.25 < high
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "quality loss 22.50%" in found.reason
    assert "speedup" not in found.reason


def test_what_is_missed_for_sure_is_not_excused_by_what_cannot_be_told(measured):
    pair = with_times(measured(), [1.5, 1.6, 1.9, 2.1, 2.2])
    assert judged(pair, scores=[0.0] * 10).verdict is Verdict.QUALITY_THRESHOLD_EXCEEDED
    slow = with_times(measured(), [6.0] * 5)
    unsure = judged(slow, scores=[80.0] * 7 + [20.0] * 3)
    assert unsure.verdict is Verdict.SPEEDUP_TARGET_NOT_MET


def test_too_few_pairs_decide_nothing(side):
    pair = Measured(side(8.0, timed=4), side(2.0, timed=4), "2.000000,80.000000\n", "alternate")
    found = judged(pair)
    assert (found.speedup, found.speedup_ci) == (4.0, None)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "speedup 4.000 (too few for an interval) against 1.5" in found.reason
    assert (found.loss, found.loss_ci) == (0.0, None)


def test_the_credit_is_taken_off_the_interval_too(measured):
    pair = with_times(measured(), [1.5, 1.6, 1.9, 2.1, 2.2])
    found = judged(pair, fidelity=fidelity(credit=0.5))
    assert found.verdict is Verdict.SPEEDUP_TARGET_NOT_MET
    assert found.speedup_ci[1] == pytest.approx(2.0)


def decided(measured, **changes):
    scores = [score for batch in measured.candidate.counted for score in batch.scores]
    evidence = Evidence(**({"measured": measured, "scores": scores} | changes))
    return verify.is_decided(evidence, TARGETS)


def test_an_interval_that_is_no_number_decides_nothing(measured):
    pair = measured()
    scores = [[80.0, 80.0], *[[0.0, 0.0]] * 4]
    batches = [
        batch.model_copy(update={"scores": tuple(found)})
        for batch, found in zip(pair.baseline.counted, scores, strict=True)
    ]
    zeros = pair.baseline.model_copy(
        update={"batches": (pair.baseline.batches[0], *batches), "score": 16.0}
    )
    found = judged(replace(pair, baseline=zeros))
    assert (found.verdict, found.quality_loss_ci) == (Verdict.INCONCLUSIVE, None)
    assert found.loss is not None


def test_more_is_measured_only_where_that_may_tell_more(measured):
    unclear = with_times(measured(), [1.5, 1.6, 1.9, 2.1, 2.2])
    assert not decided(unclear)
    assert decided(measured())
    assert decided(measured((4.0, 80.0), (4.0, 80.0)))
    assert decided(measured((4.0, 0.0), (2.0, 0.0)))
    assert decided(unclear, fidelity=fidelity(tied=False), has_quality=True)
    assert not decided(measured(), scores=[80.0] * 7 + [20.0] * 3)


@pytest.mark.parametrize("slow_s", [3.0, 600.0])
def test_seconds_that_were_spent_in_any_batch_take_from_the_credit(measured, slow_s):
    times_s = [0.5, slow_s, 0.5, slow_s, 0.5]
    found = judged(with_times(measured(), times_s))
    assert found.speedup == pytest.approx(6.0)
    assert found.credited_speedup == pytest.approx(15.0 / math.fsum(times_s))
    assert found.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("count", [1, 4, 9, 40])
def test_one_slow_batch_is_never_free(measured, count):
    even = measured()
    times_s = [600.0, *[0.3] * (count - 1)]
    pair = replace(
        even,
        baseline=timed(even.baseline, [3.0] * count),
        candidate=timed(even.candidate, times_s),
        claim_stdout=f"{math.fsum(times_s):.6f},80.000000\n",
    )
    found = judged(pair)
    assert found.credited_speedup == pytest.approx(3.0 * count / math.fsum(times_s))
    assert found.verdict is not Verdict.OK
    assert found.loss > 0.4


def test_a_burst_of_load_on_the_baseline_is_no_credit(measured):
    even = measured()
    pair = replace(even, baseline=timed(even.baseline, [3.0, 3.0, 90.0, 3.0, 3.0]))
    found = judged(replace(pair, candidate=timed(even.candidate, [0.4] * 5)))
    assert found.credited_speedup == found.speedup == pytest.approx(7.5)


def test_an_uneven_side_is_not_blamed_on_untied_images(measured):
    slow = with_times(measured(), [0.5, 9.0, 0.5, 9.0, 9.0])
    found = judged(slow, fidelity=fidelity(tied_images=3, credit=0.8), allow_untied=True)
    assert "images" not in found.reason


def test_targets_are_not_called_met_from_few_images_where_that_was_looked_for(measured):
    found = judged(measured(), least_images=11)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "rare bad images do not show in 10" in found.reason
    assert not decided(measured(), least_images=11)
    assert decided(measured(), least_images=10)
    assert decided(measured((4.0, 80.0), (4.0, 80.0)), least_images=11)


@pytest.mark.parametrize(
    ("interval", "suspicious"),
    [
        ((-0.05, -0.006), True),
        ((-0.05, -0.005), False),
        ((-0.2, 0.01), False),  # far above, and not sure of it
        ((0.0, 0.01), False),
        ((0.3, 0.5), False),
    ],
)
def test_a_score_surely_above_the_baselines_is_suspicious(interval, suspicious):
    found = verify.too_good(interval)
    assert (found is not None) is suspicious
    if found:
        assert "by 0.6% or more" in found


def timed(side, times_s):
    """The side with batches of these seconds that count."""
    (first,) = side.counted[:1]
    batches = [first.model_copy(update={"time_s": time_s}) for time_s in times_s]
    return side.model_copy(update={"batches": (side.batches[0], *batches)})


def test_worthless_baseline_is_inconclusive(measured):
    found = judged(measured((4.0, 0.0), (2.0, 0.0)))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert (found.speedup, found.speed_achievement) == (2.0, 1.0)
    assert (found.accuracy, found.accuracy_achievement, found.loss) == (None, None, None)


def test_claim_is_never_used_as_a_number(measured):
    honest = judged(measured(candidate=(2.0, 80.0)))
    boast = judged(measured(candidate=(2.0, 80.0), claim="1.500000,80.000900"))
    assert boast.claim == Claim(time_s=1.5, score=80.0009)
    assert (boast.speedup, boast.loss) == (honest.speedup, honest.loss)


times = st.floats(0.01, 1000)
scores = st.floats(0.1, 100)


@given(times, scores, times, scores)
def test_loss_agrees_with_the_verdict(measured, base_s, base_score, own_s, own_score):
    found = judged(measured((base_s, base_score), (own_s, own_score)))
    assert 0 <= found.loss <= 1
    assert (found.verdict is Verdict.OK) == (found.loss == 0)


FLOOR = Floor(mean=0.5, sd=0.1, at_least=0.4, image_at_least=0.0, seen=0.9)


def audit(suspicion=None):
    part = Part(speedup=2.0, quality_loss=0.0)
    return Audit(
        seed=1,
        prompts="grammar",
        prompts_sha256="0",
        fixed=part,
        audit=part,
        fixed_faster=1.0,
        repeat_faster=1.0,
        tolerance=1.25,
        fixed_better=0.0,
        fixed_better_t=0.0,
        suspicion=suspicion,
    )


def fidelity(**changes):
    fields = {
        "images": 4,
        "discarded": 0,
        "below": (),
        "tie_t": 7.0,
        "tied": True,
    }
    fields |= {"closeness": 0.9, "tied_images": 4, "credit": 1.0}
    return Fidelity(psnr_db=FLOOR, ssim=FLOOR, clip_cosine=FLOOR, **(fields | changes))


NUMBERS = ("speedup", "accuracy", "speed_achievement", "accuracy_achievement", "loss")


def numbers_of(judgement):
    return [getattr(judgement, name) for name in NUMBERS]


def test_nothing_suspicious_changes_nothing(measured):
    assert judged(measured(), audit=audit(), fidelity=fidelity()) == judged(measured())


def test_what_the_audit_suspects_is_tampering(measured):
    found = judged(measured(), audit=audit("public prompts are 10 times faster"))
    assert (found.verdict, found.reason) == (
        Verdict.TAMPERED,
        "public prompts are 10 times faster",
    )
    assert numbers_of(found) == [None] * 5


def test_images_that_come_again_are_bad_output(measured):
    found = judged(measured(), duplicates=3)
    assert found.verdict is Verdict.BAD_OUTPUT
    assert found.reason == "returned 3 images again for other prompts or seeds"
    assert numbers_of(found) == [None] * 5


def test_a_false_claim_comes_before_anything_else(measured):
    found = judged(measured(claim="bye\n"), audit=audit("why"), duplicates=3)
    assert "the last line of stdout" in found.reason


def test_untied_images_have_no_loss(measured):
    found = judged(measured(), fidelity=fidelity(tied=False, tie_t=0.4))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "nothing shows that they come from the pipeline" in found.reason
    assert "--allow-untied" in found.reason
    assert found.loss is None
    assert (found.speedup, found.accuracy) == (2.0, 1.0)


@pytest.mark.parametrize("candidate", [(2.0, 80.0), (4.0, 80.0), (2.0, 10.0)])
def test_untied_images_are_measured_where_that_is_allowed(measured, candidate):
    seen = fidelity(tied=False, tie_t=0.4)
    pair = measured(candidate=candidate)
    assert judged(pair, fidelity=seen).loss is None
    assert judged(pair, fidelity=seen, allow_untied=True) == judged(pair)


@pytest.mark.parametrize("allow_untied", [True, False])
def test_images_below_the_floor_are_a_quality_loss_tied_or_not(measured, allow_untied):
    for tied in (True, False):
        seen = fidelity(tied=tied, below=("psnr_db", "ssim"))
        found = judged(measured(), scores=[0.0] * 10, fidelity=seen, allow_untied=allow_untied)
        assert found.verdict is Verdict.QUALITY_THRESHOLD_EXCEEDED
        assert found.reason == (
            "quality loss 100.00% is over 25.00%: the images are less like the baseline's than"
            " another seed's are (psnr_db, ssim)"
        )
        assert found.accuracy == 0
        assert found.loss == pytest.approx(1 - 0.25)


def test_discarded_images_are_paid_for_in_quality(measured):
    seen = fidelity(discarded=2)
    found = judged(measured(), scores=[80.0, *[0.0] * 9], fidelity=seen)
    assert found.verdict is Verdict.QUALITY_THRESHOLD_EXCEEDED
    assert found.accuracy == pytest.approx(0.1)
    assert found.reason == (
        "quality loss 90.00% is over 25.00%: 2 of 4 images are nothing like the baseline's and"
        " count as 0"
    )


def test_a_few_discarded_images_within_the_target_are_no_reason(measured):
    found = judged(measured(), scores=[80.0] * 9 + [40.0], fidelity=fidelity(discarded=1))
    assert (found.verdict, found.reason) == (Verdict.OK, "")
    assert found.accuracy == pytest.approx(0.95)


def test_a_quality_loss_of_likely_images_needs_no_more_words(measured):
    found = judged(measured(candidate=(2.0, 40.0)), fidelity=fidelity())
    assert found.reason == "quality loss 50.00% is over 25.00%"


def test_a_worthless_baseline_is_inconclusive_tied_or_not(measured):
    pair = measured((4.0, 0.0), (2.0, 0.0))
    found = judged(pair, fidelity=fidelity(tied=False))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "CLIP score of 0" in found.reason


def test_speed_is_credited_for_tied_images_only(measured):
    found = judged(measured(), fidelity=fidelity(tied_images=3, credit=0.5))
    assert (found.speedup, found.credited_speedup) == (2.0, 1.0)
    assert found.verdict is Verdict.SPEEDUP_TARGET_NOT_MET
    assert found.reason == (
        "speedup 1.00 is under 1.5: 2.00 were measured, but of 4 images only 3 are more like the"
        " baseline's of their seed than like another's"
    )
    assert found.loss == pytest.approx(loss.loss(1.0, 0.0, 1.5, 0.25))


def test_all_speed_is_credited_where_untied_images_are_allowed_or_there_is_no_floor(measured):
    seen = fidelity(tied_images=1, credit=0.0, tied=False)
    assert judged(measured(), fidelity=seen, allow_untied=True).credited_speedup == 2.0
    assert judged(measured()).credited_speedup == 2.0


def test_a_slow_candidate_is_not_told_of_credit(measured):
    found = judged(measured(candidate=(4.0, 80.0)), fidelity=fidelity())
    assert found.reason == "speedup 1.00 is under 1.5"


@pytest.mark.parametrize(
    ("baseline_says", "passes"),
    [("4.000000,80.000000", False), ("3.000000,80.000000", True), ("9.000000,80.000000", False)],
)
def test_a_host_on_which_processes_wake_late_widens_the_tolerance(measured, baseline_says, passes):
    found = replace(measured(), baseline_stdout=baseline_says + "\n")
    assert (verify.tampering(Claim(time_s=1.0, score=80.0), found) is None) is passes


def test_work_left_on_the_gpu_is_no_part_of_the_claim(measured):
    found = measured()
    batches = [
        one.model_copy(update={"time_s": one.time_s + 5.0, "leftover_s": 5.0})
        for one in found.candidate.batches
    ]
    left = found.candidate.model_copy(update={"time_s": 12.0, "batches": tuple(batches)})
    assert verify.tampering(Claim(time_s=2.0, score=80.0), replace(found, candidate=left)) is None
