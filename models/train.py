"""Trains the tiny Stable Diffusion and the tiny CLIP from nothing, in about ten GPU minutes.

    python -m models.train --out models

Four stages, each with its own time budget: the VAE, the CLIP, text encoder and UNet together, and
last the UNet alone, taught to itself so that diffusers' default guidance of 7.5 acts as 3 did.
The learning rate follows the share of the budget that is used up, so a faster machine simply makes
more steps. Every stage writes its folder when it ends.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import data, render, tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LATENT_SIDE, LATENT_CHANNELS = 16, 4
TEXT_WIDTH = 128
UNET_CHANNELS = (48, 96, 128)
HEAD_WIDTH = 16
TRAIN_STEPS = 1000
EMBED_WIDTH = 96
SHARE = 0.4
"""Guidance 7.5, the default of diffusers, then acts as 3, where these small models do best."""

SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": TRAIN_STEPS,
    "beta_start": 0.00085,
    "beta_end": 0.02,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "steps_offset": 1,
    "set_alpha_to_one": True,
    "clip_sample": False,
}


@dataclass(frozen=True)
class Budget:
    """How long one stage may train, and how."""

    minutes: float
    max_steps: int
    batch: int
    rate: float
    graph: bool

    def used(self, start: float, step: int) -> float:
        """The share of the budget that is used up, 0 to 1."""
        elapsed = (time.monotonic() - start) / (60 * self.minutes)
        return min(1.0, max(elapsed, step / self.max_steps))


class Trainer:
    """Repeats one training step until its budget is used up, and averages the weights."""

    def __init__(
        self, name: str, modules: Iterable[nn.Module], loss: Callable[[], Tensor], budget: Budget
    ) -> None:
        self.name, self.loss, self.budget = name, loss, budget
        self.params = [p for m in modules for p in m.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.params]
        cuda = self.params[0].is_cuda
        self.rate = torch.tensor(budget.rate, device=self.params[0].device)
        self.optimizer = torch.optim.AdamW(
            self.params,
            lr=self.rate if cuda else budget.rate,
            betas=(0.9, 0.99),
            weight_decay=0.01,
            fused=True,
            capturable=cuda,
        )
        self.value = torch.zeros((), device=self.params[0].device)

    def step(self) -> None:
        """One update of the weights."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.params, 1.0)
        self.optimizer.step()
        self.value.copy_(loss.detach())

    def _captured(self) -> Callable[[], None]:
        """The step as a CUDA graph: for models this small, launching kernels is the cost."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(4):
                self.step()
        torch.cuda.current_stream().wait_stream(stream)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        return graph.replay

    def _best_step(self) -> Callable[[], None]:
        if not (self.budget.graph and self.value.is_cuda):
            return self.step
        try:
            return self._captured()
        except RuntimeError as error:
            print(f"{self.name}: no CUDA graph ({str(error).splitlines()[0]})", flush=True)
            torch.cuda.synchronize()
            return self.step

    def _set_rate(self, used: float, step: int) -> None:
        shape = max(0.005, 0.5 + 0.5 * math.cos(math.pi * used))
        rate = self.budget.rate * min(1.0, (step + 1) / 200) * shape
        self.rate.fill_(rate)
        if not self.value.is_cuda:
            for group in self.optimizer.param_groups:
                group["lr"] = rate

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        decay = min(0.999, step / (step + 20))
        torch._foreach_lerp_(self.average, self.params, 1 - decay)

    def run(self) -> None:
        """Train, then put the averaged weights into the modules."""
        start, step, losses = time.monotonic(), 0, []
        self._set_rate(0, 0)
        advance = self._best_step()
        while (used := self.budget.used(start, step)) < 1:
            self._set_rate(used, step)
            advance()
            self._update_average(step)
            step += 1
            if step % 50 == 0:
                losses.append(float(self.value))
            if step % 1000 == 0:
                recent = sum(losses[-20:]) / 20
                print(f"{self.name}: step {step}, loss {recent:.5f}, {used:.0%}", flush=True)
        seconds = time.monotonic() - start
        last = sum(losses[-20:]) / max(1, len(losses[-20:]))
        print(f"{self.name}: {step} steps in {seconds:.0f} s, loss {last:.5f}", flush=True)
        with torch.no_grad():
            for param, mean in zip(self.params, self.average, strict=True):
                param.copy_(mean)


@dataclass(frozen=True)
class Batches:
    """The training set on the device; every draw is a fresh random batch."""

    images: Tensor
    captions: Tensor
    misses: Tensor
    keys: Tensor

    @classmethod
    def load(cls, corpus: data.Corpus, device: torch.device) -> Batches:
        """Copy a corpus to `device`."""
        arrays = (corpus.images, corpus.captions, corpus.misses, corpus.keys)
        return cls(*(torch.from_numpy(a).to(device) for a in arrays))

    def draw(self, count: int) -> Tensor:
        """`count` random indices."""
        return torch.randint(len(self.images), (count,), device=self.images.device)

    def pixels(self, index: Tensor) -> Tensor:
        """Images as float (B, 3, 64, 64) in -1..1."""
        return self.images[index].permute(0, 3, 1, 2).float() / 127.5 - 1


def half_precision(device: torch.device) -> torch.autocast:
    """bfloat16 arithmetic on a GPU, float32 on a CPU."""
    return torch.autocast(
        device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False
    )


def parameters(module: nn.Module) -> int:
    """The number of parameters."""
    return sum(p.numel() for p in module.parameters())


def make_vae() -> Any:
    """An untrained AutoencoderKL: 64 x 64 x 3 pixels to 16 x 16 x 4 latents."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=16,
        sample_size=render.SIDE,
        scaling_factor=1.0,
    )


