"""What is settled before a device is taken: the comparison of texts, and the baseline."""

import json
import sys

import pytest

from runner import account, gpu, live, settle
from runner.attempt import _without_baseline
from runner.cli import command
from runner.keep import Keeper
from runner.prepare import prepare, write_scripts
from runner.progress import Silent
from runner.records import (
    BaselinePrecision,
    Device,
    Failure,
    Judgement,
    Purpose,
    Reading,
    Readings,
    Refused,
    Role,
    SpeedtrapError,
    Verdict,
)
from runner.score import run, score
from runner.settings import Settings

CANDIDATE = """
from diffusers import StableDiffusionPipeline
from DeepCache import DeepCacheSDHelper
def load_pipe():
    pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")
    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=3)
    helper.enable()
    return pipe
def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
"""
TRUTH = CANDIDATE.replace("25", "50")
SD = "StableDiffusionPipeline"


@pytest.fixture
def settings(write):
    def make(text=CANDIDATE, truth=None, **changes):
        if truth is not None:
            changes["against"] = write(truth, "truth.py")
        return Settings(candidate=write(text), sandbox="none", device="cpu", **changes)

    return make


@pytest.fixture(autouse=True)
def no_device(monkeypatch):
    def lease(*_):
        message = "a device was asked for"
        raise AssertionError(message)

    monkeypatch.setattr(gpu, "lease", lease)


def test_a_mismatch_is_the_verdict_and_no_device_is_touched(settings):
    result = run(settings(truth=TRUTH), Silent())
    assert result.verdict is Verdict.CONFIG_MISMATCH
    assert not result.passed
    assert result.reason.endswith("num_inference_steps is 25, asked for is 50")
    assert result.loss is None
    assert result.config_match.rate == 0.75
    assert result.config.candidate.num_inference_steps == 25
    assert result.synthesised_baseline is None
    assert result.circumstances.baseline_sha256 is None
    assert result.circumstances.preset == "embedded"
    assert result.target_speedup == 1.5


def test_a_mismatch_comes_before_a_model_that_is_missing(settings):
    text = CANDIDATE.replace("speedtrap/tiny-sd", "nobody/nothing")
    assert run(settings(text, TRUTH), Silent()).verdict is Verdict.CONFIG_MISMATCH
    with pytest.raises(SpeedtrapError, match="'nobody/nothing' is not in the model cache"):
        run(settings(text), Silent())


@pytest.mark.parametrize(
    "changes", [{"truth": CANDIDATE}, {"truth": TRUTH, "open_fields": ("num_inference_steps",)}]
)
def test_a_match_goes_on(settings, changes):
    job = prepare(settings(**changes))
    assert job.refused is None
    assert job.match.matched
    with pytest.raises(AssertionError, match="a device was asked for"):
        run(settings(**changes), Silent())


def test_what_is_unknown_goes_on(settings):
    text = CANDIDATE.replace("25", "int(input())")
    job = prepare(settings(text, TRUTH))
    assert job.refused is None
    assert not job.match.decided


def test_a_ground_truth_that_cannot_be_read_is_our_failure(settings):
    with pytest.raises(SpeedtrapError, match="the ground truth cannot be used"):
        prepare(settings(truth="x = = 1"))


def test_a_candidate_that_cannot_be_read_needs_no_baseline(settings):
    result = run(settings("x = = 1", TRUTH), Silent())
    assert result.verdict is Verdict.CRASHED
    assert result.config_match is None


def test_a_baseline_is_made_where_none_is_given(settings):
    job = prepare(settings())
    assert "deepcache" not in job.synthesised.lower().partition("import torch")[2]
    assert job.baseline.text == job.synthesised
    assert job.baseline.models == ("speedtrap/tiny-sd",)
    assert job.preset.name == "embedded"
    scripts = write_scripts(job)
    assert set(scripts) == set(Role)
    assert "num_inference_steps=25" in scripts[Role.BASELINE].text


def test_the_baseline_that_is_made_can_be_kept(settings, tmp_path):
    target = tmp_path / "made.py"
    job = prepare(settings(save_baseline=target))
    assert target.read_text() == job.synthesised
    Keeper(tmp_path / "kept").baseline(job.synthesised)
    assert (tmp_path / "kept" / "baseline.py").read_text() == job.synthesised
    again = prepare(settings(baseline=target))
    assert again.synthesised is None
    assert again.baseline.digest == job.baseline.digest


def test_a_baseline_that_cannot_be_saved(settings, tmp_path):
    with pytest.raises(SpeedtrapError, match="cannot write"):
        prepare(settings(save_baseline=tmp_path / "no" / "where.py"))
    with pytest.raises(SpeedtrapError, match="would overwrite the candidate"):
        settings(save_baseline=tmp_path / "candidate.py")
    with pytest.raises(SpeedtrapError, match="--save-baseline"):
        settings(baseline=tmp_path / "b.py", save_baseline=tmp_path / "c.py")


