"""Fairness: every measure of a set by group of people, the worst group, the gap, and how sure of them one can be.

Each group is measured within itself (impostors of one's own group are the hardest), and at one threshold for all, as a
deployed system has. After ISO/IEC 19795-10 and Grother, Ngan, Hanaoka (NISTIR 8280): FMR and FNMR differentials.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from negface.foundation.errors import InputError

from ._separability import separability
from .bootstrap import interval, multiplicities
from .inputs import Gallery, grouped
from .scoring import genuine_scores

PROTOCOL = "fairness/1"
HIGHER_IS_BETTER = ("fdr", "dprime", "genuine_mean")
LOWER_IS_BETTER = ("eer", "fmr100", "fmr1000", "impostor_mean", "fmr_at_threshold", "fnmr_at_threshold")
MIN_PEOPLE = 20
_ROWS = 1024


def fairness(embeddings: Any, labels: Any, groups: Sequence[str], *, min_people: int = MIN_PEOPLE,
             bootstrap: int = 1000, seed: int = 0, threads: int | None = None) -> dict[str, Any]:
    """Measure each group of images.

    Args:
        embeddings, labels: ``[n, d]``, ``[n]``.
        groups: the group of each image; empty = of none. A person may have images in several groups (age bands).
        min_people: a group with fewer people, or without a genuine pair, is counted and not measured.

    Returns:
        a JSON value: ``groups`` (name -> counts and measures with ``_low``, ``_high``; 95 % over identities), ``gaps``
        (measure -> ``worst``, ``best``, ``gap``, ``gap_low``, ``gap_high``), ``threshold`` (FMR 0.1 % over the pairs of
        everybody), ``too_small``. The interval of a gap belongs to the *named* two groups: for rates at the threshold
        from the same draws of people, elsewhere from the ends of the two intervals, which is wider than need be. A gap
        is picked as the largest, so it is not zero even where groups are equal: read its lower end.

    Raises ``InputError`` for fewer than two groups with support.
    """
    named = np.asarray([str(group or "") for group in groups])
    people = grouped(embeddings, labels)
    if named.shape != people.codes.shape:
        raise InputError(f"{len(named)} groups for {len(people.codes)} images", where="groups")
    named = named[people.order]
    supported = _supported(people, named, min_people)
    if sum(supported.values()) < 2:
        raise InputError(f"only {sum(supported.values())} of {len(supported)} groups has {min_people} people and a "
                         f"genuine pair", where="groups", fix="give more people, or lower the minimum and say so")
    threshold = separability(people.embeddings, people.codes, bootstrap=0, threads=threads).thresholds["fmr1000"]
    drawn = multiplicities(people.n_identities, bootstrap, seed)
    found, replicates = {}, {}
    for name in (name for name, enough in supported.items() if enough):
        rows = np.flatnonzero(named == name)
        whole = separability(people.embeddings[rows], people.codes[rows], bootstrap=bootstrap, seed=seed,
                             threads=threads).to_dict()
        part = grouped(people.embeddings[rows], people.codes[rows])
        values, replicates[name] = _at_threshold(part, threshold, drawn)
        measures = [name for name in (*HIGHER_IS_BETTER, *LOWER_IS_BETTER) if name in whole]
        found[name] = {"n_people": part.n_identities, "n_images": len(rows), "n_genuine": part.n_genuine,
                       "n_impostor": part.n_impostor,
                       **{f"{key}{end}": whole[f"{key}{end}"] for key in measures for end in ("", "_low", "_high")},
                       **values}
    return {"protocol": PROTOCOL, "threshold": threshold, "min_people": min_people, "bootstrap": bootstrap,
            "seed": seed, "groups": found, "gaps": gaps(found, replicates),
            "too_small": {name: len(np.unique(people.codes[named == name])) for name, enough in supported.items()
                          if not enough},
            "n_without_group": int((named == "").sum())}


def _supported(people: Gallery, named: np.ndarray, min_people: int) -> dict[str, bool]:
    out = {}
    for name in np.unique(named[named != ""]):
        counts = np.bincount(people.codes[named == name])
        out[str(name)] = bool((counts > 0).sum() >= max(min_people, 2) and counts.max() >= 2)
    return out


def _at_threshold(part: Gallery, threshold: float, drawn: np.ndarray) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """FMR and FNMR of a group at a threshold with intervals, and their replicates over draws of all people."""
    weights = drawn[part.names]
    scores, codes = genuine_scores(part)
    sizes = part.sizes.astype(np.float64)
    missed = np.bincount(codes, scores < threshold, minlength=part.n_identities)
    pairs = sizes * (sizes - 1) / 2
    first, second, count = _false_matches(part, threshold)
    false = np.array([(count * column[first] * column[second]).sum() for column in weights.T])
    with np.errstate(invalid="ignore", divide="ignore"):
        replicates = {"fnmr_at_threshold": (missed @ weights) / (pairs @ weights),
                      "fmr_at_threshold": false / (((sizes @ weights) ** 2 - (sizes**2) @ weights**2) / 2)}
    values: dict[str, Any] = {}
    for name, value in (("fmr_at_threshold", count.sum() / part.n_impostor),
                        ("fnmr_at_threshold", missed.sum() / pairs.sum())):
        low, high = interval(replicates[name])
        values |= {name: float(value), f"{name}_low": low, f"{name}_high": high}
    return values, replicates


def _false_matches(part: Gallery, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of people (codes) with images that match though they should not, and how many such pairs of images."""
    every, codes = torch.from_numpy(part.embeddings), part.codes.astype(np.int64)
    keys = []
    for start in range(0, len(codes), _ROWS):
        matched = (every[start : start + _ROWS] @ every[start:].T >= threshold).nonzero().numpy()
        rows, columns = matched[:, 0] + start, matched[:, 1] + start
        wanted = (rows < columns) & (codes[rows] != codes[columns])
        keys.append(codes[rows[wanted]] * part.n_identities + codes[columns[wanted]])
    key, count = np.unique(np.concatenate(keys), return_counts=True)
    return key // part.n_identities, key % part.n_identities, count


