"""A pair benchmark by group of people: each group's own rates, and its rates at one threshold for all.

As ``groups`` does for whole sets (ISO/IEC 19795-10; NISTIR 8280). A pair belongs to a group if both of its pictures do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from negface.foundation.errors import InputError, MismatchError

from .bootstrap import interval, multiplicities
from .groups import MIN_PEOPLE, gaps
from .pair_scores import Units, pair_rates

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


def pair_fairness(scores: np.ndarray, same: np.ndarray, units: Units, groups: np.ndarray, *, far: float = FAR,
                  min_people: int = MIN_PEOPLE, bootstrap: int = 1000, seed: int = 0) -> dict[str, Any]:
    """EER of each group, FMR and FNMR at the threshold of FAR <= ``far`` over all pairs, and the gaps.

    Args:
        scores, same: ``[n]``; units: people (``Units`` of kind ``identities``; InputError otherwise).
        groups: of each pair, empty = of none. Groups with fewer than ``min_people`` people, or without genuine or
            impostor pairs, are counted and not measured.

    Returns:
        a JSON value as of ``groups.fairness``; intervals 95 % over people, those of gaps from the same draws.
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
        rates = pair_rates(scores[rows], same[rows], Units(units.kind, *codes), fars=(), bootstrap=bootstrap, seed=seed)
        values, replicates[str(name)] = _at(scores[rows], same[rows], own, threshold, drawn)
        found[str(name)] = {"n_people": n_people, "n_pairs": len(rows), "n_genuine": int(same[rows].sum()),
                            **{key: rates[key] for key in ("eer", "eer_low", "eer_high")}, **values}
    return {"threshold": threshold, "far": far, "min_people": min_people, "groups": found,
            "gaps": gaps(found, replicates), "too_small": too_small, "n_without_group": int((groups == "").sum())}


def _threshold(impostors: np.ndarray, far: float) -> float:
    rejected = np.sort(impostors)[len(impostors) - 1 - int(len(impostors) * far)]
    return float(np.nextafter(rejected, np.float32(np.inf)))


def _at(scores: np.ndarray, same: np.ndarray, units: Units, threshold: float,
        drawn: np.ndarray) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    wrong = np.where(same, scores < threshold, scores >= threshold)
    values: dict[str, Any] = {}
    replicates = {}
    for name, mask in (("fmr_at_threshold", ~same), ("fnmr_at_threshold", same)):
        draws = [units.weights(column)[mask] for column in drawn.T]
        with np.errstate(invalid="ignore", divide="ignore"):
            replicates[name] = np.array([weights @ wrong[mask] / weights.sum() for weights in draws])
        low, high = interval(replicates[name])
        values |= {name: float(wrong[mask].mean()), f"{name}_low": low, f"{name}_high": high}
    return values, replicates
