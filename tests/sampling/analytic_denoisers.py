"""Denoisers whose answer is known: the best noise prediction for Gaussian and two-Gaussian data, in closed form."""

import numpy as np
import torch

from negface.sampling.schedule import NoiseSchedule

BARS = NoiseSchedule().alpha_bars


def gaussian_noise(latents, t, mean, std):
    """E[e | x_t] for data ``N(mean, std^2)``: sqrt(1-a) (x - sqrt(a) mean) / (a std^2 + 1 - a)."""
    a = float(BARS[t])
    return (1 - a) ** 0.5 * (latents - a**0.5 * mean) / (a * std**2 + 1 - a)


def mixture_noise(latents, t, means, std):
    """E[e | x_t] for an equal mixture of two Gaussians per coordinate: nonlinear in x, smooth in t."""
    a = float(BARS[t])
    variance = a * std**2 + 1 - a
    logits = torch.stack([-(latents - a**0.5 * mean) ** 2 / (2 * variance) for mean in means])
    shares = logits.softmax(0)
    return sum(share * gaussian_noise(latents, t, mean, std) for share, mean in zip(shares, means, strict=True))


def gaussian_flow(x_start, t, mean, std):
    """Where the probability-flow ODE takes ``x_t`` at time 0 for data ``N(mean, std^2)``."""
    a = float(BARS[t])
    return mean + std * (x_start - a**0.5 * mean) / np.sqrt(a * std**2 + 1 - a)


def start(n=6, seed=0):
    """x_T, float64 ``[n, 1, 1, 1]``."""
    return torch.randn(n, 1, 1, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
