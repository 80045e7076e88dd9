import json
import time
import tracemalloc

import pytest
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from hypothesis import given
from hypothesis import strategies as st

from runner import live
from runner.live import Component, NoReading
from runner.records import Config, Configs, Reading, Role, Traces

MIRROR = "runwayml/stable-diffusion-v1-5"
B, C = Role.BASELINE, Role.CANDIDATE

PIPELINE = {
    "pipeline_name": "StableDiffusionPipeline",
    "model_id": "speedtrap/tiny-sd",
    "scheduler_name": "DDIMScheduler",
    "scheduler_steps": 25,
    "timesteps": 25,
    "skips_prk_steps": None,
    "denoiser": "unet",
    "denoiser_name": "UNet2DConditionModel",
    "dtype": "float32",
    "guidance_scale": 7.5,
    "guidance": True,
    "attention_processors": {"AttnProcessor2_0": 14},
    "methods": {},
    "unread": [],
}
ROW = [5, 25, 250, 25, 125]
REPORT = {
    "loads": "load_pipe",
    "pipeline": PIPELINE,
    "other_pipelines": [],
    "compute_dtype": "float32",
    "batches": [[5, 0, 0, 0, 0], ROW, ROW],
}
PLAIN = Reading(
    loads="load_pipe",
    pipeline_name="StableDiffusionPipeline",
    model_id="speedtrap/tiny-sd",
    scheduler_name="DDIMScheduler",
    num_inference_steps=25,
    timesteps=25,
    expected_steps=25,
    steps_per_image=25.0,
    denoiser_name="UNet2DConditionModel",
    denoiser_calls_per_batch=25.0,
    scheduler_steps_per_batch=25.0,
    rows_per_step=2.0,
    guidance=True,
    guidance_scale=7.5,
    height=64,
    width=48,
    dtype="float32",
    compute_dtype="float32",
    attention_processors={"AttnProcessor2_0": 14},
)
TEXT = Config(
    pipeline_name="StableDiffusionPipeline",
    model_id="speedtrap/tiny-sd",
    num_inference_steps=25,
    guidance_scale=7.5,
)


def traces(report=REPORT, **changes):
    text = report if isinstance(report, bytes | None) else json.dumps(report | changes).encode()
    return Traces(text, {0: ("a", "b")}, (48, 64))


def reading(**changes):
    return PLAIN.model_copy(update=changes)


def text(**changes):
    return TEXT.model_copy(update=changes)


def test_a_report_becomes_a_reading():
    assert live.read(traces()) == PLAIN


def test_nothing_counted_is_nothing_known():
    found = live.read(traces(batches=[ROW, [5, 0, 0, 0, 0]]))
    assert found.denoiser_calls_per_batch is found.steps_per_image is found.rows_per_step is None


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (None, "ended without"),
        (b"", "not in order"),
        (b"\xff\xfe", "not in order"),
        (b"null", "not in order"),
        (b"[" * 500_000, "not in order"),
        (b'{"pipeline":' * 50_000, "not in order"),
        (b" " * (live.REPORT_BYTES + 1), "at most"),
        (b"{}", "no pipeline"),
        (b'{"problem": "it broke"}', "it broke"),
        (b'{"verdict": "ok"}', "verdict"),
        (b'{"loads": 7}', "loads"),
        (b'{"batches": [[1, 2]]}', "batches"),
        (b'{"batches": [[1, 2, 3, 4, -5]]}', "batches"),
        (b'{"batches": [[1, 2, 3, 4, 1e99]]}', "batches"),
        (b'{"batches": [[1, 2, 3, 4, ' + b"9" * 5000 + b"]]}", "not in order"),
        (b'{"other_pipelines": ["' + b"x" * 501 + b'"]}', "other_pipelines"),
    ],
)
def test_what_is_not_in_order_is_no_reading(report, reason):
    found = live.read(traces(report))
    assert isinstance(found, NoReading)
    assert reason in found.reason
    assert len(found.reason) < 400


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("place", ['"guidance_scale": 7.5', '"methods": {}'])
def test_numbers_are_finite(number, place):
    name = place.split(":")[0]
    value = number if "scale" in name else f'{{"tomesd": {{"ratio": {number}}}}}'
    report = json.dumps(REPORT).replace(place, f"{name}: {value}").encode()
    assert number.encode() in report
    assert isinstance(live.read(traces(report)), NoReading)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_any_json_is_read_or_refused(value):
    for report in (value, {"pipeline": value}, REPORT | {"batches": value}):
        live.read(traces(json.dumps(report).encode()))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    assert isinstance(live.read(traces(data)), NoReading)


