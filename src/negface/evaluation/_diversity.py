"""Diversity of a person's own images: the price at which separability is bought.

Three rulers, each with its instrument named: spread of genuine scores under the judge (part of separability), spread of
head pose, and mean pairwise distance of features of a named network. Per person first, then the mean over people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from negface.foundation.errors import InputError

from .bootstrap import mean_with_interval
from .inputs import checked_labels, grouped

ANGLES = ("yaw", "pitch", "roll")


@dataclass(frozen=True)
class Diversity:
    """Spread of a person's own images; people with one image have none and are left out.

    ``values`` maps a measure to (mean over people, low, high), 95 % over identities: ``pose_spread`` degrees, root of
    the summed variances of the angles; ``yaw_std``, ``pitch_std``, ``roll_std`` degrees; ``feature_distance`` 1 -
    cosine, mean over the pairs of a person. ``instruments`` names what measured them.
    """

    values: dict[str, tuple[float, float | None, float | None]]
    instruments: dict[str, str]
    n_identities: int

    def to_dict(self) -> dict[str, Any]:
        """Every measure with ``_low`` and ``_high`` beside it, ``pose_model`` and ``feature_network``."""
        out: dict[str, Any] = {}
        for name, (value, low, high) in self.values.items():
            out[name] = value if np.isfinite(value) else None
            out[f"{name}_low"], out[f"{name}_high"] = low, high
        return {**out, **self.instruments, "diversity_n_identities": self.n_identities}


def pose_diversity(pose: Any, labels: Any, *, pose_model: str, bootstrap: int = 1000, seed: int = 0) -> Diversity:
    """Spread of ``pose`` ``[n, 3]`` (yaw, pitch, roll in degrees; rows of NaN: no pose found) within each person.

    Standard deviations of the population. Errors: ``InputError`` for other shapes.
    """
    angles = np.asarray(pose, np.float64)
    if angles.ndim != 2 or angles.shape[1] != 3 or not len(angles):
        raise InputError(f"pose is [n, 3] (yaw, pitch, roll in degrees), got {list(angles.shape)}", where="pose")
    _, codes = np.unique(checked_labels(labels, len(angles), "labels of the poses"), return_inverse=True)
    found = np.isfinite(angles).all(axis=1)
    size = int(codes.max()) + 1
    counts = np.bincount(codes[found], minlength=size)
    several = counts >= 2
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.stack([np.bincount(codes[found], angles[found, k], minlength=size) for k in range(3)], 1)
        means /= counts[:, None]
        off = (angles - means[codes])[found] ** 2
        variances = np.stack([np.bincount(codes[found], off[:, k], minlength=size) for k in range(3)], 1)
        variances = np.where(several[:, None], variances / counts[:, None], np.nan)
    spread = {"pose_spread": np.sqrt(variances.sum(axis=1))}
    spread |= {f"{angle}_std": np.sqrt(variances[:, k]) for k, angle in enumerate(ANGLES)}
    return _over_people(spread, {"pose_model": pose_model}, bootstrap, seed)


def feature_diversity(features: Any, labels: Any, *, feature_network: str, bootstrap: int = 1000,
                      seed: int = 0) -> Diversity:
    """Mean pairwise 1 - cosine of ``features`` ``[n, f]`` among a person's own images, by the network named.

    Closed form, no pairs: with s the sum of a person's k unit features, the mean cosine is (|s|^2 - k) / (k (k - 1)).
    """
    if not feature_network:
        raise InputError("a feature distance means nothing without its network", where="feature_network")
    people = grouped(features, labels, "features")
    starts = np.concatenate([[0], people.sizes.cumsum()[:-1]])
    exact = people.embeddings.astype(np.float64)
    sums = np.add.reduceat(exact, starts, axis=0)
    own = np.add.reduceat((exact**2).sum(axis=1), starts)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = ((sums**2).sum(axis=1) - own) / (people.sizes * (people.sizes - 1))
    distance = np.where(people.sizes >= 2, 1 - cosine, np.nan)
    return _over_people({"feature_distance": distance}, {"feature_network": feature_network}, bootstrap, seed)


def _over_people(values: dict[str, np.ndarray], instruments: dict[str, str], bootstrap: int, seed: int) -> Diversity:
    people = next(iter(values.values()))
    if not np.isfinite(people).any():
        raise InputError("no person has two measured images", where="diversity")
    codes = np.arange(len(people))
    return Diversity({name: mean_with_interval(value, codes, replicates=bootstrap, seed=seed)
                      for name, value in values.items()}, instruments, int(np.isfinite(people).sum()))
