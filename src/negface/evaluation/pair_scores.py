"""Error rates of scored pairs with intervals: EER and TAR at bounds on FAR, resampled by people where people are known.

A pair is accepted if its score is at least the threshold. Definitions as in ``operating_points`` (ISO/IEC 19795-1),
here for a given list of pairs instead of all pairs of a set. Source of the weights: ``bootstrap``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from negface.foundation.errors import InputError

from .bootstrap import interval, multiplicities

FARS = (1e-3, 1e-4)


@dataclass(frozen=True)
class Units:
    """What is drawn with replacement: ``kind`` is ``identities`` or ``folds``.

    ``first``, ``second``: int ``[n]``, the unit of each pair's pictures. With m copies of each unit a pair of two units
    weighs m_a * m_b and a pair within one weighs m_a.
    """

    kind: str
    first: np.ndarray
    second: np.ndarray

    @property
    def count(self) -> int:
        return int(max(self.first.max(), self.second.max())) + 1

    def weights(self, drawn: np.ndarray) -> np.ndarray:
        """Weights ``[n]`` of all pairs for one draw ``[count]``."""
        return np.where(self.first == self.second, drawn[self.first], drawn[self.first] * drawn[self.second])


def people_units(people: Sequence[str]) -> Units:
    """Units of pairs whose 2n pictures show ``people``: pair i is entries 2i and 2i + 1."""
    codes = np.unique(np.asarray(people), return_inverse=True)[1].reshape(-1, 2)
    return Units("identities", codes[:, 0], codes[:, 1])


def fold_units(n: int, folds: int) -> Units:
    """Contiguous folds, which benchmarks of this kind keep free of common people."""
    fold = np.repeat(np.arange(folds), [n // folds + (k < n % folds) for k in range(folds)])
    return Units("folds", fold, fold)


def linked_units(pairs: np.ndarray, same: np.ndarray) -> Units:
    """People read off the genuine pairs: things (templates ``[n, 2]``) linked by genuine pairs are one person."""
    names, codes = np.unique(pairs, return_inverse=True)
    codes = codes.reshape(-1, 2)
    parent = np.arange(len(names))
    links = np.unique(np.sort(codes[np.asarray(same, bool)], axis=1), axis=0)
    while True:
        # Each pass hands the smaller name across every link and halves the way to the root.
        lowest = parent.copy()
        np.minimum.at(lowest, links[:, 0], parent[links[:, 1]])
        np.minimum.at(lowest, links[:, 1], parent[links[:, 0]])
        lowest = lowest[lowest]
        if np.array_equal(lowest, parent):
            break
        parent = lowest
    people = np.unique(parent, return_inverse=True)[1][codes]
    return Units("identities", people[:, 0], people[:, 1])


def far_key(far: float) -> str:
    """``tar_at_far_1e-3`` and the like."""
    return f"tar_at_far_{far:.0e}".replace("e-0", "e-")


def pair_rates(scores: np.ndarray, same: np.ndarray, units: Units, *, fars: Sequence[float] = FARS,
               bootstrap: int = 1000, seed: int = 0) -> dict[str, Any]:
    """EER and TAR at bounds on FAR, each with its 95 % interval over ``units``.

    Args:
        scores: ``[n]``, higher is more alike. same: bool ``[n]``.
        fars: TAR is the highest whose FAR does not exceed the bound; ``None`` where there are fewer than 1/FAR
            impostor pairs, for then the bound only says that nothing at all was accepted.

    Returns:
        ``eer``, ``eer_low``, ``eer_high``, ``tar_at_far_1e-3`` …, ``resampled`` and ``n_resampled``. Intervals are
        ``None`` for fewer than two units or ``bootstrap`` 0.
    """
    scores, same = np.asarray(scores), np.asarray(same, bool)
    if len(scores) != len(same) or same.all() or not same.any():
        raise InputError(f"{len(scores)} scores with {int(same.sum())} genuine of {len(same)} flags cannot give a rate",
                         where="same")
    if not np.isfinite(scores).all():
        raise InputError(f"score {int(np.flatnonzero(~np.isfinite(scores))[0])} is not finite", where="scores")
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    asked = [far for far in fars if (~same).sum() * far >= 1 - 1e-9]
    values = _rates(same[order], np.ones(len(same)), ends, asked)
    drawn = multiplicities(units.count, bootstrap if units.count > 1 else 0, seed)
    replicates = [_rates(same[order], units.weights(column)[order], ends, asked) for column in drawn.T]
    out: dict[str, Any] = {"resampled": units.kind, "n_resampled": units.count}
    for at, name in enumerate(["eer", *map(far_key, asked)]):
        low, high = interval(np.array([row[at] for row in replicates]))
        out |= {name: values[at], f"{name}_low": low, f"{name}_high": high}
    for far in (far for far in fars if far not in asked):
        out |= dict.fromkeys((far_key(far), f"{far_key(far)}_low", f"{far_key(far)}_high"))
    return out


def share_replicates(counted: np.ndarray, units: Units, drawn: np.ndarray) -> np.ndarray:
    """Weighted share of the pairs that are ``counted`` (bool ``[n]``) in every draw ``[count, r]``, float64 ``[r]``.

    NaN where a draw holds no pair.
    """
    draws = (units.weights(column) for column in drawn.T)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.array([weights @ counted / weights.sum() for weights in draws])


def _rates(same: np.ndarray, weights: np.ndarray, ends: np.ndarray, fars: Sequence[float]) -> list[float]:
    """EER and TARs of weighted pairs in falling order of score; ``ends``: the last pair of each distinct score."""
    hits = np.append(0.0, np.cumsum(weights * same)[ends])
    false = np.append(0.0, np.cumsum(weights * ~same)[ends])
    if not hits[-1] or not false[-1]:
        return [np.nan] * (1 + len(fars))
    gap = np.abs(false * hits[-1] - (hits[-1] - hits) * false[-1])
    # From the lowest threshold up, so that of equals the lowest counts.
    at = len(gap) - 1 - int(gap[::-1].argmin())
    eer = (false[at] / false[-1] + 1 - hits[at] / hits[-1]) / 2
    # Weighted counts are whole numbers, so a little more than far * n is far * n less its rounding.
    places = [int(np.searchsorted(false, far * false[-1] + 1e-6, side="right")) - 1 for far in fars]
    return [float(eer), *(float(hits[place] / hits[-1]) for place in places)]
