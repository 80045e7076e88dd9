"""Make .venv hold what requirements.lock names; environment.sh runs this when it does not.

Only a finished environment contains `installed.lock`, a copy of the lock that it was made from. It
goes before the first change and comes back after the last one, so an interrupted or failed install
never counts; what it left is removed by the next run. Nothing in the environment depends on where
the checkout lies, so the checkout can be moved.
"""
# ruff: noqa: INP001  (a script, not a package)

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(sys.argv[1])
WANTED: Final = ROOT / "requirements.lock"
VENV: Final = ROOT / ".venv"
INSTALLED: Final = VENV / "installed.lock"
PYTHON: Final = VENV / "bin" / "python"
OWN_UV: Final = ROOT / ".uv"
OLDEST_UV: Final = (0, 5)


class CannotInstallError(Exception):
    """The environment could not be made; the message names the remedy."""


def main() -> int:
    """Make the environment; returns the exit status."""
    try:
        with _only_one() as lock:
            if not _is_current():
                _make(lock)
    except CannotInstallError as error:
        _say(str(error))
        return 2
    except OSError as error:
        _say(f"the environment could not be made: {error}")
        return 2
    except KeyboardInterrupt:
        _say("interrupted; the next run makes the environment again")
        return 130
    return 0


def _is_current() -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.access(PYTHON, os.X_OK) and INSTALLED.read_bytes() == WANTED.read_bytes()
    return False


def _make(lock: int) -> None:
    finished = os.access(PYTHON, os.X_OK) and INSTALLED.exists()
    if not finished:
        _leave_others_alone()
    uv = _find_uv(lock)
    if finished:
        _say("requirements.lock has changed; bringing .venv up to date")
        INSTALLED.unlink()
    else:
        version = ".".join(map(str, sys.version_info[:3]))
        _say(f"making .venv with Python {version}; once, some minutes, about 6 GB of disk")
        _start_over(uv, lock)
    # A copy, so that installed.lock is what was installed even if `git pull` comes in between.
    snapshot = VENV / "installing.lock"
    shutil.copyfile(WANTED, snapshot)
    options = ["--require-hashes", "--no-build", "--compile-bytecode", "--python", str(PYTHON)]
    if _run([uv, "pip", "sync", *options, str(snapshot)], lock) != 0:
        message = (
            "the packages could not be installed, see above; the next run tries again. If it was"
            " the network: uv heeds HTTPS_PROXY, SSL_CERT_FILE and UV_DEFAULT_INDEX (for a"
            " mirror). Without a network: SPEEDTRAP_PYTHON=/path/to/python names an environment"
            " that has the packages"
        )
        raise CannotInstallError(message)
    (site_packages,) = VENV.glob("lib/python3.*/site-packages")
    (site_packages / "speedtrap.pth").write_text("../../../..\n")
    snapshot.replace(INSTALLED)
    _say("the environment is complete")


def _leave_others_alone() -> None:
    """Refuse to replace a `.venv` that does not bear the prompt which `_start_over` gives."""
    config = VENV / "pyvenv.cfg"
    if config.exists() and not re.search(
        r"^prompt = .*speedtrap", config.read_text(), re.MULTILINE
    ):
        message = (
            f"{VENV} was made by something else and is left alone. Remove it, or use it as it is:"
            f" SPEEDTRAP_PYTHON={PYTHON}"
        )
        raise CannotInstallError(message)


def _start_over(uv: str, lock: int) -> None:
    """Leave an empty environment, marked as ours by its prompt."""
    folder = VENV.resolve()  # it may be a link to a larger disk
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    # The file behind the links: when a system upgrade takes it away, that shows.
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    options = ["--quiet", "--relocatable", "--prompt", "speedtrap", "--no-python-downloads"]
    if _run([uv, "venv", *options, "--python", base, str(VENV)], lock) != 0:
        message = "uv could not make the virtual environment, see above"
        raise CannotInstallError(message)


def _find_uv(lock: int) -> str:
    own = str(OWN_UV / "bin" / "uv")
    for uv in (shutil.which("uv"), own):
        if uv and _works(uv):
            return uv
    _say("getting uv, which installs the rest, into .uv")
    if OWN_UV.exists():
        shutil.rmtree(OWN_UV)
    if importlib.util.find_spec("pip"):
        install = [sys.executable, "-I", "-m", "pip", "install", "--target", str(OWN_UV)]
    elif importlib.util.find_spec("ensurepip"):
        _run([sys.executable, "-I", "-m", "venv", str(OWN_UV)], lock)
        install = [str(OWN_UV / "bin" / "python"), "-I", "-m", "pip", "install"]
    else:
        message = (
            f"{sys.executable} has neither pip nor ensurepip, so uv cannot be had with it. Install"
            " one (Debian, Ubuntu: apt install python3-venv) or uv, then run again"
        )
        raise CannotInstallError(message)
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--root-user-action=ignore"]
    options += ["--require-hashes", "--only-binary", ":all:"]
    status = _run([*install, *options, "--requirement", str(ROOT / "bin" / "uv.txt")], lock)
    if status != 0 or not _works(own):
        message = (
            "uv could not be had, see above. If it was the network: pip heeds HTTPS_PROXY, PIP_CERT"
            " and PIP_INDEX_URL (for a mirror); or install uv yourself, then run again"
        )
        raise CannotInstallError(message)
    return own


def _works(uv: str) -> bool:
    """Whether `uv` runs (pyenv puts names into PATH that do not) and is recent enough."""
    try:
        answer = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    version = re.match(r"uv (\d+)\.(\d+)", answer.stdout)
    return version is not None and (int(version[1]), int(version[2])) >= OLDEST_UV


def _run(command: list[str], lock: int) -> int:
    """Run a command, its output on stderr: stdout is for the result of `bin/score`."""
    # PYTHON*: would send bytecode elsewhere, or packages in. The others: another environment.
    others = ("VIRTUAL_ENV", "CONDA_PREFIX", "UV_SYSTEM_PYTHON")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") and name not in others
    }
    # The child holds the lock too: should we be killed, nobody collides with what we started.
    return subprocess.run(
        command,
        stdout=sys.stderr,
        cwd=ROOT,
        env=kept | {"PIP_USER": "0"},
        pass_fds=(lock,),
        check=False,
    ).returncode


@contextlib.contextmanager
def _only_one() -> Iterator[int]:
    lock = os.open(ROOT / ".venv.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another run is making the environment; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def _say(message: str) -> None:
    print(f"speedtrap: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
