import io
import unicodedata

import pytest

from runner import report
from runner.records import Claim, Device, Failure, Isolation, IsolationPolicy, Readings, Verdict

HOSTILE = "\x1b[31mred\x1b]0;title\x07 \x9b1A\u202eevil\u2066\u200f\x00\x08\r\ud800\ue000"


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def shown(result):
    file = io.StringIO()
    report.show(result, file)
    return file.getvalue()


def test_rows_of_a_pass(make_result):
    assert dict(report.rows(make_result())) == {
        "verdict": "ok (passed)",
        "speedup": "2.000x   target 1.5x, achieved 100%",
        "quality loss": "0.00%   target 2.00%, achieved 100%",
        "loss": "0.0000",
        "baseline": "4.000 s for 10 images, CLIP score 80.000",
        "candidate": "2.000 s for 10 images, CLIP score 80.000",
        "claim": "2.000 s, CLIP score 80.000",
    }


def test_rows_of_a_refusal(refused_result):
    assert dict(report.rows(refused_result)) == {
        "verdict": "crashed",
        "reason": "candidate.py:3: ValueError: no",
        "loss": "not measured",
    }


def test_rows_of_a_speed_without_quality(make_result):
    result = make_result(
        verdict=Verdict.INCONCLUSIVE,
        passed=False,
        accuracy=None,
        quality_loss=None,
        accuracy_achievement=None,
        loss=None,
    )
    rows = dict(report.rows(result))
    assert rows["speedup"].startswith("2.000x")
    assert "quality loss" not in rows
    assert rows["loss"] == "not measured"


def test_rows_of_what_the_live_pipelines_show(make_result):
    result = make_result(
        no_ops=("candidate: tomesd is in the text, but its ratio is 0",),
        contradictions=("scheduler: A in the baseline, B in the candidate", HOSTILE),
        live=Readings(problems=("no live reading of the baseline: its process ended",)),
    )
    rows = [row for row in report.rows(result) if row[0] in {"no effect", "changed", "not seen"}]
    assert [name for name, _ in rows] == ["no effect", "changed", "changed", "not seen"]
    assert rows[0][1] == "candidate: tomesd is in the text, but its ratio is 0"
    assert "\x1b" not in shown(result)


def test_a_loss_of_zero_is_shown_as_a_number(make_result):
    assert ("loss", "0.0000") in list(report.rows(make_result(loss=0.0)))


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (Device(kind="cuda", name="H200", index=3), "cuda 3: H200"),
        (Device(kind="cuda", name="H200", index=0), "cuda 0: H200"),
        (Device(kind="cpu", name="Xeon, 2 cores"), "cpu: Xeon, 2 cores"),
    ],
)
def test_row_of_the_device(make_result, device, expected):
    assert dict(report.rows(make_result(device=device)))["ran on"] == expected


@pytest.mark.parametrize(
    ("backend", "version", "expected"),
    [
        (IsolationPolicy.BUBBLEWRAP, "bubblewrap 0.11", "bubblewrap 0.11"),
        (IsolationPolicy.NONE, None, "none!"),
    ],
)
def test_row_of_the_isolation(make_result, backend, version, expected):
    isolation = Isolation(backend=backend, version=version, network=True, host_files=True)
    assert dict(report.rows(make_result(isolation=isolation)))["isolation"] == expected


def test_a_long_line_of_a_traceback_is_cut(refused_result):
    failure = Failure(file="x", line=1, phase="load", message="m", traceback="x" * 20_000)
    text = shown(refused_result.model_copy(update={"failure": failure}))
    assert 100 < text.count("x") < 1000


def test_all_rows_are_shown(make_result):
    result = make_result(reason="because")
    text = shown(result)
    for name, value in report.rows(result):
        assert name in text
        assert value in text


def test_long_values_are_not_cut(make_result):
    words = shown(make_result(reason="long " * 100 + "end")).split()
    assert (words.count("long"), words.count("end")) == (100, 1)


def test_values_are_whole_where_there_is_no_terminal(make_result):
    model = "a-model-with-a-name-that-is-longer-than-the-window-is-wide/" * 4
    assert model in shown(make_result(reason=model))


def test_values_are_folded_and_whole_in_a_narrow_terminal(make_result, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "40")
    file = Terminal()
    report.show(make_result(reason="x" * 300), file)
    text = file.getvalue()
    assert text.count("x") >= 300
    assert "\N{HORIZONTAL ELLIPSIS}" not in text


def test_only_the_end_of_a_traceback_is_shown(refused_result):
    lines = [f"line {number:03}" for number in range(100)]
    failure = Failure(file="x", line=1, phase="load", message="m", traceback="\n".join(lines))
    text = shown(refused_result.model_copy(update={"failure": failure}))
    assert [line for line in lines if line in text] == lines[-report.TRACEBACK_LINES :]


@pytest.mark.parametrize("traceback", ["", " \n\n"])
def test_without_a_traceback_none_is_shown(refused_result, traceback):
    failure = Failure(file="x", line=1, phase="load", message="m", traceback=traceback)
    with_failure = refused_result.model_copy(update={"failure": failure})
    assert shown(with_failure) == shown(refused_result)


def test_hostile_text_reaches_no_terminal(refused_result):
    failure = Failure(file="x", line=1, phase="load", message="m", traceback=HOSTILE)
    changes = {"reason": HOSTILE + "[bold]x[/bold]", "failure": failure}
    text = shown(refused_result.model_copy(update=changes))
    assert not [one for one in text if unicodedata.category(one)[0] == "C" and one != "\n"]
    assert "[bold]x[/bold]" in text


def test_text_of_any_language_stays(make_result):
    assert "größe 雪 ☃ é" in shown(make_result(reason="größe 雪 ☃ é"))


def test_a_claim_alone_is_shown(refused_result):
    claim = Claim(time_s=0.5, score=99.0)
    result = refused_result.model_copy(update={"verdict": Verdict.TAMPERED, "claim": claim})
    assert dict(report.rows(result))["claim"] == "0.500 s, CLIP score 99.000"
