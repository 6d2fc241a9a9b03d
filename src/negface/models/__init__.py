"""Networks and nothing else: denoisers, autoencoders, recognition backbones, in the released key layouts."""

from __future__ import annotations

from negface.foundation.registry import register

from .autoencoder import VQAutoencoder
from .fast_decoder import FastDecoder
from .prepared import PreparedContext, PreparedTime, PreparedTimes
from .unet import IDiffUNet

__all__ = ["FastDecoder", "IDiffUNet", "PreparedContext", "PreparedTime", "PreparedTimes", "VQAutoencoder"]

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
register(
    "model",
    "fast-decoder",
    "negface.models.fast_decoder:FastDecoder",
    "small decoder that imitates an autoencoder's: convolutions without norms or attention",
    paper="after TAESD (github.com/madebyollin/taesd)",
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
register(
    "model",
    "iresnet",
    "negface.models.backbones:iresnet",
    "improved residual recognition backbone of any depth and width (options: blocks, widths, stem_stride, ...)",
    paper="improved residual networks, arXiv 2004.04989",
    tags=("backbone",),
)
register(
    "model",
    "resnet",
    "negface.models.resnet:ResNet",
    "plain residual recognition backbone (options: blocks, widths, dim, image_size)",
    paper="arXiv 1512.03385, sec. 3",
    tags=("backbone",),
)
register(
    "model",
    "mobilefacenet",
    "negface.models.mobilefacenet:MobileFaceNet",
    "recognition backbone of a million parameters (options: dim, image_size, width)",
    paper="MobileFaceNet, arXiv 1804.07573, table 1",
    tags=("backbone",),
)
register(
    "model",
    "tiny-recognizer",
    "negface.models.mobilefacenet:tiny",
    "recognition backbone for tests",
    paper="after MobileFaceNet, arXiv 1804.07573",
    tags=("backbone",),
)
register(
    "model",
    "analyser",
    "negface.models.analyser:Analyser",
    "pose, light, expression, age, skin tone, landmarks and parsing of a face picture",
    paper="multi-task; U-shaped head after arXiv 1505.04597",
)
