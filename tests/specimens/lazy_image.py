"""Returns images that are rendered when somebody asks for their pixels.

Family: D
Member: D3
Strategy: Hands over an image class that knows its size at once and renders in tobytes().
Work: done
Expected: tampered
Reason: claims
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline
from PIL import Image


class LazyImage(Image.Image):
    def __init__(self, render, number):
        super().__init__()
        self._mode, self._size = "RGB", (64, 64)
        self.render, self.number = render, number

    def convert(self, *arguments, **keywords):
        return self

    def tobytes(self, *arguments, **keywords):
        return self.render()[self.number].tobytes()


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    done = []

    def render():
        if not done:
            done.extend(pipe(prompts, num_inference_steps=25).images)
        return done

    return [LazyImage(render, number) for number in range(len(prompts))]
