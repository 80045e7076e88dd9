"""`bin/score` makes its environment: with a pretended `uv`, on a PATH that holds nothing else."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BASE_PYTHON = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
VERSION = f"python3.{sys.version_info.minor}"

# Stands for `python -m runner`: says where it was found and what it was given.
PACKAGE = """
import os, sys
def score(): ...
if __name__ == "__main__":
    print(__file__, os.getcwd(), *sys.argv[1:], sep="|")
"""

# Makes real virtual environments, and empty ones: `pip sync` does what SYNC says.
UV = """#!/bin/sh
[ "$1" = --version ] && { echo "${UV_SAYS:-uv 0.9.9}"; exit; }
echo "$1" "$2" >> "$CALLS"
for last; do :; done
case $1 in
    venv) exec "$BASE_PYTHON" -m venv --without-pip --prompt speedtrap "$(readlink -f "$last")" ;;
    pip) eval "${SYNC:-:}" ;;
esac
"""

OLD_PYTHON = """#!/bin/sh
[ "$1" = --version ] && { echo Python 3.10.4; exit; }
exit 1
"""


@dataclass
class Checkout:
    """A copy of what `bin/score` needs, and the only folder in PATH."""

    root: Path
    tools: Path
    elsewhere: Path

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "bin" / "score", *arguments],
            cwd=self.elsewhere,
            env={
                "PATH": str(self.tools),
                "HOME": str(self.elsewhere),
                "CALLS": str(self.calls_file),
                "BASE_PYTHON": str(BASE_PYTHON),
                **variables,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Tests that run in the background inherit that it is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **variables)
        stdout, stderr = process.communicate(timeout=60)
        return subprocess.CompletedProcess([], process.returncode, stdout, stderr)

    @property
    def calls_file(self) -> Path:
        return self.elsewhere / "calls"

    @property
    def calls(self) -> list[str]:
        """What `uv` was asked since the last time."""
        if not self.calls_file.exists():
            return []
        lines = self.calls_file.read_text().splitlines()
        self.calls_file.unlink()
        return [line.replace("venv --quiet", "venv") for line in lines]

    @property
    def lock(self) -> Path:
        return self.root / "requirements.lock"

    @property
    def installed(self) -> Path:
        return self.root / ".venv" / "installed.lock"

    def tool(self, name: str, script: str) -> None:
        (self.tools / name).write_text(script)
        (self.tools / name).chmod(0o755)


@pytest.fixture
def checkout(tmp_path):
    made = Checkout(tmp_path / "checkout", tmp_path / "tools", tmp_path / "else where")
    for folder in (made.root, made.tools, made.elsewhere, made.root / "runner"):
        folder.mkdir()
    shutil.copytree(ROOT / "bin", made.root / "bin")
    made.lock.write_text("something==1.0\n")
    (made.root / "runner" / "__init__.py").write_text(PACKAGE)
    (made.root / "runner" / "__main__.py").write_text(PACKAGE)
    for name in ("cmp", "dirname", "readlink", "sleep"):
        (made.tools / name).symlink_to(shutil.which(name))
    made.tool("uv", UV)
    made.tool(VERSION, f'#!/bin/sh\nexec "{BASE_PYTHON}" "$@"\n')
    return made


def answer(checkout, *arguments):
    main = checkout.root / "runner" / "__main__.py"
    return "|".join([str(main), str(checkout.elsewhere), *arguments]) + "\n"


def wait_for(condition):
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("waited for ten seconds")


def test_the_first_use_makes_the_environment_and_runs_in_it(checkout):
    first = checkout.run("a b.py", "--json")
    assert (first.returncode, first.stdout) == (0, answer(checkout, "a b.py", "--json"))
    assert "making .venv" in first.stderr
    assert checkout.calls == ["venv", "pip sync"]
    assert checkout.installed.read_bytes() == checkout.lock.read_bytes()


def test_a_current_environment_needs_no_tool_and_says_nothing(checkout):
    checkout.run()
    checkout.calls  # noqa: B018  (forgets them)
    (checkout.tools / "uv").unlink()
    (checkout.tools / VERSION).unlink()
    again = checkout.run("x")
    assert (again.returncode, again.stdout, again.stderr) == (0, answer(checkout, "x"), "")
    assert checkout.calls == []


def test_the_package_can_be_imported_from_anywhere(checkout):
    checkout.run()
    python = checkout.root / ".venv" / "bin" / "python"
    command = [python, "-c", "from runner import score; print(score.__module__)"]
    output = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True).stdout
    assert output == "runner\n"


def test_nothing_is_imported_from_the_folder_a_user_stands_in(checkout):
    for name in ("runner", "os", "json"):
        (checkout.elsewhere / name).mkdir()
        (checkout.elsewhere / name / "__init__.py").write_text("raise SystemExit('shadowed')")
    assert checkout.run().stdout == answer(checkout)


def test_uv_and_pip_write_to_stderr_only(checkout):
    run = checkout.run(SYNC="echo installed something")
    assert run.stdout == answer(checkout)
    assert "installed something" in run.stderr


def test_a_changed_lock_is_installed_without_starting_over(checkout):
    checkout.run()
    assert checkout.calls == ["venv", "pip sync"]
    checkout.lock.write_text("something==2.0\n")
    run = checkout.run()
    assert (run.returncode, run.stdout) == (0, answer(checkout))
    assert "has changed" in run.stderr
    assert checkout.calls == ["pip sync"]
    assert checkout.installed.read_text() == "something==2.0\n"


def test_a_lock_that_changes_while_it_is_installed_is_installed_again(checkout):
    checkout.run(SYNC=f"echo something==2.0 > '{checkout.lock}'")
    assert checkout.installed.read_text() == "something==1.0\n"
    checkout.run()
    assert checkout.installed.read_text() == "something==2.0\n"


@pytest.mark.parametrize("first", ["absent", "stale"])
def test_a_failed_install_does_not_count(checkout, first):
    if first == "stale":
        checkout.run()
        checkout.lock.write_text("something==2.0\n")
    failed = checkout.run(SYNC="echo no route to host >&2; exit 1")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "no route to host" in failed.stderr
    assert "HTTPS_PROXY" in failed.stderr
    assert not checkout.installed.exists()
    checkout.calls  # noqa: B018  (forgets them)
    assert checkout.run().stdout == answer(checkout)
    assert checkout.calls == ["venv", "pip sync"]


def test_control_c_does_not_count_as_installed_and_is_mended(checkout):
    left = checkout.root / ".venv" / "half"
    process = checkout.start(SYNC=f"true > '{left}'; sleep 60")
    wait_for(left.exists)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=10)
    assert process.returncode in (130, -signal.SIGINT)
    assert stdout == ""
    assert "interrupted" in stderr
    assert not checkout.installed.exists()
    assert checkout.run().stdout == answer(checkout)
    assert not left.exists()


def test_two_first_uses_at_once_make_one_environment(checkout):
    begun, go_on = checkout.elsewhere / "begun", checkout.elsewhere / "go on"
    hold = f"true > '{begun}'; while ! [ -e '{go_on}' ]; do sleep 0.02; done"
    one = checkout.start("one", SYNC=hold)
    wait_for(begun.exists)
    two = checkout.start("two")
    line = two.stderr.readline()
    assert "waiting for it" in line
    go_on.touch()
    assert one.communicate(timeout=30)[0] == answer(checkout, "one")
    assert two.communicate(timeout=30)[0] == answer(checkout, "two")
    assert checkout.calls == ["venv", "pip sync"]


def test_a_killed_run_does_not_let_the_next_collide_with_its_installer(checkout):
    begun, ended = checkout.elsewhere / "begun", checkout.elsewhere / "ended"
    one = checkout.start(SYNC=f"echo $PPID > '{begun}'; sleep 0.5; true > '{ended}'")
    wait_for(lambda: begun.exists() and begun.read_text().strip())
    os.kill(int(begun.read_text()), signal.SIGKILL)
    assert one.wait(timeout=10) == 2
    two = checkout.run(SYNC=f"[ -e '{ended}' ]")
    assert (two.returncode, two.stdout) == (0, answer(checkout))
    assert "waiting for it" in two.stderr


def test_a_moved_checkout_works(checkout):
    checkout.run()
    checkout.calls  # noqa: B018  (forgets them)
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
    assert checkout.run().stdout == answer(checkout)
    assert checkout.calls == []


def test_a_vanished_interpreter_is_noticed(checkout):
    checkout.run()
    python = checkout.root / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert checkout.run().stdout == answer(checkout)


def test_an_environment_of_somebody_else_is_left_alone(checkout):
    theirs = checkout.root / ".venv"
    theirs.mkdir()
    (theirs / "pyvenv.cfg").write_text("home = /usr/bin\n")
    run = checkout.run()
    assert run.returncode == 2
    assert "made by something else" in run.stderr
    assert [path.name for path in theirs.iterdir()] == ["pyvenv.cfg"]


def test_the_environment_may_lie_on_another_disk(checkout):
    disk = checkout.elsewhere / "disk"
    disk.mkdir()
    (checkout.root / ".venv").symlink_to(disk)
    assert checkout.run().stdout == answer(checkout)
    assert (disk / "installed.lock").exists()


def test_a_given_interpreter_is_used_and_nothing_is_installed(checkout):
    # The one that runs the tests has the packages.
    run = checkout.run("x", SPEEDTRAP_PYTHON=sys.executable)
    assert (run.returncode, run.stdout, run.stderr) == (0, answer(checkout, "x"), "")
    assert checkout.calls == []
    assert not (checkout.root / ".venv").exists()


def test_a_given_interpreter_without_the_packages_is_refused(checkout):
    run = checkout.run(SPEEDTRAP_PYTHON=str(BASE_PYTHON), PYTHONNOUSERSITE="1")
    assert (run.returncode, run.stdout) == (2, "")
    assert "lacks" in run.stderr
    assert "open_clip" in run.stderr


def test_a_given_interpreter_has_to_exist_and_to_be_recent_enough(checkout):
    missing = checkout.run(SPEEDTRAP_PYTHON="/nowhere/python")
    assert missing.returncode == 2
    assert "no such program: /nowhere/python" in missing.stderr
    checkout.tool("ancient", OLD_PYTHON)
    ancient = checkout.run(SPEEDTRAP_PYTHON="ancient")
    assert ancient.returncode == 2
    assert "is Python 3.10.4" in ancient.stderr


def test_no_suitable_python_names_what_is_there_and_the_remedy(checkout):
    (checkout.tools / VERSION).unlink()
    none = checkout.run()
    assert none.returncode == 2
    assert "there is none" in none.stderr
    checkout.tool("python3", OLD_PYTHON)
    old = checkout.run()
    assert (old.returncode, old.stdout) == (2, "")
    assert "Python 3.11, 3.12 or 3.13" in old.stderr
    assert "there is Python 3.10.4" in old.stderr
    assert "SPEEDTRAP_PYTHON=" in old.stderr
    assert checkout.calls == []


def test_a_python_that_does_not_run_is_passed_over(checkout):
    (checkout.tools / VERSION).rename(checkout.tools / "python3")
    checkout.tool("python3.13", "#!/bin/sh\necho pyenv: not found >&2; exit 127\n")
    assert checkout.run().stdout == answer(checkout)


# A Python with a pip of its own making, which `install`s by copying the pretended uv.
PIP = """
import os, shutil, sys
target = sys.argv[sys.argv.index("--target") + 1]
assert "--require-hashes" in sys.argv
if os.environ.get("PIP_FAILS"):
    sys.exit("no route to host")