@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler,
        DPMSolverMultistepScheduler,
        EulerDiscreteScheduler,
        FlowMatchHeunDiscreteScheduler,
        HeunDiscreteScheduler,
        KDPM2AncestralDiscreteScheduler,
        KDPM2DiscreteScheduler,
        LCMScheduler,
        PNDMScheduler,
        UniPCMultistepScheduler,
    ],
)
@pytest.mark.parametrize("steps", [4, 25, 50])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_expected_steps_are_those_of_the_library(scheduler, steps):
    for options in ({}, {"skip_prk_steps": True}) if scheduler is PNDMScheduler else ({},):
        made = scheduler(**options)
        made.set_timesteps(steps)
        skips = options.get("skip_prk_steps", False)
        expected = live.expected_steps(scheduler.__name__, steps, skips_prk_steps=skips)
        assert expected == len(made.timesteps)


def test_expected_steps_are_unknown_where_the_list_has_its_own_length():
    assert live.expected_steps("RePaintScheduler", 50) is None
    assert live.expected_steps(None, 50) is None
    assert live.expected_steps("DDIMScheduler", None) is None


def test_a_text_that_tells_the_truth_is_not_contradicted():
    assert list(live.contradictions(C, TEXT, PLAIN)) == []
    assert list(live.contradictions(C, Config(), PLAIN)) == []
    assert list(live.contradictions(C, None, PLAIN)) == []
    assert list(live.contradictions(C, TEXT, None)) == []


@pytest.mark.parametrize(
    ("said", "seen", "sentence"),
    [
        ({"pipeline_name": "FluxPipeline"}, {}, "pipeline is FluxPipeline in the text"),
        ({"model_id": "a/b"}, {}, "model is a/b in the text, speedtrap/tiny-sd in the live"),
        ({"scheduler_name": "LCMScheduler"}, {}, "scheduler is LCMScheduler in the text"),
        ({"num_inference_steps": 50}, {}, "number of steps is 50 in the text, 25 in the live"),
        ({"guidance_scale": 7.5}, {"guidance_scale": 1.0}, "guidance scale is 7.5 in the text, 1"),
        ({"height": 512}, {}, "height is 512 in the text, 64 in the live"),
        ({"dtype": "float32"}, {"dtype": "float16"}, "dtype is float32 in the text, float16"),
        ({}, {"steps_per_image": 20.0}, "20 steps were taken for an image, where 25 inference"),
        ({}, {"denoiser_calls_per_batch": 13.0}, "called 13 times a batch in 25 steps"),
        ({}, {"rows_per_step": 1.4}, "guidance was left out in part: the denoiser got 1.4 rows"),
    ],
)
def test_a_contradiction_is_said(said, seen, sentence):
    (found,) = live.contradictions(C, text(**said), reading(**seen))
    assert found.startswith("candidate: ")
    assert sentence in found


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ({"pipeline_name": "AutoPipelineForText2Image"}, {}),
        ({"pipeline_name": "DiffusionPipeline"}, {}),
        ({"model_id": "folder/model.safetensors"}, {}),
        ({"num_inference_steps": 40, "call_arguments": {"denoising_end": 0.8}}, {}),
        ({"call_arguments": {"strength": 0.5}}, {"steps_per_image": 12.0}),
        ({"acceleration_methods": ("tgate",)}, {"rows_per_step": 1.4}),
        ({}, {"guidance": False, "rows_per_step": 1.0}),
        ({}, {"guidance": None, "rows_per_step": 1.0}),
        ({}, {"steps_per_image": 50.0}),
        ({}, {"denoiser_calls_per_batch": 50.0}),
        ({}, {"denoiser_calls_per_batch": None}),
        ({}, {"expected_steps": None, "steps_per_image": 3.0}),
    ],
)
def test_what_has_a_reason_is_no_contradiction(said, seen):
    assert list(live.contradictions(C, text(**said), reading(**seen))) == []