def gaps(found: dict[str, dict[str, Any]], replicates: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    """Worst and best group of each measure and their gap; see ``fairness`` for its interval."""
    out = {}
    for key in (*HIGHER_IS_BETTER, *LOWER_IS_BETTER):
        values = {name: group[key] for name, group in found.items() if group.get(key) is not None}
        if len(values) < 2:
            continue
        ranked = sorted(values, key=values.__getitem__, reverse=key in HIGHER_IS_BETTER)
        best, worst = ranked[0], ranked[-1]
        gap = abs(values[worst] - values[best])
        if key in replicates[worst]:
            low, high = interval(replicates[worst][key] - replicates[best][key])
        else:
            low, high = _outer(found[worst], found[best], key)
        out[key] = {"worst": worst, "best": best, "gap": gap, "gap_low": low, "gap_high": high}
    return out


def _outer(worst: dict[str, Any], best: dict[str, Any], key: str) -> tuple[float | None, float | None]:
    ends = [worst[f"{key}_low"], worst[f"{key}_high"], best[f"{key}_low"], best[f"{key}_high"]]
    if any(end is None or not math.isfinite(end) for end in ends):
        return None, None
    low, high = (ends[0] - ends[3], ends[1] - ends[2]) if key in LOWER_IS_BETTER else (ends[2] - ends[1],
                                                                                       ends[3] - ends[0])
    return low, high


def table(result: dict[str, Any]) -> str:
    """One line a group, then the gaps that matter most."""
    keys = ("eer", "fmr_at_threshold", "fnmr_at_threshold")
    counted = "n_pairs" if any("n_pairs" in group for group in result["groups"].values()) else "n_images"
    lines = [f"{'group':<24}{'people':>8}{counted[2:]:>8}  " + "".join(f"{key:<28}" for key in keys)]
    for name, group in result["groups"].items():
        cells = []
        for key in keys:
            low, high = group[f"{key}_low"], group[f"{key}_high"]
            ends = "" if low is None else f" [{low:.2%}, {high:.2%}]"
            cells.append(f"{group[key]:.2%}{ends}".ljust(28))
        lines.append(f"{name:<24}{group['n_people']:>8}{group[counted]:>8}  {''.join(cells)}".rstrip())
    for key, gap in ((key, result["gaps"][key]) for key in keys if key in result["gaps"]):
        ends = "" if gap["gap_low"] is None else f" [{gap['gap_low']:.2%}, {gap['gap_high']:.2%}]"
        named = f"worst {gap['worst']}, best {gap['best']}, gap {gap['gap']:.2%}{ends}"
        lines.append(f"{key}: {named if gap['gap'] else 'no difference'}")
    lines += [f"not measured: {name}, {count} people (fewer than {result['min_people']}, or no genuine pair)"
              for name, count in result["too_small"].items()]
    return "\n".join(lines)
