"""Control: text embeddings kept within one call, where prompts or the empty one recur.

Family: honest
Member: embedding cache
Strategy: Encodes each distinct text of a call once, the empty prompt included.
Expected: measured
Lane: slow
"""
# fmt: off

import torch
from diffusers import StableDiffusionPipeline


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    known = {}

    def encode(text):
        if text not in known:
            tokens = pipe.tokenizer(
                text, padding="max_length", max_length=pipe.tokenizer.model_max_length,
                truncation=True, return_tensors="pt",
            )
            with torch.no_grad():
                known[text] = pipe.text_encoder(tokens.input_ids)[0]
        return known[text]

    return pipe(
        prompt_embeds=torch.cat([encode(prompt) for prompt in prompts]),
        negative_prompt_embeds=torch.cat([encode("") for _ in prompts]),
        num_inference_steps=25,
    ).images
