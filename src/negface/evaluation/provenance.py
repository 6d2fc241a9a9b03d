"""Who was in a model's training: a recogniser may not be tested on people whom it was trained on.

A declaration's ``trained_on`` may hold the people's names in brackets, runs of numbered names as ``first..last``:
``2000 identities [s7-p000000..s7-p001999], sha256 ...``. ``people_text`` writes that form, the check reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from negface.datasets import natural_key
from negface.foundation.errors import MismatchError
from negface.foundation.hashing import sha256_json

_NUMBERED = re.compile(r"^(.*?)(\d+)$", re.DOTALL)
_BRACKETS = re.compile(r"\[(.*?)\]", re.DOTALL)
_HASHED = re.compile(r"sha256 ([0-9a-f]{64})")


def people_text(names: Iterable[str]) -> str:
    """What to write as ``trained_on``: count, names and hash of the people, e.g. ``3 identities [a, p08..p09], …``.

    Names that hold a comma, ``..`` or brackets cannot be told apart again; then only the hash of the list is written,
    which finds an equal list and no overlap.
    """
    names = sorted(set(names), key=natural_key)
    listed = "" if any(re.search(r"[,\[\]]|\.\.", name) for name in names) else f" [{', '.join(_runs(names))}]"
    return f"{len(names)} identities{listed}, sha256 {sha256_json(sorted(names))}"


def _runs(names: Sequence[str]) -> list[str]:
    runs: list[list[str]] = []
    for name in names:
        if runs and _follows(runs[-1][-1], name):
            runs[-1][1:] = [name]
        else:
            runs.append([name])
    return ["..".join(run) for run in runs]


def _follows(one: str, other: str) -> bool:
    first, second = _NUMBERED.match(one), _NUMBERED.match(other)
    if not first or not second or first[1] != second[1] or int(second[2]) != int(first[2]) + 1:
        return False
    return len(first[2]) == len(second[2]) or not (first[2].startswith("0") or second[2].startswith("0"))


def trained_people(trained_on: str, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that ``trained_on`` lists (by name, or all of them where the hash of the list is the same)."""
    names = sorted(set(names), key=natural_key)
    if any(found == sha256_json(sorted(names)) for found in _HASHED.findall(trained_on)):
        return names
    single, runs = set(), []
    for item in (item.strip() for part in _BRACKETS.findall(trained_on) for item in part.split(",")):
        first, _, last = item.partition("..")
        one, other = _NUMBERED.match(first), _NUMBERED.match(last)
        if one and other:
            runs.append((one[1], int(one[2]), int(other[2]), {len(one[2]), len(other[2])}))
        single.add(item)
    return [name for name in names if name in single or any(_inside(name, run) for run in runs)]


def _inside(name: str, run: tuple[str, int, int, set[int]]) -> bool:
    prefix, low, high, widths = run
    found = _NUMBERED.match(name)
    return bool(found and found[1] == prefix and low <= int(found[2]) <= high
                and min(widths) <= len(found[2]) <= max(widths))


def check_unseen(declaration: Any, people: Iterable[str], *, benchmark: str = "benchmark",
                 force: bool = False) -> dict[str, Any]:
    """Refuse a model that was trained on people of a benchmark.

    Args:
        declaration: a ``Declaration``, or a mapping with ``name`` and ``trained_on``.
        people: names of the benchmark's people; empty = not known.

    Returns:
        ``trained_on_test_people``: how many (0 if none), ``None`` where the benchmark or the declaration names nobody.

    Raises ``MismatchError`` with their number and first names unless ``force``.
    """
    get = declaration.get if isinstance(declaration, Mapping) else lambda key: getattr(declaration, key, None)
    text, people = str(get("trained_on") or ""), sorted(set(people), key=natural_key)
    if not people or not (_BRACKETS.search(text) or _HASHED.search(text)):
        return {"trained_on_test_people": None}
    seen = trained_people(text, people)
    if seen and not force:
        more = f" and {len(seen) - 3} more" if len(seen) > 3 else ""
        raise MismatchError(
            f"{get('name')} was trained on {len(seen)} of the {len(people)} people of {benchmark}: "
            f"{', '.join(seen[:3])}{more}", where="provenance",
            fix="test on other people; if these only share the names, force it and the table says so")
    if not seen and not _BRACKETS.search(text):
        return {"trained_on_test_people": None}
    return {"trained_on_test_people": len(seen)}
