"""Write a Stable Diffusion 1.5 pipeline with random weights in diffusers layout.

Speed depends on the architecture and not on the weights, so this stands in for the real model
where no weights are to be had: `bin/score ... --stand-in runwayml/stable-diffusion-v1-5=FOLDER`.
Sizes are those of the published model's configuration files. Images are noise: quality means
nothing.

    python benchmarks/random_pipeline.py FOLDER [--tiny] [--device cuda]
"""

from __future__ import annotations

import argparse
import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

BPE_MERGES = 49152 - 256 - 2
"""As in CLIP's published tokenizer: 49,152 merges less 256 bytes and two special tokens."""


@dataclass(frozen=True)
class Architecture:
    """Sizes of one pipeline. `sample_size` is the latent side; images are 8 times as large."""

    unet_channels: tuple[int, ...]
    vae_channels: tuple[int, ...]
    text_width: int
    text_layers: int
    text_heads: int
    attention_heads: int
    sample_size: int


SD15 = Architecture((320, 640, 1280, 1280), (128, 256, 512, 512), 768, 12, 12, 8, 64)
TINY = Architecture((32, 64), (32, 32, 32, 32), 32, 2, 4, 4, 8)


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """Rebuild CLIP's tokenizer from the BPE table that open_clip carries."""
    folder.mkdir(parents=True, exist_ok=True)
    table = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(table.read_bytes()).decode().split("\n")[1 : BPE_MERGES + 1]
    merges = [tuple(line.split()) for line in lines]
    symbols = list(open_clip.tokenizer.bytes_to_unicode().values())
    words = [*symbols, *(symbol + "</w>" for symbol in symbols), *map("".join, merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
    )


def build(size: Architecture, folder: Path, device: str) -> StableDiffusionPipeline:
    """Build the pipeline in fp16 on `device`, with fixed random weights."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float16)
    levels = len(size.unet_channels)
    with torch.device(device):
        unet = UNet2DConditionModel(
            sample_size=size.sample_size,
            block_out_channels=size.unet_channels,
            down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
            cross_attention_dim=size.text_width,
            attention_head_dim=size.attention_heads,
        )
        vae = AutoencoderKL(
            block_out_channels=size.vae_channels,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            sample_size=size.sample_size * 8,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=size.text_width,
                intermediate_size=4 * size.text_width,
                num_hidden_layers=size.text_layers,
                num_attention_heads=size.text_heads,
                bos_token_id=49406,
                eos_token_id=49407,
            )
        )
    torch.set_default_dtype(torch.float32)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=write_tokenizer(folder / "tokenizer"),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def load_as_float32_by_default(config: Path) -> None:
    """Make transformers agree with diffusers on the dtype when none is asked for.

    transformers 5 loads what the configuration says (here fp16), diffusers loads fp32.
    """
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"dtype": "float32"}, indent=2) + "\n")


def main() -> None:
    """Read the arguments, build, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true", help="small enough for a test on a CPU")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    size = TINY if arguments.tiny else SD15
    build(size, arguments.folder, arguments.device).save_pretrained(arguments.folder)
    load_as_float32_by_default(arguments.folder / "text_encoder" / "config.json")
    parameters = sum(file.stat().st_size for file in arguments.folder.rglob("*.safetensors")) // 2
    print(f"wrote {arguments.folder}: {parameters / 1e6:.1f} M parameters, random")


if __name__ == "__main__":
    main()
