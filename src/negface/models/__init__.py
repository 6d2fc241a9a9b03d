"""Networks and nothing else: denoisers, autoencoders, recognition backbones, in the released key layouts."""

from __future__ import annotations

from negface.foundation.registry import register

from .autoencoder import VQAutoencoder
from .unet import IDiffUNet, PreparedContext

__all__ = ["IDiffUNet", "PreparedContext", "VQAutoencoder"]

register(
    "model",
    "idiff-unet",
    "negface.models.unet:IDiffUNet",
    "identity-conditioned U-Net, cross-attention and AdaGN variants",
    paper="IDiff-Face, arXiv 2308.04995, sec. 3",
)
register(
    "model",
    "vq-autoencoder",
    "negface.models.autoencoder:VQAutoencoder",
    "convolutional VQ autoencoder of latent diffusion",
    paper="LDM, arXiv 2112.10752, sec. 3.1 and app. G",
)
for _depth in (18, 34, 50, 100):
    register(
        "model",
        f"iresnet{_depth}",
        f"negface.models.backbones:iresnet{_depth}",
        f"recognition backbone of {_depth} layers, 112 px to 512 numbers, in the published key layout",
        paper="ArcFace, arXiv 1801.07698, sec. 3.1; improved residual networks, arXiv 2004.04989",
        measured="agrees with the published network to 3e-6" if _depth in (50, 100) else "",
        tags=("backbone",),
    )
