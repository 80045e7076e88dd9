import sys
from types import SimpleNamespace

import pytest

from runner import progress
from runner.progress import Bar, Lines, Silent


@pytest.fixture(params=[Silent, Lines, Bar])
def display(request):
    return request.param()


def test_every_display_takes_a_whole_run(display, capsys):
    with display as shown:
        assert shown is display
        shown.begin("waiting")
        shown.expect(2)
        for step in ("one [bold]", "two [/nonsense]"):
            shown.begin(step)
            shown.advance()
        shown.begin("ending")
        shown.expect(3)
    assert capsys.readouterr().out == ""


def test_silence(capsys):
    with Silent() as shown:
        shown.expect(1)
        shown.begin("something")
        shown.advance()
    assert capsys.readouterr() == ("", "")


def test_lines_count_the_steps_and_never_past_the_end(capsys):
    shown = Lines()
    shown.begin("lease")
    shown.expect(2)
    for step in ("one", "two", "ending"):
        shown.begin(step)
        shown.advance()
    shown.expect(5)
    shown.begin("again")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" s", 1)[1].split() for line in lines] == [
        ["lease"],
        ["[1/2]", "one"],
        ["[2/2]", "two"],
        ["[2/2]", "ending"],
        ["[1/5]", "again"],
    ]


def test_lines_are_stamped_with_seconds_since_the_start(capsys, monkeypatch):
    readings = iter([100.0, 101.54])
    clock = SimpleNamespace(monotonic=lambda: next(readings))
    monkeypatch.setattr(progress, "time", clock)
    Lines().begin("something")
    assert capsys.readouterr().err == "    1.5 s  something\n"


@pytest.mark.parametrize(
    ("quiet", "terminal", "expected"),
    [(True, True, Silent), (True, False, Silent), (False, True, Bar), (False, False, Lines)],
)
def test_choice_by_what_stderr_is(quiet, terminal, expected, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert type(progress.for_terminal(quiet=quiet)) is expected
