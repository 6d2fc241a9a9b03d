"""``open(path)``: faces on disk as a map-style torch dataset, whatever way they lie there.

A generated dataset is read by its manifest (files, or byte ranges of tar shards), any other folder as RecordIO,
foreign tar shards or identity folders. No torch is imported: a ``DataLoader`` only needs ``__len__`` and
``__getitem__``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from negface.foundation.errors import FormatError, InputError

from .folders import natural_key, scan_identity_folders
from .images import is_image_name, load_rgb
from .manifest import MANIFEST_NAME, Manifest
from .record_sets import find_record_file, read_record_set
from .recordio import read_picture
from .shards import read_range, scan_shard

PLAN_NAME = "plan.json"
CARD_NAME = "README.md"


@dataclass
class FaceDataset:
    """A list of faces with labels; ``dataset[i]`` is ``(image uint8 [H, W, 3] RGB, label int)``.

    Attributes:
        root: the folder (or tar) it was opened from.
        labels: int64 ``[n]``, 0 to number of identities - 1.
        identities: the identity's name for each label.
        manifest: rows of the manifest, or for other folders rows ``{"label", "identity", "file"}`` made on the fly.
        notes: what :func:`load_rgb` had to convert so far, counted.

    Holds no open file, so it may be pickled and forked.
    """

    root: Path
    labels: np.ndarray
    identities: tuple[str, ...]
    manifest: Sequence[dict[str, Any]]
    _files: list[str] = field(repr=False)
    _file_of: np.ndarray = field(repr=False)
    _offsets: np.ndarray | None = field(repr=False, default=None)
    _lengths: np.ndarray | None = field(repr=False, default=None)
    _read_at: Callable[[Path, int, int], bytes] = field(repr=False, default=read_range)
    notes: Counter = field(default_factory=Counter, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        index = range(len(self))[index]
        return load_rgb(self.read(index), where=self.name(index), notes=self.notes), int(self.labels[index])

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        return (self[i] for i in range(len(self)))

    def name(self, index: int) -> str:
        """A name for errors and tables: the file's path, for shards followed by ``@byte``."""
        path = self.root / self._files[self._file_of[index]]
        return str(path) if self._offsets is None else f"{path}@{self._offsets[index]}"

    def path(self, index: int) -> Path | None:
        """The picture's own file; ``None`` when it lies in a shard."""
        return self.root / self._files[self._file_of[index]] if self._offsets is None else None

    def read(self, index: int) -> bytes:
        """The encoded bytes of one picture."""
        path = self.root / self._files[self._file_of[index]]
        if self._offsets is not None and self._lengths is not None:
            return self._read_at(path, int(self._offsets[index]), int(self._lengths[index]))
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", where=path) from error

    def indices_of(self, label: int) -> np.ndarray:
        """int64 indices of one person's pictures."""
        return np.flatnonzero(self.labels == label)


class _PlainRows(Sequence):
    """Rows of a folder without a manifest."""

    def __init__(self, files: list[str], labels: np.ndarray, identities: tuple[str, ...]):
        self._files, self._labels, self._identities = files, labels, identities

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        label = int(self._labels[index])
        return {"label": label, "identity": self._identities[label], "file": self._files[index]}


def open(path: str | os.PathLike) -> FaceDataset:
    """Open faces on disk.

    Args:
        path: a generated dataset (its folder), a folder of identity folders (labels in natural order of the names),
            a folder of webdataset tars with ``.cls`` members, one such tar, insightface's ``.rec`` or its folder.

    Raises:
        InputError: nothing there, no pictures, or a generation that is not finished.
        FormatError: a damaged manifest, shard or record file. Pictures are read, and so checked, only when asked for.
    """
    path = Path(path)
    if path.is_file() and path.suffix == ".tar":
        return _from_shards(path.parent, [path.name])
    if path.suffix == ".rec":
        return _from_records(path)
    if (path / MANIFEST_NAME).is_file():
        return _from_manifest(path)
    if (path / PLAN_NAME).is_file():
        raise InputError("this dataset is not finished: it has a plan and no manifest", where=path,
                         fix="run the same `negface generate` command again; it resumes")
    if path.is_dir():
        if (records := find_record_file(path)) is not None:
            return _from_records(records)
        shards = sorted((entry.name for entry in path.glob("*.tar") if not entry.name.startswith(".")), key=natural_key)
        if shards:
            return _from_shards(path, shards)
    return _from_folders(path)


