"""The diffusion network of a surface prior and its text encoder, learned together from nothing: latents with captions.

Rombach et al. 2022 (arXiv 2112.10752), equation 3. The network tells the velocity (Salimans & Ho 2022, arXiv 2202.00512, appendix D) on
a cosine schedule, which ends in pure noise; timesteps weigh by min(SNR, 5) (Hang et al. 2023, arXiv 2303.09556, section 3.4), which
learns faster. What is kept is the moving average of both networks. Knows nothing of pictures.
"""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from backend.diffusion.sampling import NOISIEST
from backend.synthesis.prior.autoencoder import CHANNELS
from backend.synthesis.prior.bank import Bank
from backend.synthesis.prior.learner import Learner, calm

MIN_SNR = 5.0
HEADS = 4
WORDS_APART = 10.0       # measured with two captions and an earlier network: told apart after 80 steps, without it not after 160
TIMESTEPS = 1000
NOISE = dict(num_train_timesteps=TIMESTEPS, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")


@dataclass(frozen=True)
class Size:
    """Size and length of a diffusion network's training."""

    widths: tuple[int, int, int, int]    # the first narrow: at the latents' own sides a channel costs four times as much as below
    layers: int
    text_width: int
    text_layers: int
    batch: int
    steps: int
    ema: float


def unet(size: Size, side: int) -> UNet2DConditionModel:
    """Random weights: seed first. Attention, to itself and to the words, at a quarter of the latents' sides and below: at a half
    of them it would be a third of the work."""
    return calm(UNet2DConditionModel(
        sample_size=side, in_channels=CHANNELS, out_channels=CHANNELS, layers_per_block=size.layers, block_out_channels=size.widths,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=size.text_width, attention_head_dim=HEADS, norm_num_groups=16))


def text_encoder(size: Size, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Random weights. Words begin ten times as far apart as CLIP's: beside 77 places they are heard sooner."""
    made = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=size.text_width, intermediate_size=4 * size.text_width, projection_dim=size.text_width,
        num_hidden_layers=size.text_layers, num_attention_heads=HEADS, max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id))
    with torch.no_grad():
        made.get_input_embeddings().weight.mul_(WORDS_APART)
    return made


def sampler() -> DPMSolverMultistepScheduler:
    """What a pipeline draws with unless told otherwise: 20 steps are enough, counted back from pure noise."""
    return DPMSolverMultistepScheduler(**NOISE, timestep_spacing="trailing", steps_offset=1, lambda_min_clipped=NOISIEST)


class Training(Learner):
    """Learns to denoise latents as their captions say."""

    STREAM, NAME = 2, "denoising_loss"

    def __init__(self, size: Size, side: int, tokenizer: CLIPTokenizer, bank: Bank, file: Path, rate: float, seed: int,
                 device: str, bf16: bool) -> None:
        self.size, self.side, self.tokenizer, self.bank, self.device, self.bf16 = size, side, tokenizer, bank, device, bf16
        self.schedule = DDPMScheduler(**NOISE, clip_sample=False)
        torch.manual_seed(seed)
        self.unet = unet(size, side).to(device, memory_format=torch.channels_last).train()
        self.text = text_encoder(size, tokenizer).train()
        self.text.to(device)                     # not in one line: transformers types its `to` badly
        self.averages = tuple(deepcopy(n).eval().requires_grad_(False) for n in (self.unet, self.text))
        networks = dict(zip(("unet", "text", "unet_average", "text_average"), (self.unet, self.text, *self.averages), strict=True))
        super().__init__(networks, [*self.unet.parameters(), *self.text.parameters()], file, size.steps, rate, seed)

    def loss(self, rng: np.random.Generator) -> Tensor:
        latents, captions = self.bank.batch(rng, self.size.batch, self.side)                         # (B, 4, s, s)
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        noise = torch.randn(latents.shape, generator=generator)
        timestep = torch.randint(0, TIMESTEPS, (self.size.batch,), generator=generator)            # (B,)
        noised = self.schedule.add_noise(latents, noise, timestep).to(self.device)
        velocity = self.schedule.get_velocity(latents, noise, timestep).to(self.device)
        with torch.autocast(noised.device.type, torch.bfloat16, enabled=self.bf16):
            told = self.unet(noised.contiguous(memory_format=torch.channels_last), timestep.to(self.device), self.states(captions)).sample
        errors = (told.float() - velocity).square().mean((1, 2, 3))                             # (B,)
        return (self._weights(timestep).to(self.device) * errors).mean()

    def states(self, captions: list[str]) -> Tensor:
        """Hidden states (B, L, D); each different caption is read once."""
        different = sorted(set(captions))
        ids = self.tokenizer(different, padding="max_length", truncation=True, return_tensors="pt").input_ids       # (n, L)
        found = self.text(ids.to(self.device)).last_hidden_state                                # (n, L, D)
        return found[[different.index(c) for c in captions]]

    def _weights(self, timestep: Tensor) -> Tensor:
        signal = self.schedule.alphas_cumprod[timestep]
        snr = signal / (1 - signal)
        return snr.clamp(max=MIN_SNR) / (snr + 1)                                               # (B,); for the velocity

    def follow(self) -> None:
        """The averages follow faster at first, or they would still hold random weights after a short training."""
        decay = min(self.size.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for average, network in zip(self.averages, (self.unet, self.text), strict=True):
                torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