def test_second_order_solvers_are_compared_with_their_own_count():
    heun = reading(scheduler_name="HeunDiscreteScheduler", expected_steps=49)
    assert (
        list(live.contradictions(C, TEXT, heun.model_copy(update={"steps_per_image": 49.0}))) == []
    )
    (found,) = live.contradictions(C, TEXT, heun)
    assert "25 inference steps of HeunDiscreteScheduler make 49" in found


def test_changes_are_named_once_each():
    other = reading(
        scheduler_name="DPMSolverMultistepScheduler",
        num_inference_steps=10,
        steps_per_image=10.0,
        rows_per_step=1.0,
        guidance=False,
        model_id="other/model",
    )
    assert list(live.changes(PLAIN, other)) == [
        "model: speedtrap/tiny-sd in the baseline, other/model in the candidate",
        "scheduler: DDIMScheduler in the baseline, DPMSolverMultistepScheduler in the candidate",
        "steps taken for an image: 25 in the baseline, 10 in the candidate",
        "denoiser rows an image and step: 2 in the baseline, 1 in the candidate",
    ]
    assert list(live.changes(PLAIN, PLAIN)) == list(live.changes(PLAIN, None)) == []


def test_changes_fall_back_on_what_both_know():
    blind = reading(
        steps_per_image=None, num_inference_steps=10, rows_per_step=None, guidance=False
    )
    assert list(live.changes(PLAIN, blind)) == [
        "steps taken for an image: 25 in the baseline, 10 in the candidate",
        "denoiser rows an image and step: on in the baseline, off in the candidate",
    ]


@pytest.mark.parametrize(
    ("method", "seen", "reason"),
    [
        ("deepcache", {}, "no layer of the denoiser is wrapped"),
        ("deepcache", {"methods": {"deepcache": {"cache_interval": 1}}}, "every call is a full"),
        ("tomesd", {}, "not patched"),
        ("tomesd", {"methods": {"tomesd": {"layers": 0}}}, "0 blocks of the denoiser"),
        ("tomesd", {"methods": {"tomesd": {"layers": 7, "ratio": 0.0}}}, "ratio is 0"),
        ("tomesd", {"methods": {"tomesd": {"layers": 7, "merged": False}}}, "no patched block"),
        ("tgate", {}, "only through pipe.tgate"),
        ("tgate", {"methods": {"tgate": {"layers": 0}}}, "only through pipe.tgate"),
        ("tgate", {"methods": {"tgate": {"layers": 9}}}, "guidance ran in every step"),
        ("torch.compile", {}, "nothing is compiled"),
        ("torch.compile", {"methods": {"torch.compile": {"layers": 2, "graphs": 0}}}, "no graph"),
        ("xformers", {}, "attention runs with AttnProcessor2_0"),
        ("attention_slicing", {}, "attention runs with AttnProcessor2_0"),
        ("channels_last", {}, "memory format"),
        ("pab", {}, "no layer of UNet2DConditionModel has its hooks"),
        ("first_block_cache", {}, "no layer of"),
        ("torchao", {}, "quantised"),
        ("vae_slicing", {}, "off in the live pipeline"),
        ("freeu", {}, "off in the live pipeline"),
        ("cpu_offload", {}, "no component"),
        ("fp16", {}, "float32 weights"),
        ("bf16", {"dtype": "float16"}, "float16 weights"),
    ],
)
def test_a_method_without_effect_is_named(method, seen, reason):
    (found,) = live.no_ops(C, text(acceleration_methods=(method,)), reading(**seen))
    assert found.startswith(f"candidate: {method} is in the text, but ")
    assert reason in found


