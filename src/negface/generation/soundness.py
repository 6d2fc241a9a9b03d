"""Soundness: are the pictures on disk those that the rows name, to the byte? What is not is made again."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from negface.datasets import CARD_NAME, MANIFEST_NAME, pack, read_range, read_rows
from negface.foundation.errors import FormatError, InputError, NegFaceError
from negface.foundation.files import ensure_folder, write_json

from .finishing import Made
from .plan import Plan, Unit
from .publish import CURATION_NAME, REJECTED_NAME, Folder, Rows, members, read_part


def is_sound(folder: Folder, unit: Unit, rows: Rows, rejected: Rows) -> bool:
    """Whether a unit has its exact counts and nothing but the pictures its rows name, to the byte."""
    try:
        made = [Made(row["label"], row["image"], read_picture(folder, row)) for row in rows]
        as_named = all(item.sha256 == row["sha256"] for item, row in zip(made, rows, strict=True))
        counts = Counter(item.label for item in made)
        if not as_named or counts != dict.fromkeys(unit.labels, folder.plan.images):
            return False
        if gaps(rows) != sorted((row["label"], row["image"]) for row in rejected):
            return False
        if folder.plan.format == "shards":
            return is_packed_so(folder, unit, made)
        return all(len(list((folder.root / folder.identity(label)).iterdir())) == folder.plan.images
                   for label in unit.labels)
    except (KeyError, TypeError, OSError, NegFaceError):
        return False


def gaps(rows: Rows) -> list[tuple[int, int]]:
    """The image indices that were made and rejected: those missing below a person's last."""
    kept: dict[int, set[int]] = {}
    for row in rows:
        kept.setdefault(row["label"], set()).add(row["image"])
    return sorted((label, image) for label, images in kept.items() for image in set(range(max(images))) - images)


def is_packed_so(folder: Folder, unit: Unit, made: list[Made]) -> bool:
    """Whether a shard's headers, labels and end are those its pictures lead to."""
    expected = io.BytesIO()
    pack(expected, members(folder, made))
    return (folder.root / folder.shard(unit)).read_bytes() == expected.getvalue()


def read_picture(folder: Folder, row: Mapping[str, Any]) -> bytes:
    """The encoded bytes a row points to; ``OSError`` or ``NegFaceError`` if they are not there."""
    if "shard" in row:
        return read_range(folder.root / row["shard"], row["offset"], row["length"])
    return (folder.root / row["file"]).read_bytes()


def unpublish_broken(folder: Folder) -> set[int]:
    """Check every published unit; take back those whose pictures are missing or changed. Returns the sound ones."""
    sound = set()
    for unit in folder.plan.units():
        try:
            part = read_part(folder, unit)
        except FormatError:
            part = ([], [])
        if part is None:
            continue
        if is_sound(folder, unit, *part):
            sound.add(unit.number)
        else:
            folder.part(unit).unlink()
    return sound


def rows_by_unit(folder: Folder) -> Iterator[tuple[int, Rows]]:
    """A finished dataset's rows, a unit at a time (a manifest may be larger than the memory).

    Raises:
        FormatError, KeyError, TypeError: where a line cannot be read.
    """
    rows = read_rows(folder.root / MANIFEST_NAME)
    return ((number, list(part)) for number, part in itertools.groupby(rows, key=lambda row: row["unit"]))


def rejected_by_unit(folder: Folder) -> dict[int, Rows]:
    """A finished dataset's rejections, as far as they can be read."""
    found: dict[int, Rows] = {}
    if (folder.root / REJECTED_NAME).is_file():
        with contextlib.suppress(InputError, KeyError):
            for row in read_rows(folder.root / REJECTED_NAME):
                found.setdefault(row["unit"], []).append(row)
    return found


def reopen(folder: Folder) -> bool:
    """Check a finished dataset. True if all is well; otherwise its units are taken apart again, to be mended."""
    units = {unit.number: unit for unit in folder.plan.units()}
    rejected, sound = rejected_by_unit(folder), set()
    with contextlib.suppress(InputError, KeyError, TypeError):
        for number, rows in rows_by_unit(folder):
            if number in units and is_sound(folder, units[number], rows, rejected.get(number, [])):
                sound.add(number)
    beside = [CARD_NAME, *side_files(folder.plan)]
    if len(sound) == len(units) and all((folder.root / name).is_file() for name in beside):
        return True
    ensure_folder(folder.units)
    with contextlib.suppress(InputError, KeyError, TypeError):
        for number, rows in rows_by_unit(folder):
            if number in sound:
                write_json(folder.part(units[number]), {"rows": rows, "rejected": rejected.get(number, [])},
                           indent=None)
    (folder.root / MANIFEST_NAME).unlink()
    return False


def side_files(plan: Plan) -> list[str]:
    """Files that a dataset has only where pictures may be rejected."""
    return [REJECTED_NAME, CURATION_NAME] if plan.replaces else []