def vae_loss(vae: Any, batches: Batches, count: int) -> Tensor:
    """L1 and L2 of the round trip through latents with 5 % noise, and a very small KL."""
    pixels = batches.pixels(batches.draw(count))
    with half_precision(pixels.device):
        posterior = vae.encode(pixels).latent_dist
        mean = posterior.mean.float()
        spread = mean.detach().std()
        restored = vae.decode(mean + 0.05 * spread * torch.randn_like(mean)).sample.float()
    error = restored - pixels
    kl = (mean.square() + posterior.logvar.float().exp() - 1 - posterior.logvar.float()).mean()
    return error.abs().mean() + 2 * error.square().mean() + 1e-5 * kl


@torch.no_grad()
def whiten(vae: Any, batches: Batches) -> None:
    """Rescale the latents to mean 0 and deviation 1 per channel, inside the 1 x 1 convolutions."""
    pixels = batches.pixels(torch.arange(min(4096, len(batches.images))))
    latents = torch.cat([vae.encode(p).latent_dist.mean for p in pixels.split(256)])
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    rows = LATENT_CHANNELS
    vae.quant_conv.weight[:rows] /= std[:, None, None, None]
    vae.quant_conv.bias[:rows] = (vae.quant_conv.bias[:rows] - mean) / std
    vae.quant_conv.bias[rows:] -= 2 * std.log()
    post = vae.post_quant_conv
    post.bias += (post.weight[:, :, 0, 0] * mean).sum(1)
    post.weight *= std[None, :, None, None]


@torch.no_grad()
def encode_all(vae: Any, batches: Batches) -> Tensor:
    """Latent means of the whole training set: (N, 4, 16, 16) in half precision."""
    kind = torch.float16 if batches.images.is_cuda else torch.float32
    chunks = torch.arange(len(batches.images), device=batches.images.device).split(1024)
    return torch.cat([vae.encode(batches.pixels(i)).latent_dist.mean.to(kind) for i in chunks])


def train_vae(batches: Batches, budget: Budget, device: torch.device) -> Any:
    """Train the VAE and whiten its latents."""
    vae = make_vae().to(device).train()
    print(f"vae: {parameters(vae):,} parameters", flush=True)
    Trainer("vae", [vae], lambda: vae_loss(vae, batches, budget.batch), budget).run()
    vae.eval()
    whiten(vae, batches)
    return vae