def test_precision_of_the_baseline_that_is_made(settings):
    half = CANDIDATE.replace('tiny-sd"', 'tiny-sd", torch_dtype=torch.float16')
    half = "import torch\n" + half
    assert prepare(settings(half)).baseline.config.dtype == "float16"
    job = prepare(settings(half, baseline_precision=BaselinePrecision.FLOAT32))
    assert job.baseline.config.dtype == "float32"


def test_a_candidate_that_names_no_pipeline_needs_a_baseline(settings):
    with pytest.raises(SpeedtrapError, match="name one with --baseline"):
        prepare(settings("def apply_optimizations(pipe):\n    return pipe\n"))


def test_fields_that_there_are_not(settings):
    for name in ("fields", "open_fields"):
        with pytest.raises(SpeedtrapError, match="no field 'steps'"):
            settings(**{name: ("steps",)})


def test_from_python(write):
    result = score(write(CANDIDATE), sandbox="none", against=write(TRUTH, "truth.py"), device="cpu")
    assert result.verdict is Verdict.CONFIG_MISMATCH


def reading(**changes):
    fields = {"num_inference_steps": 25, "dtype": "float32", "pipeline_name": SD}
    return Reading(**(fields | changes))


def settled(job, judgement=None, ours=None, theirs=None):
    readings = Readings(baseline=ours or reading(), candidate=theirs or reading())
    return settle.settle(
        judgement or Judgement(Verdict.OK, "", loss=0.0), job, readings, on_cuda=True
    )


@pytest.mark.parametrize("verdict", [Verdict.OK, Verdict.SPEEDUP_TARGET_NOT_MET])
@pytest.mark.parametrize("side", ["ours", "theirs"])
@pytest.mark.parametrize(
    ("change", "field"),
    [({"num_inference_steps": 8}, "num_inference_steps"), ({"dtype": "float16"}, "dtype")],
)
def test_a_text_that_is_not_what_runs_makes_no_baseline(settings, verdict, side, change, field):
    job = prepare(settings())
    before = Judgement(verdict, "", speedup=11.9, loss=0.0)
    found = settled(job, before, **{side: reading(**change)})
    assert found.verdict is Verdict.INCONCLUSIVE
    assert f"differ in {field}; name a baseline" in found.reason
    assert (found.loss, found.speedup) == (None, 11.9)


@pytest.mark.parametrize(
    "verdict", [Verdict.TAMPERED, Verdict.QUALITY_THRESHOLD_EXCEEDED, Verdict.INCONCLUSIVE]
)
def test_a_reading_makes_no_verdict_better(settings, verdict):
    judgement = Judgement(verdict, "why")
    assert (
        settled(prepare(settings()), judgement, theirs=reading(num_inference_steps=8)) is judgement
    )


def test_what_runs_as_its_text_says_is_left_alone(settings, write):
    judgement = Judgement(Verdict.OK, "", loss=0.0)
    assert settled(prepare(settings()), judgement) is judgement
    missing = Readings()
    assert settle.settle(judgement, prepare(settings()), missing, on_cuda=True) is judgement
    given = prepare(settings(baseline=write(CANDIDATE, "base.py")))
    assert settled(given, judgement, theirs=reading(num_inference_steps=8)) is judgement
    half = reading(compute_dtype="float16")  # autocast, beside weights in half precision
    assert settled(prepare(settings()), judgement, half, half) is judgement


def test_half_precision_that_is_to_count_is_no_difference(settings):
    half = "import torch\n" + CANDIDATE.replace('sd"', 'sd", torch_dtype=torch.float16')
    job = prepare(settings(half, baseline_precision=BaselinePrecision.FLOAT32))
    judgement = Judgement(Verdict.OK, "", loss=0.0)
    assert settled(job, judgement, theirs=reading(dtype="float16")) is judgement
    pinned = prepare(settings(half))
    both = {"ours": reading(dtype="float16"), "theirs": reading(dtype="float16")}
    assert settled(pinned, judgement, **both) is judgement
    assert settled(pinned, judgement, **(both | {"theirs": reading()})).loss is None


def test_what_the_text_does_not_tell_is_settled_by_what_runs(settings, write):
    text = CANDIDATE.replace("25", "int(input())")
    job = prepare(settings(text, TRUTH, baseline=write(CANDIDATE, "base.py")))
    assert job.truth.num_inference_steps == 50
    found = settled(job)
    assert found.verdict is Verdict.CONFIG_MISMATCH
    assert found.reason == "num_inference_steps is 25 in the live pipeline, asked for is 50"
    assert found.loss is None
    tampered = Judgement(Verdict.TAMPERED, "why")
    assert settled(job, tampered) is tampered
    right = Judgement(Verdict.OK, "", loss=0.0)
    assert settled(job, right, theirs=reading(num_inference_steps=50)) is right
    left_open = prepare(
        settings(text, TRUTH, baseline=job.settings.baseline, open_fields=("num_inference_steps",))
    )
    assert settled(left_open, right) is right


