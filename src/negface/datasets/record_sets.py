"""RecordIO training sets: which records are pictures, of whom, and what they are called.

Two forms are in use. insightface: record 0 holds (last picture key + 1, last key + 1), pictures have keys from 1, and
records of identities follow. im2rec: no record 0, every record is a picture. Names stand in our sidecar
``<stem>.jsonl`` (one row a picture) or in a ``.lst`` beside the records; a set without either has numbers for names.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from negface.foundation.errors import FormatError, InputError, MismatchError
from negface.foundation.files import existing_file

from .manifest import Manifest
from .recordio import HEADER_SIZE, LARGEST_PART, MAGIC, WHOLE, read_payload, read_record, scan_records, unpack_record

DEFAULT_STEM = "train"


@dataclass(frozen=True)
class RecordSet:
    """The pictures of a ``.rec`` file.

    ``keys``, ``offsets`` int64 ``[n]`` (of the record in the file); ``labels`` int64 ``[n]``, 0 to number of
    identities - 1, in numeric order of the classes; ``identities`` their names; ``rows`` one mapping a picture.
    """

    path: Path
    keys: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    identities: tuple[str, ...]
    rows: Sequence[dict[str, Any]]


def find_record_file(folder: str | os.PathLike) -> Path | None:
    """``train.rec`` of a folder, else its only ``.rec``; ``None`` if there is none, ``InputError`` if several."""
    found = sorted(Path(folder).glob("*.rec"))
    named = [path for path in found if path.stem == DEFAULT_STEM]
    if len(found) > 1 and not named:
        raise InputError(f"holds {len(found)} record files and none is {DEFAULT_STEM}.rec", where=folder,
                         fix="name the .rec file")
    return (named or found or [None])[0]


def read_record_set(path: str | os.PathLike) -> RecordSet:
    """Open ``NAME.rec`` with ``NAME.idx`` (or, without one, numbered in the order of the file).

    Raises:
        FormatError: bad magic, an index that leads nowhere, labels that are no class numbers; names file and key.
        MismatchError: the sidecar tells of other pictures.
    """
    path = existing_file(Path(path), "record file")
    size = path.stat().st_size
    if size == 0 or size % 4:
        raise FormatError(f"has {size} bytes; a record file is a multiple of 4 and not empty", where=path,
                          fix="the file is truncated; make or copy it again")
    index = path.with_suffix(".idx")
    keys, offsets = read_index(index, size) if index.is_file() else _number_records(path)
    keys, offsets = _pictures(path, keys, offsets)
    flags, classes = _labels(path, keys, offsets)
    values, labels = np.unique(classes, return_inverse=True)
    labels = labels.astype(np.int64)
    rows, identities = _names(path, keys, labels, values)
    return RecordSet(path, keys, offsets, labels, identities, _with_extra_labels(path, rows, offsets, flags))


def read_index(path: str | os.PathLike, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys and offsets, int64, of an ``.idx`` file for a ``.rec`` of ``size`` bytes; ``FormatError`` names the line."""
    path, keys, offsets = existing_file(path, "index"), [], []
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, 1):
            words = line.split()
            if not words:
                continue
            if len(words) != 2 or not all(word.isdigit() and len(word) < 19 for word in words):
                raise FormatError(f"line {number} is not a key and an offset", where=path)
            key, offset = int(words[0]), int(words[1])
            if offset % 4 or offset >= size:
                raise FormatError(f"line {number}: offset {offset} of key {key} is not the place of a record in a file "
                                  f"of {size} bytes", where=path, fix="the index belongs to another or a longer file")
            keys.append(key)
            offsets.append(offset)
    unique, counts = np.unique(keys, return_counts=True)
    if len(unique) != len(keys):
        raise FormatError(f"key {unique[counts > 1][0]} stands there twice", where=path)
    if not keys:
        raise FormatError("holds no keys", where=path)
    return np.asarray(keys, np.int64), np.asarray(offsets, np.int64)


