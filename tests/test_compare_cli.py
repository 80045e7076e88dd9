"""`bin/compare`: results held against each other, or refused with what differs."""

from __future__ import annotations

import json
import math
import random
import subprocess

import pytest
from test_comparable import BOX, CIRCUMSTANCES, CPU, H200

from runner import compare_cli, estimate, paths
from runner.plain import json_text


@pytest.fixture
def sides(side):
    """A baseline and a candidate of nine pairs, so many times as fast, with noise."""

    def make(speedup, seed=1, noise=0.01, pairs=9):
        rng = random.Random(seed)

        def one(batch_s):
            found = side(pairs * batch_s, timed=pairs)
            batches = [
                batch.model_copy(update={"time_s": batch.time_s * math.exp(rng.gauss(0, noise))})
                for batch in found.batches
            ]
            return found.model_copy(update={"batches": tuple(batches)})

        return one(2.0), one(2.0 / speedup)

    return make


@pytest.fixture
def save(tmp_path, make_result, sides):
    """Write a result as bin/score prints it; keywords replace fields, or circumstances."""

    def write(name, speedup=2.0, seed=1, pairs=9, device=H200, **changes):
        told = {
            key: changes.pop(key) for key in [*changes] if key in type(CIRCUMSTANCES).model_fields
        }
        baseline, candidate = sides(speedup, seed, pairs=pairs)
        numbers = {"speedup": speedup, "credited_speedup": speedup, "speedup_ci": (1.9, 2.1)}
        result = make_result(
            **(numbers | {"baseline": baseline, "candidate": candidate} | changes),
            device=device,
            isolation=BOX,
            circumstances=CIRCUMSTANCES.model_copy(update=told),
        )
        path = tmp_path / name
        path.write_text(json_text(result.model_dump(mode="json")))
        return path

    return write


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments):
        with pytest.raises(SystemExit) as ending:
            compare_cli.main([str(one) for one in arguments])
        output = capsys.readouterr()
        return ending.value.code, output.out, output.err

    return run_command


def test_a_table_and_which_one_is_faster(run, save):
    save("a.json")
    save("b.json", speedup=2.4, seed=2)
    status, out, _ = run("a.json", "b.json")
    assert status == 0
    lines = out.splitlines()
    assert "credited  quality loss" in lines[0]
    assert lines[1].split()[:6] == ["a.json", "ok", "2.000", "(1.900", "to", "2.100)"]
    assert lines[3].startswith("b.json: 1.196 (")
    assert lines[3].endswith("faster for sure")


def test_a_slower_one(run, save):
    save("a.json")
    save("b.json", speedup=1.5, seed=2)
    assert "slower for sure" in run("a.json", "b.json")[1]


def test_what_the_noise_hides_cannot_be_told(run, save):
    save("a.json")
    save("b.json", speedup=2.002, seed=2)
    status, out, _ = run("a.json", "b.json", "--json")
    found = json.loads(out)["against_first"][0]
    assert status == 0
    assert found["differs"] is None
    assert found["ratio_ci"][0] < 1 < found["ratio_ci"][1]
    assert "cannot tell" in run("a.json", "b.json")[1]


def test_too_few_pairs_cannot_be_told(run, save):
    save("a.json", pairs=3)
    save("b.json", speedup=9.0, pairs=3)
    status, out, _ = run("a.json", "b.json")
    assert (status, "too few pairs of batches" in out) == (0, True)


def test_another_card_and_prompt_set_are_refused_by_name(run, save):
    card = H200.model_copy(update={"name": "NVIDIA A100", "driver": "590.2"})
    save("a.json")
    save("b.json", device=card, prompts_sha256="e" * 64)
    status, out, _ = run("a.json", "b.json")
    assert status == 1
    assert "b.json must not be compared with the first" in out
    assert "device: NVIDIA H200 against NVIDIA A100" in out
    assert "driver: 580.1 against 590.2" in out
    assert f"prompt set: {'a' * 64} against {'e' * 64}" in out
    assert "times as fast" not in out


def test_of_three_the_one_that_differs_is_refused(run, save):
    save("a.json")
    save("b.json", speedup=2.5)
    save("c.json", device=CPU)
    status, out, _ = run("a.json", "b.json", "c.json", "--json")
    assert status == 1
    found = {one["file"]: one for one in json.loads(out)["against_first"]}
    assert found["b.json"]["comparable"]
    assert found["b.json"]["differs"]
    assert not found["c.json"]["comparable"]
    assert found["c.json"]["ratio"] is None
    fields = {one["field"] for one in found["c.json"]["differences"]}
    assert fields == {"device.kind", "device.name", "device.driver"}


