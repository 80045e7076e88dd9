"""One candidate at several shapes: the rows, what they come to, and a real run of one of them."""

from __future__ import annotations

import io
import json
import random
import re
from dataclasses import replace

import pytest
from click.testing import CliRunner
from e2e import Session
from open_clip.tokenizer import SimpleTokenizer
from rich.console import Console

from models.tokens import CONTEXT
from runner import captions, cli, live, prompts, report, stability
from runner.assemble import Form, Values, assemble
from runner.check import examine
from runner.estimate import LEAST_PAIRS
from runner.progress import Silent
from runner.records import (
    Config,
    NoPromptsError,
    PromptLength,
    Reading,
    Readings,
    SpeedtrapError,
    Verdict,
)
from runner.score import run as score_run
from runner.settings import MAX_SEED, Settings
from runner.stability import AS_ASKED, Axis, Came

ALL = (
    *(AS_ASKED, "batch size 1", "batch size 4", "batch size 8", "short prompts", "long prompts"),
    *("seed 1042", "seed 2042", "half the steps", "twice the steps"),
)


@pytest.fixture
def settings(tmp_path):
    return Settings(candidate=tmp_path / "candidate.py")


@pytest.fixture
def result(make_result):
    """A measured result with this speedup, and steps that were run, as asked 20."""

    def make(speedup=2.0, verdict=Verdict.OK, steps=20, width=0.02, **changes):
        reading = Reading(num_inference_steps=steps, scaled_calls=3)
        fields = {
            "verdict": verdict,
            "passed": verdict is Verdict.OK,
            "speedup": speedup,
            "speedup_ci": (speedup - width, speedup + width),
            "quality_loss_ci": (-0.01, 0.01),
            "live": Readings(baseline=reading, candidate=reading),
        }
        return make_result(**(fields | changes))

    return make


@pytest.fixture
def table(settings, result):
    """What rows come to whose results (or errors) are given by name; the others are 2.0x."""

    def make(settings=settings, only=None, **outcomes):
        named = {name.replace("_", " "): outcome for name, outcome in outcomes.items()}

        def run(own, _display):
            change = next(
                change
                for change in stability.changes(settings)
                if stability.settings_of(change, settings) == own
            )
            steps = live.scaled_steps(20, own.steps_factor)
            outcome = named.get(change.name, result(steps=steps))
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return stability.stability(settings, Silent(), run, only)

    return make


class TestRows:
    def test_as_asked_is_first_and_nothing_is_run_twice(self, settings):
        assert tuple(change.name for change in stability.changes(settings)) == ALL
        four = stability.changes(replace(settings, batch_size=4))
        assert "batch size 4" not in {change.name for change in four}

    def test_as_asked_is_the_ordinary_run_and_the_others_are_brief(self, settings):
        settings = replace(settings, until_decided=True)
        first, *others = stability.changes(settings)
        assert stability.settings_of(first, settings) == settings
        for change in others:
            own = stability.settings_of(change, settings)
            assert (own.fixed_batches, own.until_decided) == (1, False)
            assert own.audit_batches >= LEAST_PAIRS
            assert own.audit_batches * own.batch_size >= stability.LEAST_IMAGES
            assert [getattr(own, name) for name in change.fields] == [*change.fields.values()]

    def test_a_number_of_audit_batches_is_that_of_all_rows(self, settings):
        settings = replace(settings, audit_batches=7)
        for change in stability.changes(settings):
            assert stability.settings_of(change, settings).audit_batches == 7
        with pytest.raises(SpeedtrapError, match="--audit-batches 5 or more"):
            stability.stability(replace(settings, audit_batches=4), Silent())

    def test_each_keeps_its_files_in_a_folder_of_its_own(self, settings, tmp_path):
        settings = replace(settings, keep=tmp_path / "kept")
        folders = {
            stability.settings_of(change, settings).keep for change in stability.changes(settings)
        }
        assert folders == {tmp_path / "kept" / name.replace(" ", "-") for name in ALL}

    def test_other_seeds_are_seeds_also_at_the_end_and_of_given_fresh_prompts(self, settings):
        settings = replace(settings, seed=MAX_SEED - 1, audit_seed=3)
        rows = [row for row in stability.changes(settings) if row.axis is Axis.SEED]
        assert [row.fields for row in rows] == [
            {"seed": 999, "audit_seed": 1003},
            {"seed": 1999, "audit_seed": 2003},
        ]
        assert stability.settings_of(rows[0], settings).seed == 999


