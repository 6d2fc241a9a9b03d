"""A pair benchmark by group of people: each group's own rates, and its rates at one threshold for all.

As ``groups`` does for whole sets (ISO/IEC 19795-10; NISTIR 8280). A pair belongs to a group if both of its pictures do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from negface.foundation.errors import InputError, MismatchError

from .bootstrap import multiplicities
from .group_gaps import gaps, with_interval
from .groups import MIN_PEOPLE
from .pair_scores import FARS, Units, pair_rates, share_replicates

FAR = 0.01


def pair_groups(names: Sequence[str], people: Sequence[str], group_of: Mapping[str, str], attribute: str) -> np.ndarray:
    """The group of each pair, text ``[n]``, empty where its pictures differ or are in none; found by the picture's name
    or its person's. ``MismatchError`` if no picture is found."""
    people = people or [""] * len(names)
    of = np.array([group_of.get(name, group_of.get(person, "")) for name, person in zip(names, people)]).reshape(-1, 2)
    if not of.size or not (of != "").any():
        raise MismatchError(f"no picture of the benchmark is in the table of {attribute}", where="groups",
                            fix="names must be those of the pair list, or its folders'")
    return np.where(of[:, 0] == of[:, 1], of[:, 0], "")


def pair_fairness(scores: np.ndarray, same: np.ndarray, units: Units, groups: np.ndarray, *,
                  right: np.ndarray | None = None, far: float = FAR, fars: Sequence[float] = FARS,
                  min_people: int = MIN_PEOPLE, bootstrap: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Each group's EER and TAR at bounds on its own FAR; its accuracy, FMR and FNMR at thresholds for all; the gaps.

    Args:
        scores, same: ``[n]``; units: people (``Units`` of kind ``identities``; InputError otherwise).
        right: whether each pair is decided rightly (``Verification.right``, at the thresholds of the folds): accuracy.
        far: FMR and FNMR are at the threshold of FAR <= ``far`` over all pairs.
        fars: bounds of TAR, beside ``far``; ``None`` in a group with fewer than 1/FAR impostor pairs.
        groups: of each pair, empty = of none. Groups with fewer than ``min_people`` people, or without genuine or
            impostor pairs, are counted and not measured.

    Returns:
        a JSON value as of ``groups.fairness``; intervals 95 % over people, those of gaps at thresholds for all from the
        same draws.
    """
    if units.kind != "identities":
        raise InputError("people are not known, so groups of people are not either", where="groups",
                         fix="use a pair list, or keep the .bin's list of names beside it")
    threshold = _threshold(scores[~same], far)
    drawn = multiplicities(units.count, bootstrap, seed)
    found: dict[str, dict[str, Any]] = {}
    replicates: dict[str, dict[str, np.ndarray]] = {}
    too_small: dict[str, int] = {}
    for name in np.unique(groups[groups != ""]):
        rows = np.flatnonzero(groups == name)
        own = Units(units.kind, units.first[rows], units.second[rows])
        n_people = len(np.unique([own.first, own.second]))
        if n_people < min_people or same[rows].all() or not same[rows].any():
            too_small[str(name)] = n_people
            continue
        codes = np.unique([own.first, own.second], return_inverse=True)[1].reshape(2, -1)
        rates = pair_rates(scores[rows], same[rows], Units(units.kind, *codes), fars=sorted({far, *fars}, reverse=True),
                           bootstrap=bootstrap, seed=seed)
        decided = None if right is None else right[rows]
        values, replicates[str(name)] = _at(scores[rows], same[rows], decided, own, threshold, drawn)
        found[str(name)] = {"n_people": n_people, "n_pairs": len(rows), "n_genuine": int(same[rows].sum()),
                            **{key: rate for key, rate in rates.items() if key not in ("resampled", "n_resampled")},
                            **values}
    return {"threshold": threshold, "far": far, "min_people": min_people, "groups": found,
            "gaps": gaps(found, replicates), "too_small": too_small, "n_without_group": int((groups == "").sum())}


def _threshold(impostors: np.ndarray, far: float) -> float:
    rejected = np.sort(impostors)[len(impostors) - 1 - int(len(impostors) * far)]
    return float(np.nextafter(rejected, np.float32(np.inf)))


def _at(scores: np.ndarray, same: np.ndarray, right: np.ndarray | None, units: Units, threshold: float,
        drawn: np.ndarray) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What is decided at thresholds for all: a group's values with intervals, and their replicates."""
    every = np.ones(len(same), bool)
    asked = {} if right is None else {"accuracy": (right, every)}
    asked |= {"fmr_at_threshold": (scores >= threshold, ~same), "fnmr_at_threshold": (scores < threshold, same)}
    values: dict[str, Any] = {}
    replicates = {}
    for name, (counted, mask) in asked.items():
        part = Units(units.kind, units.first[mask], units.second[mask])
        replicates[name] = share_replicates(counted[mask], part, drawn)
        values |= with_interval(name, counted[mask].mean(), replicates[name])
    return values, replicates
