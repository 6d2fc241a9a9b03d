"""Training of autoencoders and denoisers: recipes, cached data, a resumable loop, EMA, checkpoints, guards."""

from . import catalogue  # noqa: F401  (registers the losses)
from .trainers import train_autoencoder, train_diffusion

__all__ = ["train_autoencoder", "train_diffusion"]
