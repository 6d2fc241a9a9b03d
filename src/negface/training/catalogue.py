"""What this room registers: the losses of the trainers, each with its paper and equation."""

from __future__ import annotations

from ..foundation.registry import register

_AUTOENCODER, _DIFFUSION = "negface.training.autoencoder", "negface.training.diffusion"


def _loss(name: str, target: str, summary: str, paper: str, *tags: str) -> None:
    register("loss", name, target, summary, paper=paper, tags=tags)


_loss(
    "reconstruction",
    f"{_AUTOENCODER}:ReconstructionLoss",
    "L1 + multi-scale gradients + commitment + codebook, the autoencoder's whole loss",
    "VQGAN, arXiv 2012.09841, eq. 4, without its feature network",
    "autoencoder",
)
_loss(
    "gradient",
    f"{_AUTOENCODER}:gradient_loss",
    "absolute differences of picture gradients over three scales: edges without a feature network",
    "MiDaS, arXiv 1907.01341, eq. 11",
    "autoencoder",
)
_loss(
    "commitment",
    f"{_AUTOENCODER}:ReconstructionLoss",
    "squared distance of latents to their codes: ``commitment`` moves latents, ``codebook`` moves codes",
    "VQ-VAE, arXiv 1711.00937, eq. 3",
    "autoencoder",
)
_loss(
    "patch-adversary",
    f"{_AUTOENCODER}:PatchDiscriminator",
    "hinge loss of a convolutional judge of patches, weighed by the ratio of gradients at the last layer",
    "pix2pix, arXiv 1611.07004, sec. 3.2.2; VQGAN, arXiv 2012.09841, eq. 6-7",
    "autoencoder",
)
_loss(
    "denoising",
    f"{_DIFFUSION}:DenoisingLoss",
    "mean squared error of the predicted noise (or velocity) at a uniform timestep",
    "DDPM, arXiv 2006.11239, eq. 14; velocity: arXiv 2202.00512, app. D",
    "diffusion",
)
_loss(
    "min-snr",
    f"{_DIFFUSION}:loss_weights",
    "weights that cap the error of the implied clean latent at a signal-to-noise ratio of gamma",
    "arXiv 2303.09556, sec. 3.4",
    "diffusion",
)
_loss(
    "identity",
    "negface.training.identity:identity_loss",
    "distance of what a reader sees in the one-step reconstruction to the wanted context, weighed by the signal",
    "after ID3, arXiv 2409.17576",
    "diffusion",
)
