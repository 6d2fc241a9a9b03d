"""``verify``: a dataset against its manifest: what is missing, changed or extra. Nothing is mended."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from negface.datasets import CARD_NAME, MANIFEST_NAME, PLAN_NAME
from negface.foundation.errors import FormatError, InputError, NegFaceError
from negface.foundation.files import existing_folder, read_json
from negface.foundation.hashing import sha256_bytes
from negface.foundation.progress import track

from .card import dataset_card
from .finishing import Made
from .plan import Plan, Unit
from .publish import CURATION_NAME, Folder, Rows, curation_counts, curation_record, read_plan
from .rows import shared_row
from .soundness import gaps, is_packed_so, read_picture, rejected_by_unit, rows_by_unit, side_files

FAULTS = ("missing", "changed", "extra", "wrong")


def verify(root: str | os.PathLike) -> dict[str, Any]:
    """Check every file of a generated dataset.

    Returns:
        ``sound``, ``images`` looked at, and lists of what is ``missing`` (files), ``changed`` (files whose bytes are
        not those of their row), ``extra`` (files nobody names) and ``wrong`` (counts, rows or records that do not fit
        the plan).

    Raises:
        InputError: no generated dataset, or one that is not finished. FormatError: its plan cannot be read.
    """
    root = existing_folder(root, "dataset")
    if not (root / PLAN_NAME).is_file():
        raise InputError("holds no plan.json: not a dataset that `negface generate` made", where=root)
    plan = read_plan(root)
    folder, found = Folder(root, plan), {fault: [] for fault in FAULTS}
    if not folder.finished:
        raise InputError("is not finished: it has a plan and no manifest", where=root,
                         fix="run the same `negface generate` command again; it resumes")
    if read_json(root / PLAN_NAME).get("hash") != plan.hash:
        found["wrong"].append(f"{PLAN_NAME}: the plan is not the one its hash names")
    rejected, seen = rejected_by_unit(folder), _Seen()
    units = {unit.number: unit for unit in plan.units()}
    try:
        for number, rows in track(rows_by_unit(folder), "verifying", total=len(units), unit="units"):
            _check_rows(plan, rows, seen, found)
            if number in units:
                _check_unit(folder, units.pop(number), rows, rejected.get(number, []), found)
    except (FormatError, KeyError, TypeError) as error:
        found["wrong"].append(f"{MANIFEST_NAME}: {error}")
    found["wrong"] += [f"{MANIFEST_NAME}: no rows of unit {number}" for number in units]
    _check_files(folder, seen.files, rejected, found)
    return {"dataset": str(root), "plan": plan.hash, "sound": not any(found.values()), "images": seen.count, **found}


@dataclass
class _Seen:
    """What the rows so far said."""

    count: int = 0
    last: tuple[int, int] = (-1, -1)
    files: set[str] = field(default_factory=set)


def _check_rows(plan: Plan, rows: Rows, seen: _Seen, found: dict[str, list[str]]) -> None:
    """Rows must be of this plan, and in order."""
    shared = shared_row(plan)
    for row in rows:
        seen.count += 1
        place = row["label"], row["image"]
        if {key: row.get(key) for key in shared} != shared or not place > seen.last:
            found["wrong"].append(f"{MANIFEST_NAME}: line {seen.count} is not of this plan, or out of order")
        seen.last = place
        seen.files.add(str(row.get("shard") or row.get("file")))


def _check_unit(folder: Folder, unit: Unit, rows: Rows, rejected: Rows, found: dict[str, list[str]]) -> None:
    plan = folder.plan
    counts = Counter(row.get("label") for row in rows)
    found["wrong"] += [f"identity {plan.identities[label]!r}: {counts[label]} rows, {plan.images} are planned"
                       for label in unit.labels if counts[label] != plan.images]
    if gaps(rows) != sorted((row.get("label"), row.get("image")) for row in rejected):
        found["wrong"].append(f"unit {unit.number}: rejections do not fit the image numbers")
    made = []
    for row in rows:
        name = row.get("shard") or row.get("file")
        try:
            data = read_picture(folder, row)
        except (OSError, KeyError, TypeError, NegFaceError):
            there = isinstance(name, str) and (folder.root / name).is_file()
            _add(found["changed" if there else "missing"], str(name))
            continue
        if sha256_bytes(data) != row.get("sha256"):
            _add(found["changed"], str(row.get("file")))
        made.append(Made(row["label"], row["image"], data))
    if plan.format == "shards" and made and len(made) == len(rows) and not is_packed_so(folder, unit, made):
        _add(found["changed"], folder.shard(unit))


def _add(names: list[str], name: str) -> None:
    if name not in names[-1:]:
        names.append(name)


def _check_files(folder: Folder, files: set[str], rejected: dict[int, Rows], found: dict[str, list[str]]) -> None:
    """Files beside the pictures, and files that nobody names (hidden ones apart)."""
    plan, root = folder.plan, folder.root
    table = curation_counts(plan, [row for part in rejected.values() for row in part])
    if not (root / CARD_NAME).is_file():
        found["missing"].append(CARD_NAME)
    elif (root / CARD_NAME).read_text() != dataset_card(plan, table):
        found["changed"].append(CARD_NAME)
    for name in side_files(plan):
        if not (root / name).is_file():
            found["missing"].append(name)
    if plan.replaces and (root / CURATION_NAME).is_file() and not _is_record(folder, plan, table):
        found["changed"].append(CURATION_NAME)
    named = {PLAN_NAME, MANIFEST_NAME, CARD_NAME, *side_files(plan), *files}
    found["extra"] += sorted(name for path in root.rglob("*") if path.is_file()
                             and (name := path.relative_to(root).as_posix()) not in named and not _hidden(name))


def _is_record(folder: Folder, plan: Plan, table: Rows) -> bool:
    try:
        return read_json(folder.root / CURATION_NAME) == curation_record(plan, table)
    except FormatError:
        return False


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)
