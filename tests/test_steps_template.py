"""The segment that changes the number of steps, in this very process, with the real libraries."""

import contextlib
import json

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline

from runner import live, paths
from runner.records import Traces

LIVE, STEPS = ((paths.TEMPLATES / f"{name}.py").read_text() for name in ("live", "steps"))


def pipelines(kind=DiffusionPipeline):
    return {kind}.union(*map(pipelines, kind.__subclasses__()))


@contextlib.contextmanager
def changed(factor):
    """The segment at work, and a function that returns its report; afterwards all is as before."""
    before = {kind: vars(kind).get("__call__") for kind in pipelines()}
    space = {}
    exec(compile(LIVE, "live.py", "exec"), space)
    text = STEPS.replace("STEPS_FACTOR = 1.0", f"STEPS_FACTOR = {factor}", 1)
    exec(compile(text, "steps.py", "exec"), space)
    try:
        yield space["_speedtrap_names"]["_speedtrap_compose"]
    finally:
        del DiffusionPipeline.__init_subclass__
        for kind, call in before.items():
            if call is not None:
                kind.__call__ = call


class Plain(DiffusionPipeline):
    """Returns the steps that it is called with, and keeps all."""

    def __init__(self):
        self.taken = []

    def __call__(self, prompt, num_inference_steps=50, *, timesteps=None, sigmas=None):
        self.taken.append((prompt, num_inference_steps, timesteps, sigmas))
        return num_inference_steps


@pytest.mark.parametrize(
    ("factor", "steps", "expected"),
    [(0.5, 25, 13), (0.5, 24, 12), (2.0, 25, 50), (0.5, 1, 1), (0.01, 25, 1), (3.0, 7, 21)],
)
def test_steps_are_rounded_and_never_none_and_told_alike_outside(factor, steps, expected):
    with changed(factor):
        assert Plain()("a cat", num_inference_steps=steps) == expected
    assert live.scaled_steps(steps, factor) == expected


def test_however_they_are_given():
    with changed(2) as report:
        pipe = Plain()
        assert (pipe("a cat"), pipe("a cat", 25), pipe(prompt="a", num_inference_steps=7)) == (
            *(100, 50, 14),
        )
        assert report()["steps"] == {"scaled": 3, "left": []}
    assert pipe("a cat") == 50


def test_a_class_that_is_made_later_and_hands_on_what_it_gets():
    with changed(2) as report:

        class Later(Plain):
            def __call__(self, prompt, **more):
                return super().__call__(prompt, num_inference_steps=10, **more)

        class Counted(Plain):
            def __call__(self, prompt, num_inference_steps=30, **more):
                return super().__call__(prompt, num_inference_steps, **more)

        class Keywords(Plain):
            def __call__(self, *prompts, **more):
                return len(prompts) * more["num_inference_steps"]

        assert (Later()("a cat"), Counted()("a cat")) == (20, 60)
        assert Keywords()("a cat", num_inference_steps=4) == 8
        assert report()["steps"]["scaled"] == 3


def test_of_calls_within_calls_the_outermost_is_changed():
    class Combined(DiffusionPipeline):
        def __init__(self):
            self.inner = Plain()

        def __call__(self, prompt, num_inference_steps=12, prior_num_inference_steps=60):
            return [self.inner(prompt, prior_num_inference_steps), num_inference_steps]

    with changed(2):
        assert Combined()("a cat") == [120, 24]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"timesteps": [999, 500]}, "the pipeline is called with timesteps of its own"),
        ({"sigmas": [1.0, 0.5]}, "the pipeline is called with sigmas of its own"),
        ({"num_inference_steps": [1, 2]}, "num_inference_steps is a list"),
    ],
)
def test_what_cannot_be_changed_is_left_and_told(given, reason):
    with changed(2) as report:
        wanted = given.get("num_inference_steps", 50)
        assert Plain()("a cat", **given) == wanted
        assert report()["steps"] == {"scaled": 0, "left": [reason]}


def test_an_error_of_the_call_is_the_call_s_and_the_next_one_is_changed():
    class Fails(Plain):
        def __call__(self, prompt, num_inference_steps=50):
            if prompt == "bad":
                raise ZeroDivisionError
            return num_inference_steps

    with changed(2):
        pipe = Fails()
        with pytest.raises(ZeroDivisionError):
            pipe("bad")
        with pytest.raises(TypeError, match="num_images"):
            pipe("good", num_images=2)
        assert pipe("good") == 100


@pytest.mark.usefixtures("one_thread")
def test_the_real_pipeline_runs_them_and_says_so():
    diffusers.utils.logging.disable_progress_bar()
    pipe = StableDiffusionPipeline.from_pretrained(paths.MODELS / "tiny-sd")
    pipe.set_progress_bar_config(disable=True)
    with changed(2) as report:
        torch.manual_seed(1)
        (image,) = pipe("a large red circle", num_inference_steps=2).images
        found = live.read(Traces(json.dumps({"pipeline": None} | report()).encode()))
        assert isinstance(found, live.NoReading)  # nobody watched
        assert report()["steps"]["scaled"] == 1
        assert pipe.scheduler.num_inference_steps == 4
    torch.manual_seed(1)
    (same,) = pipe("a large red circle", num_inference_steps=4).images
    assert image.tobytes() == same.tobytes()
