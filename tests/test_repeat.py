"""Several whole runs: what they come to. The runs themselves are the real command's (slow lane)."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from e2e import EXAMPLES, Session

from runner import cli, repeat, report
from runner.progress import Silent
from runner.records import Verdict
from runner.settings import Settings


@pytest.fixture
def result(make_result):
    """A measured result with these numbers."""

    def make(speedup=2.0, quality_loss=0.0, loss=0.0, **changes):
        numbers = {"speedup": speedup, "credited_speedup": speedup, "quality_loss": quality_loss}
        return make_result(**numbers, accuracy=1 - quality_loss, loss=loss, **changes)

    return make


def test_mean_deviation_and_interval_are_students(result):
    found = repeat.together([result(speedup) for speedup in (1.8, 2.0, 2.2)], 3)
    spread = found.credited_speedup
    assert (spread.mean, spread.sd) == (pytest.approx(2.0), pytest.approx(0.2))
    half = 4.302653 * 0.2 / 3**0.5  # Student's t for two degrees of freedom
    assert (spread.low, spread.high) == (pytest.approx(2 - half), pytest.approx(2 + half))
    assert (found.verdict, found.passed) == (Verdict.OK, True)


@pytest.mark.parametrize(
    ("speedups", "losses", "verdict"),
    [
        ((1.50, 1.50, 1.50), (0.0, 0.0, 0.0), Verdict.OK),
        ((1.40, 1.41, 1.42), (0.0, 0.0, 0.0), Verdict.SPEEDUP_TARGET_NOT_MET),
        ((1.40, 1.50, 1.60), (0.0, 0.0, 0.0), Verdict.INCONCLUSIVE),
        ((2.0, 2.0, 2.0), (0.03, 0.031, 0.032), Verdict.QUALITY_THRESHOLD_EXCEEDED),
        ((2.0, 2.0, 2.0), (0.01, 0.02, 0.03), Verdict.INCONCLUSIVE),
    ],
)
def test_verdict_is_that_of_the_intervals_of_the_means(result, speedups, losses, verdict):
    runs = [result(one, other) for one, other in zip(speedups, losses, strict=True)]
    found = repeat.together(runs, 3)
    assert found.verdict is verdict
    assert found.passed == (verdict is Verdict.OK)
    assert found.runs == tuple(runs)


def test_a_run_without_a_loss_ends_it_and_is_the_verdict(result, refused_result, tmp_path):
    outcomes = [result(), refused_result, result()]
    seen = []

    def run(settings, _display):
        seen.append(settings.keep)
        return outcomes[len(seen) - 1]

    settings = Settings(candidate=tmp_path / "candidate.py", keep=tmp_path / "kept")
    found = repeat.repeat(settings, 3, Silent(), run)
    assert seen == [tmp_path / "kept" / "run-1", tmp_path / "kept" / "run-2"]
    assert found.verdict is Verdict.CRASHED
    assert found.reason == f"run 2 of 3: {refused_result.reason}"
    assert not found.passed
    assert (found.credited_speedup, found.quality_loss, found.loss) == (None, None, None)
    assert len(found.runs) == 2


def test_without_a_folder_nothing_is_kept(result, tmp_path):
    kept = []

    def run(settings, _display):
        kept.append(settings.keep)
        return result()

    repeat.repeat(Settings(candidate=tmp_path / "candidate.py"), 2, Silent(), run)
    assert kept == [None, None]


def test_table_has_the_means_and_a_line_for_each_run(result):
    rows = dict(report.rows_again(repeat.together([result(1.9), result(2.1)], 2)))
    assert rows["credited speedup"].startswith("2.000 (0.729 to 3.271)   deviation 0.141")
    assert rows["verdict"] == "inconclusive"
    assert rows["run 1"].startswith("ok; speedup 1.900x")
    assert "run 2" in rows


def test_schema_and_flags():
    runner = CliRunner()
    schema = json.loads(runner.invoke(cli.command, ["--schema", "--repeat", "2"]).output)
    assert schema["title"] == "Repeated"
    assert set(schema["properties"]) >= {"verdict", "loss", "runs"}
    refused = runner.invoke(cli.command, ["x.py", "--repeat", "2", "--feedback"])
    assert refused.exit_code == 2
    assert "exclude each other" in refused.output
    assert runner.invoke(cli.command, ["x.py", "--repeat", "0"]).exit_code == 2


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_real_runs(tmp_path):
    session = Session(tmp_path)
    base = EXAMPLES / "base.py"
    flags = ("--device", "cpu", "--audit-batches", "5", "--repeat", "2", "--json", "--quiet")
    run = session.finish(session.start(base, "--baseline", base, *flags))
    found = run.result
    assert len(found["runs"]) == 2
    seeds = {one["circumstances"]["audit_seed"] for one in found["runs"]}
    assert len(seeds) == 2
    assert found["quality_loss"]["mean"] == pytest.approx(0, abs=1e-9)
    assert found["loss"] is not None
    assert run.processes_left == []
