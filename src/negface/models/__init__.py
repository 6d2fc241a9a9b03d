"""Networks and nothing else: denoisers, autoencoders, recognition backbones; ``published`` knows released key layouts."""

from __future__ import annotations

from negface.foundation.registry import register

from .autoencoder import VQAutoencoder
from .unet import IDiffUNet, PreparedContext

__all__ = ["IDiffUNet", "PreparedContext", "VQAutoencoder"]

register("model", "idiff-unet", "negface.models.unet:IDiffUNet",
         "identity-conditioned U-Net, cross-attention and AdaGN variants", paper="IDiff-Face, arXiv 2308.04995, sec. 3")
register("model", "vq-autoencoder", "negface.models.autoencoder:VQAutoencoder",
         "convolutional VQ autoencoder of latent diffusion", paper="LDM, arXiv 2112.10752, sec. 3.1 and app. G")