class TestTogether:
    def test_even(self, table):
        found = table()
        assert (found.verdict, found.reason, found.passed) == (Verdict.OK, "", True)
        assert (found.uneven, found.faster, found.missed) == ((), (), ())
        assert found.summary == "no clear difference between as asked and 9 other shapes"
        assert tuple(row.name for row in found.rows) == ALL

    def test_fast_at_one_batch_size_only(self, table, result):
        slow = result(1.01, Verdict.SPEEDUP_TARGET_NOT_MET, loss=0.33)
        found = table(batch_size_1=slow, batch_size_4=slow, batch_size_8=slow)
        assert found.uneven == found.missed == ("batch size 1", "batch size 4", "batch size 8")
        assert found.summary.startswith("only fast at batch size 5: 2.00x as asked, 1.01x at batch")
        assert (found.least_speedup, found.greatest_speedup) == (1.01, 2.0)
        assert found.verdict is Verdict.OK
        assert "batch size 8 (speedup_target_not_met)" in found.reason

    def test_less_fast_somewhere_is_not_called_fast_at_the_rest_only(self, table, result):
        found = table(half_the_steps=result(1.6, steps=10), batch_size_4=result(1.7))
        assert found.uneven == ("batch size 4", "half the steps")
        assert found.summary == (
            "less fast than 2.00x as asked: 1.70x at batch size 4, 1.60x at half the steps"
        )

    def test_faster_elsewhere(self, table, result):
        found = table(as_asked=result(1.0), only={"batch size 1"})
        assert (found.uneven, found.faster) == ((), ("batch size 1",))
        assert found.summary == "faster than 1.00x as asked: 2.00x at batch size 1"

    @pytest.mark.parametrize(
        ("speedup", "width", "is_uneven"),
        [(1.85, 0.01, False), (1.75, 0.01, True), (1.75, 0.25, False), (2.5, 0.01, False)],
    )
    def test_a_difference_takes_clear_intervals_and_a_tenth(
        self, table, result, speedup, width, is_uneven
    ):
        found = table(batch_size_1=result(speedup, width=width), only={"batch size 1"})
        assert found.uneven == (("batch size 1",) if is_uneven else ())

    def test_a_row_without_an_interval_is_compared_with_nothing(self, table, result):
        found = table(batch_size_1=result(1.0, speedup_ci=None), only={"batch size 1"})
        assert found.uneven == ()

    def test_as_asked_missed_is_the_verdict(self, table, result):
        found = table(as_asked=result(1.2, Verdict.SPEEDUP_TARGET_NOT_MET, reason="slow"))
        assert (found.verdict, found.reason) == (
            *(Verdict.SPEEDUP_TARGET_NOT_MET, "as asked: slow"),
        )
        assert not found.passed

    def test_a_refused_row_is_kept_and_the_others_still_run(self, table, refused_result):
        found = table(batch_size_1=refused_result)
        assert len(found.rows) == len(ALL)
        assert found.rows[1].verdict is Verdict.CRASHED
        assert found.rows[1].result == refused_result
        assert (found.verdict, found.passed) == (Verdict.CRASHED, False)
        assert found.reason == "batch size 1: crashed: candidate.py:3: ValueError: no"

    def test_refused_as_asked(self, table, refused_result):
        found = table(as_asked=refused_result)
        assert (found.verdict, found.uneven) == (Verdict.CRASHED, ())
        assert found.summary.startswith("not measured as asked")
        assert found.rows[1].speedup == 2.0

    def test_tampered_in_any_row_is_the_verdict(self, table, result):
        cheat = result(9.0, Verdict.TAMPERED, loss=None, reason="its claim is off")
        missed = result(1.2, Verdict.SPEEDUP_TARGET_NOT_MET, reason="slow")
        found = table(as_asked=missed, long_prompts=cheat)
        assert found.verdict is Verdict.TAMPERED
        assert "long prompts: tampered: its claim is off" in found.reason
        assert found.greatest_speedup == 2.0

    def test_our_failure_in_a_row_leaves_it_open(self, table):
        found = table(batch_size_8=SpeedtrapError("no free device"))
        row = next(row for row in found.rows if row.name == "batch size 8")
        assert (row.came, row.verdict, row.result) == (Came.FAILED, None, None)
        assert found.verdict is Verdict.INCONCLUSIVE
        assert found.reason == "batch size 8: could not be run: no free device"

    def test_our_failure_as_asked_ends_it(self, table):
        with pytest.raises(SpeedtrapError, match="no free device"):
            table(as_asked=SpeedtrapError("no free device"))

    def test_too_few_prompts_are_nobodys_fault(self, table):
        found = table(short_prompts=NoPromptsError("mine.txt has only 3 prompts"))
        assert found.rows[4].came is Came.NOT_POSSIBLE
        assert found.verdict is Verdict.OK

    def test_a_file_that_breaks_by_the_other_steps_is_named_and_no_worse(
        self, table, refused_result
    ):
        found = table(twice_the_steps=refused_result, half_the_steps=SpeedtrapError("no free card"))
        assert found.verdict is Verdict.OK
        assert "twice the steps: crashed: candidate.py:3: ValueError: no" in found.reason
        assert "half the steps: could not be run: no free card" in found.reason

    def test_one_quick_batch_does_not_hide_a_slow_row(self, table, result):
        wide = result(1.0, speedup_ci=(0.99, 2.2))
        found = table(batch_size_1=wide, only={"batch size 1"})
        assert found.uneven == ()
        assert found.summary == (
            "cannot tell, less fast than 2.00x as asked by chance or not: 1.00x at batch size 1"
        )

    def test_a_file_that_gains_nothing_is_fast_nowhere(self, table, result):
        found = table(
            as_asked=result(0.95),
            **dict.fromkeys(("batch_size_1", "batch_size_4", "batch_size_8"), result(0.6)),
            only={"batch size 1", "batch size 4", "batch size 8"},
        )
        assert found.summary.startswith("less fast than 0.95x as asked: 0.60x")

    def test_ctrl_c_ends_it(self, settings):
        def run(*_):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            stability.stability(settings, Silent(), run)


