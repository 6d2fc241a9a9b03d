"""Publishing: finished units become files at once or not at all, and units become a dataset.

    images/<label>/<image>.jpg      or  shards/<unit>.tar        the pictures
    units/<unit>.json                                            rows of a published unit (until the dataset is done)
    rejected.jsonl, curation.json                                what filters or the detector rejected, and the counts
    plan.json, README.md, manifest.jsonl                         the manifest comes last: where it is, all is done
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negface.curation.screening import count_rejections, counts
from negface.datasets import CARD_NAME, MANIFEST_NAME, PLAN_NAME, sample_members, write_rows, write_shard
from negface.foundation.errors import FormatError, MismatchError, OutputError
from negface.foundation.files import (
    atomic_folder,
    ensure_folder,
    read_json,
    remove_temporaries,
    write_json,
    write_text,
)

from .card import dataset_card
from .finishing import Made
from .plan import Plan, Unit
from .units import Harvest

Rows = list[dict[str, Any]]
REJECTED_NAME, CURATION_NAME = "rejected.jsonl", "curation.json"


@dataclass(frozen=True)
class Folder:
    """A dataset folder under construction: where its parts lie."""

    root: Path
    plan: Plan

    @property
    def units(self) -> Path:
        """Where published units leave their rows and workers their claims."""
        return self.root / "units"

    @property
    def run_lock(self) -> Path:
        """Held by all who make pictures here together, or by one who checks what is there alone."""
        return self.root / ".run.lock"

    def part(self, unit: Unit) -> Path:
        """The file whose presence says that a unit is published."""
        return self.units / f"{unit.number:06d}.json"

    def claim(self, unit: Unit) -> Path:
        """The lock file of a unit."""
        return self.units / f"{unit.number:06d}.lock"

    def published(self, unit: Unit) -> bool:
        """Whether a unit is published; in a finished dataset all are."""
        return self.part(unit).exists() or self.finished

    def identity(self, label: int) -> str:
        """An identity's folder, relative to the root; padded, so that any sorting gives label order."""
        return f"images/{self.name(label)}"

    def shard(self, unit: Unit) -> str:
        """A unit's tar, relative to the root."""
        return f"shards/{unit.number:06d}.tar"

    @staticmethod
    def name(label: int) -> str:
        """A label as a folder name."""
        return f"{label:06d}"

    @property
    def finished(self) -> bool:
        """Whether the manifest is there."""
        return (self.root / MANIFEST_NAME).is_file()


def read_plan(root: Path) -> Plan:
    """The plan of a dataset folder."""
    return Plan.from_dict(read_json(root / PLAN_NAME), where=root / PLAN_NAME)


def prepare(root: Path, plan: Plan) -> Folder:
    """Make or reopen the folder of a plan.

    Raises:
        MismatchError: the folder holds another plan; names the fields that differ.
        OutputError: the folder holds something else, or cannot be written.
    """
    folder = Folder(Path(root), plan)
    if not (folder.root / PLAN_NAME).exists():
        # The plan is looked for again: another worker on the same folder may just have written it.
        if folder.root.is_dir() and any(not entry.name.startswith(".") for entry in folder.root.iterdir()) \
                and not (folder.root / PLAN_NAME).exists():
            raise OutputError("is not empty and holds no plan", where=folder.root, fix="choose an empty or new folder")
        ensure_folder(folder.root)
        if not (folder.root / PLAN_NAME).exists():
            write_json(folder.root / PLAN_NAME, {**plan.to_dict(), "hash": plan.hash})
    differences = read_plan(folder.root).differences(plan)
    if differences:
        raise MismatchError(f"holds a dataset of another plan; there / asked: {', '.join(differences[:8])}",
                            where=folder.root, fix="choose another --out, or repeat the options of that plan")
    return folder


def clean(folder: Folder) -> None:
    """Remove what killed writers left; only while no other process works on the folder."""
    for place in (folder.root, folder.units, folder.root / "images", folder.root / "shards"):
        if place.is_dir():
            remove_temporaries(place)