@pytest.mark.parametrize(("kind", "on_cuda"), [("cpu", False), ("cuda", True)])
def test_live_readings_are_held_against_the_device(settings, measured, monkeypatch, kind, on_cuda):
    seen = []
    true_compare = live.compare

    def compare(*arguments, **options):
        seen.append(options)
        return true_compare(*arguments, **options)

    monkeypatch.setattr(live, "compare", compare)
    one = account.Account(prepare(settings()), Keeper(None), Silent(), Device(kind=kind, name="x"))
    assert one.result(measured()).speedup == 2.0
    assert seen == [{"on_cuda": on_cuda}]


def test_a_made_baseline_that_fails_is_no_failure_of_ours(settings, write):
    failure = Failure(file="baseline.py", line=3, phase="load", message="no", traceback="Trace")
    lost = Refused(Verdict.CRASHED, "baseline.py:3: no", failure)
    refused = _without_baseline(lost, account.Account(prepare(settings()), Keeper(None), Silent()))
    assert refused.verdict is Verdict.INCONCLUSIVE
    assert refused.reason == (
        "the baseline made from the candidate's text failed: baseline.py:3: no; name one with"
        " --baseline"
    )
    job = prepare(settings(baseline=write(CANDIDATE, "base.py")))
    given = account.Account(job, Keeper(None), Silent())
    with pytest.raises(SpeedtrapError, match=r"the baseline failed: baseline\.py:3: no\nTrace"):
        _without_baseline(lost, given)
    full = _without_baseline(Refused(Verdict.OOM, "base.py:3: out of memory"), given)
    assert full.verdict is Verdict.OOM
    assert "beside it, after the first timed batch: base.py:3: out of memory" in full.reason


def test_every_run_has_fresh_prompts_of_its_own(settings):
    jobs = [prepare(settings()) for _ in range(2)]
    assert jobs[0].audit_seed != jobs[1].audit_seed
    drawn = [
        {prompt for one in job.plan if one.purpose is Purpose.AUDIT for prompt in one.prompts}
        for job in jobs
    ]
    assert [len(some) for some in drawn] == [45, 45]
    assert len(drawn[0] & drawn[1]) <= 1
    assert jobs[0].audit_source[0] == "tiny grammar"


def test_an_audit_seed_repeats_the_plan(settings):
    one, other = (prepare(settings(audit_seed=5)) for _ in range(2))
    assert one.plan == other.plan
    assert one.audit_seed == 5
    assert prepare(settings(audit_seed=6)).plan != one.plan


def test_fresh_prompts_are_in_no_script(settings, tmp_path):
    job = prepare(settings(audit_seed=5, keep=tmp_path / "kept"))
    public = {prompt for one in job.values.batches for prompt in one.prompts}
    assert public == set(job.prompt_set.prompts)
    secret = {prompt for one in job.plan for prompt in one.prompts} - public
    assert secret
    for script in write_scripts(job).values():
        assert not any(prompt in script.text for prompt in secret)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"audit_batches": 0}, "the numbers stand on public prompts"),
        ({"audit_seed": 5}, "whoever knows it knows the prompts"),
    ],
)
def test_what_weakens_the_audit_is_a_warning(settings, measured, changes, says):
    def warnings(**more):
        one = account.Account(prepare(settings(**more)), Keeper(None), Silent())
        return one.result(measured()).circumstances.warnings

    assert any(says in text for text in warnings(**changes))
    assert not any(says in text for text in warnings())


@pytest.mark.parametrize(
    ("changes", "verdict", "warnings"),
    [
        ({}, Verdict.INCONCLUSIVE, 0),
        ({"allow_untied": True}, Verdict.OK, 1),
        ({"clip": "ViT-S-32:random"}, Verdict.OK, 0),
    ],
)
def test_images_without_a_floor_have_no_loss_unless_that_is_allowed_or_scores_mean_nothing(
    settings, measured, changes, verdict, warnings
):
    job = prepare(settings(**changes))
    result = account.Account(job, Keeper(None), Silent()).result(measured())
    assert result.fidelity is None
    assert result.verdict is verdict
    assert (result.loss is None) is (verdict is Verdict.INCONCLUSIVE)
    found = [text for text in result.circumstances.warnings if "against a floor" in text]
    assert len(found) == warnings


def test_json_is_ascii(make_result, monkeypatch, capsys, write):
    odd = "\x1b]0;x\x07 \x7f \x9b \u202e \u00e9"
    result = make_result(reason=odd, passed=False, loss=None)
    monkeypatch.setattr(sys.modules["runner.score"], "run", lambda *_: result)
    path = str(write(CANDIDATE))
    assert command.main([path, "--json", "--quiet"], standalone_mode=False) == 1
    printed = capsys.readouterr().out
    assert all(" " <= character <= "~" or character == "\n" for character in printed)
    assert json.loads(printed) == json.loads(result.model_dump_json())
