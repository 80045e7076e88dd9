"""Where the parts of a checkout lie."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
TEMPLATES: Final = ROOT / "templates"
PROMPTS: Final = ROOT / "prompts"
MODELS: Final = ROOT / "models"
WIRE: Final = ROOT / "runner" / "wire.py"
SANDBOX_ETC: Final = ROOT / "runner" / "sandbox_etc"
SYSTEM_CALLS: Final = ROOT / "runner" / "syscalls.txt"
LANDLOCK_PROCESS: Final = ROOT / "runner" / "landlock_process.py"
