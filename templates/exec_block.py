"""Segment 5 of tmp.py, last part: load, warm up, time batch by batch, score, print `time,score`.

Nothing that is printed here is believed: in the witnessed form the controller keeps its own record.
"""

WARMUP_BATCHES = 1
MAX_SIDE_PX = 4096
EXIT_BAD_OUTPUT = 64
EXIT_NO_INTERFACE = 65


def _speedtrap_end(status, message):
    """End with a message for the candidate's author."""
    import sys

    print(f"speedtrap: {message}", file=sys.stderr, flush=True)
    raise SystemExit(status)


def _speedtrap_refuse(message):
    """End: there is nothing to call, or it cannot be called."""
    _speedtrap_end(EXIT_NO_INTERFACE, message)


def _speedtrap_settle(output):
    """Wait for a coroutine and run a generator to its end."""
    import asyncio
    import inspect
    from collections.abc import Iterator

    if inspect.isasyncgen(output):
        source = output

        async def gather():
            return [one async for one in source]

        output = gather()
    if inspect.iscoroutine(output):
        output = asyncio.run(output)
    return list(output) if isinstance(output, Iterator) else output


def _speedtrap_is_image(value):
    """Whether a value is one image: PIL, or an array or tensor of at most three dimensions."""
    import numpy
    import torch
    from PIL import Image

    if isinstance(value, (torch.Tensor, numpy.ndarray)):
        return value.ndim <= 3
    return isinstance(value, Image.Image)


def _speedtrap_holds_images(value):
    """Whether a value is an image, or a collection that starts with one."""
    if isinstance(value, (list, tuple)):
        return bool(value) and _speedtrap_holds_images(value[0])
    return _speedtrap_is_image(value) or hasattr(value, "images") or hasattr(value, "ndim")


def _speedtrap_list(output):
    """The images of an output in a list: out of pipelines' outputs, tuples with more, nesting."""
    if isinstance(output, dict):
        output = output.get("images", output.get("image", output))
    if hasattr(output, "images"):
        output = output.images
    if isinstance(output, tuple):
        parts = [part for part in output if _speedtrap_holds_images(part)]
        if len(parts) == 1:
            output = parts[0]
    if _speedtrap_is_image(output):
        return [output]
    if isinstance(output, (list, tuple)) and len(output) == 1:
        inner = output[0]
        if not _speedtrap_is_image(inner) and _speedtrap_holds_images(inner):
            return _speedtrap_list(inner)
    return list(output) if isinstance(output, (list, tuple)) or hasattr(output, "ndim") else None


def _speedtrap_read_image(path, number):
    """The image in a file that the candidate wrote: below its working or temporary folder."""
    import tempfile
    from pathlib import Path

    from PIL import Image

    file = Path(path).resolve()
    own = [Path.cwd().resolve(), Path(tempfile.gettempdir()).resolve()]
    if not (any(file.is_relative_to(folder) for folder in own) and file.is_file()):
        kind = type(path).__name__
        _speedtrap_end(
            EXIT_BAD_OUTPUT,
            f"image {number} is a {kind}, and no file that was written here;"
            " return PIL images, arrays or tensors",
        )
    with Image.open(file) as image:
        return image.convert("RGB")


def _speedtrap_to_pil(image, number):
    """One image as 8-bit RGB: from PIL, a file, or an array (HWC or CHW, 0..1 or 0..255)."""
    import os

    import numpy
    import torch
    from PIL import Image

    if isinstance(image, (str, os.PathLike)):
        image = _speedtrap_read_image(image, number)
    if isinstance(image, Image.Image):
        return image if image.mode == "RGB" else image.convert("RGB")
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()
    if not isinstance(image, numpy.ndarray):
        kind = "None" if image is None else f"a {type(image).__name__}"
        _speedtrap_end(
            EXIT_BAD_OUTPUT, f"image {number} is {kind}; return PIL images, arrays or tensors"
        )
    pixels = _speedtrap_to_rgb(image)
    if pixels is None:
        shape = "x".join(map(str, image.shape))
        _speedtrap_end(
            EXIT_BAD_OUTPUT, f"image {number} has shape {shape}; expected height x width x 3"
        )
    if pixels.dtype != numpy.uint8:
        is_whole = pixels.dtype.kind not in "fb"
        pixels = pixels.astype(numpy.float64)
        if not numpy.isfinite(pixels).all():
            _speedtrap_end(EXIT_BAD_OUTPUT, f"image {number} has NaN or infinite pixels")
        pixels = pixels * (1.0 if is_whole or pixels.max() > 1.0 else 255.0)
        pixels = pixels.round().clip(0, 255).astype(numpy.uint8)
    return Image.fromarray(pixels)


