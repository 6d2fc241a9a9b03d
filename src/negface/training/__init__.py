"""Training of generators and recognisers: recipes, a resumable loop, EMA, checkpoints, guards, margin losses."""

from . import catalogue  # noqa: F401  (registers the losses)
from .distill import train_distill
from .recognition import train_recognition
from .trainers import train_autoencoder, train_diffusion

__all__ = ["train_autoencoder", "train_diffusion", "train_distill", "train_recognition"]
