"""Segment 5 of tmp.py: load, warm up, time batch by batch, score, print `time,score`.

Nothing that is printed here is believed: in the witnessed form the controller keeps its own record.
"""

WARMUP_BATCHES = 1
MAX_SIDE_PX = 4096
EXIT_BAD_OUTPUT = 64
EXIT_NO_INTERFACE = 65


def _speedtrap_refuse(status, message):
    """End with a message for the candidate's author."""
    import sys

    print(f"speedtrap: {message}", file=sys.stderr, flush=True)
    raise SystemExit(status)


def _speedtrap_load(namespace):
    """Return the pipeline: from `load_pipe()`, or the global `pipe`."""
    if callable(namespace.get("load_pipe")):
        return namespace["load_pipe"]()
    if namespace.get("pipe") is not None:
        return namespace["pipe"]
    return _speedtrap_refuse(
        EXIT_NO_INTERFACE,
        "the file defines no pipeline; define load_pipe() that returns it, or a global named pipe",
    )


def _speedtrap_infer(namespace, pipe, prompts):
    """Return what the candidate makes of a list of prompts."""
    if callable(namespace.get("inference")):
        return namespace["inference"](pipe, prompts)
    return pipe(prompts).images


def _speedtrap_to_pil(image, number):
    """One image as 8-bit RGB: from PIL, or from an array or tensor (HWC or CHW, 0..1 or 0..255)."""
    import numpy
    import torch
    from PIL import Image

    if isinstance(image, Image.Image):
        return image if image.mode == "RGB" else image.convert("RGB")
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()
    if not isinstance(image, numpy.ndarray):
        kind = type(image).__name__
        return _speedtrap_refuse(
            EXIT_BAD_OUTPUT, f"image {number} is a {kind}; return PIL images, arrays or tensors"
        )
    if image.ndim == 3 and image.shape[0] == 3 and image.shape[-1] != 3:
        image = image.transpose(1, 2, 0)
    if image.ndim != 3 or image.shape[-1] != 3 or not image.size:
        shape = "x".join(map(str, image.shape))
        return _speedtrap_refuse(
            EXIT_BAD_OUTPUT, f"image {number} has shape {shape}; expected height x width x 3"
        )
    if image.dtype != numpy.uint8:
        is_whole = image.dtype.kind != "f"
        image = image.astype(numpy.float64)
        if not numpy.isfinite(image).all():
            return _speedtrap_refuse(EXIT_BAD_OUTPUT, f"image {number} has NaN or infinite pixels")
        image = image * (1.0 if is_whole or image.max() > 1.0 else 255.0)
        image = image.round().clip(0, 255).astype(numpy.uint8)
    return Image.fromarray(image)


def _speedtrap_to_images(output, count):
    """Return `count` RGB images in order, or refuse the output."""
    import numpy
    import torch

    if hasattr(output, "images"):
        output = output.images
    if not isinstance(output, (list, tuple, torch.Tensor, numpy.ndarray)):
        kind = type(output).__name__
        _speedtrap_refuse(
            EXIT_BAD_OUTPUT, f"inference returned a {kind}; return a list with one image per prompt"
        )
    if len(output) != count:
        _speedtrap_refuse(
            EXIT_BAD_OUTPUT, f"inference returned {len(output)} images for {count} prompts"
        )
    images = [_speedtrap_to_pil(image, number) for number, image in enumerate(output, start=1)]
    for number, image in enumerate(images, start=1):
        if not (min(image.size) >= 1 and max(image.size) <= MAX_SIDE_PX):
            size = f"{image.width} x {image.height}"
            _speedtrap_refuse(
                EXIT_BAD_OUTPUT, f"image {number} has {size} pixels; 1 to {MAX_SIDE_PX} a side"
            )
    return images


def _speedtrap_main(namespace, batches, calculate_clip_score):
    """Run the candidate over all batches and print `time,score`."""
    import random
    import time

    import numpy
    import torch

    def synchronize():
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    pipe = _speedtrap_load(namespace)
    total_s, scores = 0.0, []
    for number, (seed, prompts) in enumerate(batches):
        random.seed(seed)
        numpy.random.seed(seed)
        torch.manual_seed(seed)
        synchronize()
        start_s = time.perf_counter()
        output = _speedtrap_infer(namespace, pipe, prompts)
        synchronize()
        elapsed_s = time.perf_counter() - start_s
        score = calculate_clip_score(prompts, _speedtrap_to_images(output, len(prompts)))
        if number >= WARMUP_BATCHES:
            total_s += elapsed_s
            scores += [score] * len(prompts)
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
    },
    _speedtrap_refuse,
    _speedtrap_load,
    _speedtrap_infer,
    _speedtrap_to_pil,
    _speedtrap_to_images,
    _speedtrap_main,
)["_speedtrap_main"](globals(), _speedtrap_batches(), calculate_clip_score)  # noqa: F821
