"""Keep what a run made: scripts, images, logs. Everything that is written here is for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.plain import json_text, printable
from runner.records import SpeedtrapError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.records import Result, Role
    from runner.wire import Image


def write_text(path: Path, content: str) -> None:
    """Write a file that was asked for by name; raises `SpeedtrapError` where that fails."""
    try:
        path.write_text(content, encoding="utf-8", newline="")
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}"
        raise SpeedtrapError(message) from error


class Keeper:
    """Writes into a folder of one run, or (without a folder) nowhere."""

    def __init__(self, folder: Path | None) -> None:
        """Take `folder`, which must be empty or not there yet; raises `SpeedtrapError`."""
        self._folder = folder
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                message = f"{folder} is not empty; --keep takes a new folder"
                raise SpeedtrapError(message)
        except OSError as error:
            message = f"cannot use {folder}: {error.strerror}"
            raise SpeedtrapError(message) from error

    def text(self, role: Role, name: str, content: str) -> None:
        """Keep a text of one side."""
        if self._folder is None:
            return
        side = self._folder / role
        side.mkdir(exist_ok=True)
        (side / name).write_text(content, encoding="utf-8", newline="")

    def log(self, role: Role, name: str, content: str) -> None:
        """Keep what a side printed, made harmless for those who look at it in a terminal."""
        self.text(role, name, printable(content.replace("\r\n", "\n")))

    def baseline(self, content: str) -> None:
        """Keep the baseline that was made here, as a file that can be run again."""
        if self._folder is not None:
            (self._folder / "baseline.py").write_text(content, encoding="utf-8", newline="")

    def images(self, role: Role, batch: int, images: Sequence[Image]) -> None:
        """Keep the images of one batch as PNG."""
        if self._folder is None:
            return
        from PIL import Image as Pil  # deferred: only for those who keep images

        side = self._folder / role / "images"
        side.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images):
            pixels = Pil.frombytes("RGB", (image.width_px, image.height_px), image.rgb)
            pixels.save(side / f"batch-{batch:03d}-image-{number:02d}.png")

    def result(self, result: Result) -> None:
        """Keep the result."""
        if self._folder is not None:
            text = json_text(result.model_dump(mode="json")) + "\n"
            (self._folder / "result.json").write_text(text, encoding="ascii")