@pytest.mark.parametrize(
    ("method", "seen"),
    [
        ("deepcache", {"methods": {"deepcache": {"layers": 27, "cache_interval": 3}}}),
        ("deepcache", {"methods": {"deepcache": {"layers": 27}}}),
        ("tomesd", {"methods": {"tomesd": {"layers": 7, "ratio": 0.5, "merged": True}}}),
        ("tgate", {"methods": {"tgate": {"layers": 9}}, "rows_per_step": 1.4}),
        ("torch.compile", {"methods": {"torch.compile": {"layers": 1, "graphs": 2}}}),
        ("xformers", {"methods": {"xformers": {"layers": 14}}}),
        ("xformers", {"attention_processors": {"OwnProcessor": 3}}),
        ("xformers", {"attention_processors": {}}),
        ("fp16", {"dtype": "float16"}),
        ("fp16", {"compute_dtype": "float16"}),
        ("fp16", {"dtype": None}),
        ("sdpa", {}),
        ("deepcache", {"unread": ("wrappers",)}),
        ("tomesd", {"unread": ("modules",)}),
        ("lcm_lora", {}),
        ("cache-dit", {}),
        ("cuda_graphs", {}),
        ("stable-fast", {}),
    ],
)
def test_a_method_that_works_or_cannot_be_seen_is_not_named(method, seen):
    assert list(live.no_ops(C, text(acceleration_methods=(method,)), reading(**seen))) == []


def test_without_text_or_reading_nothing_is_a_no_op():
    used = text(acceleration_methods=("deepcache",))
    assert list(live.no_ops(C, None, PLAIN)) == []
    assert list(live.no_ops(C, used, None)) == []
    assert list(live.no_ops(C, text(acceleration_methods=None), PLAIN)) == []


def test_images_are_identical_only_if_all_are():
    ours, theirs = {0: ("a", "b"), 1: ("c",)}, {0: ("a", "b"), 1: ("d",)}
    assert live.identical(Traces(digests=ours), Traces(digests=ours)) == 3
    more = ours | {2: ("e",)}  # the baseline alone makes images of other seeds
    assert live.identical(Traces(digests=more), Traces(digests=ours)) == 3
    assert live.identical(Traces(digests=ours), Traces(digests=theirs)) is None
    assert live.identical(Traces(), Traces()) is None


def test_same_images_show_what_changed_nothing():
    used = text(
        acceleration_methods=("deepcache", "torch.compile"),
        num_inference_steps=10,
        scheduler_name="LCMScheduler",
    )
    found = list(live.same_images(Configs(baseline=TEXT, candidate=used), 15))
    assert found == [
        f"candidate: {what} is in the text, but all 15 images equal the baseline's in every pixel"
        for what in ("deepcache", "number of steps 10")
    ]
    assert list(live.same_images(Configs(baseline=used, candidate=used), 15)) == []
    assert list(live.same_images(Configs(baseline=TEXT, candidate=None), 15)) == []


def test_both_sides_are_compared(measured):
    made = measured()
    half = REPORT | {"batches": [ROW, [5, 25, 125, 25, 125], [5, 25, 125, 25, 125]]}
    made = type(made)(
        made.baseline, made.candidate, made.claim_stdout, made.order, traces(), traces(half)
    )
    used = text(acceleration_methods=("tomesd",))
    found = live.compare(Configs(baseline=TEXT, candidate=used), made)
    assert found.readings.baseline == PLAIN
    assert found.readings.problems == ()
    said = "guidance was left out in part: the denoiser got 1 rows an image and step instead of 2"
    assert found.contradictions == (
        f"candidate: {said}",
        "denoiser rows an image and step: 2 in the baseline, 1 in the candidate",
    )
    assert [sentence.split(", but ")[1] for sentence in found.no_ops] == [
        "the denoiser is not patched",
        "all 2 images equal the baseline's in every pixel",
    ]


