"""Bias as an effect: the same people, photographed the same way, with one attribute changed and nothing else.

After Liang, Perona, Balakrishnan (arXiv 2308.05441): what changes between the levels was caused by the attribute, for
there is nothing else that differs. Here the people are procedural, so "nothing else" is exact, and levels are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from negface.foundation.errors import InputError

from .bootstrap import LEVEL, interval, multiplicities
from .inputs import unit_rows

PROTOCOL = "causal-bias/1"
MEASURES = ("genuine_mean", "impostor_mean", "fnmr", "fmr")


def causal_effects(embeddings: np.ndarray, levels: Sequence[float], *, fmr: float = 0.01, bootstrap: int = 2000,
                   seed: int = 0) -> dict[str, Any]:
    """Effects of an attribute on the scores of one recogniser.

    Args:
        embeddings: ``[levels, people, pictures, d]``; picture k of person p differs between levels in the attribute
            alone.
        levels: the attribute's values; effects are against the first.
        fmr: share of impostor pairs, of all levels together, that the one threshold accepts at most.

    Returns:
        a JSON value. ``levels``: measures of each level with 95 % intervals; ``effects``: for each other level and
        measure the paired difference, its interval, and ``bias``: whether that interval leaves out zero. Intervals of
        effects hold *all together* with 95 % (Bonferroni over levels and measures); the same draw of people is used at
        both levels, and copies of a person are never impostors. The threshold is held fixed. ``moved``: mean cosine of
        a picture to its own counterpart at the first level.

    Raises ``InputError`` for shapes, NaN, fewer than two levels, people or pictures.
    """
    array = np.asarray(embeddings)
    if array.ndim != 4 or min(array.shape[:3]) < 2 or len(levels) != len(array):
        raise InputError(f"[levels, people, pictures, d] with two or more of each was expected, got "
                         f"{list(array.shape)} for {len(levels)} levels", where="embeddings")
    if not 0 < fmr < 1 or bootstrap < 1:
        raise InputError(f"fmr {fmr}, bootstrap {bootstrap}", where="causal", fix="0 < fmr < 1, bootstrap 1 or more")
    unit = unit_rows(array.reshape(-1, array.shape[-1])).reshape(array.shape)
    threshold = _threshold(unit, fmr)
    draws = multiplicities(array.shape[1], bootstrap, seed)
    values, replicates = zip(*(_level(images, threshold, draws) for images in unit))
    comparisons = (len(levels) - 1) * len(MEASURES)
    effects = []
    for at in range(1, len(levels)):
        row: dict[str, Any] = {"level": float(levels[at]), "against": float(levels[0])}
        for name in MEASURES:
            low, high = _wide(replicates[at][name] - replicates[0][name], comparisons)
            row[name] = {"effect": values[at][name] - values[0][name], "low": low, "high": high,
                         "bias": low is not None and not low <= 0 <= high}
        effects.append(row)
    rows = []
    for at, level in enumerate(levels):
        row = {"level": float(level), "moved": float(np.einsum("pkd,pkd->pk", unit[0], unit[at]).mean())}
        for name in MEASURES:
            row[name] = values[at][name]
            row[f"{name}_low"], row[f"{name}_high"] = interval(replicates[at][name])
        rows.append(row)
    return {"protocol": PROTOCOL, "n_people": array.shape[1], "n_pictures": array.shape[2], "threshold": threshold,
            "fmr_target": fmr, "n_comparisons": comparisons, "bootstrap": bootstrap, "seed": seed, "levels": rows,
            "effects": effects, "bias_found": any(row[name]["bias"] for row in effects for name in MEASURES)}


def _threshold(unit: np.ndarray, fmr: float) -> float:
    """The lowest threshold that accepts at most ``fmr`` of the impostor pairs of all levels."""
    n_people, n_pictures = unit.shape[1:3]
    people = np.repeat(np.arange(n_people), n_pictures)
    first, second = np.triu_indices(len(people), 1)
    other = people[first] != people[second]
    scores = np.sort(np.concatenate([(rows @ rows.T)[first[other], second[other]]
                                     for rows in (level.reshape(len(people), -1) for level in unit)]))
    rejected = scores[len(scores) - 1 - int(len(scores) * fmr)]
    return float(np.nextafter(rejected, np.float32(np.inf)))


def _level(images: np.ndarray, threshold: float, draws: np.ndarray) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Measures of one level, and their replicates ``[r]``."""
    n_people, n_pictures, dim = images.shape
    rows = images.reshape(-1, dim)
    scores = rows @ rows.T
    blocks = scores.reshape(n_people, n_pictures, n_people, n_pictures)
    first, second = np.triu_indices(n_pictures, 1)
    own = blocks[np.arange(n_people), :, np.arange(n_people), :][:, first, second].astype(np.float64)
    total, accepted = blocks.sum(axis=(1, 3), dtype=np.float64), (blocks >= threshold).sum(axis=(1, 3)) * 1.0
    for table in (total, accepted):
        np.fill_diagonal(table, 0)
    genuine = {"genuine_mean": own.mean(axis=1), "fnmr": (own < threshold).mean(axis=1)}
    impostor = {"impostor_mean": total / n_pictures**2, "fmr": accepted / n_pictures**2}
    values = {name: float(value.mean()) for name, value in genuine.items()}
    values |= {name: float(table.sum() / (n_people * (n_people - 1))) for name, table in impostor.items()}
    pairs = n_people**2 - np.square(draws).sum(axis=0)
    replicates = {name: value @ draws / n_people for name, value in genuine.items()}
    with np.errstate(invalid="ignore", divide="ignore"):
        replicates |= {name: np.einsum("pr,pr->r", draws, table @ draws) / pairs for name, table in impostor.items()}
    return values, replicates


def _wide(differences: np.ndarray, comparisons: int) -> tuple[float | None, float | None]:
    finite = differences[np.isfinite(differences)]
    if not len(finite):
        return None, None
    tail = (1 - LEVEL) / 2 / comparisons
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


def table(result: dict[str, Any]) -> str:
    """Levels, then effects with their verdict."""
    name = result.get("attribute", "attribute")
    lines = [f"{result['n_people']} people x {result['n_pictures']} pictures at {len(result['levels'])} levels of "
             f"{name}; threshold {result['threshold']:.4f} (FMR {result['fmr_target']:.2%} over all levels)"]
    for row in result["levels"]:
        lines.append(f"  {name} {row['level']:g}: " + "  ".join(f"{key} {row[key]:.4f}" for key in MEASURES)
                     + f"  own counterpart {row['moved']:.3f}")
    for row in result["effects"]:
        for key in MEASURES:
            found = row[key]
            said = "BIAS" if found["bias"] else "no effect shown"
            lines.append(f"  {name} {row['against']:g} -> {row['level']:g}: {key:<14}{found['effect']:+.4f} "
                         f"[{found['low']:+.4f}, {found['high']:+.4f}]  {said}")
    return "\n".join(lines)
