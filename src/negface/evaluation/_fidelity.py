"""A set against a reference in the features of a named recogniser: Fréchet distance, precision, recall, Vendi score.

Heusel et al. (arXiv 1706.08500, eq. 6), Kynkäänniemi et al. (arXiv 1904.06991, eqs. 1-2), Friedman and Dieng (arXiv
2210.02410, eq. 3). Features are unit embeddings, so figures compare only under the same recogniser.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from negface.foundation.errors import InputError, MismatchError
from negface.foundation.noise import keyed_generator
from negface.perception import recognizer_hash

from .bootstrap import mean_with_interval
from .inputs import Gallery, grouped

NEIGHBOURS = 3
JACKKNIFE_GROUPS = 20
_NORMAL_95 = 1.959963984540054
_ROWS, _COLUMNS = 1024, 16384


def vendi_score(embeddings: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Effective number of different images: exp of the entropy of the eigenvalues of K/n, K the cosines of ``[n, d]``.

    1 for n copies, n for n orthogonal images, never above d. K/n and the d x d matrix X'X/n share their nonzero
    eigenvalues, so no n x n kernel is made. ``weights`` ``[n]`` count images (default 1). Rows must have unit length.
    """
    rows = np.asarray(embeddings, np.float64)
    weights = np.ones(len(rows)) if weights is None else np.asarray(weights, np.float64)
    scaled = rows * np.sqrt(weights / weights.sum())[:, None]
    values = np.linalg.eigvalsh(scaled.T @ scaled if len(rows) > rows.shape[1] else scaled @ scaled.T)
    values = values[values > 1e-12]
    values = values / values.sum()
    return float(np.exp(-(values * np.log(values)).sum()))


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Squared Fréchet distance of the Gaussians fitted to ``[n, d]`` and ``[m, d]``.

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2). The last trace is the sum of the singular values of F1 F2', where
    S = F'F: exact also where n < d and the covariances are singular, for no root of a matrix product is taken. Then it
    still measures *fitted* Gaussians: it grows as n falls, so compare equal n only. Covariances divide by n - 1.
    """
    one, other = (np.asarray(rows, np.float64) for rows in (first, second))
    if min(len(one), len(other)) < 2:
        raise InputError("a covariance needs at least two images", where="Fréchet distance")
    factors = [_factor(rows) for rows in (one, other)]
    shared = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    apart = np.square(one.mean(axis=0) - other.mean(axis=0)).sum()
    return float(max(apart + sum(np.square(factor).sum() for factor in factors) - 2 * shared, 0.0))


def _factor(rows: np.ndarray) -> np.ndarray:
    """F ``[min(n, d), d]`` with F'F the covariance."""
    centred = (rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1)
    return np.linalg.qr(centred, mode="r") if len(rows) > rows.shape[1] else centred