def test_a_missing_reading_is_said_and_nothing_else(measured):
    found = live.compare(Configs(baseline=TEXT, candidate=TEXT), measured())
    assert found.readings.baseline is found.readings.candidate is None
    assert found.readings.problems == (
        "no live reading of the baseline: its process ended without one",
        "no live reading of the candidate: its process ended without one",
    )
    assert found.contradictions == found.no_ops == ()


def component(**changes):
    fields = {
        "class_name": "UNet2DConditionModel",
        "config": {"sample_size": 16, "_name_or_path": "here"},
        "tensors": [
            ("weight", [2, 3], "float32", 2.0, 0.1, 1.5),
            ("bias", [3], "float32", 0, 0, 0),
        ],
    }
    return Component(**(fields | changes))


def test_like_components_have_no_differences():
    theirs = component(
        config={"sample_size": 16, "_name_or_path": "there"},
        tensors=[("bias", [3], "float32", 0, 0, 0), ("weight", [2, 3], "float32", 2.0, 0.1, 1.501)],
    )
    assert live.compare_deep({"unet": component()}, {"unet": theirs}) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"class_name": "Other"}, "unet: class UNet2DConditionModel is Other in the candidate"),
        ({"config": {"sample_size": 8}}, "unet: sample_size is 16 in the ground truth, 8 in the"),
        ({"config": {}}, "unet: sample_size is 16 in the ground truth, None in the candidate"),
        ({"tensors": []}, "unet.bias: only in the ground truth"),
        ({"tensors": [("weight", [6], "float32", 2, 0, 1.5)]}, "unet.weight: shape [2, 3] is [6]"),
        ({"tensors": [("weight", [2, 3], "float16", 2, 0, 1.5)]}, "dtype float32 is float16"),
        (
            {"tensors": [("weight", [2, 3], "float32", 2, 0, 1.4)]},
            "differs (in a random direction by 0.05 of",
        ),
        ({"tensors": [("weight", [2, 3], "float32", 2.2, 0, 1.5)]}, "direction by 0.091 of"),
        ({"tensors": [("weight", [2, 3], "float32", None, None, None)]}, "no finite values"),
    ],
)
def test_differences_of_components_are_said(changes, sentence):
    found = live.compare_deep({"unet": component()}, {"unet": component(**changes)})
    assert any(sentence in one for one in found), found


def test_settings_of_two_classes_are_compared_where_both_have_them():
    theirs = component(class_name="Other", config={"more": 1, "sample_size": 16, "_private": 2})
    assert live.compare_deep({"unet": component()}, {"unet": theirs}) == [
        "unet: class UNet2DConditionModel is Other in the candidate"
    ]


def test_a_component_on_one_side_only():
    assert live.compare_deep({"unet": component()}, {}) == ["unet: only in the ground truth"]
    assert live.compare_deep({}, {"vae": component()}) == ["vae: only in the candidate"]


def test_tolerance_is_in_shares_of_the_norm():
    theirs = component(tensors=[("weight", [2, 3], "float32", 2, 0, 1.4), component().tensors[1]])
    assert len(live.compare_deep({"unet": component()}, {"unet": theirs})) == 1
    assert live.compare_deep({"unet": component()}, {"unet": theirs}, tolerance=0.06) == []


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (json.dumps(REPORT).encode(), "no components"),
        (None, "ended without"),
        (b'{"components": {"unet": {"class_name": "U", "config": {}, "tensors": [[1]]}}}', "unet"),
        (b" " * (live.DEEP_REPORT_BYTES + 1), "at most"),
    ],
)
def test_a_deep_report_out_of_order_is_no_reading(report, reason):
    found = live.read_deep(report)
    assert isinstance(found, NoReading)
    assert reason in found.reason


ROWS = '{"components":{"unet":{"class_name":null,"config":{},"tensors":[%s]}}}'
CONFIG = '{"components":{"unet":{"class_name":null,"config":{%s},"tensors":[]}}}'
KEYS = ",".join(f'"{number}":0' for number in range(350_000))


