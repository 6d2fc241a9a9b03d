"""Folders in the released format, made from the golden key lists: what the published system left on disk."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
import yaml

from negface.models import VQAutoencoder

GOLDEN = Path(__file__).parents[1] / "golden"
BUFFERS = ("betas", "alphas", "sigmas", "sqrt_alphas_inv", "alpha_bars", "sqrt_alpha_bars",
           "sqrt_one_minus_alpha_bars", "one_minus_alphas_over_sqrt_one_minus_alpha_bars")


def described(name):
    """The published state dict's configuration and shapes."""
    return json.loads((GOLDEN / "state_dicts.json").read_text())[name]


def tensors(name):
    """Golden inputs and outputs."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def weights(shapes):
    """Golden weights of a key list, each entry from a generator seeded by its key."""
    state = {}
    for key, shape in shapes.items():
        r = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(0)
        elif key.endswith("running_var"):
            state[key] = 1 + 0.1 * r.abs()
        elif len(shape) < 2:
            state[key] = (1 if key.endswith("weight") else 0) + 0.05 * r
        else:
            state[key] = r / float(np.prod(shape[1:])) ** 0.5
    return state


def released_state(name, *, learned_null=False):
    """The diffusion module's state dict: the network behind ``eps_model.`` and eight schedule buffers."""
    about = described(name)
    betas = torch.linspace(1e-4, 0.02, 1000)
    network = weights(about["state_dict"])
    if learned_null:
        network = {"empty_context_embedding": torch.linspace(-1, 1, about["config"]["context_channels"]), **network}
    return {**{buffer: betas.clone() for buffer in BUFFERS}, **{f"eps_model.{key}": network[key] for key in network}}


def model_settings(name, *, learned_null=False, cpd=0.25):
    """The ``model`` part of a training configuration, as hydra wrote it: references unresolved."""
    config = described(name)["config"]
    return {"_target_": "models.diffusion.unet.ConditionalUNet", "input_channels": "${constants.input_channels}",
            "initial_channels": config["initial_channels"], "channel_multipliers": config["channel_multipliers"],
            "is_attention": config["is_attention"], "attention_heads": -1,
            "attention_head_channels": config["head_channels"],
            "n_blocks_per_resolution": config["blocks_per_resolution"],
            "condition_type": config.get("condition_type", "CA"), "is_context_conditional": True,
            "n_context_classes": "${constants.n_classes}", "context_input_channels": config["context_input"],
            "context_channels": config["context_channels"], "learn_empty_context": learned_null,
            "context_dropout_probability": cpd}


def settings(name, image_size, **model):
    """A training configuration."""
    return {"latent_diffusion": True,
            "constants": {"seed": 0, "image_size": image_size, "input_channels": 3, "n_classes": 0},
            "model": model_settings(name, **model),
            "diffusion": {"_target_": "diffusion.ddpm.DenoisingDiffusionProbabilisticModel", "eps_model": "${model}",
                          "T": 1000, "schedule_type": "linear"},
            "dataset": {"samples_root": "${paths.data_root}/ffhq_128"}}


def first_stage():
    """A small VQ first stage's halves: pictures of 32 px, latents 3 x 8 x 8."""
    shapes = {key: list(value.shape) for key, value in
              VQAutoencoder(image_size=32, channels=32, multipliers=(1, 2, 4), blocks=1,
                            codebook_size=16).state_dict().items()}
    state = weights(shapes)
    encoder = {key: value for key, value in state.items() if key.startswith(("encoder.", "quant_conv."))}
    return encoder, {key: value for key, value in state.items() if key not in encoder}


def write(folder, name="unet_ca_small", *, image_size=32, halves=None, learned_null=False, cpd=0.25,
          checkpoint="ema_averaged_model.ckpt"):
    """A released model folder with its first stage beside the checkpoints; returns the folder."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    config = settings(name, image_size, learned_null=learned_null, cpd=cpd)
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(released_state(name, learned_null=learned_null), folder / "checkpoints" / checkpoint)
    encoder, decoder = halves or first_stage()
    torch.save(encoder, folder / "first_stage_encoder_state_dict.pt")
    torch.save(decoder, folder / "first_stage_decoder_state_dict.pt")
    return folder


def distance(found, expected):
    """Largest difference over the largest expected magnitude."""
    return float((found - expected).abs().max() / expected.abs().max())