def test_losses_of_other_targets_are_said_to_be_others(run, save):
    save("a.json")
    save("b.json", target_speedup=10.0)
    status, out, _ = run("a.json", "b.json")
    assert status == 0
    assert "the losses are not of one kind: target speedup: 1.5 against 10.0" in out


def test_what_was_not_measured_has_no_speedup_to_compare(run, save):
    save("a.json")
    path = save("b.json")
    told = json.loads(path.read_text()) | {
        "verdict": "crashed",
        "baseline": None,
        "candidate": None,
        "loss": None,
        "speedup": None,
        "credited_speedup": None,
        "speedup_ci": None,
    }
    path.write_text(json.dumps(told))
    status, out, _ = run("a.json", "b.json")
    assert (status, "b.json: no speedup to compare, a.json is ok, b.json crashed" in out) == (
        1,
        True,
    )


@pytest.mark.parametrize("verdict", ["inconclusive", "config_mismatch"])
def test_where_a_run_came_to_no_loss_its_times_say_nothing(run, save, verdict):
    save("a.json")
    save("b.json", speedup=6.0, verdict=verdict, passed=False, loss=None)
    status, out, _ = run("a.json", "b.json")
    assert (status, "times as fast" in out) == (1, False)
    assert f"b.json {verdict}" in out


def test_faster_at_less_quality_is_said_to_be_that(run, save):
    save("a.json")
    save("b.json", speedup=6.0, verdict="quality_threshold_exceeded", passed=False)
    out = run("a.json", "b.json")[1]
    assert "not at the quality that was asked for: a.json is ok, b.json quality_thresh" in out


def test_public_prompts_are_not_compared_with_fresh_ones(run, save):
    save("a.json", audit_batches=9)
    save("b.json", audit_batches=0)
    status, out, _ = run("a.json", "b.json")
    assert (status, "fresh prompts: yes against no" in out) == (1, True)
    save("c.json", audit_batches=20)
    assert run("a.json", "c.json")[0] == 0


def test_the_surer_level_of_both_is_used(save):
    one, other = (
        compare_cli.Named(name, compare_cli.read(save(name, seed=seed, confidence=level)))
        for name, seed, level in (("a.json", 1, 0.95), ("b.json", 2, 0.99))
    )
    plain = compare_cli.Named("c", other.result.model_copy(update={"confidence": 0.95}))
    wide, narrow = (compare_cli.hold(one, second).ratio for second in (other, plain))
    assert wide.level == 0.99
    assert wide.high - wide.low > narrow.high - narrow.low


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "no JSON", '{"verdict": "ok"}', '{"runs": []}', "\x00"]
)
def test_a_file_that_is_no_result(run, save, tmp_path, content):
    save("a.json")
    (tmp_path / "b.json").write_text(content)
    status, out, error = run("a.json", "b.json")
    assert (status, out) == (2, "")
    assert "b.json is no result of this version" in error


def test_a_file_that_is_not_there_and_a_single_one(run, save):
    save("a.json")
    status, _, error = run("a.json", "none.json")
    assert (status, "cannot read none.json" in error) == (2, True)
    status, _, error = run("a.json")
    assert (status, "two results or more" in error) == (2, True)


def test_names_cannot_move_the_cursor(run, save):
    save("a.json")
    save("b\x1b[31m.json")
    _, out, _ = run("a.json", "b\x1b[31m.json")
    assert "\x1b" not in out


def test_the_interval_of_the_ratio_holds_the_true_one(sides):
    inside = 0
    runs = 200
    for seed in range(runs):
        ours, theirs = (
            estimate.speedup(
                *([batch.time_s for batch in one.counted] for one in sides(speedup, number, 0.05)),
                level=0.95,
            )
            for speedup, number in ((2.0, 2 * seed), (2.4, 2 * seed + 1))
        )
        found = estimate.ratio(ours, theirs)
        inside += found.low <= 1.2 <= found.high
    assert inside / runs >= 0.93


def test_the_command_runs():
    run = subprocess.run(
        [paths.ROOT / "bin" / "compare", "--help"], capture_output=True, text=True, check=True
    )
    assert "Compare results" in run.stdout