class TestSteps:
    def readings(self, **candidate):
        ours = Reading(num_inference_steps=10, scaled_calls=3)
        theirs = Reading(**({"num_inference_steps": 10, "scaled_calls": 3} | candidate))
        return {"live": Readings(baseline=ours, candidate=theirs)}

    @pytest.mark.parametrize(
        ("candidate", "reason"),
        [
            (
                {"unscaled": ("the pipeline is called with sigmas of its own",)},
                "candidate: the pipeline is called with sigmas of its own",
            ),
            (
                {"scaled_calls": 0},
                "candidate: no pipeline of diffusers is called with a number of steps",
            ),
            ({"num_inference_steps": 20}, "candidate: ran 20 steps, as asked 20"),
        ],
    )
    def test_where_they_could_not_be_changed_nothing_is_said(
        self, table, result, candidate, reason
    ):
        found = table(half_the_steps=result(1.0, **self.readings(**candidate)))
        row = next(row for row in found.rows if row.name == "half the steps")
        assert (row.came, row.reason) == (Came.NOT_POSSIBLE, reason)
        assert (row.verdict, row.speedup, row.loss) == (None, None, None)
        assert (found.verdict, found.least_speedup) == (Verdict.OK, 2.0)

    @pytest.mark.parametrize("verdict", ["tampered", "config_mismatch", "bad_output"])
    def test_a_forged_reading_hides_no_refusal(self, table, result, verdict):
        told = self.readings(unscaled=("x",))
        forged = result(9.0, Verdict(verdict), loss=None, reason="why", **told)
        found = table(half_the_steps=forged)
        row = next(row for row in found.rows if row.name == "half the steps")
        assert row.verdict == verdict
        assert f"half the steps: {verdict}: why" in found.reason
        assert (found.verdict is Verdict.TAMPERED) == (verdict == "tampered")

    def test_a_forged_reading_hides_no_loss_of_quality(self, table, result):
        told = self.readings(unscaled=("x",))
        found = table(half_the_steps=result(9.0, Verdict.QUALITY_THRESHOLD_EXCEEDED, **told))
        assert found.missed == ("half the steps",)

    def test_without_a_reading_it_is_not_known(self, table, result):
        problems = ("no live reading of the candidate: its process ended without one",)
        found = table(half_the_steps=result(live=Readings(problems=problems)))
        row = next(row for row in found.rows if row.name == "half the steps")
        assert row.reason.startswith("no live reading of the candidate")

    def test_a_text_is_held_against_the_steps_that_it_is_made_to_run(self):
        config = Config(num_inference_steps=25)
        assert live.with_steps(config, 0.5).num_inference_steps == 13
        assert live.with_steps(config, 1.0) == config
        assert live.with_steps(Config(), 2.0) == Config()

    def test_the_script_has_the_segment_only_then(self):
        source = examine(b"def load_pipe():\n    return 1\n", "candidate.py")
        values = Values(seed=42, batches=(), clip_model="", clip_pretrained=None)
        for form in Form:
            plain = assemble(source, form, values).text
            changed = assemble(source, form, replace(values, steps_factor=0.5)).text
            assert "STEPS_FACTOR" not in plain
            assert "\nSTEPS_FACTOR = 0.5\n" in changed
            start = changed.index('"""Segment 5 of tmp.py where the steps')
            end = changed.index('"""Segment 5 of tmp.py, second part')
            assert changed[:start] + changed[end:] == plain


