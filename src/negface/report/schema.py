"""Results at the door: checked once, with the place of every fault; inside the room nothing is checked again.

The shape is written out in ``docs/report-schema.md``.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

from negface.foundation.errors import FormatError

RATES = ("eer", "fmr100", "fmr1000", "leakage_rate", "student_accuracy", "student_eer")
TOP_KEYS = ("title", "command", "created", "versions", "warnings", "provenance", "lead", "cells")
LEAD_KEYS, PLOT_KEYS, TABLE_KEYS = ("sentence", "says", "tiles", "plots", "tables"), ("x", "y", "labels"), (
    "title", "say", "columns", "rows")
TILE_KEYS = ("heading", "value", "note")
CELL_KEYS = ("strategy", "weight", "seed", "contexts", "metrics", "histogram", "det", "images", "closest_pairs",
             "leakage_pairs", "rejections")
FATES, STEP_KEYS = ("replaced", "left out"), ("step", "declared", "seen", "rejected")
PAIR_KEYS = ("a", "b", "cosine", "a_identity", "b_identity")


def _fail(what: str, where: str, fix: str = "see docs/report-schema.md") -> FormatError:
    return FormatError(what, where=f"results: {where}", fix=fix)


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _fail(f"must be an object, is {type(value).__name__}", where)
    return value


def _known(value: dict[str, Any], keys: Iterable[str], where: str) -> None:
    for key in value:
        if key not in keys:
            close = difflib.get_close_matches(key, list(keys), n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise _fail(f"unknown key {key!r}", where, f"{hint}what is your own belongs in 'provenance' or 'metrics'")


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _fail("must be a non-empty string", where)
    return value


def _number(value: Any, where: str, low: float = -math.inf, high: float = math.inf) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _fail("must be a finite number, or null where it was not measured", where)
    if not low <= value <= high:
        raise _fail(f"{value} is outside [{low:g}, {high:g}]", where,
                    "rates are fractions, not per cent" if (low, high) == (0, 1) else "see docs/report-schema.md")
    return value


def _point(value: Any, where: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A number of a curve, where nothing may be missing."""
    if value is None:
        raise _fail("must be a finite number", where)
    return _number(value, where, low, high)


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise _fail(f"must be a list, is {type(value).__name__}", where)
    return value


def _each(value: Any, where: str, check: Callable[[Any, str], Any]) -> list[Any]:
    return [check(item, f"{where}[{index}]") for index, item in enumerate(_list(value, where))]


def _path(value: Any, where: str) -> str:
    if PurePosixPath(_string(value, where)).is_absolute():
        raise _fail(f"the path {value!r} is absolute", where, "write it relative to the results file, so both can move")
    return value


def _metrics(value: Any, where: str) -> dict[str, float | None]:
    metrics = {key: _number(item, f"{where}.{key}", *((0, 1) if key in RATES else ()))
               for key, item in _mapping(value, where).items()}
    for key, middle in metrics.items():
        low, high = metrics.get(f"{key}_low"), metrics.get(f"{key}_high")
        if None not in (low, high) and low > high:
            raise _fail(f"the interval [{low}, {high}] is upside down", f"{where}.{key}")
        if middle is None and low is not None:
            raise _fail("has an interval but no value", f"{where}.{key}")
    return metrics


def _histogram(value: Any, where: str) -> dict[str, list[float]]:
    _known(_mapping(value, where), ("edges", "genuine", "impostor"), where)
    edges = _each(value.get("edges"), f"{where}.edges", _point)
    if len(edges) < 2 or any(b <= a for a, b in pairwise(edges)):
        raise _fail("must be two or more rising numbers", f"{where}.edges")
    counts = {}
    for key in ("genuine", "impostor"):
        counts[key] = _each(value.get(key), f"{where}.{key}", lambda item, at: _point(item, at, 0))
        if len(counts[key]) != len(edges) - 1:
            raise _fail(f"has {len(counts[key])} counts for {len(edges) - 1} bins", f"{where}.{key}")
    return {"edges": edges, **counts}


def _det(value: Any, where: str) -> dict[str, list[float]]:
    _known(_mapping(value, where), ("fmr", "fnmr", "threshold"), where)
    curve = {key: _each(value.get(key), f"{where}.{key}", lambda item, at: _point(item, at, 0, 1))
             for key in ("fmr", "fnmr")}
    if len(curve["fmr"]) != len(curve["fnmr"]):
        raise _fail(f"fmr has {len(curve['fmr'])} points, fnmr {len(curve['fnmr'])}", where)
    return curve


def _pair(value: Any, where: str) -> dict[str, Any]:
    _known(_mapping(value, where), PAIR_KEYS, where)
    return {"a": _path(value.get("a"), f"{where}.a"), "b": _path(value.get("b"), f"{where}.b"),
            "cosine": _number(value.get("cosine"), f"{where}.cosine", -1.001, 1.001),
            "a_identity": str(value.get("a_identity", "")), "b_identity": str(value.get("b_identity", ""))}


