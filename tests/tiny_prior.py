"""A whole Stable Diffusion of 290,000 random numbers, for tests: every file and every part of a real checkpoint, built offline.

64 px is its own size (autoencoder factor 4, latents of 16). With `prediction="v_prediction"` it has what sets 2.x checkpoints apart:
linear projections, a GELU text encoder, heads given by block, padding by "!".
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from backend import rundir

WORDS = ("surface", "with", "without", "defect", "steel", "plate", "scratches", "inclusion", "patches", "crack", "tile", "neu", "det")
START, END = "<|startoftext|>", "<|endoftext|>"


def tiny_stable(folder: Path, *, cross: int = 32, prediction: str = "epsilon", seed: int = 0) -> Path:
    """Write the checkpoint in diffusers' layout; `cross` is the width of the text encoder."""
    torch.manual_seed(seed)
    second = prediction == "v_prediction"
    vocabulary = _tokenizer(folder / "tokenizer", "!" if second else END)
    _text_encoder(cross, len(vocabulary), "gelu" if second else "quick_gelu").save_pretrained(folder / "text_encoder")
    _unet(cross, second).save_pretrained(folder / "unet")
    _vae().save_pretrained(folder / "vae")
    PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1,
                  set_alpha_to_one=False, prediction_type=prediction).save_pretrained(folder / "scheduler")
    parts = dict(vae=["diffusers", "AutoencoderKL"], unet=["diffusers", "UNet2DConditionModel"], scheduler=["diffusers", "PNDMScheduler"],
                 text_encoder=["transformers", "CLIPTextModel"], tokenizer=["transformers", "CLIPTokenizer"],
                 safety_checker=[None, None], feature_extractor=[None, None], image_encoder=[None, None])
    index = dict(_class_name="StableDiffusionPipeline", _diffusers_version="0.42.1", requires_safety_checker=False, **parts)
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def tiny_surface(name: str = "tiny prior", *, learned: tuple[str, ...] = (), seed: int = 0) -> Path:
    """The same as a surface prior of our own: the artifact `<run>/prior` of a finished run in the data folder."""
    run_dir = rundir.create("train-prior", dict(name=name), state="completed")
    folder = tiny_stable(run_dir / "prior", seed=seed)
    head = dict(key=rundir.key_of(kind="prior", tiny=seed, learned=list(learned)), name=name, native=True, side=256, crop=64, preset="tiny",
                drawn=0, datasets=[], learned=list(learned), captions=[], result={})
    rundir.write_json(folder / "head.json", head)
    return folder


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 16), down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=64, scaling_factor=6.0)


def _unet(cross: int, second: bool) -> UNet2DConditionModel:
    """One block with attention to the words, one without; at the full size attention would cost the tests a second a step."""
    return UNet2DConditionModel(
        sample_size=16, block_out_channels=(16, 24), layers_per_block=1, norm_num_groups=8, cross_attention_dim=cross,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=[2, 4] if second else 4, use_linear_projection=second)


def _text_encoder(width: int, words: int, activation: str) -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=words, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=77, hidden_act=activation, projection_dim=width, bos_token_id=words - 2, eos_token_id=words - 1,
        pad_token_id=words - 1))


def _tokenizer(folder: Path, pad: str) -> dict[str, int]:
    """Byte-level pairs, by the files that published checkpoints have; the vocabulary. Each word of WORDS becomes one token or few."""
    letters = _letters()
    merges = list(dict.fromkeys(pair for word in WORDS for pair in _pairs(word)))
    pieces = dict.fromkeys([*letters, *(c + "</w>" for c in letters), *("".join(pair) for pair in merges), START, END])
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges), ""]))
    special = dict(bos_token=START, eos_token=END, unk_token=END, pad_token=pad)
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(special, tokenizer_class="CLIPTokenizer", model_max_length=77)))
    return vocabulary


def _letters() -> list[str]:
    """A printable character for every byte (Radford et al. 2019), in the order of published vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def _pairs(word: str) -> list[tuple[str, str]]:
    """The merges that put a word together from its front."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    return [("".join(pieces[:i]), pieces[i]) for i in range(1, len(pieces))]