def neighbour_radii(rows: np.ndarray, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """Distance of each row to its k-th nearest other row, float32 ``[n]``, in blocks."""
    if len(rows) <= neighbours:
        raise InputError(f"{len(rows)} images cannot have {neighbours} neighbours each", where="precision and recall")
    out = np.empty(len(rows), np.float32)
    every = torch.from_numpy(np.ascontiguousarray(rows, np.float32))
    for start in range(0, len(rows), _ROWS):
        block, nearest = every[start : start + _ROWS], None
        for at in range(0, len(rows), _COLUMNS):
            squared = _squared(block, every[at : at + _COLUMNS])
            own = torch.arange(start, start + len(block))[:, None] == torch.arange(at, at + squared.shape[1])[None]
            squared.masked_fill_(own, torch.inf)
            joined = squared if nearest is None else torch.cat([nearest, squared], 1)
            nearest = joined.topk(min(neighbours, joined.shape[1]), dim=1, largest=False).values
        out[start : start + _ROWS] = nearest[:, -1].clamp(min=0).sqrt().numpy()
    return out


def inside_manifold(queries: np.ndarray, rows: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Whether each query lies within the radius of at least one row, bool ``[q]`` (eq. 1)."""
    found = np.zeros(len(queries), bool)
    every, bounds = torch.from_numpy(np.ascontiguousarray(rows, np.float32)), torch.from_numpy(radii)
    for start in range(0, len(queries), _ROWS):
        block = torch.from_numpy(np.ascontiguousarray(queries[start : start + _ROWS], np.float32))
        for at in range(0, len(rows), _COLUMNS):
            near = _squared(block, every[at : at + _COLUMNS]).clamp(min=0).sqrt() <= bounds[at : at + _COLUMNS]
            found[start : start + _ROWS] |= near.any(dim=1).numpy()
    return found


def _squared(block: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    return block.square().sum(1)[:, None] + others.square().sum(1)[None] - 2 * (block @ others.T)


@dataclass(frozen=True)
class Fidelity:
    """``values``: measure -> (value, low, high), 95 %. ``notes``: what a reader must know about these numbers."""

    values: dict[str, tuple[float, float | None, float | None]]
    feature_network: str
    n_images: int
    n_reference: int
    neighbours: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Each measure with ``_low`` and ``_high`` beside it."""
        out: dict[str, Any] = {}
        for name, (value, low, high) in self.values.items():
            out |= {name: value, f"{name}_low": low, f"{name}_high": high}
        return out | {key: list(value) if isinstance(value, tuple) else value
                      for key, value in vars(self).items() if key != "values"}


def fidelity(embeddings: Any, labels: Any, reference: Any, reference_labels: Any, *, feature_network: str,
             neighbours: int = NEIGHBOURS, bootstrap: int = 1000, seed: int = 0, embedded_by: Any = None,
             reference_embedded_by: Any = None) -> Fidelity:
    """Vendi score of a set, and its precision, recall and Fréchet distance against a reference; ``[n, d]``, ``[m, d]``.

    Intervals: of precision and recall by bootstrap over the people whose images are asked about, the manifold held
    fixed; of Vendi score and Fréchet distance by a jackknife that leaves out a twentieth of the set's people at a time
    (a bootstrap would count copies as lost variety), the reference held fixed. ``None`` with fewer people than groups.

    Errors: ``InputError`` for shapes, NaN, too few images; ``MismatchError`` for two recognisers.
    """
    one, other = recognizer_hash(embedded_by), recognizer_hash(reference_embedded_by)
    if one and other and one.lower() != other.lower():
        raise MismatchError("the set and its reference were embedded by different recognisers", where="fidelity",
                            fix="embed both with one")
    made, real = grouped(embeddings, labels), grouped(reference, reference_labels, "reference embeddings")
    dim = made.embeddings.shape[1]
    if dim != real.embeddings.shape[1]:
        raise InputError(f"embeddings have {dim} dimensions, the reference {real.embeddings.shape[1]}",
                         where="fidelity")
    values = {"vendi_score": _jackknifed(made, vendi_score, bootstrap, seed),
              "reference_vendi_score": _jackknifed(real, vendi_score, bootstrap, seed),
              "frechet_distance": _jackknifed(made, lambda rows: frechet_distance(rows, real.embeddings), bootstrap,
                                              seed)}
    for name, asked, ground in (("precision", made, real), ("recall", real, made)):
        inside = inside_manifold(asked.embeddings, ground.embeddings, neighbour_radii(ground.embeddings, neighbours))
        values[name] = mean_with_interval(inside * 1.0, asked.codes, replicates=bootstrap, seed=seed)
    few = min(len(made.codes), len(real.codes))
    notes = () if few >= 10 * dim else (
        f"Fréchet distance of {few} images in {dim} dimensions is biased upwards; compare it at equal n only",)
    return Fidelity(values, feature_network, len(made.codes), len(real.codes), neighbours, notes)


def _jackknifed(people: Gallery, measure: Callable[[np.ndarray], float], bootstrap: int,
                seed: int) -> tuple[float, float | None, float | None]:
    value, groups = measure(people.embeddings), JACKKNIFE_GROUPS
    if people.n_identities < groups or not bootstrap:
        return value, None, None
    group = keyed_generator("jackknife", seed).permutation(people.n_identities) % groups
    left_out = np.array([measure(people.embeddings[group[people.codes] != k]) for k in range(groups)])
    half = _NORMAL_95 * float(np.sqrt((groups - 1) / groups * np.square(left_out - left_out.mean()).sum()))
    return value, value - half, value + half
