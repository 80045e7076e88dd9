"""What must agree before results may be compared, or a baseline be used again."""

from __future__ import annotations

import pytest

from runner import comparable
from runner.comparable import RULES, Use, differences
from runner.records import Circumstances, Device, Isolation, IsolationPolicy, Result

H200 = Device(
    kind="cuda", name="NVIDIA H200", index=0, uuid="GPU-1", driver="580.1", cores=(1, 2, 3)
)
CPU = Device(kind="cpu", name="EPYC, 4 cores", cores=(1, 2, 3))
BOX = Isolation(backend=IsolationPolicy.BUBBLEWRAP, network=False, host_files=False)
CIRCUMSTANCES = Circumstances(
    started_at="2026-01-01T00:00:00+00:00",
    wall_s=3.0,
    phases_s={"lease": 0.1},
    candidate_sha256="c" * 64,
    baseline_sha256="b" * 64,
    preset="embedded",
    prompts="tiny-20",
    prompts_sha256="a" * 64,
    prompt_count=20,
    batch_size=5,
    seed=42,
    audit_seed=7,
    audit_batches=9,
    audit_prompts_sha256="d" * 64,
    order="alternate",
    clip_model="local-dir:tiny-clip",
    clip_pretrained=None,
    quality_meaningful=True,
    stand_ins={},
    versions={"torch": "2.11", "cuda": "13.2", "speedtrap": "0.1.0"},
    host={"kernel": "6.8", "cpu": "EPYC, 4 cores", "load_1min": 0.5},
    attempts=(),
    warnings=(),
)


@pytest.fixture
def result(make_result):
    """A whole result; keywords change its device, or its circumstances."""

    def make(device=H200, isolation=BOX, **changes):
        circumstances = CIRCUMSTANCES.model_copy(update=changes)
        return make_result(device=device, isolation=isolation, circumstances=circumstances)

    return make


def named(one, other, use):
    return {difference.field for difference in differences(one, other, use)}


def test_every_rule_leads_to_something_that_a_result_has():
    for rule in RULES:
        fields = Result.model_fields
        name, _, rest = rule.path.removesuffix(".*").partition(".")
        models = {"device": Device, "isolation": Isolation, "circumstances": Circumstances}
        assert name in fields
        if rest:
            assert rest.split(".")[0] in models[name].model_fields


def test_a_result_agrees_with_itself_in_everything(result):
    assert differences(result(), result(), Use.SPEEDUP | Use.QUALITY | Use.LOSS | Use.REUSE) == ()


def test_seconds_of_another_card_driver_or_prompt_set_are_not_used_again(result):
    card = H200.model_copy(update={"uuid": "GPU-2", "driver": "590.2", "name": "NVIDIA A100"})
    found = differences(result(), result(card, prompts_sha256="e" * 64), Use.REUSE)
    assert {one.field for one in found} == {
        "device.uuid",
        "device.driver",
        "device.name",
        "circumstances.prompts_sha256",
    }
    text = comparable.in_words(found)
    assert "card: GPU-1 against GPU-2" in text
    assert "driver: 580.1 against 590.2" in text
    assert "device: NVIDIA H200 against NVIDIA A100" in text
    assert f"prompt set: {'a' * 64} against {'e' * 64}" in text


def test_two_cards_of_one_model_give_comparable_ratios(result):
    other = result(H200.model_copy(update={"uuid": "GPU-2", "index": 1}))
    assert not differences(result(), other, Use.SPEEDUP | Use.QUALITY)
    assert named(result(), other, Use.REUSE) == {"device.uuid"}


def test_another_audit_seed_matters_only_where_its_batches_are_used_again(result):
    other = result(audit_seed=8)
    assert not differences(result(), other, Use.SPEEDUP | Use.QUALITY | Use.LOSS)
    assert named(result(), other, Use.REUSE) == {"circumstances.audit_seed"}


@pytest.mark.parametrize(
    ("change", "use"),
    [
        ({"clip_model": "ViT-g-14"}, Use.QUALITY),
        ({"seed": 1}, Use.QUALITY),
        ({"batch_size": 1}, Use.SPEEDUP | Use.QUALITY),
        ({"baseline_sha256": "f" * 64}, Use.SPEEDUP | Use.QUALITY),
        ({"stand_ins": {"a/b": "c/d"}}, Use.SPEEDUP | Use.QUALITY),
        ({"allow_untied": True}, Use.SPEEDUP | Use.QUALITY),
    ],
)
def test_what_concerns_speed_or_quality_alone(result, change, use):
    for one in (Use.SPEEDUP, Use.QUALITY):
        assert bool(differences(result(), result(**change), one)) is bool(one & use)


def test_each_version_is_named_also_one_that_only_one_side_has(result):
    versions = {"torch": "2.12", "speedtrap": "0.1.0", "tomesd": "0.1.3"}
    found = differences(result(), result(versions=versions), Use.SPEEDUP)
    assert [str(one).partition(" (")[0] for one in found] == [
        "version of cuda: 13.2 against not told",
        "version of tomesd: not told against 0.1.3",
        "version of torch: 2.11 against 2.12",
    ]


def test_cores_concern_a_ratio_only_where_the_work_is_on_them(result):
    fewer = {"cores": (1,)}
    on_card = result(), result(H200.model_copy(update=fewer))
    on_cpu = result(CPU), result(CPU.model_copy(update=fewer))
    assert not differences(*on_card, Use.SPEEDUP)
    assert named(*on_cpu, Use.SPEEDUP) == {"device.cores"}
    assert named(*on_card, Use.REUSE) == named(*on_cpu, Use.REUSE) == {"device.cores"}


def test_a_run_on_the_cpu_is_not_compared_with_one_on_a_card(result):
    assert named(result(CPU), result(), Use.SPEEDUP) >= {"device.kind", "device.name"}


def test_targets_concern_the_loss_alone(result):
    one = result()
    other = one.model_copy(update={"target_speedup": 10.0})
    assert not differences(one, other, Use.SPEEDUP | Use.QUALITY | Use.REUSE)
    assert named(one, other, Use.LOSS) == {"target_speedup"}
