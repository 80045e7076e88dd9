"""Stage 4: which model folders the sandbox shows, and under which names.

The sandbox has a model cache in Hugging Face layout that is put together from mounts, one a
model: the user's own cached repositories, the embedded model, and stand-ins, where one folder
appears under another model's name so that a candidate written for a big model runs unchanged on a
small one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner import paths
from runner.records import ModelMount, SpeedtrapError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

EMBEDDED: Final = {"speedtrap/tiny-sd": paths.MODELS / "tiny-sd"}
SNAPSHOT_REVISION: Final = "0" * 40
"""Commit under which a plain folder is shown; any 40 hexadecimal digits satisfy the layout."""

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def user_cache(environment: Mapping[str, str]) -> Path:
    """Folder of the user's Hugging Face hub cache, by the library's own rules of precedence."""
    if folder := environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE"):
        return Path(folder).expanduser()
    if home := environment.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    base = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface" / "hub"


def mounts(cache: Path, stand_ins: Mapping[str, str]) -> tuple[ModelMount, ...]:
    """All models that the sandbox shows: the user's cache, the embedded one, the stand-ins.

    `stand_ins` maps a name to the model that is mounted under it: a known name, or a folder.
    Raises `SpeedtrapError` for a stand-in that cannot be found.
    """
    known = {mount.name: mount for mount in _cached(cache)}
    for name, folder in EMBEDDED.items():
        known[name] = ModelMount(name, folder, is_snapshot=True)
    for name, other in stand_ins.items():
        if not _REPOSITORY.fullmatch(name):
            message = f"--stand-in {name}={other}: {name!r} is no model name (OWNER/NAME)"
            raise SpeedtrapError(message)
        known[name] = _stand_in(name, other, known)
    return tuple(known.values())


def not_in(cache: Path, mounted: Iterable[ModelMount]) -> dict[str, str]:
    """Folder by name of the models that `cache` itself does not hold under that name."""
    own = {mount.name: mount.folder for mount in _cached(cache)}
    return {
        mount.name: str(mount.folder) for mount in mounted if own.get(mount.name) != mount.folder
    }


def missing(models: Iterable[str], mounted: Iterable[ModelMount]) -> list[str]:
    """Names among `models` that are hub names and not mounted; local paths are not judged."""
    names = {mount.name for mount in mounted}
    hub_names = [name for name in models if _REPOSITORY.fullmatch(name)]
    return [name for name in hub_names if name not in names]


def remedy(name: str) -> str:
    """What to do about a model that is not in the cache."""
    return (
        f"model {name!r} is not in the model cache; get it with `hf download {name}`,"
        f" or put another in its place with --stand-in {name}=OTHER"
    )


def _cached(cache: Path) -> list[ModelMount]:
    if not cache.is_dir():
        return []
    return [
        ModelMount(_name_of(folder), folder.resolve(), is_snapshot=False)
        for folder in sorted(cache.glob("models--*"))
        if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)
    ]


def _name_of(folder: Path) -> str:
    return folder.name.removeprefix("models--").replace("--", "/")


def _stand_in(name: str, other: str, known: Mapping[str, ModelMount]) -> ModelMount:
    if other in known:
        return ModelMount(name, known[other].folder, known[other].is_snapshot)
    folder = Path(other).expanduser()
    if folder.is_dir():
        return ModelMount(name, folder.resolve(), is_snapshot=True)
    message = f"--stand-in {name}={other}: {other!r} is neither a cached model nor a folder"
    raise SpeedtrapError(message)
