import json
import math
import re
import subprocess
import sys

import jsonschema
import pydantic
import pytest

from runner import paths
from runner.records import (
    SCHEMA_VERSION,
    Attempt,
    Audit,
    Batch,
    Circumstances,
    Claim,
    Device,
    Failure,
    Fidelity,
    Floor,
    Isolation,
    IsolationPolicy,
    Likeness,
    Part,
    PlannedBatch,
    Purpose,
    Result,
    Script,
    Side,
    Verdict,
)

PUBLISHED = paths.ROOT / "docs" / "result.schema.json"
SCHEMA = Result.model_json_schema(mode="serialization")
PROMISED = {
    "schema_version",
    "verdict",
    "reason",
    "passed",
    "speedup",
    "credited_speedup",
    "accuracy",
    "quality_loss",
    "loss",
    "target_speedup",
    "target_quality_loss",
    "baseline",
    "candidate",
    "claim",
    "audit",
    "fidelity",
    "device",
    "isolation",
    "circumstances",
}
NUMBERS = [
    "speedup",
    "credited_speedup",
    "accuracy",
    "quality_loss",
    "speed_achievement",
    "accuracy_achievement",
]

CIRCUMSTANCES = Circumstances(
    started_at="2025-01-01T00:00:00+00:00",
    wall_s=3.0,
    phases_s={"lease": 0.1},
    candidate_sha256=None,
    baseline_sha256="0" * 64,
    preset="embedded",
    prompts="tiny-20",
    prompts_sha256="0" * 64,
    prompt_count=20,
    batch_size=5,
    seed=42,
    audit_seed=7,
    order="alternate",
    clip_model="local-dir:tiny-clip",
    clip_pretrained=None,
    quality_meaningful=True,
    stand_ins={"a/b": "c/d"},
    versions={"torch": "2.11"},
    host={"kernel": "6", "logical_cores": 2, "load_1min": 0.5},
    attempts=(Attempt(device="cpu", verdict="ok", order="whole", foreign_bytes=0),),
    warnings=("doubtful",),
)

AUDIT = Audit(
    seed=7,
    prompts="tiny grammar",
    prompts_sha256="0" * 64,
    fixed=Part(speedup=2.0, quality_loss=0.0),
    audit=Part(speedup=2.0, quality_loss=None),
    fixed_faster=1.0,
    repeat_faster=None,
    tolerance=1.25,
    fixed_better=None,
    fixed_better_t=None,
    suspicion=None,
)
FLOOR = Floor(mean=0.5, sd=0.1, at_least=0.4, image_at_least=0.0, seen=0.9)
FIDELITY = Fidelity(
    psnr_db=FLOOR,
    ssim=FLOOR,
    clip_cosine=FLOOR,
    images=15,
    discarded=0,
    below=(),
    tie_t=7.0,
    closeness=0.9,
    tied_images=15,
    tied=True,
    credit=1.0,
)


def batch(**changes):
    fields = {"phase": "timed", "purpose": Purpose.AUDIT, "counts": True, "seed": 1, "time_s": 1.0}
    return Batch(**(fields | {"scores": (1.0,)} | changes))


@pytest.fixture
def full(make_result):
    return make_result(
        audit=AUDIT,
        fidelity=FIDELITY,
        failure=Failure(file="x.py", line=None, phase="load", message="m", traceback="t"),
        device=Device(kind="cuda", name="H200", index=0, uuid="GPU-1", memory_bytes=1, driver="5"),
        isolation=Isolation(backend=IsolationPolicy.BUBBLEWRAP, network=False, host_files=False),
        circumstances=CIRCUMSTANCES,
    )


def as_json(result):
    return json.loads(result.model_dump_json())


def test_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_published_schema_is_the_one_of_the_code():
    if not PUBLISHED.exists():
        pytest.skip(f"{PUBLISHED} is not published yet")
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == SCHEMA


@pytest.mark.parametrize("name", ["full", "refused_result"])
def test_results_keep_to_the_schema(name, request):
    jsonschema.validate(as_json(request.getfixturevalue(name)), SCHEMA)


@pytest.mark.parametrize("name", ["full", "refused_result"])
def test_json_round_trip(name, request):
    result = request.getfixturevalue(name)
    assert Result.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize("name", ["full", "refused_result"])
def test_every_promised_name_is_always_there(name, request):
    assert set(as_json(request.getfixturevalue(name))) >= PROMISED
    assert set(SCHEMA["properties"]) >= PROMISED


def test_names_inside_the_sides_and_the_claim(full):
    found = as_json(full)
    for side in ("baseline", "candidate"):
        assert set(found[side]) == {"time_s", "score", "batches", "cost"}
        assert set(found[side]["batches"][0]) == {
            *("phase", "purpose", "of", "counts", "seed", "time_s", "leftover_s", "scores"),
            *("weather", "marks", "first_go", "recalled", "same_seed", "other_seed"),
        }
    assert set(found["claim"]) == {"time_s", "score"}
    assert found["schema_version"] == SCHEMA_VERSION == "1.3"


def test_unmeasured_is_null_and_never_zero(refused_result):
    found = as_json(refused_result)
    missing = [*NUMBERS, "loss", "baseline", "candidate", "claim", "audit", "fidelity"]
    assert [found[name] for name in missing] == [None] * len(missing)