def _from_folders(root: Path) -> FaceDataset:
    found = scan_identity_folders(root)
    identities = tuple(found)
    files = [file for pictures in found.values() for file in pictures]
    labels = np.repeat(np.arange(len(found), dtype=np.int64), [len(pictures) for pictures in found.values()])
    return FaceDataset(root, labels, identities, _PlainRows(files, labels, identities), files, np.arange(len(files)))


def _from_manifest(root: Path) -> FaceDataset:
    manifest = Manifest(root / MANIFEST_NAME)
    labels, file_of, offsets, lengths = [], [], [], []
    files: dict[str, int] = {}
    names: dict[int, str] = {}
    for number, row in enumerate(manifest, 1):
        try:
            label, file = _count(row, "label"), row.get("shard") or row["file"]
            if not isinstance(file, str) or "\0" in file:
                raise ValueError(f"file: {file!r}")
            names[label] = str(row["identity"])
            if "shard" in row:
                offsets.append(_count(row, "offset"))
                lengths.append(_count(row, "length"))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise FormatError(f"line {number} lacks a usable {error}", where=manifest.path) from error
        labels.append(label)
        file_of.append(files.setdefault(file, len(files)))
    if not labels:
        raise InputError("the manifest has no rows", where=manifest.path)
    if offsets and len(offsets) != len(labels):
        raise FormatError("some rows lie in shards and some do not", where=manifest.path)
    missing = next((label for label in range(len(names)) if label not in names), None)
    if missing is not None:
        raise FormatError(f"no rows of label {missing}", where=manifest.path)
    where = (np.asarray(offsets, np.int64), np.asarray(lengths, np.int64)) if offsets else (None, None)
    return FaceDataset(root, np.asarray(labels, np.int64), tuple(names[i] for i in range(len(names))), manifest,
                       list(files), np.asarray(file_of, np.int64), *where)


def _count(row: dict[str, Any], key: str) -> int:
    value = int(row[key])
    if not 0 <= value < 2**62:
        raise ValueError(f"{key}: {value}")
    return value


def _from_records(path: Path) -> FaceDataset:
    found = read_record_set(path)
    n = len(found.keys)
    return FaceDataset(path.parent, found.labels, found.identities, found.rows, [path.name], np.zeros(n, np.int64),
                       found.offsets, np.full(n, -1, np.int64), read_picture)


def _from_shards(root: Path, shards: list[str]) -> FaceDataset:
    """Foreign webdataset tars: pictures with a ``.cls`` member of the same key; classes become labels in order."""
    pictures: list[tuple[int, str, int, int]] = []
    for shard_number, shard in enumerate(shards):
        classes: dict[str, int] = {}
        found: dict[str, tuple[int, int]] = {}
        for member in scan_shard(root / shard):
            folder, _, base = member.name.rpartition("/")
            key = f"{folder}/{base.split('.', 1)[0]}"
            if base.endswith(".cls"):
                text = read_range(root / shard, member.offset, member.length)
                if not text.strip().isdigit():
                    raise FormatError(f"{member.name} is not a class number", where=root / shard)
                classes[key] = int(text)
            elif is_image_name(base):
                found[key] = (member.offset, member.length)
        bare = sorted(set(found) - set(classes))
        if bare:
            raise FormatError(f"picture {bare[0]!r} has no .cls member", where=root / shard)
        pictures += [(shard_number, str(classes[key]), *place) for key, place in found.items()]
    if not pictures:
        raise InputError("the shards hold no pictures", where=root)
    identities = tuple(sorted({picture[1] for picture in pictures}, key=natural_key))
    label_of = {name: label for label, name in enumerate(identities)}
    labels = np.asarray([label_of[picture[1]] for picture in pictures], np.int64)
    file_of, offsets, lengths = (np.asarray([p[i] for p in pictures], np.int64) for i in (0, 2, 3))
    rows = _PlainRows([shards[i] for i in file_of], labels, identities)
    return FaceDataset(root, labels, identities, rows, shards, file_of, offsets, lengths)
