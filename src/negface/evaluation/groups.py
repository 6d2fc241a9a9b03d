"""Fairness: every measure of a set by group of people, the worst group, the gap, and how sure of them one can be.

Each group is measured within itself (impostors of one's own group are the hardest), and at one threshold for all, as a
deployed system has. After ISO/IEC 19795-10 and Grother, Ngan, Hanaoka (NISTIR 8280): FMR and FNMR differentials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from negface.foundation.errors import InputError

from ._identification import FPIRS, identification
from ._separability import separability
from .bootstrap import multiplicities
from .group_gaps import gaps, with_interval
from .group_images import checked, told_of_images
from .inputs import Gallery, grouped
from .scoring import genuine_scores

PROTOCOL = "fairness/1"
SEPARABILITY = ("fdr", "dprime", "genuine_mean", "genuine_std", "eer", "fmr100", "fmr1000", "impostor_mean")
SEARCHED = ("rank1", *(f"tpir_at_fpir_{bound:g}" for bound in FPIRS))
MIN_PEOPLE = 20
_ROWS = 1024


def fairness(embeddings: Any, labels: Any, groups: Sequence[str], *, images: Mapping[str, Any] | None = None,
             attributes: Mapping[str, Any] | None = None, min_people: int = MIN_PEOPLE, bootstrap: int = 1000,
             seed: int = 0, threads: int | None = None) -> dict[str, Any]:
    """Measure each group of images.

    Args:
        embeddings, labels: ``[n, d]``, ``[n]``.
        groups: the group of each image; empty = of none. A person may have images in several groups (age bands).
        images: measure -> ``[n]`` numbers of the images, NaN where not told; a group's value is the mean of its
            images (``company.per_image``: adherence, leakage).
        attributes: name -> ``[n]`` numbers of the images (pose, age); ``<name>_spread`` is a group's mean over people
            of the standard deviation of a person's own images.
        min_people: a group with fewer people, or without a genuine pair, is counted and not measured.

    Returns:
        a JSON value: ``groups`` (name -> counts and measures with ``_low``, ``_high``; 95 % over identities), ``gaps``
        (measure -> ``worst``, ``best``, ``gap``, ``gap_low``, ``gap_high``), ``threshold`` (FMR 0.1 % over the pairs of
        everybody), ``too_small``. Beside separability (``genuine_std`` is the diversity under the judge) a group has
        ``rank1`` and ``tpir_at_fpir_...`` of a search within it, in which all groups enrol the same number of people,
        ``n_enrolled``: TPIR falls with the gallery.

        The interval of a gap belongs to the *named* two groups: for rates at the threshold, ``images`` and
        ``attributes`` from the same draws of people, elsewhere from the ends of the two intervals, which is wider than
        need be. A gap is picked as the largest, so it is not zero even where groups are equal: read its lower end.

    Raises ``InputError`` for fewer than two groups with support, and for numbers that are not one an image.
    """
    named = np.asarray([str(group or "") for group in groups])
    people = grouped(embeddings, labels)
    if named.shape != people.codes.shape:
        raise InputError(f"{len(named)} groups for {len(people.codes)} images", where="groups")
    named = named[people.order]
    told = [checked(given, people.order, what) for given, what in ((images, "images"), (attributes, "attributes"))]
    supported = _supported(people, named, min_people)
    if sum(supported.values()) < 2:
        raise InputError(f"only {sum(supported.values())} of {len(supported)} groups has {min_people} people and a "
                         f"genuine pair", where="groups", fix="give more people, or lower the minimum and say so")
    threshold = separability(people.embeddings, people.codes, bootstrap=0, threads=threads).thresholds["fmr1000"]
    drawn = multiplicities(people.n_identities, bootstrap, seed)
    rows_of = {name: np.flatnonzero(named == name) for name, enough in supported.items() if enough}
    enrolled = _gallery_size([people.codes[rows] for rows in rows_of.values()])
    found, replicates = {}, {}
    for name, rows in rows_of.items():
        part = grouped(people.embeddings[rows], people.codes[rows])
        apart = separability(part.embeddings, part.codes, bootstrap=bootstrap, seed=seed, threads=threads).to_dict()
        at_one, replicates[name] = _at_threshold(part, threshold, drawn)
        single, more = told_of_images(*({key: value[rows] for key, value in given.items()} for given in told),
                                      people.codes[rows], drawn)
        replicates[name] |= more
        found[name] = {"n_people": part.n_identities, "n_images": len(rows), "n_genuine": part.n_genuine,
                       "n_impostor": part.n_impostor, "n_enrolled": enrolled,
                       **{f"{key}{end}": apart[f"{key}{end}"] for key in SEPARABILITY for end in ("", "_low", "_high")},
                       **at_one, **_searched(part, enrolled, bootstrap, seed), **single}
    return {"protocol": PROTOCOL, "threshold": threshold, "min_people": min_people, "bootstrap": bootstrap,
            "seed": seed, "groups": found, "gaps": gaps(found, replicates),
            "too_small": {name: len(np.unique(people.codes[named == name])) for name, enough in supported.items()
                          if not enough},
            "n_without_group": int((named == "").sum())}


def _gallery_size(codes: Sequence[np.ndarray]) -> int:
    """How many people every group can enrol: half of those with two images, of the group that has fewest."""
    return min(int((np.bincount(part) > 1).sum()) for part in codes) // 2


def _searched(part: Gallery, enrolled: int, bootstrap: int, seed: int) -> dict[str, Any]:
    """TPIR of a group with ``enrolled`` of its people; all ``None`` where there is nobody to enrol."""
    keys = [f"{key}{end}" for key in SEARCHED for end in ("", "_low", "_high")]
    if not enrolled:
        return dict.fromkeys(keys)
    able = int((part.sizes > 1).sum())
    found = identification(part.embeddings, part.codes, enrolled_share=enrolled / able, bootstrap=bootstrap, seed=seed)
    return {key: found[key] for key in keys}


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
        values |= with_interval(name, value, replicates[name])
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