@pytest.mark.parametrize("name", [*NUMBERS, "loss", "target_speedup", "target_quality_loss"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(make_result, name, bad):
    with pytest.raises(pydantic.ValidationError):
        make_result(**{name: bad})


@pytest.mark.parametrize("name", ["speed_achievement", "accuracy_achievement", "loss"])
@pytest.mark.parametrize("bad", [-0.01, 1.01])
def test_shares_are_within_zero_and_one(make_result, name, bad):
    with pytest.raises(pydantic.ValidationError):
        make_result(**{name: bad})


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_no_nan_gets_into_a_side(bad):
    for changes in ({"scores": (1.0, bad)}, {"time_s": bad}, {"leftover_s": bad}):
        with pytest.raises(pydantic.ValidationError, match="finite"):
            batch(**changes)
    for name in ("fixed_faster", "tolerance", "fixed_better", "fixed_better_t"):
        with pytest.raises(pydantic.ValidationError, match="finite"):
            Audit(**(AUDIT.model_dump() | {name: bad}))
    with pytest.raises(pydantic.ValidationError, match="finite"):
        Floor(**(FLOOR.model_dump() | {"seen": bad}))
    with pytest.raises(pydantic.ValidationError):
        Side(time_s=1.0, score=bad, batches=())
    with pytest.raises(pydantic.ValidationError):
        Claim(time_s=bad, score=1.0)


@pytest.mark.parametrize("changes", [{"time_s": 0.0}, {"time_s": -1.0}, {"leftover_s": -0.1}])
def test_no_batch_takes_less_than_no_time(changes):
    assert batch().leftover_s == 0
    with pytest.raises(pydantic.ValidationError):
        batch(**changes)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("psnr_db", (0.0, 100.0), (-0.1, 100.1)),
        ("ssim", (-1.0, 1.0), (-1.1, 1.1)),
        ("clip_cosine", (-1.0, 1.0), (-1.1, 1.1)),
    ],
)
def test_likeness_is_within_its_range(name, good, bad):
    fields = {"psnr_db": 30.0, "ssim": 0.9, "clip_cosine": 0.9}
    for value in good:
        assert getattr(Likeness(**(fields | {name: value})), name) == value
    for value in (*bad, math.nan, math.inf):
        with pytest.raises(pydantic.ValidationError):
            Likeness(**(fields | {name: value}))


@pytest.mark.parametrize(
    ("purpose", "timed", "for_candidate"),
    [
        (Purpose.WARM_UP, False, True),
        (Purpose.FIXED, True, True),
        (Purpose.AUDIT, True, True),
        (Purpose.REPEAT, True, True),
        (Purpose.OTHER_SEED, False, False),
        (Purpose.AGAIN, False, False),
    ],
)
def test_what_each_purpose_means(purpose, timed, for_candidate):
    planned = PlannedBatch(1, ("a",), purpose)
    assert (planned.timed, planned.for_candidate) == (timed, for_candidate)


def test_batches_that_count(side):
    made = side()
    assert made.counted == made.batches[1:]
    assert Side(time_s=1.0, score=1.0, batches=(batch(), batch(counts=False))).counted == (batch(),)


@pytest.mark.parametrize("changes", [{"time_s": -1.0}, {"score": -1.0}])
def test_no_negative_measurement(changes):
    with pytest.raises(pydantic.ValidationError):
        Side(**({"time_s": 1.0, "score": 1.0, "batches": ()} | changes))


def test_records_are_frozen_and_closed(full):
    with pytest.raises(pydantic.ValidationError):
        full.loss = 0.0
    with pytest.raises(pydantic.ValidationError):
        Claim(time_s=1.0, score=1.0, note="x")


def test_unknown_verdict_is_refused(make_result):
    with pytest.raises(pydantic.ValidationError):
        make_result(verdict="fine")
    assert {verdict.value for verdict in Verdict} == set(SCHEMA["$defs"]["Verdict"]["enum"])


@pytest.mark.parametrize("text", ["\udcff.py", "a\ud800b", "\x00\x1b[31m\u202e☃"])
def test_any_text_has_json(make_result, text):
    failure = Failure(file=text, line=1, phase="load", message=text, traceback=text)
    result = make_result(reason=text, failure=failure)
    jsonschema.validate(as_json(result), SCHEMA)


@pytest.mark.parametrize(
    ("line", "expected"), [(9, None), (10, 1), (14, 5), (15, None), (0, None), (-1, None)]
)
def test_line_map(line, expected):
    assert Script("", paths.ROOT, first_line=10, line_count=5).original_line(line) == expected


def test_import_is_light_and_quick(record_property):
    code = (
        "import time; start_s = time.perf_counter()\n"
        "import runner, sys; elapsed_s = time.perf_counter() - start_s\n"
        "heavy = {'torch', 'diffusers', 'PIL', 'numpy', 'transformers', 'datasets', 'pandas'}\n"
        "print(sorted(heavy & sys.modules.keys()), elapsed_s)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=paths.ROOT,
    )
    heavy, elapsed_s = re.fullmatch(r"(\[.*\]) ([\d.e-]+)\n", run.stdout).groups()
    assert heavy == "[]"
    record_property("import_s", elapsed_s)
    assert float(elapsed_s) < 10