@pytest.mark.parametrize(
    "report",
    [
        ROWS % ",".join(["[]"] * 1_300_000),
        ROWS % ",".join(["[]"] * 49_000),
        ROWS % ",".join(["1"] * 2_000_000),
        ROWS % '["a",[1],"b",1,2,true]',
        ROWS % '["a",[-1],"b",1,2,3]',
        CONFIG % KEYS,
        f'{{"components":{{{KEYS}}}}}',
        f"{{{KEYS}}}",
        '{"batches":[' + ",".join(["[]"] * 190_000) + "]}",
        '{"other_pipelines":[' + ",".join(["1"] * 2_000_000) + "]}",
    ],
    ids=range(10),
)
def test_a_report_of_nothing_but_mistakes_is_refused_at_the_first(report):
    start_s = time.process_time()
    tracemalloc.start()
    found = live.read_deep(report.encode())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(found, NoReading)
    assert len(found.reason) < 400
    assert peak < 200 * 2**20
    assert time.process_time() - start_s < 3  # 0.2, without tracing


def test_components_are_read_where_they_were_asked_for_only():
    report = json.dumps(REPORT | {"components": {}}).encode()
    assert "components" in live.read(traces(report)).reason
    assert live.read_deep(report) == {}


def test_differences_are_capped():
    many = [(f"w{number}", [1], "float32", 1, 0, 1) for number in range(live.MAX_DIFFERENCES + 5)]
    found = live.compare_deep({"u": component(tensors=many)}, {"u": component(tensors=[])})
    assert len(found) == live.MAX_DIFFERENCES + 1
    assert found[-1] == "and 5 more"


@pytest.mark.parametrize("method", ["fp16", "bf16", "xformers", "torch.compile", "channels_last"])
def test_without_cuda_what_is_for_cuda_is_not_missed(method):
    used = text(acceleration_methods=(method,))
    assert list(live.no_ops(C, used, PLAIN)) != []
    assert list(live.no_ops(C, used, PLAIN, on_cuda=False)) == []


def test_without_cuda_other_methods_are_missed_still():
    used = text(acceleration_methods=("deepcache", "bf16"))
    found = live.no_ops(C, used, reading(dtype="float16"), on_cuda=False)
    assert [one.split()[1] for one in found] == ["deepcache", "bf16"]


@pytest.mark.parametrize(
    ("asked", "seen", "fields"),
    [
        ({}, {}, ()),
        ({"pipeline_name": "FluxPipeline"}, {}, ("pipeline_name",)),
        ({"pipeline_name": "DiffusionPipeline"}, {}, ()),
        ({"pipeline_name": "DiffusionPipeline", "model_id": "a/b"}, {}, ("model_id",)),
        ({"model_id": "sd-legacy/stable-diffusion-v1-5"}, {"model_id": MIRROR}, ()),
        ({"model_id": "./folder"}, {}, ()),
        ({"model_id": "a/b/c.safetensors"}, {}, ()),
        ({"scheduler_name": "LCMScheduler"}, {}, ("scheduler_name",)),
        ({"scheduler_name": "LCMScheduler"}, {"scheduler_name": None}, ()),
        ({"num_inference_steps": 50}, {}, ("num_inference_steps",)),
        ({"num_inference_steps": 50, "call_arguments": {"strength": 0.5}}, {}, ()),
        ({"guidance_scale": 7.5000001}, {}, ()),
        ({"guidance_scale": 5.0}, {}, ("guidance_scale",)),
        ({"dtype": "float16"}, {}, ("dtype",)),
        ({"dtype": "float16"}, {"compute_dtype": "float16"}, ()),
        ({"dtype": "float32"}, {"dtype": "float16"}, ("dtype",)),
        ({"dtype": "float16"}, {"dtype": "uint8"}, ()),
    ],
)
def test_fields_in_which_a_live_pipeline_contradicts_what_was_asked_for(asked, seen, fields):
    truth, found = text(**asked), reading(**seen)
    assert live.contradicts(truth, found) == fields
    without = tuple(name for name in fields if name != "dtype")
    assert live.contradicts(truth, found, on_cuda=False) == without
