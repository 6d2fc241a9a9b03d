"""Leakage: is a generated person somebody from the training set? The nearest training person of every image.

The threshold is that of FMR 0.1 % on pairs of different real people. Against a whole training set even strangers meet
that threshold by chance, one pair in a thousand each; so the rate stands beside the rate at which *training people*
match a training person who is not themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from negface.foundation.errors import InputError, MismatchError
from negface.foundation.noise import keyed_generator
from negface.perception import recognizer_hash

from .bootstrap import mean_with_interval
from .inputs import Gallery, grouped
from .scoring import sample_impostors

FMR = 0.001
_SAMPLE = 1 << 21
_CHANCE_IMAGES = 2000
_ROWS, _COLUMNS = 1024, 16384


@dataclass(frozen=True)
class Leakage:
    """Leakage of a generated set, per image, under one judge.

    ``rate``: share of images whose nearest training image reaches ``threshold`` (``low``, ``high``: 95 % over generated
    identities); ``chance_rate``: the same for images of training people against *other* training people
    (``chance_low``, ``chance_high``: over those people). ``nearest_mean`` and ``chance_nearest_mean``: mean cosines to
    the nearest. ``nearest`` float32 ``[n]``, ``nearest_image`` int64 ``[n]`` (row of the training embeddings).
    ``closest``: the highest, one per pair of people.
    """

    rate: float
    low: float | None
    high: float | None
    chance_rate: float
    chance_low: float | None
    chance_high: float | None
    threshold: float
    nearest_mean: float
    chance_nearest_mean: float
    n_training_identities: int
    n_training_images: int
    nearest: np.ndarray
    nearest_image: np.ndarray
    closest: list[dict[str, Any]]

    @property
    def exceeds_chance(self) -> bool:
        """Whether the interval of the rate lies above that of chance."""
        return self.low is not None and self.chance_high is not None and self.low > self.chance_high

    def to_dict(self) -> dict[str, Any]:
        """Plain data, every key with ``leakage_`` before it (``leakage_rate_low``, …); without the arrays."""
        skipped, renamed = ("nearest", "nearest_image"), {"low": "rate_low", "high": "rate_high"}
        out = {f"leakage_{renamed.get(key, key)}": value for key, value in vars(self).items() if key not in skipped}
        return {**out, "leakage_exceeds_chance": self.exceeds_chance}


def leakage(embeddings: Any, labels: Any, training_embeddings: Any, training_labels: Any, *,
            threshold: float | None = None, calibration: tuple[Any, Any] | None = None, bootstrap: int = 1000,
            seed: int = 0, embedded_by: Any = None, training_embedded_by: Any = None, n_closest: int = 20,
            nearest: tuple[np.ndarray, np.ndarray] | None = None) -> Leakage:
    """Nearest training person of each generated image; all arrays under one judge, ``[n, d]`` with labels ``[n]``.

    ``threshold``: cosine; None = FMR 0.1 % on ``calibration`` (embeddings, labels) of real people, else on the training
    people themselves (two million seeded pairs of different people). ``nearest``: cosine and training row of each
    image, where a pass has found them (``Separability.nearest``); else 2 n m d operations, constant memory.

    Errors: ``InputError`` for shapes and for a calibration without two people; ``MismatchError`` for two recognisers.
    """
    check_one_recogniser(embedded_by, training_embedded_by)
    made, real = grouped(embeddings, labels), grouped(training_embeddings, training_labels, "training embeddings")
    if made.embeddings.shape[1] != real.embeddings.shape[1]:
        raise InputError(f"embeddings have {made.embeddings.shape[1]} dimensions, training embeddings "
                         f"{real.embeddings.shape[1]}", where="leakage")
    if threshold is None:
        threshold = _calibrated(grouped(*calibration, "calibration embeddings") if calibration else real, seed)
    score, row = _nearest(made.embeddings, None, real) if nearest is None else _in_order(nearest, made, real)
    rate, low, high = mean_with_interval((score >= threshold) * 1.0, made.codes, replicates=bootstrap, seed=seed)
    chosen = np.sort(keyed_generator("leakage by chance", seed).permutation(len(real.codes))[:_CHANCE_IMAGES])
    chance, _ = _nearest(real.embeddings[chosen], real.codes[chosen], real)
    by_chance = mean_with_interval((chance >= threshold) * 1.0, real.codes[chosen], replicates=bootstrap, seed=seed)
    by_caller = np.empty(len(score), np.float32), np.empty(len(score), np.int64)
    by_caller[0][made.order], by_caller[1][made.order] = score, real.order[row]
    return Leakage(rate, low, high, *by_chance, float(threshold), float(score.mean()),
                   float(chance.mean()) if np.isfinite(chance).all() else math.nan, real.n_identities, len(real.codes),
                   *by_caller, _closest(made, real, score, row, n_closest))


def check_one_recogniser(one: Any, other: Any) -> None:
    """``MismatchError`` if generated and training images are known to be embedded by two recognisers."""
    one, other = recognizer_hash(one), recognizer_hash(other)
    if one and other and one.lower() != other.lower():
        raise MismatchError("generated and training images were embedded by different recognisers", where="leakage",
                            fix="embed both with the judge")


def _in_order(nearest: tuple[np.ndarray, np.ndarray], made: Gallery, real: Gallery) -> tuple[np.ndarray, np.ndarray]:
    """The caller's cosines and rows, as of the ordered galleries."""
    place = np.empty_like(real.order)
    place[real.order] = np.arange(len(place))
    return nearest[0][made.order], place[nearest[1][made.order]]


