"""Who was in a model's training: a recogniser may not be tested on people, or pairs, that it was made with.

A declaration's ``trained_on`` may hold the people's names in brackets, runs of numbered names as ``first..last``:
``2000 identities [s7-p000000..s7-p001999], sha256 ...``. ``people_text`` writes that form, the check reads it. Its
``developed_on`` says the same of the pairs that its weights were chosen by, and the hash of their contents.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from negface.datasets import natural_key
from negface.foundation.errors import MismatchError
from negface.foundation.hashing import sha256_json
from negface.perception import Embeddings

_NUMBERED = re.compile(r"^(.*?)(\d+)$", re.DOTALL)
_BRACKETS = re.compile(r"\[(.*?)\]", re.DOTALL)
_HASHED = re.compile(r"sha256 ([0-9a-f]{64})")
_SPECIAL = re.compile(r"[\[\],;]")
_CONTENT = re.compile(r"content ([0-9a-f]{64})")


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
    text, people = _said(declaration, "trained_on"), sorted(set(people), key=natural_key)
    if not people or not (_BRACKETS.search(text) or _HASHED.search(text)):
        return {"trained_on_test_people": None}
    seen = trained_people(text, people)
    if seen and not force:
        more = f" and {len(seen) - 3} more" if len(seen) > 3 else ""
        raise MismatchError(
            f"{_said(declaration, 'name')} was trained on {len(seen)} of the {len(people)} people of {benchmark}: "
            f"{', '.join(seen[:3])}{more}", where="provenance",
            fix="test on other people; if these only share the names, force it and the table says so")
    if not seen and not _BRACKETS.search(text):
        return {"trained_on_test_people": None}
    return {"trained_on_test_people": len(seen)}


def check_embedded(judged: Embeddings, *, force: bool = False) -> dict[str, Any]:
    """``check_unseen`` of the recogniser that made a file of embeddings, against the people in it.

    ``trained_on_test_people`` is ``None`` where the file holds no declaration or no names.
    """
    names = np.asarray(judged.identities, dtype=object)[np.unique(judged.labels)] if judged.identities else ()
    return check_unseen(judged.provenance.get("declaration") or {}, names, benchmark="the embeddings", force=force)


def warning(known: dict[str, Any]) -> list[str]:
    """The line below a table that ``check_embedded`` let pass although it should not have; none otherwise."""
    count = known["trained_on_test_people"]
    return [f"  WARNING: the recogniser was trained on {count} of these people"] if count else []


def development_text(pairs: Iterable[tuple[str, str, Collection[str]]]) -> str:
    """What to write as ``developed_on``, of (name, ``Benchmark.sha256``, people where they are known) of each set."""
    return "; ".join(f"{_SPECIAL.sub('_', name)}: content {content}, {people_text(people) if people else 'no names'}"
                     for name, content, people in pairs)


def check_undeveloped(declaration: Any, content: str, people: Iterable[str], *, benchmark: str = "benchmark",
                      force: bool = False) -> dict[str, Any]:
    """Refuse a model whose weights were chosen by the benchmark: by the same pairs, or by pairs of the same people.

    Args:
        declaration: a ``Declaration``, or a mapping with ``name`` and ``developed_on``.
        content: ``Benchmark.sha256``. people: names of its people; empty = not known.

    Returns:
        ``developed_on_benchmark``: whether it was, ``None`` where the declaration names no pairs.

    Raises ``MismatchError`` unless ``force``.
    """
    text = _said(declaration, "developed_on")
    if not text:
        return {"developed_on_benchmark": None}
    people = sorted(set(people), key=natural_key)
    shared = trained_people(text, people) if people else []
    same = content in _CONTENT.findall(text)
    if (same or shared) and not force:
        by = "by these pairs" if same else f"by pairs of {len(shared)} of its {len(people)} people, {shared[0]} first"
        raise MismatchError(f"the weights of {_said(declaration, 'name')} were chosen {by}", where=benchmark,
                            fix="test on other pairs, or force it and the table says so")
    return {"developed_on_benchmark": bool(same or shared)}


def _said(declaration: Any, key: str) -> str:
    value = declaration.get(key) if isinstance(declaration, Mapping) else getattr(declaration, key, None)
    return str(value or "")