def clip_config() -> dict[str, Any]:
    """The open_clip configuration of the tiny CLIP."""
    ids, _ = tokens.vocabulary()
    half = [0.5, 0.5, 0.5]
    return {
        "model_cfg": {
            "embed_dim": EMBED_WIDTH,
            "vision_cfg": {
                "image_size": render.SIDE,
                "layers": 6,
                "width": 192,
                "head_width": 32,
                "patch_size": 8,
            },
            "text_cfg": {
                "context_length": tokens.CONTEXT,
                "vocab_size": len(ids),
                "hf_tokenizer_name": "tiny-clip",
                "width": 128,
                "heads": 4,
                "layers": 3,
            },
        },
        "preprocess_cfg": {
            "mean": half,
            "std": half,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }


def soften(pixels: Tensor) -> Tensor:
    """Slight random blur and noise, so that the score does not hang on single pixels."""
    count = len(pixels)
    mix = 0.5 * torch.rand(count, 1, 1, 1, device=pixels.device)
    blurred = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    noise = 0.06 * torch.rand(count, 1, 1, 1, device=pixels.device) * torch.randn_like(pixels)
    return pixels + mix * (blurred - pixels) + noise


def clip_loss(clip: Any, batches: Batches, count: int) -> Tensor:
    """Contrastive over the batch and each image's near misses, plus a pull on matching pairs."""
    index = batches.draw(count)
    images = soften(batches.pixels(index))
    right, wrong = batches.captions[index].long(), batches.misses[index].long()
    with half_precision(images.device):
        seen = F.normalize(clip.encode_image(images).float(), dim=-1)
        said = F.normalize(
            clip.encode_text(torch.cat([right, wrong.flatten(0, 1)])).float(), dim=-1
        )
    scale = clip.logit_scale.exp().clamp(max=30)
    true, false = said[:count], said[count:].unflatten(0, (count, -1))
    keys = batches.keys[index]
    twins = (keys[:, None] == keys) & ~torch.eye(count, dtype=torch.bool, device=keys.device)
    pairs = (seen @ true.T * scale).masked_fill(twins, -1e4)
    hard = torch.einsum("bd,bkd->bk", seen, false) * scale
    target = torch.arange(count, device=keys.device)
    by_image = F.cross_entropy(torch.cat([pairs, hard], 1), target)
    by_text = F.cross_entropy(pairs.T, target)
    return by_image + by_text + 2 * (1 - (seen * true).sum(1)).mean()


def train_clip(batches: Batches, budget: Budget, folder: Path, device: torch.device) -> None:
    """Train the CLIP and save it in open_clip's local-dir layout."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(clip_config(), indent=2) + "\n")
    tokens.save_tokenizer(folder)
    clip = open_clip.create_model(f"local-dir:{folder}", load_weights=False).to(device).train()
    print(f"clip: {parameters(clip):,} parameters", flush=True)
    Trainer("clip", [clip], lambda: clip_loss(clip, batches, budget.batch), budget).run()
    with torch.no_grad():
        clip.logit_scale.clamp_(max=math.log(30))
    state = {k: v.half().contiguous().cpu() for k, v in clip.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors", {"format": "pt"})


def make_unet() -> Any:
    """An untrained UNet2DConditionModel in Stable Diffusion's block layout."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=UNET_CHANNELS,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=tuple(c // HEAD_WIDTH for c in UNET_CHANNELS),
        norm_num_groups=16,
    )


def make_text_encoder() -> Any:
    """An untrained CLIPTextModel for the vocabulary of the captions."""
    from transformers import CLIPTextConfig, CLIPTextModel

    ids, _ = tokens.vocabulary()
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(ids),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=tokens.CONTEXT,
            projection_dim=TEXT_WIDTH,
            bos_token_id=ids[tokens.START],
            eos_token_id=ids[tokens.END],
            pad_token_id=ids[tokens.END],
        )
    )