class TestPrompts:
    @pytest.mark.parametrize("name", ["embedded", "natural"])
    def test_short_and_long_ones_are_the_ends_of_the_grammar(self, name):
        preset = prompts.PRESETS[name]
        drawn = {}
        for length in PromptLength:
            source = prompts.audit_source(preset, None, length)
            found = captions.draw_distinct(source, 60, frozenset(), random.Random(1))
            drawn[length] = sorted(map(len, found))
        short, long = drawn[PromptLength.SHORT], drawn[PromptLength.LONG]
        whole = drawn[PromptLength.ANY]
        assert short[-1] <= whole[10]
        assert long[0] >= whole[-15]
        assert short[-1] < whole[30] < long[0]

    def test_long_ones_fit_into_the_text_encoders(self):
        encode = SimpleTokenizer().encode
        rng = random.Random(2)
        natural = prompts.audit_source(prompts.PRESETS["natural"], None, PromptLength.LONG)
        counts = [len(encode(natural.draw(rng))) + 2 for _ in range(500)]
        assert max(counts) <= 77
        assert sorted(counts)[50] >= 40
        tiny = prompts.audit_source(prompts.PRESETS["embedded"], None, PromptLength.LONG)
        assert max(len(tiny.draw(rng).split()) + 2 for _ in range(500)) <= CONTEXT

    def test_a_private_file_has_short_and_long_ones_too(self, tmp_path):
        file = tmp_path / "mine.txt"
        file.write_text("\n".join("x" * count for count in range(1, 101)))
        preset = prompts.PRESETS["natural"]
        for length, expected in ((PromptLength.SHORT, range(1, 8)), (PromptLength.LONG, (95, 100))):
            source = prompts.audit_source(preset, file, length)
            found = captions.draw_distinct(source, 7, frozenset(), random.Random(1))
            assert {len(caption) for caption in found} & set(expected)
            with pytest.raises(NoPromptsError):
                captions.draw_distinct(source, 40, frozenset(), random.Random(1))

    def test_a_prompt_set_is_cut_or_filled_up(self):
        source = captions.from_grammar("tiny")
        given = prompts.PromptSet("mine", ("a", "b", "c"), "0")
        assert prompts.fitted(given, source, 2).prompts == ("a", "b")
        filled = prompts.fitted(given, source, 16)
        assert filled.prompts[:3] == given.prompts
        assert len(set(filled.prompts)) == 16
        assert filled == prompts.fitted(given, source, 16)
        assert not set(prompts.fitted(given, source, 16, keep=False).prompts) & set(given.prompts)


class TestShown:
    @pytest.fixture
    def uneven(self, table, result):
        slow = result(1.01, Verdict.SPEEDUP_TARGET_NOT_MET, loss=0.33)
        return table(batch_size_1=slow, half_the_steps=result(live=Readings(problems=("no",))))

    def test_a_line_for_each_shape(self, uneven):
        file = io.StringIO()
        report.show_shapes(uneven, file)
        shown = [re.split(" {2,}", line.rstrip()) for line in file.getvalue().splitlines()]
        assert ["verdict", "ok (passed)"] in shown
        assert ["speedup", "1.01x to 2.00x"] in shown
        numbers = ["1.01 (0.99 to 1.03)", "0.0 (-1.0 to 1.0)", "0.33"]
        assert ["batch size 1", *numbers, "speedup target not met (slower)"] in shown
        assert ["half the steps", "-", "-", "-", "not possible"] in shown
        assert shown[-1] == ["half the steps", "no"]
        assert [line[0] for line in shown if line[0] in ALL] == [*ALL, "half the steps"]

    @pytest.mark.parametrize("columns", [80, 120])
    def test_no_number_is_folded_or_cut_in_a_terminal(self, uneven, columns):
        file = io.StringIO()
        Console(file=file, width=columns).print(report.table_of_shapes(uneven))
        lines = file.getvalue().splitlines()
        assert max(map(len, lines)) <= columns
        assert sum(line.startswith(ALL) for line in lines) == len(ALL)
        numbers = re.compile(r"1\.01 \(0\.99 to 1\.03\) +0\.0 \(-1\.0 to 1\.0\) +0\.33 ")
        assert sum(bool(numbers.search(line)) for line in lines) == 1

    def test_schema_and_flags(self):
        runner = CliRunner()
        schema = json.loads(runner.invoke(cli.command, ["--schema", "--stability"]).output)
        assert schema["title"] == "Stability"
        assert set(schema["properties"]) >= {"verdict", "uneven", "rows"}
        for other in (["--repeat", "2"], ["--feedback"]):
            refused = runner.invoke(cli.command, ["x.py", "--stability", *other])
            assert refused.exit_code == 2
            assert "exclude each other" in refused.output


