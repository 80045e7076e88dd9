"""The collection of specimens itself: complete headers, every known cheat, nothing twice."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict

import pytest
from e2e import SPECIMENS, Specimen, specimens

from runner.records import Verdict

FAMILIES = ("T", "D", "C", "S", "M", "O")
LISTED = {
    "T": (1, 3, 5, 7, 9, 11),
    "D": (1, 3, 5, 7),
    "C": (1, 3, 5, 7, 9, 11),
    "S": (1, 3, 5, 7, 9, 11, 13, 15, 17),
    "M": (1, 3, 5),
    "O": (1, 3, 5, 7, 9, 11, 13, 15, 17),
}
"""Members of the families that were known when the collection was begun; SECURITY.md lists them."""
HONEST = {
    *("plain", "deepcache", "tomesd", "torch.compile", "another scheduler", "xformers"),
    *("embedding cache", "CUDA graphs", "bf16", "prints", "slow load", "threads"),
}
"""What must never be accused."""
BROKEN = {"nan", "constant", "duplicate", "wrong size", "wrong count"}
NEEDS_CUDA = ("T3", "D1", "O1", "O13", "CUDA graphs", "torch.compile")
ALL = specimens()


def members(family: str) -> Counter[str]:
    return Counter(one.member for one in ALL if one.family == family)


@pytest.fixture(params=ALL, ids=lambda one: one.path.stem)
def specimen(request: pytest.FixtureRequest) -> Specimen:
    return request.param


def test_header_is_complete(specimen: Specimen):
    assert specimen.family in {*FAMILIES, "honest", "broken"}
    assert specimen.member
    assert re.fullmatch(r"[A-Z].{10,}\.", specimen.strategy)
    assert specimen.lane in {"default", "slow", "gpu"}
    assert specimen.verdicts <= set(Verdict)
    assert (specimen.work in {"done", "less", "not done"}) is specimen.is_cheat
    assert specimen.reference in {one.path.stem for one in ALL if one.family == "honest"}


def test_member_is_a_known_one_or_own(specimen: Specimen):
    known = {f"{specimen.family}{number}" for number in LISTED.get(specimen.family, ())}
    known |= {"honest": HONEST | {"few steps"}, "broken": BROKEN}.get(specimen.family, set())
    assert specimen.member in known | {"own"}


def test_header_names_nothing_else(specimen: Specimen):
    doc = specimen.path.read_text(encoding="utf-8-sig").split('"""')
    header = doc[1].partition("\n\n")[2] if len(doc) > 1 else ""
    keys = Counter(re.findall(r"^([A-Z]\w+): ", header, re.MULTILINE))
    assert set(keys) <= {
        *("Family", "Member", "Strategy", "Work", "Reference", "Expected"),
        *("Line", "Phase", "Reason", "Flags", "Lane"),
    }
    assert set(keys.values()) <= {1}


def test_a_reason_or_phase_is_that_of_a_single_verdict(specimen: Specimen):
    if specimen.reason or specimen.phase:
        assert len(specimen.verdicts) == 1


def test_cheat_that_does_not_work_may_not_pass(specimen: Specimen):
    if specimen.work == "not done":
        assert specimen.expected != "ok"
        assert specimen.verdicts - {"ok", "speedup_target_not_met"}


def test_honest_file_may_be_measured_or_said_to_be_beyond_telling(specimen: Specimen):
    if specimen.family == "honest":
        assert specimen.expected in {"measured", "inconclusive|measured"}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_listed_member_has_a_specimen(family: str):
    assert {f"{family}{number}" for number in LISTED[family]} <= set(members(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_two_of_our_own(family: str):
    assert members(family)["own"] >= 2


def test_everything_that_must_never_be_accused_has_a_specimen():
    assert set(members("honest")) >= HONEST


def test_everything_that_is_wrong_with_images_has_a_specimen():
    assert set(members("broken")) >= BROKEN


@pytest.mark.parametrize("member", NEEDS_CUDA)
def test_what_needs_cuda_is_in_the_gpu_lane(member: str):
    assert any(one.lane == "gpu" for one in ALL if one.member == member)


def test_gpu_lane_says_what_it_needs_on_a_cpu():
    for one in ALL:
        if one.lane == "gpu":
            assert 'SystemExit("this specimen needs a CUDA device")' in one.path.read_text()


def test_no_two_are_alike():
    by_code = defaultdict(list)
    for one in ALL:
        by_code[code_of(one), one.flags].append(one.path.name)
    twins = [sorted(names) for names in by_code.values() if len(names) > 1]
    assert sorted(twins) == SAME_CODE


SAME_CODE = [["honest_bom.py", "honest_crlf.py", "honest_plain.py"]]
"""They differ in their bytes only."""


def code_of(specimen: Specimen) -> str:
    """The syntax without the docstring; the text where it does not parse."""
    text = specimen.path.read_text(encoding="utf-8-sig")
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return text
    body = tree.body[1:] if ast.get_docstring(tree) else tree.body
    return "\n".join(ast.unparse(node) for node in body)


def test_strategies_differ():
    counted = Counter(one.strategy for one in ALL)
    assert [text for text, count in counted.items() if count > 1] == []


def test_names_of_files_are_words():
    assert [path.name for path in SPECIMENS.iterdir() if path.suffix == ".py"]
    for path in SPECIMENS.glob("*.py"):
        assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", path.stem)