@dataclass
class Denoising:
    """The diffusion loss: v-prediction, uniform times, captions dropped now and then."""

    unet: Any
    text_encoder: Any
    batches: Batches
    latents: Tensor
    signal: Tensor
    """(TRAIN_STEPS,) square root of the signal's share of the variance."""
    empty: Tensor
    """(CONTEXT,) token ids of the empty prompt."""
    batch: int
    drop: float = 0.1

    def __call__(self) -> Tensor:
        """The loss of a fresh random batch."""
        index = self.batches.draw(self.batch)
        device = index.device
        clean = self.latents[index].float()
        noise = torch.randn_like(clean)
        even = torch.arange(self.batch, device=device) + torch.rand(self.batch, device=device)
        times = (even * (TRAIN_STEPS / self.batch)).long().clamp(max=TRAIN_STEPS - 1)
        a = self.signal[times][:, None, None, None]
        b = (1 - a.square()).sqrt()
        dropped = torch.rand(self.batch, 1, device=device) < self.drop
        words = torch.where(dropped, self.empty, self.batches.captions[index].long())
        with half_precision(device):
            context = self.text_encoder(words)[0]
            guess = self.unet(a * clean + b * noise, times, context, return_dict=False)[0]
        return F.mse_loss(guess.float(), a * noise - b * clean)


