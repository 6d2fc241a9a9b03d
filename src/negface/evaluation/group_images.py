"""What is told of single images, by group: adherence, leakage, and how much each attribute varies within a person.

A group's value and its replicates over draws of everybody, so that gaps are paired over the people groups share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from negface.foundation.errors import InputError

from ._attributes import person_spread
from .group_gaps import with_interval

Told = tuple[dict[str, Any], dict[str, np.ndarray]]
SPREAD = "_spread"


def checked(told: Mapping[str, Any] | None, order: np.ndarray, what: str) -> dict[str, np.ndarray]:
    """Numbers of images, float64 ``[n]`` in ``order``; ``InputError`` names what does not fit."""
    out = {}
    for name, numbers in (told or {}).items():
        values = np.asarray(numbers, np.float64)
        if values.shape != order.shape:
            raise InputError(f"one number for each of {len(order)} images is expected, got {list(values.shape)}",
                             where=f"{what} {name}")
        out[name] = values[order]
    return out


def told_of_images(images: Mapping[str, np.ndarray], attributes: Mapping[str, np.ndarray], codes: np.ndarray,
                   drawn: np.ndarray) -> Told:
    """Measures of one group and their replicates.

    Args:
        images: measure -> ``[k]`` numbers of the group's images (NaN: not told); the measure is their mean.
        attributes: name -> ``[k]``; ``<name>_spread`` is the mean over people of the standard deviation of their images
            of this group.
        codes: ``[k]``, whose image it is, a row of ``drawn`` float64 ``[people, r]``: how often everybody is drawn.
    """
    people, own = np.unique(codes, return_inverse=True)
    weights = drawn[people]
    sums = {name: (np.bincount(own, np.nan_to_num(values)), np.bincount(own, np.isfinite(values)))
            for name, values in images.items()}
    for name, values in attributes.items():
        spread = person_spread(values, own, name)
        sums[f"{name}{SPREAD}"] = np.nan_to_num(spread), np.isfinite(spread).astype(np.float64)
    values, replicates = {}, {}
    for name, (total, count) in sums.items():
        with np.errstate(invalid="ignore", divide="ignore"):
            replicates[name] = (total @ weights) / (count @ weights)
            values |= with_interval(name, total.sum() / count.sum(), replicates[name])
    return values, replicates
