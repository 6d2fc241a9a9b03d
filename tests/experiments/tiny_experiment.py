"""The recipe of an experiment that takes seconds, as a table; and a model whose pictures depend on their contexts."""

from __future__ import annotations

from pathlib import Path

from tiny_run import SIZE

TABLE = {
    "title": "A tiny experiment",
    "grid": [{"sources": ["pca"], "seeds": [0], "strategies": {"baseline": [0.0], "far": [0.5, 2.0]}}],
    "references": ["floor", "ceiling"],
    "sampling": {"bank": 6, "identities": 4, "images": 2, "steps": 2, "batch": 8, "size": SIZE, "codec": "png"},
    "measuring": {"bootstrap": 20, "shown_people": 2, "shown_images": 2, "resize": True},
    "student": {"flip": False, "recipe": {
        "model": {"architecture": "tiny-recognizer", "dim": 8, "image_size": SIZE}, "optimizer": "adamw",
        "train": {"epochs": 2, "batch": 4, "warmup": 0, "precision": "fp32", "learning_rate": 1e-2}}},
}


def write_model(folder: Path, dim: int) -> Path:
    """An untrained pipeline without zero weights, so that contexts and guidance change its pictures."""
    import torch

    from negface import NegFaceDiffPipeline
    from negface.models.autoencoder import VQAutoencoder
    from negface.models.unet import IDiffUNet

    torch.manual_seed(0)
    unet = IDiffUNet(in_channels=2, sample_size=8, initial_channels=32, channel_multipliers=(1, 1),
                     is_attention=(False, True), context_input=dim, context_channels=32, learned_null=True)
    vae = VQAutoencoder(image_size=SIZE, latent_channels=2, channels=32, multipliers=(1, 1), blocks=1,
                        codebook_size=64)
    with torch.no_grad():
        for weight in unet.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    NegFaceDiffPipeline(unet=unet, vae=vae).save_pretrained(folder)
    return folder