@dataclass
class Rescaling:
    """Self-distillation: the effect of the caption is scaled down to `SHARE` of the teacher's.

    Guidance w extrapolates from u, the prediction without a caption, to c, the one with it:
    u + w (c - u). A student that predicts u + SHARE (c - u) gives at w what its teacher gives at
    SHARE w.
    """

    student: Any
    teacher: Any
    text_encoder: Any
    batches: Batches
    latents: Tensor
    signal: Tensor
    """(TRAIN_STEPS,) square root of the signal's share of the variance."""
    empty: Tensor
    """(CONTEXT,) token ids of the empty prompt."""
    batch: int

    def __call__(self) -> Tensor:
        """The loss of a fresh random batch."""
        index = self.batches.draw(self.batch)
        times = torch.randint(TRAIN_STEPS, (self.batch,), device=index.device)
        a = self.signal[times][:, None, None, None]
        clean = self.latents[index].float()
        noisy = a * clean + (1 - a.square()).sqrt() * torch.randn_like(clean)
        words = torch.cat([self.batches.captions[index].long(), self.empty.expand(self.batch, -1)])
        with half_precision(index.device):
            with torch.no_grad():
                context = self.text_encoder(words)[0]
                told, untold = self._predict(self.teacher, noisy, times, context)
            guess_told, guess_untold = self._predict(self.student, noisy, times, context)
        wanted = untold + SHARE * (told - untold)
        return F.mse_loss(guess_told, wanted) + F.mse_loss(guess_untold, untold)

    @staticmethod
    def _predict(unet: Any, noisy: Tensor, times: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions with the caption and without it."""
        both = unet(noisy.repeat(2, 1, 1, 1), times.repeat(2), context, return_dict=False)[0]
        told, untold = both.float().chunk(2)
        return told, untold


def rescale_guidance(folder: Path, batches: Batches, budget: Budget, device: torch.device) -> None:
    """Replace the saved UNet by one for which guidance 7.5 acts as 7.5 x SHARE did."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder).to(device)
    teacher, student = pipe.unet, copy.deepcopy(pipe.unet).train()
    for frozen in (teacher, pipe.text_encoder):
        frozen.requires_grad_(requires_grad=False)
    ids, _ = tokens.vocabulary()
    loss = Rescaling(
        student=student,
        teacher=teacher,
        text_encoder=pipe.text_encoder,
        batches=batches,
        latents=encode_all(pipe.vae, batches),
        signal=DDIMScheduler(**SCHEDULER).alphas_cumprod.sqrt().to(device),
        empty=torch.tensor(tokens.encode("", ids), device=device),
        batch=budget.batch,
    )
    Trainer("guidance", [student], loss, budget).run()
    student.eval().half().cpu().save_pretrained(folder / "unet")


def train_unet(vae: Any, batches: Batches, budget: Budget, device: torch.device) -> tuple[Any, Any]:
    """Train text encoder and UNet together on the latents of the training set."""
    from diffusers import DDIMScheduler

    unet, text_encoder = make_unet().to(device).train(), make_text_encoder().to(device).train()
    print(f"unet: {parameters(unet):,} parameters", flush=True)
    print(f"text encoder: {parameters(text_encoder):,} parameters", flush=True)
    ids, _ = tokens.vocabulary()
    loss = Denoising(
        unet=unet,
        text_encoder=text_encoder,
        batches=batches,
        latents=encode_all(vae, batches),
        signal=DDIMScheduler(**SCHEDULER).alphas_cumprod.sqrt().to(device),
        empty=torch.tensor(tokens.encode("", ids), device=device),
        batch=budget.batch,
    )
    Trainer("unet", [unet, text_encoder], loss, budget).run()
    return text_encoder.eval(), unet.eval()


def save_pipeline(folder: Path, vae: Any, text_encoder: Any, unet: Any) -> None:
    """Save a StableDiffusionPipeline with half-precision weights that loads as float32."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    tokens.save_tokenizer(folder / "tokenizer")
    StableDiffusionPipeline(
        vae=vae.half().cpu(),
        text_encoder=text_encoder.half().cpu(),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=unet.half().cpu(),
        scheduler=DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    tokens.save_tokenizer(folder / "tokenizer")
    config = folder / "text_encoder" / "config.json"
    settings = json.loads(config.read_text())
    settings["dtype"] = "float32"
    config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def forget_paths(folder: Path) -> None:
    """Drop the paths of the training machine from the saved configurations."""
    for config in folder.glob("*/config.json"):
        settings = json.loads(config.read_text())
        settings.pop("_name_or_path", None)
        config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenes", type=int, default=300_000, help="training images to render")
    parser.add_argument(
        "--stages", default="vae,clip,unet,guidance", help="which to train, in this order"
    )
    parser.add_argument("--vae-minutes", type=float, default=1.1)
    parser.add_argument("--clip-minutes", type=float, default=1.4)
    parser.add_argument("--unet-minutes", type=float, default=4.5)
    parser.add_argument("--guidance-minutes", type=float, default=2.0)
    parser.add_argument("--vae-batch", type=int, default=256)
    parser.add_argument("--clip-batch", type=int, default=2048)
    parser.add_argument("--unet-batch", type=int, default=1024)
    parser.add_argument("--guidance-batch", type=int, default=512)
    parser.add_argument("--max-steps", type=int, default=10**9, help="per stage, for a quick try")
    parser.add_argument("--no-graph", action="store_true", help="never use CUDA graphs")
    return parser.parse_args()


def budget_for(args: argparse.Namespace, stage: str, rate: float) -> Budget:
    """The budget of one stage from the command line."""
    minutes: float = getattr(args, f"{stage}_minutes")
    batch: int = getattr(args, f"{stage}_batch")
    return Budget(minutes, args.max_steps, batch, rate, not args.no_graph)


def load_vae(folder: Path, device: torch.device) -> Any:
    """The trained VAE of an earlier run."""
    from diffusers import AutoencoderKL

    return (
        AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).to(device).eval()
    )


def main() -> None:
    """Run the stages that were asked for."""
    args = parse()
    stages, device = args.stages.split(","), torch.device(args.device)
    torch.manual_seed(args.seed)
    start = time.monotonic()
    corpus = data.make_corpus(args.seed, args.scenes)
    print(f"data: {args.scenes:,} scenes in {time.monotonic() - start:.0f} s", flush=True)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    batches = Batches.load(corpus, device)
    folder = args.out / "tiny-sd"
    if "vae" in stages:
        vae = train_vae(batches, budget_for(args, "vae", 2e-3), device)
        vae.save_pretrained(folder / "vae")
    if "clip" in stages:
        clip_folder = args.out / "tiny-clip"
        train_clip(batches, budget_for(args, "clip", 1e-3), clip_folder, device)
    if "unet" in stages:
        vae = load_vae(folder, device)
        text_encoder, unet = train_unet(vae, batches, budget_for(args, "unet", 1e-3), device)
        save_pipeline(folder, vae, text_encoder, unet)
    if "guidance" in stages:
        rescale_guidance(folder, batches, budget_for(args, "guidance", 4e-4), device)
    forget_paths(folder)
    print(f"total: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