def _step(value: Any, where: str) -> dict[str, Any]:
    _known(_mapping(value, where), STEP_KEYS, where)
    seen, rejected = (_number(value.get(key), f"{where}.{key}", 0) or 0 for key in ("seen", "rejected"))
    if rejected > seen:
        raise _fail(f"rejected {rejected:g} of {seen:g} pictures", where)
    return {"step": _string(value.get("step"), f"{where}.step"), "declared": str(value.get("declared") or ""),
            "seen": seen, "rejected": rejected}


def _rejections(value: Any, where: str) -> dict[str, Any]:
    _known(_mapping(value, where), ("fate", "steps"), where)
    if value.get("fate") not in FATES:
        raise _fail(f"must be one of {', '.join(map(repr, FATES))}, not {value.get('fate')!r}", f"{where}.fate")
    steps = _each(value.get("steps"), f"{where}.steps", _step)
    if not steps:
        raise _fail("is empty: leave 'rejections' out where nothing could be rejected", f"{where}.steps")
    return {"fate": value["fate"], "steps": steps}


def _cell(value: Any, where: str) -> dict[str, Any]:
    _known(_mapping(value, where), CELL_KEYS, where)
    cell = {
        "strategy": _string(value.get("strategy"), f"{where}.strategy"),
        "weight": _number(value.get("weight", 0.0), f"{where}.weight") or 0.0,
        "seed": value.get("seed", 0),
        "contexts": _string(value.get("contexts", "contexts"), f"{where}.contexts"),
        "metrics": _metrics(value.get("metrics"), f"{where}.metrics"),
        "histogram": None, "det": None,
        "images": _each(value.get("images") or [], f"{where}.images", lambda row, at: _each(row, at, _path)),
        "closest_pairs": _each(value.get("closest_pairs") or [], f"{where}.closest_pairs", _pair),
        "leakage_pairs": _each(value.get("leakage_pairs") or [], f"{where}.leakage_pairs", _pair), "rejections": None,
    }
    if value.get("rejections") is not None:
        cell["rejections"] = _rejections(value["rejections"], f"{where}.rejections")
    if value.get("histogram") is not None:
        cell["histogram"] = _histogram(value["histogram"], f"{where}.histogram")
    if value.get("det") is not None:
        cell["det"] = _det(value["det"], f"{where}.det")
    return cell


def _plot(value: Any, where: str) -> dict[str, Any]:
    _known(_mapping(value, where), PLOT_KEYS, where)
    labels = _each(value.get("labels"), f"{where}.labels", _string)
    if len(labels) != 2:
        raise _fail(f"has {len(labels)} names for two axes", f"{where}.labels")
    return {"x": _string(value.get("x"), f"{where}.x"), "y": _string(value.get("y"), f"{where}.y"),
            "labels": tuple(labels)}


def _lead_table(value: Any, where: str) -> dict[str, Any]:
    _known(_mapping(value, where), TABLE_KEYS, where)
    columns = _each(value.get("columns"), f"{where}.columns", _string)
    rows = _each(value.get("rows"), f"{where}.rows", lambda row, at: _each(row, at, _string))
    if any(len(row) != len(columns) for row in rows):
        raise _fail(f"has rows that do not fill its {len(columns)} columns", where)
    return {"title": _string(value.get("title"), f"{where}.title"), "say": str(value.get("say") or ""),
            "columns": columns, "rows": rows}


def _tile(value: Any, where: str) -> dict[str, str]:
    _known(_mapping(value, where), TILE_KEYS, where)
    return {"heading": _string(value.get("heading"), f"{where}.heading"),
            "value": _string(value.get("value"), f"{where}.value"), "note": str(value.get("note") or "")}


def _lead(value: Any, where: str) -> dict[str, Any]:
    _known(_mapping(value, where), LEAD_KEYS, where)
    return {"sentence": _string(value.get("sentence"), f"{where}.sentence"),
            "says": _each(value.get("says") or [], f"{where}.says", _string),
            "tiles": _each(value.get("tiles") or [], f"{where}.tiles", _tile),
            "plots": _each(value.get("plots") or [], f"{where}.plots", _plot),
            "tables": _each(value.get("tables") or [], f"{where}.tables", _lead_table)}


def validate(results: Any) -> dict[str, Any]:
    """Check results against ``docs/report-schema.md``; returns them with every optional key filled in.

    Errors: ``FormatError`` naming the place (``cells[3].metrics.eer``), what is wrong and what to do.
    """
    _known(_mapping(results, "the file"), TOP_KEYS, "the file")
    cells = _each(results.get("cells"), "cells", _cell)
    if not cells:
        raise _fail("is empty: there is nothing to report", "cells")
    seen: dict[tuple, int] = {}
    for index, cell in enumerate(cells):
        key = (cell["contexts"], cell["strategy"], cell["weight"], str(cell["seed"]))
        if key in seen:
            raise _fail(f"is the same cell as cells[{seen[key]}]: {key}", f"cells[{index}]", "give each its own seed")
        seen[key] = index
    return {
        "title": _string(results.get("title"), "title"),
        "command": str(results.get("command") or ""),
        "created": str(results.get("created") or ""),
        "versions": _mapping(results.get("versions") or {}, "versions"),
        "warnings": _each(results.get("warnings") or [], "warnings", _string),
        "provenance": _mapping(results.get("provenance") or {}, "provenance"),
        "lead": _lead(results["lead"], "lead") if results.get("lead") is not None else None,
        "cells": cells,
    }
