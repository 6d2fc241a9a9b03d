"""Contexts + guidance + denoiser + scheduler + autoencoder -> images, as diffusers pipelines."""

from .negface_diff import NegFaceDiffPipeline, NegFaceOutput
from .noise import ImageNoise
from .scheduler_choice import SchedulerChoice

__all__ = ["ImageNoise", "NegFaceDiffPipeline", "NegFaceOutput", "SchedulerChoice"]
