"""Tiny real components: the published networks' small relatives, with weights anyone can rebuild."""

import zlib

import torch

from negface.models import IDiffUNet, VQAutoencoder
from negface.pipelines import NegFaceDiffPipeline

DIM = 16
CONDITIONER = {"name": "recogniser-a", "hash": "a" * 64}


def fill(model):
    """Weights from the names of the entries, so that every machine builds the same network."""
    with torch.no_grad():
        for key, value in model.state_dict().items():
            r = torch.randn(value.shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
            if value.ndim >= 2:
                value.copy_(r / value[0].numel() ** 0.5)
            else:
                value.copy_((1 if key.endswith("weight") else 0) + 0.05 * r)
    return model.eval()


def unet(**options):
    """A cross-attention U-Net on 3x8x8 latents."""
    settings = {"in_channels": 3, "sample_size": 8, "initial_channels": 32, "channel_multipliers": (1, 2),
                "is_attention": (False, True), "blocks_per_resolution": 1, "context_input": DIM, "context_channels": 32}
    return fill(IDiffUNet(**{**settings, **options}))


def vae(**options):
    """An autoencoder of 16 px pictures, 3x8x8 latents."""
    settings = {"image_size": 16, "channels": 32, "multipliers": (1, 2), "blocks": 1, "codebook_size": 32}
    return fill(VQAutoencoder(**{**settings, **options}))


def pipeline(*, learned_null=True, conditioner=None, scaling_factor=0.5):
    """A whole pipeline with a learned null."""
    denoiser = unet(learned_null=learned_null, conditioner=conditioner)
    return NegFaceDiffPipeline(denoiser, vae(scaling_factor=scaling_factor))


def unit(n, seed=0, dim=DIM):
    """n unit vectors."""
    return torch.nn.functional.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)), dim=1)
