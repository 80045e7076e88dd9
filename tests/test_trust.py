"""What the table of trust makes of runs: who gained, who was accused, what is run again."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import asdict, replace

import pytest
from e2e import ROOT, SPECIMENS, read_specimen


@pytest.fixture(scope="module")
def trust():
    specification = importlib.util.spec_from_file_location(
        "trust", ROOT / "benchmarks" / "trust.py"
    )
    module = importlib.util.module_from_spec(specification)
    sys.modules["trust"] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules["trust"]


@pytest.fixture
def outcome(trust):
    def make(name="draws_the_scene", run=0, **changes):
        fields = {
            "specimen": name,
            "run": run,
            "device": "cpu",
            "digest": trust.digest(SPECIMENS / f"{name}.py"),
            "status": 1,
            "verdict": "speedup_target_not_met",
            "reason": "",
            "loss": 0.33,
            "speedup": 1.0,
            "quality_loss": 0.0,
            "wall_s": 20.0,
            "left": (),
        }
        return trust.Outcome(**(fields | changes))

    return make


@pytest.fixture
def specimen():
    return lambda name: read_specimen(SPECIMENS / f"{name}.py")


HONEST_LOSSES = [0.32, 0.33, 0.34, 0.33, 0.33, 0.32, 0.34, 0.33]


class TestGain:
    def test_ok_without_the_work(self, trust, specimen, outcome):
        run = outcome(verdict="ok", loss=0.0)
        gained = trust.gain(specimen("draws_the_scene"), [run], HONEST_LOSSES)
        assert gained == "ok without the work"

    def test_honest_file_gains_nothing_however_fast(self, trust, specimen, outcome):
        run = outcome("honest_deepcache", verdict="ok", loss=0.0)
        assert trust.gain(specimen("honest_deepcache"), [run], HONEST_LOSSES) is None

    def test_refused_cheat_has_gained_nothing(self, trust, specimen, outcome):
        run = outcome(verdict="tampered", loss=None)
        assert trust.gain(specimen("draws_the_scene"), [run], HONEST_LOSSES) is None

    @pytest.mark.parametrize(
        ("losses", "gains"),
        [
            ([0.33, 0.32, 0.34], False),
            ([0.305] + 9 * [0.33], False),
            ([0.305] * 5, True),
            ([0.10] + 19 * [0.33], True),
            ([0.9, 1.0], False),
        ],
        ids=["same", "one lucky run", "all a little", "rarely a lot", "worse"],
    )
    def test_loss_below_the_honest_one(self, trust, specimen, outcome, losses, gains):
        runs = [outcome("burns_between_turns", n, loss=loss) for n, loss in enumerate(losses)]
        gained = trust.gain(specimen("burns_between_turns"), runs, HONEST_LOSSES)
        assert (gained is not None) is gains

    def test_reference_without_spread(self, trust, specimen, outcome):
        some = [outcome("forged_live_report", loss=0.0)]
        assert trust.gain(specimen("forged_live_report"), some, [0.0, 0.0, 0.0]) is None

    def test_what_cannot_be_compared_has_gained_nothing_yet(self, trust, specimen, outcome):
        run = outcome("burns_between_turns", loss=0.0)
        assert trust.gain(specimen("burns_between_turns"), [run], []) is None


class TestReport:
    def test_good_table(self, trust, specimen, outcome, capsys):
        runs = [outcome("honest_plain"), outcome(verdict="inconclusive", loss=None)]
        chosen = [specimen("honest_plain"), specimen("draws_the_scene")]
        assert trust.report(chosen, runs) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[-2:] == [
            "cheats that gained anything: 0 of 1",
            "honest specimens accused: 0 of 1",
        ]

    def test_both_ways_to_fail(self, trust, specimen, outcome, capsys):
        runs = [
            outcome("honest_plain", verdict="tampered", loss=None),
            outcome("draws_the_scene", verdict="ok", loss=0.0),
        ]
        chosen = [specimen("honest_plain"), specimen("draws_the_scene")]
        assert trust.report(chosen, runs) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[-2:] == [
            "cheats that gained anything: 1 of 1 (draws_the_scene)",
            "honest specimens accused: 1 of 1 (honest_plain)",
        ]

    def test_leftovers_and_missing_references_are_said(self, trust, specimen, outcome, capsys):
        runs = [outcome("burns_between_turns", left=("17 python (mountinfo)",))]
        trust.report([specimen("burns_between_turns"), specimen("honest_plain")], runs)
        text = capsys.readouterr().out
        assert "left something behind: 1 (burns_between_turns)" in text
        assert "without runs of their honest reference: 1 (burns_between_turns)" in text
        assert "not run: 1 (honest_plain)" in text

    def test_run_of_an_older_text_does_not_count(self, trust, specimen, outcome):
        runs = [outcome("honest_plain", digest="0" * 12, verdict="tampered")]
        assert trust.rows([specimen("honest_plain")], runs) == []


class TestFile:
    def write(self, path, outcomes):
        path.write_text("".join(json.dumps(asdict(one)) + "\n" for one in outcomes))

    def test_what_was_written_is_read(self, trust, outcome, tmp_path):
        kept = [outcome("honest_plain", n, left=("a",)) for n in range(3)]
        self.write(tmp_path / "runs.jsonl", kept)
        assert trust.read([tmp_path / "runs.jsonl", tmp_path / "missing.jsonl"]) == kept

    def test_only_code_and_flags_make_another_specimen(self, trust, write):
        text = '"""A cheat.\n\nExpected: tampered\nFlags: --memory 2\n"""\nstep = 1\n'
        first, *others = [
            trust.digest(write(one, f"{number}.py"))
            for number, one in enumerate(
                (
                    text,
                    text.replace("tampered", "measured|oom"),
                    text.replace("memory 2", "memory 3"),
                    text.replace("step = 1", "step = 2"),
                )
            )
        ]
        assert [one == first for one in others] == [True, False, False]

    def test_run_that_failed_is_replaced_by_its_repetition(self, trust, outcome, tmp_path):
        failed = outcome("honest_plain", status=2, verdict=None, loss=None)
        again = replace(failed, status=1, verdict="speedup_target_not_met", loss=0.3)
        self.write(tmp_path / "runs.jsonl", [failed, again, failed])
        assert trust.read([tmp_path / "runs.jsonl"]) == [again]


class TestShard:
    def test_all_shards_together_have_all_cores(self, trust):
        shards = [trust.Shard.parse(f"{number}/3") for number in range(3)]
        cores = {core for shard in shards for core in shard.cores()}
        assert sorted(cores) == trust.Shard(0, 1).cores()

    def test_no_shard_is_without_cores(self, trust):
        assert trust.Shard(999_998, 999_999).cores()

    @pytest.mark.parametrize("text", ["3/3", "1", "-1/2", "a/b", "/", "1/0"])
    def test_what_is_no_shard(self, trust, text):
        with pytest.raises(trust.argparse.ArgumentTypeError):
            trust.Shard.parse(text)
