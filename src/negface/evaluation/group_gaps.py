"""Worst group, best group and gap of every measure, and the page of them for a person; of sets and of pair benchmarks.

FMR and FNMR differentials after Grother, Ngan, Hanaoka (NISTIR 8280) and ISO/IEC 19795-10.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .bootstrap import interval

LOWER_IS_BETTER = ("eer", "fmr100", "fmr1000", "impostor_mean", "fmr_at_threshold", "fnmr_at_threshold",
                   "leakage_rate")
"""Measures of which less is better; of all others (spreads of a person's own images too) more is."""
_NUMBERS = ("fdr", "dprime", "adherence")
_LEADING = ("accuracy", "eer", "fmr_at_threshold", "fnmr_at_threshold")


def with_interval(key: str, value: float, replicates: np.ndarray) -> dict[str, float | None]:
    """``key`` with ``_low`` and ``_high``; ``None`` where nothing was measured."""
    low, high = interval(replicates)
    return {key: float(value) if math.isfinite(value) else None, f"{key}_low": low, f"{key}_high": high}


def measured(found: dict[str, dict[str, Any]]) -> list[str]:
    """Names of the measures that the groups have: what has an interval beside it."""
    return list(dict.fromkeys(key for group in found.values() for key in group if f"{key}_low" in group))


def gaps(found: dict[str, dict[str, Any]], replicates: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    """Worst and best group of each measure that two groups have, and their gap.

    Args:
        found: group -> its measures, each with ``_low`` and ``_high``.
        replicates: group -> measure -> ``[r]`` from draws that all groups share. Where a measure has none, the ends of
            the gap come from the ends of the two intervals, which is wider than need be.
    """
    out = {}
    for key in measured(found):
        values = {name: group[key] for name, group in found.items() if group.get(key) is not None}
        if len(values) < 2:
            continue
        ranked = sorted(values, key=values.__getitem__, reverse=key not in LOWER_IS_BETTER)
        best, worst = ranked[0], ranked[-1]
        gap = abs(values[worst] - values[best])
        if key in replicates[worst]:
            difference = replicates[worst][key] - replicates[best][key]
            low, high = interval(difference if key in LOWER_IS_BETTER else -difference)
        else:
            low, high = _outer(found[worst], found[best], key)
        out[key] = {"worst": worst, "best": best, "gap": gap, "gap_low": low, "gap_high": high}
    return out


def _outer(worst: dict[str, Any], best: dict[str, Any], key: str) -> tuple[float | None, float | None]:
    ends = [worst[f"{key}_low"], worst[f"{key}_high"], best[f"{key}_low"], best[f"{key}_high"]]
    if any(end is None or not math.isfinite(end) for end in ends):
        return None, None
    return (ends[0] - ends[3], ends[1] - ends[2]) if key in LOWER_IS_BETTER else (ends[2] - ends[1], ends[3] - ends[0])


def table(result: dict[str, Any]) -> str:
    """One line a group with the rates that matter most, then worst, best and gap of every measure."""
    groups = result["groups"]
    keys = [key for key in _LEADING if key in measured(groups)]
    counted = "n_pairs" if any("n_pairs" in group for group in groups.values()) else "n_images"
    lines = [f"{'group':<24}{'people':>8}{counted[2:]:>8}  " + "".join(f"{key:<28}" for key in keys)]
    for name, group in groups.items():
        cells = [_with_ends(key, group[key], group[f"{key}_low"], group[f"{key}_high"]).ljust(28) for key in keys]
        lines.append(f"{name:<24}{group['n_people']:>8}{group[counted]:>8}  {''.join(cells)}".rstrip())
    for key, gap in result["gaps"].items():
        named = f"worst {gap['worst']}, best {gap['best']}, gap " \
                + _with_ends(key, gap["gap"], gap["gap_low"], gap["gap_high"])
        lines.append(f"{key}: {named if gap['gap'] else 'no difference'}{_error(result, key)}")
    return "\n".join([*lines, *_left_out(result)])


def _left_out(result: dict[str, Any]) -> list[str]:
    thin = [key for key in measured(result["groups"]) if key not in result["gaps"]] if len(result["groups"]) > 1 else []
    return [f"not measured: {name}, {count} people (fewer than {result['min_people']}, or no genuine pair)"
            for name, count in result["too_small"].items()] \
        + ([f"no gap, for fewer than two groups have enough pairs or images: {', '.join(thin)}"] if thin else [])


def _with_ends(key: str, value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "not measured"
    number = key in _NUMBERS or key.endswith(("_mean", "_std", "_spread"))
    form = "{:.4g}" if number else "{:.2%}"
    return form.format(value) + ("" if low is None else f" [{form.format(low)}, {form.format(high)}]")


def _error(result: dict[str, Any], key: str) -> str:
    """The error of the instrument that measured it, where it is known: a gap below it is no evidence."""
    told = result.get("instruments", {}).get(key.removesuffix("_spread"))
    return "" if told is None or told["error"] is None else f"  (instrument's error {told['error']:.3g} {told['unit']})"
