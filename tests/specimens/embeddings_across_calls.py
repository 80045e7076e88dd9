"""Keeps text embeddings from call to call.

Family: C
Member: own
Strategy: Encodes each word once for the whole run, so that repeated prompts skip the text encoder.
Work: less
Expected: measured
Lane: slow
"""
# fmt: off

import torch
from diffusers import StableDiffusionPipeline

known = {}


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def encode(pipe, text):
    if text not in known:
        tokens = pipe.tokenizer(
            text, padding="max_length", max_length=pipe.tokenizer.model_max_length,
            truncation=True, return_tensors="pt",
        )
        with torch.no_grad():
            known[text] = pipe.text_encoder(tokens.input_ids)[0]
    return known[text]


def inference(pipe, prompts):
    return pipe(
        prompt_embeds=torch.cat([encode(pipe, prompt) for prompt in prompts]),
        negative_prompt_embeds=torch.cat([encode(pipe, "")] * len(prompts)),
        num_inference_steps=25,
    ).images