def _number_records(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Without an index: keys from 0 in the order of the file, which is how both forms are written."""
    offsets = np.asarray([offset for offset, _ in scan_records(path)], np.int64)
    return np.arange(len(offsets), dtype=np.int64), offsets


def _pictures(path: Path, keys: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep keys and offsets of pictures: in order of the keys where record 0 is there, else of the index."""
    at = np.flatnonzero(keys == 0)
    if not len(at):
        return keys, offsets
    head = read_record(path, int(offsets[at[0]]))
    if head.data:
        return keys, offsets
    end = head.labels[0]
    if len(head.labels) < 2 or not math.isfinite(end) or end < 1 or end != int(end):
        raise FormatError(f"record 0 holds {head.labels}, (last picture key + 1, last key + 1) was expected",
                          where=path)
    images = (keys > 0) & (keys < end)
    if int(images.sum()) != int(end) - 1:
        raise FormatError(f"record 0 announces {int(end) - 1} pictures, the index has keys of {int(images.sum())}",
                          where=path, fix="the index is incomplete; make or copy it again")
    if not images.any():
        raise InputError("the record file holds no pictures", where=path)
    order = np.flatnonzero(images)[np.argsort(keys[images])]
    return keys[order], offsets[order]


def _labels(path: Path, keys: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of labels beyond one (uint32) and the class (int64) of each picture, read from the headers.

    Records in parts, and what looks wrong, go the slow way, which joins parts and says what is wrong.
    """
    room = path.stat().st_size - offsets
    with open(path, "rb") as handle:
        words = _heads(handle, offsets)
        magic, part, flags = words[:, 0], words[:, 1], words[:, 2].copy()
        first = np.where(flags == 0, words[:, 3], words[:, 8]).view(np.float32).copy()
        length = (part & LARGEST_PART).astype(np.int64)
        odd = ((magic != MAGIC) | (part >> 29 != WHOLE) | (room < 8 + length)
               | (length < HEADER_SIZE + 4 * flags.astype(np.int64)))
        for i in np.flatnonzero(odd):
            where = f"{path}, key {keys[i]}"
            record = unpack_record(read_payload(handle, int(offsets[i]), where)[0], where)
            flags[i], first[i] = len(record.labels) if len(record.labels) > 1 else 0, record.labels[0]
    bad = np.flatnonzero(~(np.isfinite(first) & (first >= 0) & (first == np.floor(first)) & (first < 2**62)))
    if len(bad):
        raise FormatError(f"the label of key {keys[bad[0]]} is {first[bad[0]]}, a class number was expected",
                          where=path)
    return np.where(flags > 1, flags, 0), first.astype(np.int64)


def _heads(handle: BinaryIO, offsets: np.ndarray) -> np.ndarray:
    """Of each record part head, header, and first label if it has several: uint32 ``[n, 9]``, zeros after the end.

    Not a memory map: that would count the touched pages, most of the file, as memory of the process.
    """
    words = np.zeros((len(offsets), 9), "<u4")
    for row, offset in zip(words, offsets.tolist()):
        os.preadv(handle.fileno(), [row], offset)
    return words


def sidecar_of(path: Path) -> Path:
    """Where the names of a ``.rec`` stand."""
    return path.with_suffix(".jsonl")


def _names(path: Path, keys: np.ndarray, labels: np.ndarray,
           values: np.ndarray) -> tuple[Sequence[dict[str, Any]], tuple[str, ...]]:
    if sidecar_of(path).is_file():
        return _sidecar_names(sidecar_of(path), keys, labels, len(values))
    numbers = tuple(str(value) for value in values)
    listing = path.with_suffix(".lst")
    if not listing.is_file():
        return _Numbered(keys, labels, numbers, {}), numbers
    files = read_list(listing)
    named = {int(label): folder for key, label in zip(keys, labels) if int(key) in files
             and (folder := os.path.dirname(files[int(key)]).replace("\\", "/").rstrip("/").rpartition("/")[2])}
    identities = tuple(named.get(label, number) for label, number in enumerate(numbers))
    if len(set(identities)) < len(identities):  # several people in one folder: its name says nothing
        identities = numbers
    return _Numbered(keys, labels, identities, files), identities


def _sidecar_names(path: Path, keys: np.ndarray, labels: np.ndarray,
                   n_identities: int) -> tuple[Sequence[dict[str, Any]], tuple[str, ...]]:
    rows = Manifest(path)
    if len(rows) != len(keys):
        raise MismatchError(f"names {len(rows)} pictures, the record file has {len(keys)}", where=path,
                            fix="remove the sidecar, or put back the one that was written with the records")
    names: list[str | None] = [None] * n_identities
    for number, (row, key, label) in enumerate(zip(rows, keys.tolist(), labels.tolist()), 1):
        if row.get("key") != key or not isinstance(row.get("identity"), str):
            raise MismatchError(f"line {number} names key {row.get('key')!r}, the record file has key {key} there",
                                where=path, fix="remove the sidecar, or put back the one written with the records")
        if names[label] not in (None, row["identity"]):
            raise MismatchError(f"line {number} calls label {label} {row['identity']!r}, it was {names[label]!r} "
                                "before", where=path)
        names[label] = row["identity"]
    if len(set(names)) != len(names):
        raise MismatchError("two labels have the same name", where=path)
    return rows, tuple(str(name) for name in names)


class _Numbered(Sequence):
    """Rows of records without a sidecar: names from the list file, else made of the keys."""

    def __init__(self, keys: np.ndarray, labels: np.ndarray, identities: tuple[str, ...], files: dict[int, str]):
        self._keys, self._labels, self._identities, self._files = keys, labels, identities, files

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        key, identity = int(self._keys[index]), self._identities[int(self._labels[index])]
        return {"label": int(self._labels[index]), "identity": identity, "key": key,
                "file": self._files.get(key, f"{identity}/{key:08d}")}


class _ExtraLabels(Sequence):
    """Rows to which the labels beyond the first are added, read from the record when the row is asked for."""

    def __init__(self, path: Path, rows: Sequence[dict[str, Any]], offsets: np.ndarray, flags: np.ndarray):
        self._path, self._rows, self._offsets, self._flags = path, rows, offsets, flags

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        index = range(len(self))[index]
        row = dict(self._rows[index])
        row.pop("record_labels", None)
        if self._flags[index]:
            labels = read_record(self._path, int(self._offsets[index])).labels[1:]
            row["record_labels"] = [label if math.isfinite(label) else None for label in labels]
        return row


def _with_extra_labels(path: Path, rows: Sequence[dict[str, Any]], offsets: np.ndarray,
                       flags: np.ndarray) -> Sequence[dict[str, Any]]:
    return _ExtraLabels(path, rows, offsets, flags) if flags.any() else rows


def read_list(path: str | os.PathLike) -> dict[int, str]:
    """File names by key of a ``.lst``: im2rec's ``key, label..., file``, or insightface's ``aligned, file, label``.

    insightface's lines carry no key; there line ``i`` (from 1) is key ``i``. ``FormatError`` names the line.
    """
    path, files = existing_file(path, "list"), {}
    with open(path, encoding="utf-8", errors="surrogateescape") as handle:
        for number, line in enumerate(handle, 1):
            words = line.rstrip("\r\n").split("\t")
            if words == [""]:
                continue
            if len(words) < 3 or not words[0].isdecimal() or len(words[0]) > 18:
                raise FormatError(f"line {number} is neither 'key, label, file' nor 'aligned, file, label'",
                                  where=path)
            by_line = not _is_number(words[1]) and _is_number(words[2])
            files[number if by_line else int(words[0])] = words[1] if by_line else words[-1]
    return files


def _is_number(word: str) -> bool:
    with contextlib.suppress(ValueError):
        float(word)
        return True
    return False