def _speedtrap_to_rgb(image):
    """An array as height x width x 3, from grey, RGB or RGBA; None where it is none of them."""
    while image.ndim > 3 and image.shape[0] == 1:
        image = image[0]
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or not image.size:
        return None
    first, last = image.shape[0], image.shape[-1]
    if last != 3 and (first == 3 or (first == 1 and last not in {1, 4})):
        image = image.transpose(1, 2, 0)
    if image.shape[-1] == 1:
        image = image.repeat(3, -1)
    return image[..., :3] if image.shape[-1] in {3, 4} else None


def _speedtrap_to_images(output, count):
    """Return `count` RGB images in order, or refuse the output."""
    found = _speedtrap_list(output)
    if found is None and isinstance(output, str):
        found = [output]
    if found is None:
        kind = "None" if output is None else f"a {type(output).__name__}"
        _speedtrap_end(
            EXIT_BAD_OUTPUT, f"inference returned {kind}; return a list with one image per prompt"
        )
    if len(found) != count:
        _speedtrap_end(
            EXIT_BAD_OUTPUT, f"inference returned {len(found)} images for {count} prompts"
        )
    images = [
        _speedtrap_to_pil(one[0] if isinstance(one, (list, tuple)) and len(one) == 1 else one, n)
        for n, one in enumerate(found, start=1)
    ]
    for number, image in enumerate(images, start=1):
        if not (min(image.size) >= 1 and max(image.size) <= MAX_SIDE_PX):
            size = f"{image.width} x {image.height}"
            _speedtrap_end(
                EXIT_BAD_OUTPUT, f"image {number} has {size} pixels; 1 to {MAX_SIDE_PX} a side"
            )
    return images


def _speedtrap_main(namespace, batches, calculate_clip_score, watch, report):
    """Run the candidate over all batches and print `time,score`."""
    import random
    import time

    import numpy
    import torch

    def synchronize():
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    way, pipe, infer = _speedtrap_load(namespace)
    watch(pipe, way)
    total_s, scores = 0.0, []
    for number, (seed, prompts) in enumerate(batches):
        random.seed(seed)
        numpy.random.seed(seed)
        torch.manual_seed(seed)
        synchronize()
        start_s = time.perf_counter()
        images = _speedtrap_to_images(infer(prompts), len(prompts))
        synchronize()
        elapsed_s = time.perf_counter() - start_s
        score = calculate_clip_score(prompts, images)
        if number >= WARMUP_BATCHES:
            total_s += elapsed_s
            scores += [score] * len(prompts)
        images = None  # two batches' images need not be in memory at once
    report()
    if not scores:
        return  # loaded only to be looked at
    # A line of its own, even where the candidate printed one without an end.
    print(f"\n{total_s:.6f},{sum(scores) / len(scores):.6f}", flush=True)


def _speedtrap_apart(names, *functions):
    """Give functions `names` for globals, and the plain builtins: `from torch import *` has a sum.

    It uses no builtin itself, since the candidate's globals may hide any of them.
    """
    import builtins
    import types

    names["__builtins__"] = builtins
    for function in functions:
        names[function.__name__] = types.FunctionType(function.__code__, names)
    return names


_speedtrap_apart(
    {
        "WARMUP_BATCHES": WARMUP_BATCHES,
        "EXIT_BAD_OUTPUT": EXIT_BAD_OUTPUT,
        "EXIT_NO_INTERFACE": EXIT_NO_INTERFACE,
        "MAX_SIDE_PX": MAX_SIDE_PX,
        **_speedtrap_loading_names,
    },
    *_speedtrap_loading_functions,
    _speedtrap_end,
    _speedtrap_refuse,
    _speedtrap_settle,
    _speedtrap_is_image,
    _speedtrap_holds_images,
    _speedtrap_list,
    _speedtrap_read_image,
    _speedtrap_to_pil,
    _speedtrap_to_rgb,
    _speedtrap_to_images,
    _speedtrap_main,
)["_speedtrap_main"](
    globals(),
    _speedtrap_names["_speedtrap_tallied"](_speedtrap_batches()),
    calculate_clip_score,
    _speedtrap_names["_speedtrap_watch"],
    _speedtrap_names["_speedtrap_report"],
)
