"""Publishing: finished units become files at once or not at all, and units become a dataset.

    images/<label>/<image>.jpg      or  shards/<unit>.tar        the pictures
    units/<unit>.json                                            rows of a published unit (until the dataset is done)
    plan.json, README.md, manifest.jsonl                         the manifest comes last: where it is, all is done
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negface.datasets import (
    CARD_NAME,
    MANIFEST_NAME,
    PLAN_NAME,
    Manifest,
    pack,
    read_range,
    sample_members,
    write_rows,
    write_shard,
)
from negface.foundation.errors import FormatError, MismatchError, NegFaceError, OutputError
from negface.foundation.files import (
    atomic_folder,
    ensure_folder,
    read_json,
    remove_temporaries,
    write_json,
    write_text,
)

from .finishing import Made
from .plan import Plan, Unit

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Folder:
    """A dataset folder under construction: where its parts lie."""

    root: Path
    plan: Plan

    @property
    def units(self) -> Path:
        """Where published units leave their rows and workers their claims."""
        return self.root / "units"

    def part(self, unit: Unit) -> Path:
        """The file whose presence says that a unit is published."""
        return self.units / f"{unit.number:06d}.json"

    def claim(self, unit: Unit) -> Path:
        """The lock file of a unit."""
        return self.units / f"{unit.number:06d}.lock"

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


def prepare(root: Path, plan: Plan) -> Folder:
    """Make or reopen the folder of a plan.

    Raises:
        MismatchError: the folder holds another plan; names the fields that differ.
        OutputError: the folder holds something else, or cannot be written.
    """
    folder = Folder(Path(root), plan)
    if (folder.root / PLAN_NAME).exists():
        found = Plan.from_dict(read_json(folder.root / PLAN_NAME), where=folder.root / PLAN_NAME)
        differences = found.differences(plan)
        if differences:
            raise MismatchError(f"holds a dataset of another plan; there / asked: {', '.join(differences[:8])}",
                                where=folder.root, fix="choose another --out, or repeat the options of that plan")
    else:
        if folder.root.is_dir() and any(not entry.name.startswith(".") for entry in folder.root.iterdir()):
            raise OutputError("is not empty and holds no plan", where=folder.root, fix="choose an empty or new folder")
        ensure_folder(folder.root)
        write_json(folder.root / PLAN_NAME, {**plan.to_dict(), "hash": plan.hash})
    return folder


def clean(folder: Folder) -> None:
    """Remove what killed writers left; only while no other process works on the folder."""
    for place in (folder.root, folder.units, folder.root / "images", folder.root / "shards"):
        if place.is_dir():
            remove_temporaries(place)


def publish(folder: Folder, unit: Unit, made: Iterable[Made], row: Mapping[str, Any],
            details: Mapping[tuple[int, int], Mapping[str, Any]]) -> None:
    """Write a unit's pictures, then its rows; the rows' file makes it published.

    Args:
        row: what all rows of the plan share. details: what a picture adds to it, by ``(label, image)``.
    """
    made = list(made)
    place = _write_shard if folder.plan.format == "shards" else _write_folders
    places = place(folder, unit, made)
    rows = [{**row, **details[item.label, item.image], "label": item.label, "unit": unit.number, "image": item.image,
             "identity": folder.plan.identities[item.label], "sha256": item.sha256, **where}
            for item, where in zip(made, places, strict=True)]
    write_json(folder.part(unit), rows, indent=None)


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
    written = write_shard(folder.root / folder.shard(unit), _members(folder, made))
    return [{"shard": folder.shard(unit), "file": member.name, "offset": member.offset, "length": member.length}
            for member in written[::2]]


def _members(folder: Folder, made: Iterable[Made]) -> Iterator[tuple[str, bytes]]:
    for item in made:
        name = f"{folder.name(item.label)}/{item.image:05d}"
        yield from sample_members(item.label, name, folder.plan.codec["suffix"], item.data)


def read_part(folder: Folder, unit: Unit) -> Rows | None:
    """The rows of a published unit, or ``None`` if it is not published."""
    return read_json(folder.part(unit)) if folder.part(unit).is_file() else None


def is_sound(folder: Folder, unit: Unit, rows: Rows) -> bool:
    """Whether a unit has its exact counts and nothing but the pictures its rows name, to the byte."""
    try:
        made = [Made(row["label"], row["image"], _read(folder.root, row)) for row in rows]
        as_named = all(item.sha256 == row["sha256"] for item, row in zip(made, rows, strict=True))
        counts = Counter(item.label for item in made)
        if not as_named or counts != dict.fromkeys(unit.labels, folder.plan.images):
            return False
        if folder.plan.format == "shards":
            return _is_packed_so(folder, unit, made)
        return all(len(list((folder.root / folder.identity(label)).iterdir())) == folder.plan.images
                   for label in unit.labels)
    except (KeyError, TypeError, OSError, NegFaceError):
        return False


def _is_packed_so(folder: Folder, unit: Unit, made: list[Made]) -> bool:
    """Whether a shard's headers, labels and end are those its pictures lead to."""
    expected = io.BytesIO()
    pack(expected, _members(folder, made))
    return (folder.root / folder.shard(unit)).read_bytes() == expected.getvalue()


def _read(root: Path, row: Mapping[str, Any]) -> bytes:
    if "shard" in row:
        return read_range(root / row["shard"], row["offset"], row["length"])
    return (root / row["file"]).read_bytes()


def unpublish_broken(folder: Folder) -> set[int]:
    """Check every published unit; take back those whose pictures are missing or changed. Returns the sound ones."""
    sound = set()
    for unit in folder.plan.units():
        try:
            rows = read_part(folder, unit)
        except FormatError:
            rows = []
        if rows is None:
            continue
        if is_sound(folder, unit, rows):
            sound.add(unit.number)
        else:
            folder.part(unit).unlink()
    return sound


def reopen(folder: Folder) -> bool:
    """Check a finished dataset. True if all is well; otherwise its units are taken apart again, to be mended."""
    rows: dict[int, Rows] = {}
    with contextlib.suppress(FormatError, KeyError):
        for row in Manifest(folder.root / MANIFEST_NAME):
            rows.setdefault(row["unit"], []).append(row)
    units = folder.plan.units()
    sound = [unit for unit in units if unit.number in rows and is_sound(folder, unit, rows[unit.number])]
    if len(sound) == len(units) and (folder.root / CARD_NAME).is_file():
        return True
    ensure_folder(folder.units)
    for unit in sound:
        write_json(folder.part(unit), rows[unit.number], indent=None)
    (folder.root / MANIFEST_NAME).unlink()
    return False


def finish(folder: Folder, card: str) -> None:
    """Write the card, then the manifest from all units' rows in order; remove the workings."""
    def rows() -> Iterable[dict[str, Any]]:
        for unit in folder.plan.units():
            part = read_part(folder, unit)
            assert part is not None
            yield from part

    write_text(folder.root / CARD_NAME, card)
    write_rows(folder.root / MANIFEST_NAME, rows())
    remove_workings(folder)


def remove_workings(folder: Folder) -> None:
    """Remove what only an unfinished dataset needs."""
    shutil.rmtree(folder.units, ignore_errors=True)


def discard(folder: Folder) -> None:
    """Remove a folder in which nothing was published, so that a mended command may use its name."""
    if any(folder.part(unit).exists() for unit in folder.plan.units()):
        return
    remove_workings(folder)
    (folder.root / PLAN_NAME).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.root.rmdir()
