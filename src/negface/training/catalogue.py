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
    "landing",
    "negface.training.distill_student:VelocityLoss",
    "squared error of the velocity with which one step lands where the teacher's many do",
    "progressive distillation, arXiv 2202.00512, sec. 3; guidance as an input: arXiv 2210.03142, sec. 3",
    "distillation",
)
_loss(
    "imitation",
    "negface.training.distill_decoder:ImitationLoss",
    "L1 + multi-scale gradients to the full decoder's pictures",
    "after TAESD (github.com/madebyollin/taesd)",
    "distillation",
)
_loss(
    "identity",
    "negface.training.identity:identity_loss",
    "distance of what a reader sees in the one-step reconstruction to the wanted context, weighed by the signal",
    "after ID3, arXiv 2409.17576",
    "diffusion",
)


def _head(name: str, target: str, summary: str, paper: str) -> None:
    _loss(name, f"negface.training.{target}", summary, paper, "recognition", "head")


_head("softmax", "heads:softmax", "cross entropy over inner products with class centres", "arXiv 1801.07698, eq. 1")
_head("normface", "heads:normface", "cross entropy over scaled cosines", "NormFace, arXiv 1704.06369, sec. 3.3")
_head("cosface", "heads:cosface", "a margin of the cosine to the own centre", "CosFace, arXiv 1801.09414, eq. 4")
_head("arcface", "heads:arcface", "a margin of the angle to the own centre", "ArcFace, arXiv 1801.07698, eq. 3")
_head("elastic-arc", "heads:elastic_arc", "a margin of the angle, drawn per picture",
      "ElasticFace-Arc, arXiv 2109.09416, sec. III")
_head("elastic-arc+", "heads:elastic_arc_plus", "drawn margins of the angle, the largest to the hardest pictures",
      "ElasticFace-Arc+, arXiv 2109.09416, sec. III")
_head("elastic-cos", "heads:elastic_cos", "a margin of the cosine, drawn per picture",
      "ElasticFace-Cos, arXiv 2109.09416, sec. III")
_head("elastic-cos+", "heads:elastic_cos_plus", "drawn margins of the cosine, the largest to the hardest pictures",
      "ElasticFace-Cos+, arXiv 2109.09416, sec. III")
_head("adaface", "heads:adaface", "margins by the quality that the norm of an embedding tells",
      "AdaFace, arXiv 2204.00964, sec. 3.3")
_head("triplet", "triplet:triplet", "triplets with semi-hard negatives of the batch, no class centres",
      "FaceNet, arXiv 1503.03832, eq. 2, sec. 3.2")
_loss("sampled-classifier", "negface.training.sampled:SampledHead", "any margin head over a sample of the identities",
      "Partial FC, arXiv 2010.05222, sec. 3.3", "recognition")
