"""Who belongs to which group: from a population's truth (``labels.jsonl``), or from a CSV that the user wrote.

Groups of procedural people: ``sex`` (feminine, masculine), ``skin_tone`` (Monk 1-3, 4-7, 8-10), ``age_band``. Groups of
anyone else are never guessed from pictures.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from negface.datasets import read_rows
from negface.foundation.errors import FormatError, InputError, MismatchError, UnknownNameError
from negface.foundation.files import existing_file
from negface.perception import Embeddings

TONES = ((3, "Monk 1-3"), (7, "Monk 4-7"), (10, "Monk 8-10"))
AGES = ((30, "under 30"), (60, "30 to 59"), (200, "60 and over"))


def read_groups(path: str | os.PathLike) -> dict[str, dict[str, str]]:
    """Attribute -> {identity or image name -> group}.

    A ``.jsonl`` is a population's truth; a CSV has a column ``identity`` or ``image`` and one column an attribute
    (empty cells: of no group). ``FormatError`` names what is missing.
    """
    path = existing_file(Path(path), "file of groups")
    return _of_truth(path) if path.suffix == ".jsonl" else _of_table(path)


def _of_truth(path: Path) -> dict[str, dict[str, str]]:
    out: dict[str, dict[str, str]] = {"sex": {}, "skin_tone": {}, "age_band": {}}
    for number, row in enumerate(read_rows(path), 1):
        try:
            name, tone, age = str(row["image"]), int(row["monk_tone"]), float(row["nuisances"]["age"])
            out["sex"][name] = "feminine" if "feminine" in row["attributes"] else "masculine"
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"line {number} lacks a usable {error}", where=path,
                              fix="expected the labels.jsonl of a population") from error
        out["skin_tone"][name] = next(text for last, text in TONES if tone <= last)
        out["age_band"][name] = next(text for end, text in AGES if age < end)
    return out


def _of_table(path: Path) -> dict[str, dict[str, str]]:
    with open(path, newline="", encoding="utf-8-sig") as handle:
        try:
            reader = csv.DictReader(handle, strict=True)
            rows, columns = list(reader), list(reader.fieldnames or ())
        except (csv.Error, UnicodeDecodeError) as error:
            raise FormatError(f"not a CSV file ({error})", where=path) from error
    key = next((column for column in ("image", "identity") if column in columns), None)
    attributes = [column for column in columns if column not in ("image", "identity")]
    if key is None or not attributes or not rows:
        raise FormatError(f"columns are {', '.join(columns) or 'none'}, {len(rows)} rows", where=path,
                          fix="give a column 'identity' or 'image', one column an attribute, and rows")
    return {attribute: {row[key]: (row[attribute] or "").strip() for row in rows} for attribute in attributes}


def groups_of(embeddings: Embeddings, group_of: Mapping[str, str], attribute: str) -> list[str]:
    """The group of each image, found by its name or by its identity; ``MismatchError`` if nobody is found."""
    people: Any = embeddings.identities
    if not people and not embeddings.images:
        raise InputError("the embeddings name neither images nor identities", where="groups",
                         fix="make them with `negface embed`")
    images = embeddings.images or [""] * len(embeddings)
    names = [people[label] if people else "" for label in embeddings.labels.tolist()]
    out = [group_of.get(image, group_of.get(name, "")) for image, name in zip(images, names)]
    if not any(out):
        raise MismatchError(f"none of {len(out)} images is in the table of {attribute}", where="groups",
                            fix="names must be those of the embeddings' images or identities")
    return out


def chosen(tables: Mapping[str, Mapping[str, str]], names: list[str]) -> list[str]:
    """The attributes asked for (all if none); ``UnknownNameError`` with a suggestion."""
    for name in names:
        if name not in tables:
            raise UnknownNameError("attribute", name, tables)
    return names or list(tables)