def publish(folder: Folder, unit: Unit, harvest: Harvest, row: Mapping[str, Any],
            details: Mapping[tuple[int, int], Mapping[str, Any]]) -> None:
    """Write a unit's pictures, then its rows; the rows' file makes it published.

    Args:
        row: what all rows of the plan share. details: what a picture adds to it, by ``(label, image)``.
    """
    place = _write_shard if folder.plan.format == "shards" else _write_folders
    places = place(folder, unit, harvest.made)
    rows = [{**row, **details[item.label, item.image], "label": item.label, "unit": unit.number, "image": item.image,
             "identity": folder.plan.identities[item.label], "sha256": item.sha256, **where}
            for item, where in zip(harvest.made, places, strict=True)]
    write_json(folder.part(unit), {"rows": rows, "rejected": harvest.rejected}, indent=None)


def _file_name(folder: Folder, item: Made) -> str:
    return f"{item.image:05d}{folder.plan.codec['suffix']}"


def _write_folders(folder: Folder, unit: Unit, made: list[Made]) -> list[dict[str, Any]]:
    for label in unit.labels:
        with atomic_folder(folder.root / folder.identity(label)) as temporary:
            for item in made:
                if item.label == label:
                    (temporary / _file_name(folder, item)).write_bytes(item.data)
    return [{"file": f"{folder.identity(item.label)}/{_file_name(folder, item)}"} for item in made]


def _write_shard(folder: Folder, unit: Unit, made: list[Made]) -> list[dict[str, Any]]:
    written = write_shard(folder.root / folder.shard(unit), members(folder, made))
    return [{"shard": folder.shard(unit), "file": member.name, "offset": member.offset, "length": member.length}
            for member in written[::2]]


def members(folder: Folder, made: Iterable[Made]) -> Iterator[tuple[str, bytes]]:
    """The tar members of a unit's pictures."""
    for item in made:
        name = f"{folder.name(item.label)}/{item.image:05d}"
        yield from sample_members(item.label, name, folder.plan.codec["suffix"], item.data)


def read_part(folder: Folder, unit: Unit) -> tuple[Rows, Rows] | None:
    """Rows and rejections of a published unit, or ``None`` if it is not published; ``FormatError`` if damaged."""
    if not folder.part(unit).is_file():
        return None
    part = read_json(folder.part(unit))
    if not isinstance(part, dict) or not all(isinstance(part.get(key), list) for key in ("rows", "rejected")):
        raise FormatError("is not the record of a unit", where=folder.part(unit))
    return part["rows"], part["rejected"]


def curation_counts(plan: Plan, rejected: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each step that may reject, how many pictures it saw and rejected."""
    return counts(plan.rejecting_steps, count_rejections(rejected), plan.total_images)


def finish(folder: Folder) -> None:
    """Write rejections, counts and card, then the manifest from all units' rows in order; remove the workings."""
    plan, lost = folder.plan, list(rejections(folder))
    table = curation_counts(plan, lost)
    if plan.replaces:
        write_rows(folder.root / REJECTED_NAME, lost)
        write_json(folder.root / CURATION_NAME, curation_record(plan, table))
    write_text(folder.root / CARD_NAME, dataset_card(plan, table))
    write_rows(folder.root / MANIFEST_NAME, (row for unit in plan.units() for row in _part(folder, unit)[0]))
    remove_workings(folder)


def curation_record(plan: Plan, table: Rows) -> dict[str, Any]:
    """What ``curation.json`` holds: filters as declared, counts by step, the bound."""
    return {"plan": plan.hash, "filters": list(plan.filters), "align": plan.align, "counts": table,
            "images": plan.total_images, "tries": plan.tries}


def rejections(folder: Folder) -> Iterator[dict[str, Any]]:
    """What published units rejected, in order."""
    return (row for unit in folder.plan.units() if folder.part(unit).is_file() for row in _part(folder, unit)[1])


def _part(folder: Folder, unit: Unit) -> tuple[Rows, Rows]:
    part = read_part(folder, unit)
    assert part is not None
    return part


def remove_workings(folder: Folder) -> None:
    """Remove what only an unfinished dataset needs."""
    shutil.rmtree(folder.units, ignore_errors=True)
    for path in folder.root.glob("status*.json"):
        path.unlink(missing_ok=True)


def discard(folder: Folder) -> None:
    """Remove a folder in which nothing was published, so that a mended command may use its name."""
    if any(folder.part(unit).exists() for unit in folder.plan.units()):
        return
    remove_workings(folder)
    for path in (folder.root / PLAN_NAME, folder.run_lock):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.root.rmdir()
