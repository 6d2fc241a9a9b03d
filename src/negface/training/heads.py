"""Margin heads of recognition training: embeddings and labels to a loss, each exact against its equation.

A head is class centres and a margin rule. The rule changes the logit of a picture's own class: CosFace, ArcFace,
ElasticFace (a margin drawn per picture) and AdaFace (a margin by quality). All of it is computed in fp32, also
under autocast: a bf16 cosine times a scale of 64 would be wrong by a quarter. Sources stand at each rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from negface.foundation.errors import InputError, UnknownNameError

from .triplet import TripletHead, triplet

# Just inside ±1 in float32, so that the slope of sqrt(1 - cos²) stays finite.
LARGEST_COSINE = 1 - 1e-7

# cosine to the own centre [n], embedding norm [n], standard normal numbers [n] -> logit of the own class [n], unscaled
Rule = Callable[[Tensor, Tensor, Tensor], Tensor]


def add_angle(cosine: Tensor, angle: Tensor | float) -> Tensor:
    """``cos(θ + angle)`` of cosines ``[n]``; where ``θ + angle`` passes π, ``cos θ - angle·sin(angle)``.

    ArcFace, arXiv 1801.07698, eq. 3. Beyond π the cosine would rise again and reward the worst pictures; the line is
    the continuation that the authors' code uses.
    """
    cosine = cosine.clamp(-LARGEST_COSINE, LARGEST_COSINE)
    angle = torch.as_tensor(angle, dtype=cosine.dtype, device=cosine.device)
    turned = cosine * angle.cos() - (1 - cosine.square()).sqrt() * angle.sin()
    return torch.where(cosine > -angle.cos(), turned, cosine - angle * angle.sin())


def hardest_first(margins: Tensor, cosine: Tensor) -> Tensor:
    """Margins ``[n]`` handed out again so that the lowest cosine gets the largest (ElasticFace+, arXiv 2109.09416,
    sec. III)."""
    assigned = torch.empty_like(margins)
    assigned[cosine.detach().argsort(descending=True)] = margins.sort().values
    return assigned


class FixedMargin(nn.Module):
    """CosFace ``cos θ - cos_margin`` (arXiv 1801.09414, eq. 4), ArcFace ``cos(θ + arc_margin)`` (arXiv 1801.07698,
    eq. 3), or neither (NormFace, arXiv 1704.06369, sec. 3.3)."""

    def __init__(self, cos_margin: float = 0.0, arc_margin: float = 0.0):
        super().__init__()
        self.cos_margin, self.arc_margin = cos_margin, arc_margin

    def forward(self, cosine: Tensor, norms: Tensor, noise: Tensor) -> Tensor:
        return (add_angle(cosine, self.arc_margin) if self.arc_margin else cosine) - self.cos_margin


class ElasticMargin(nn.Module):
    """ElasticFace: a margin drawn per picture from N(margin, sigma²), of the angle or of the cosine (arXiv 2109.09416,
    sec. III).

    ``plus``: the drawn margins go to the pictures of this process's batch by difficulty. (The authors' code indexes the
    sorted margins by the sorting of the cosines instead of by their ranks, which is another assignment.)
    """

    def __init__(self, margin: float, sigma: float, *, angular: bool, plus: bool = False):
        super().__init__()
        self.margin, self.sigma, self.angular, self.plus = margin, sigma, angular, plus

    def forward(self, cosine: Tensor, norms: Tensor, noise: Tensor) -> Tensor:
        margins = self.margin + self.sigma * noise
        if self.plus:
            margins = hardest_first(margins, cosine)
        return add_angle(cosine, margins) if self.angular else cosine - margins


class QualityMargin(nn.Module):
    """AdaFace: angle and subtraction by the norm of the embedding against its running mean (arXiv 2204.00964,
    sec. 3.3).

    ``share`` is the weight of a new batch in the running mean and deviation of norms, ``h`` their concentration (the
    paper's 0.33). No gradient flows through the norm.
    """

    def __init__(self, margin: float = 0.4, h: float = 0.333, share: float = 0.01):
        super().__init__()
        self.margin, self.h, self.share = margin, h, share
        self.register_buffer("mean", torch.tensor(20.0))
        self.register_buffer("deviation", torch.tensor(100.0))

    def quality(self, norms: Tensor) -> Tensor:
        """Norms ``[n]`` to quality in [-1, 1]; in training the running statistics move first."""
        norms = norms.detach().clamp(1e-3, 100.0)
        if self.training and len(norms) > 1:
            self.mean.lerp_(norms.mean(), self.share)
            self.deviation.lerp_(norms.std(), self.share)
        return ((norms - self.mean) / (self.deviation + 1e-3) * self.h).clamp(-1, 1)

    def forward(self, cosine: Tensor, norms: Tensor, noise: Tensor) -> Tensor:
        quality = self.quality(norms)
        angle = cosine.clamp(-LARGEST_COSINE, LARGEST_COSINE).acos() - self.margin * quality
        return angle.clamp(1e-3, math.pi - 1e-3).cos() - self.margin * (1 + quality)


class MarginHead(nn.Module):
    """Class centres with a margin rule: a call gives the scaled logits, ``loss`` their cross entropy.

    Args:
        n_classes, dim: number of identities and length of embeddings.
        rule: margin of the own class; ``None`` for plain softmax over ``W x`` without bias.
        scale: the paper's ``s``.
    """

    def __init__(self, n_classes: int, dim: int, rule: nn.Module | None, scale: float = 64.0):
        super().__init__()
        if n_classes < 2:
            raise InputError(f"a head needs at least 2 identities, got {n_classes}", where="recognition")
        self.n_classes, self.rule, self.scale = n_classes, rule, scale
        self.weight = nn.Parameter(torch.empty(n_classes, dim))
        nn.init.normal_(self.weight, std=0.01)

    def forward(
        self, embeddings: Tensor, labels: Tensor, noise: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        """Scaled logits float32 ``[n, c]``.

        Args:
            embeddings: ``[n, d]``, any floating dtype, not of unit length.
            labels: int64 ``[n]`` in 0..c-1.
            noise: standard normal float32 ``[n]``, one number a picture, for rules that draw; zeros if ``None``, which
                gives the mean margin.
            weight: centres ``[c, d]`` in place of all of the head's, for a sample of the classes.
        """
        weight = self.weight if weight is None else weight
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings, weight = embeddings.float(), weight.float()
            if self.rule is None:
                return embeddings @ weight.T
            cosine = F.normalize(embeddings) @ F.normalize(weight).T
            own = cosine.gather(1, labels[:, None]).squeeze(1)
            noise = torch.zeros_like(own) if noise is None else noise.to(own)
            margined = self.rule(own, embeddings.norm(dim=1), noise)
            return self.scale * cosine.scatter(1, labels[:, None], margined[:, None])

    def loss(
        self, embeddings: Tensor, labels: Tensor, noise: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        """Cross entropy, a scalar, mean over pictures; arguments as a call's."""
        return F.cross_entropy(self(embeddings, labels, noise, weight), labels)


def softmax(n_classes: int, dim: int) -> MarginHead:
    """Cross entropy over ``W x``: no normalisation, margin or bias."""
    return MarginHead(n_classes, dim, None)


def normface(n_classes: int, dim: int, *, scale: float = 64.0) -> MarginHead:
    """Cross entropy over scaled cosines."""
    return MarginHead(n_classes, dim, FixedMargin(), scale)


def cosface(n_classes: int, dim: int, *, margin: float = 0.35, scale: float = 64.0) -> MarginHead:
    """Margin of the cosine."""
    return MarginHead(n_classes, dim, FixedMargin(cos_margin=margin), scale)


def arcface(n_classes: int, dim: int, *, margin: float = 0.5, scale: float = 64.0) -> MarginHead:
    """Margin of the angle, in radians."""
    return MarginHead(n_classes, dim, FixedMargin(arc_margin=margin), scale)


def elastic_arc(
    n_classes: int, dim: int, *, margin: float = 0.5, sigma: float = 0.05, scale: float = 64.0
) -> MarginHead:
    """Margin of the angle, drawn per picture."""
    return MarginHead(n_classes, dim, ElasticMargin(margin, sigma, angular=True), scale)


def elastic_arc_plus(
    n_classes: int, dim: int, *, margin: float = 0.5, sigma: float = 0.0175, scale: float = 64.0
) -> MarginHead:
    """As ``elastic_arc``, the largest of the drawn margins to the hardest pictures."""
    return MarginHead(n_classes, dim, ElasticMargin(margin, sigma, angular=True, plus=True), scale)


def elastic_cos(
    n_classes: int, dim: int, *, margin: float = 0.35, sigma: float = 0.05, scale: float = 64.0
) -> MarginHead:
    """Margin of the cosine, drawn per picture."""
    return MarginHead(n_classes, dim, ElasticMargin(margin, sigma, angular=False), scale)


def elastic_cos_plus(
    n_classes: int, dim: int, *, margin: float = 0.35, sigma: float = 0.02, scale: float = 64.0
) -> MarginHead:
    """As ``elastic_cos``, the largest of the drawn margins to the hardest pictures."""
    return MarginHead(n_classes, dim, ElasticMargin(margin, sigma, angular=False, plus=True), scale)


def adaface(
    n_classes: int, dim: int, *, margin: float = 0.4, h: float = 0.333, share: float = 0.01, scale: float = 64.0
) -> MarginHead:
    """Margin by the quality that the norm of an embedding tells."""
    return MarginHead(n_classes, dim, QualityMargin(margin, h, share), scale)


HEADS: dict[str, Callable[..., MarginHead | TripletHead]] = {
    "softmax": softmax,
    "normface": normface,
    "cosface": cosface,
    "arcface": arcface,
    "elastic-arc": elastic_arc,
    "elastic-arc+": elastic_arc_plus,
    "elastic-cos": elastic_cos,
    "elastic-cos+": elastic_cos_plus,
    "adaface": adaface,
    "triplet": triplet,
}


def make_head(name: str, n_classes: int, dim: int, **options: Any) -> MarginHead | TripletHead:
    """The head of a name; ``options`` as its function's, e.g. ``margin``, ``sigma``, ``scale``.

    Raises ``UnknownNameError`` for a name, ``InputError`` for an option that the head does not have.
    """
    if name not in HEADS:
        raise UnknownNameError("head", name, HEADS)
    try:
        return HEADS[name](n_classes, dim, **options)
    except TypeError as error:
        known = ", ".join(HEADS[name].__kwdefaults__ or {}) or "none"
        raise InputError(f"head {name!r} does not take these options ({error})", fix=f"it takes: {known}") from error
