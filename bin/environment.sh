# shellcheck shell=sh disable=SC2154
# Sourced with $root set; leaves the interpreter that has everything in $python.
# SPEEDTRAP_PYTHON names one that exists already: then nothing is installed.

supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
missing_modules='
import importlib.util, sys
missing = " ".join(name for name in sys.argv[1:] if not importlib.util.find_spec(name))
if missing:
    sys.exit(f"speedtrap: SPEEDTRAP_PYTHON lacks packages of requirements.lock: {missing}")'

fail() {
    printf 'speedtrap: %s\n' "$*" >&2
    exit 2
}

use_given() {
    python=$(command -v -- "$SPEEDTRAP_PYTHON") || fail "SPEEDTRAP_PYTHON: no such program: $SPEEDTRAP_PYTHON"
    case $python in /*) ;; *) python=$PWD/$python ;; esac
    "$python" -c "$supported" 2>/dev/null ||
        fail "SPEEDTRAP_PYTHON has to be Python 3.11, 3.12 or 3.13, but $python is" \
            "$("$python" --version 2>&1 || echo no Python)"
    # Asked here: a missing module would end the package with the status of a candidate's failure.
    "$python" -P -c "$missing_modules" \
        click diffusers numpy open_clip PIL psutil pydantic pynvml rich torch transformers || exit 2
    PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
    export PYTHONPATH
}

make_environment() {
    found=
    for name in python3.13 python3.12 python3.11 python3; do
        command -v "$name" >/dev/null || continue
        # It has to run to count: pyenv puts names into PATH that answer with an error.
        if "$name" -I -c "$supported" 2>/dev/null; then
            "$name" -I "$root/bin/environment.py" "$root"
            # Any other status would be read as a candidate's.
            case $? in 0) return ;; 130) exit 130 ;; *) exit 2 ;; esac
        fi
        found=$("$name" --version 2>&1) || found=
    done
    fail "needs Python 3.11, 3.12 or 3.13 in PATH, and there is ${found:-none}." \
        "Install one (apt install python3 python3-venv; dnf install python3.12; uv python install 3.13)" \
        "or name one that has all packages of requirements.lock: SPEEDTRAP_PYTHON=/path/to/python"
}

if [ -n "${SPEEDTRAP_PYTHON:-}" ]; then
    use_given
else
    python=$root/.venv/bin/python
    if ! { [ -x "$python" ] && cmp -s "$root/requirements.lock" "$root/.venv/installed.lock"; }; then
        make_environment
    fi
fi