def _calibrated(people: Gallery, seed: int) -> float:
    scores = sample_impostors(people, _SAMPLE, seed)[0] if people.n_identities > 1 else np.zeros(0)
    if len(scores) < 1 / FMR:
        raise InputError("too few pairs of different people to set a threshold at FMR 0.1 %", where="leakage",
                         fix="give a threshold or a calibration set")
    rejected = np.sort(scores)[len(scores) - 1 - int(len(scores) * FMR)]
    return float(np.nextafter(rejected, np.float32(np.inf)))


def _nearest(queries: np.ndarray, own: np.ndarray | None, real: Gallery) -> tuple[np.ndarray, np.ndarray]:
    """Highest cosine to a row of ``real`` (of another code than ``own``, if given) and that row."""
    best, row = np.full(len(queries), -np.inf, np.float32), np.zeros(len(queries), np.int64)
    for at in range(0, len(queries), _ROWS):
        block = torch.from_numpy(queries[at : at + _ROWS])
        for start in range(0, len(real.codes), _COLUMNS):
            scores = torch.mm(block, torch.from_numpy(real.embeddings[start : start + _COLUMNS]).T)
            if own is not None:
                codes = torch.from_numpy(real.codes[start : start + _COLUMNS])
                scores.masked_fill_(torch.from_numpy(own[at : at + _ROWS])[:, None] == codes[None], -torch.inf)
            value, index = (part.numpy() for part in scores.max(dim=1))
            better = value > best[at : at + _ROWS]
            best[at : at + _ROWS][better], row[at : at + _ROWS][better] = value[better], index[better] + start
    return best, row


def _closest(made: Gallery, real: Gallery, score: np.ndarray, row: np.ndarray, wanted: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    seen: set[tuple[int, int]] = set()
    for at in np.argsort(-score, kind="stable"):
        pair = int(made.codes[at]), int(real.codes[row[at]])
        if pair in seen:
            continue
        seen.add(pair)
        found.append({"cosine": float(score[at]), "image": int(made.order[at]), "identity": made.names[pair[0]].item(),
                      "training_image": int(real.order[row[at]]), "training_identity": real.names[pair[1]].item()})
        if len(found) == wanted:
            break
    return found