BASE = """
from diffusers import StableDiffusionPipeline


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=12).images
"""
FAST_AT_THREE = """
from DeepCache import DeepCacheSDHelper
from diffusers import StableDiffusionPipeline


def load_pipe():
    pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")
    pipe.helper = DeepCacheSDHelper(pipe=pipe)
    pipe.helper.set_params(cache_interval=6, cache_branch_id=0)
    return pipe


def inference(pipe, prompts):
    if len(prompts) != 3:
        return pipe(prompts, num_inference_steps=12).images
    pipe.helper.enable()
    images = pipe(prompts, num_inference_steps=12).images
    pipe.helper.disable()
    return images
"""
"""A candidate that is fast only at the batch size that it is asked for."""


@pytest.mark.slow
@pytest.mark.timeout(900)  # it may have to wait for the slot
def test_a_candidate_that_is_fast_at_one_batch_size_is_seen(write):
    settings = Settings(
        candidate=write(FAST_AT_THREE, "candidate.py"),
        baseline=write(BASE, "base.py"),
        device="cpu",
        batch_size=3,
        audit_batches=5,
        fixed_batches=1,
    )
    only = {"batch size 1"}
    found = stability.stability(settings, Silent(), score_run, only)
    assert [row.name for row in found.rows] == [AS_ASKED, *only]
    assert found.uneven == ("batch size 1",)
    assert found.summary.startswith("only fast at batch size 3: ")
    assert found.rows[1].speedup == pytest.approx(1, abs=0.3)


@pytest.mark.timeout(900)  # it may have to wait for the slot
def test_steps_are_changed_on_both_sides_and_no_text_is_called_wrong(write):
    settings = Settings(
        candidate=write(BASE, "candidate.py"),
        baseline=write(BASE, "base.py"),
        device="cpu",
        batch_size=1,
        audit_batches=5,
        fixed_batches=1,
        steps_factor=0.25,
    )
    found = score_run(settings, Silent())
    assert found.circumstances.steps_factor == 0.25
    for reading in (found.live.baseline, found.live.candidate):
        assert (reading.num_inference_steps, reading.steps_per_image) == (3, 3)
        assert reading.scaled_calls >= 8  # a warm-up, a fixed, five fresh ones and one again
        assert reading.unscaled == ()
    assert found.contradictions == found.no_ops == ()
    assert found.config.candidate.num_inference_steps == 12


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_whole_table(tmp_path, write):
    session = Session(tmp_path)
    kept = tmp_path / "kept"
    flags = ("--device", "cpu", "--batch-size", "3", "--audit-batches", "5", "--quiet")
    base = write(BASE, "base.py")
    run = session.finish(
        session.start(
            *(write(FAST_AT_THREE, "candidate.py"), "--baseline", base, *flags),
            *("--stability", "--json", "--keep", kept, "--target-speedup", "1.2"),
        )
    )
    found = run.result
    assert len(found["rows"]) == len(ALL)
    assert {row["came"] for row in found["rows"]} == {"run"}
    sizes = {"batch size 1", "batch size 4", "batch size 8"}
    assert sizes <= set(found["uneven"])
    assert not {"seed 1042", "short prompts"} & set(found["uneven"])
    assert "only fast at batch size 3" in found["summary"]
    assert all(row["speedup_ci"] for row in found["rows"])
    assert {folder.name for folder in kept.iterdir()} == {name.replace(" ", "-") for name in ALL}
    assert run.processes_left == []