os.makedirs(target + "/bin")
shutil.copy(os.environ["UV_TO_COPY"], target + "/bin/uv")
"""


@pytest.fixture
def bare(checkout):
    """No usable `uv` in PATH; the interpreter is a virtual environment that has only PIP."""
    there = checkout.elsewhere / "python"
    subprocess.run([BASE_PYTHON, "-m", "venv", "--without-pip", there], check=True)
    (folder,) = there.glob("lib/python3.*/site-packages")
    (folder / "pip.py").write_text(PIP)
    (checkout.tools / "uv").rename(checkout.elsewhere / "uv")
    checkout.tool(VERSION, f'#!/bin/sh\nexec "{there}/bin/python" "$@"\n')
    return checkout


def test_uv_is_fetched_once_when_there_is_none(bare):
    run = bare.run(UV_TO_COPY=str(bare.elsewhere / "uv"))
    assert (run.returncode, run.stdout) == (0, answer(bare))
    assert "getting uv" in run.stderr
    bare.lock.write_text("something==2.0\n")
    again = bare.run()
    assert again.returncode == 0
    assert "getting uv" not in again.stderr


@pytest.mark.parametrize("says", ["uv 0.1.2", "pyenv: uv: command not found", ""])
def test_a_uv_that_is_too_old_or_does_not_run_is_passed_over(bare, says):
    bare.tool("uv", f"#!/bin/sh\necho '{says}'\n")
    run = bare.run(UV_TO_COPY=str(bare.elsewhere / "uv"))
    assert (run.returncode, run.stdout) == (0, answer(bare))


def test_a_uv_that_cannot_be_fetched_is_our_failure(bare):
    run = bare.run(PIP_FAILS="1")
    assert (run.returncode, run.stdout) == (2, "")
    assert "no route to host" in run.stderr
    assert "PIP_INDEX_URL" in run.stderr


def test_the_locks_name_no_registry():
    for lock in (ROOT / "requirements.lock", ROOT / "bin" / "uv.txt"):
        text = lock.read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text
        assert "index" not in text.replace("# via", "")


def test_the_lock_pins_every_dependency_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    names = {re.match(r"[\w-]+", line)[0].lower().replace("_", "-") for line in wanted}
    lock = (ROOT / "requirements.lock").read_text()
    pinned = set(re.findall(r"^([\w.-]+)==", lock, re.MULTILINE))
    assert names <= pinned


def test_every_check_is_named_and_the_first_failure_ends_it(checkout):
    # Stands for all of ruff, mypy and pytest: fails when it is FAILS.
    checkout.tool("python", '#!/bin/sh\n[ "$1" = -m ] || exit 0\n[ "$2" != "$FAILS" ] || exit 7\n')

    def checks(fails):
        environment = {"PATH": str(checkout.tools), "FAILS": fails}
        environment["SPEEDTRAP_PYTHON"] = str(checkout.tools / "python")
        command = [checkout.root / "bin" / "test", "-k", "one thing"]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return run.returncode, run.stdout.splitlines()

    named = ["== ruff format --check", "== ruff check", "== mypy", "== pytest -k one thing"]
    assert checks("") == (0, named)
    assert checks("mypy") == (7, named[:3])
    assert checks("pytest") == (7, named)
