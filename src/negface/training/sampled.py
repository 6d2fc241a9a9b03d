"""A classifier over very many identities that scores a sample of them a step: Partial FC, arXiv 2010.05222, sec. 3.3.

The classes of the batch are always in the sample, the rest is drawn uniformly. Only sampled centres take part in the
product, hold a gradient and are moved, so a step costs ``rate`` of the whole classifier in time and memory. With rate 1
it is the whole classifier, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from negface.foundation.errors import InputError

from .heads import MarginHead


def sample_classes(labels: np.ndarray, n_classes: int, rate: float, generator: np.random.Generator) -> np.ndarray:
    """Classes int64 ``[m]``, ascending: all of ``labels`` and others, ``m = max(distinct labels, rate·n_classes)``."""
    present = np.unique(labels)
    wanted = max(len(present), round(rate * n_classes))
    if wanted >= n_classes:
        return np.arange(n_classes)
    others = np.delete(np.arange(n_classes), present)
    drawn = generator.choice(others, wanted - len(present), replace=False)
    return np.sort(np.concatenate([present, drawn]))


class SampledHead(nn.Module):
    """A margin head whose centres are moved here, by SGD with momentum, only where they were sampled.

    Args:
        head: the margin head; its centres leave autograd.
        rate: share of the classes in a step, in (0, 1].
        momentum, weight_decay: of the centres (``torch.optim.SGD``'s rule). A centre that is not in the sample keeps
            its velocity and is not decayed.
    """

    def __init__(self, head: MarginHead, rate: float, *, momentum: float = 0.9, weight_decay: float = 5e-4):
        super().__init__()
        if not 0 < rate <= 1:
            raise InputError(f"sample rate is {rate}, must be above 0 and at most 1", where="recognition head")
        self.head, self.rate, self.momentum, self.weight_decay = head, rate, momentum, weight_decay
        head.weight.requires_grad_(False)
        self.register_buffer("velocity", torch.zeros_like(head.weight))
        self._classes: Tensor | None = None
        self._rows: Tensor | None = None

    def choose(self, labels: np.ndarray, generator: np.random.Generator) -> None:
        """Take the sample of a step; ``labels`` are those of the global batch, so that all processes take the same."""
        chosen = torch.from_numpy(sample_classes(labels, self.head.n_classes, self.rate, generator))
        self._classes = chosen.to(self.head.weight.device)
        self._rows = self.head.weight[self._classes].requires_grad_()

    def loss(self, embeddings: Tensor, labels: Tensor, noise: Tensor | None = None) -> Tensor:
        """Loss over the chosen classes, a scalar; arguments as ``MarginHead``. ``choose`` comes first."""
        if self._classes is None:
            raise RuntimeError("choose() the classes of the step first")
        return self.head.loss(embeddings, torch.searchsorted(self._classes, labels), noise, self._rows)

    @torch.no_grad()
    def update(self, rate: float, *, clip: float = math.inf, reduce: Callable[[Tensor], Tensor] | None = None) -> None:
        """Move the chosen centres after the backward pass.

        Args:
            rate: learning rate.
            clip: largest norm of the centres' gradient.
            reduce: mean of a tensor over processes; nothing with one process.
        """
        gradient = self._rows.grad if reduce is None else reduce(self._rows.grad)
        gradient = gradient * min(1.0, clip / (float(gradient.norm()) + 1e-6))
        gradient = gradient.add(self._rows, alpha=self.weight_decay)
        velocity = self.velocity[self._classes].mul_(self.momentum).add_(gradient)
        self.velocity[self._classes] = velocity
        self.head.weight[self._classes] = self._rows.detach().sub_(velocity, alpha=rate)
        self._classes = self._rows = None
