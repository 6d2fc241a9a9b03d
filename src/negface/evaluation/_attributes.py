"""Diversity in words: how much pose, light, expression and age vary among a person's own images, by the analyser.

An instrument's error stands beside what it measures: a spread below the error is no evidence of variation. On
photographs only pose (and quality, by its own model) was ever checked against the world; the rest is "not measured".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from negface.foundation.errors import InputError

from .bootstrap import mean_with_interval
from .inputs import checked_labels

ON_PHOTOGRAPHS = ("yaw", "pitch", "roll", "quality")


@dataclass(frozen=True)
class AttributeSpread:
    """``values``: attribute -> (mean over people of the standard deviation of a person's images, low, high; 95 % over
    identities), None where not measured; ``errors``: the analyser's mean absolute error, in the same unit."""

    values: dict[str, tuple[float, float | None, float | None] | None]
    errors: dict[str, float | None]
    units: dict[str, str]
    analyser: str
    photographs: bool
    n_identities: int

    def to_dict(self) -> dict[str, Any]:
        """``{"attributes": {name: {"spread", "low", "high", "error", "unit"}}, ...}``; ``None``: not measured."""
        rows = {}
        for name, found in self.values.items():
            value, low, high = found or (None, None, None)
            rows[name] = {"spread": value, "low": low, "high": high, "error": self.errors.get(name),
                          "unit": self.units.get(name, "")}
        return {"attributes": rows, "analyser": self.analyser, "photographs": self.photographs,
                "diversity_n_identities": self.n_identities}


def attribute_spread(measured: Mapping[str, Any], labels: Any, *, analyser: str, errors: Mapping[str, float],
                     photographs: bool, units: Mapping[str, str] | None = None, bootstrap: int = 1000,
                     seed: int = 0) -> AttributeSpread:
    """Spread of each attribute within people.

    Args:
        measured: attribute -> ``[n]`` numbers of every image (NaN: not told).
        labels: ``[n]``.
        analyser: name of the instrument. errors: its mean absolute error by attribute.
        photographs: the images are no renders, so all but ``ON_PHOTOGRAPHS`` is "not measured".

    Raises ``InputError`` for lengths that do not fit, or nobody with two images.
    """
    if not measured:
        raise InputError("the analyser told nothing", where="attributes")
    n = len(next(iter(measured.values())))
    codes = np.unique(checked_labels(labels, n, "labels"), return_inverse=True)[1]
    if np.bincount(codes).max() < 2:
        raise InputError("no person has two images", where="diversity")
    values: dict[str, tuple[float, float | None, float | None] | None] = {}
    for name, numbers in measured.items():
        spread = person_spread(np.asarray(numbers, np.float64), codes, name)
        unknown = (photographs and name not in ON_PHOTOGRAPHS) or not np.isfinite(spread).any()
        values[name] = None if unknown else mean_with_interval(spread, np.arange(len(spread)), replicates=bootstrap,
                                                               seed=seed)
    return AttributeSpread(values, {name: errors.get(name) for name in measured}, dict(units or {}), analyser,
                           photographs, int((np.bincount(codes) >= 2).sum()))


def person_spread(numbers: np.ndarray, codes: np.ndarray, name: str) -> np.ndarray:
    """Standard deviation (of the population) of each person's images; NaN with fewer than two."""
    if numbers.shape != codes.shape:
        raise InputError(f"{len(codes)} numbers were expected, got {list(numbers.shape)}", where=name)
    told = np.isfinite(numbers)
    size = int(codes.max()) + 1
    counts = np.bincount(codes[told], minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.bincount(codes[told], numbers[told], minlength=size) / counts
        squares = np.bincount(codes[told], np.square(numbers - means[codes])[told], minlength=size) / counts
    return np.where(counts >= 2, np.sqrt(squares), np.nan)


def table(result: Mapping[str, Any]) -> str:
    """One line an attribute: spread [interval] unit, and the instrument's error."""
    lines = [f"spread among a person's own images, mean of {result['diversity_n_identities']} people, "
             f"by {result['analyser']}"]
    for name, row in result["attributes"].items():
        error = "error unknown" if row["error"] is None else f"error {row['error']:.3g}"
        text = "not measured"
        if row["spread"] is not None:
            ends = "" if row["low"] is None else f"  [{row['low']:.3g}, {row['high']:.3g}]"
            below = "; below the error" if row["error"] is not None and row["spread"] < row["error"] else ""
            text = f"{row['spread']:.3g}{ends} {row['unit']}  ({error}{below})"
        lines.append(f"  {name:<18}{text}")
    return "\n".join(lines)
