"""From one form of a face dataset to another: identity folders, RecordIO, tar shards.

Encoded pictures are copied byte for byte, one at a time; labels, order and names are kept. What was written is opened
again before it appears, and its count, labels, names and the digest of its pictures are compared with the source.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from negface.foundation.errors import IncompleteError, InputError, UnknownNameError
from negface.foundation.files import atomic_folder, write_text
from negface.foundation.progress import track

from .copying import Digest, new_place, suffix_of
from .dataset import FaceDataset
from .dataset import open as open_dataset
from .images import is_image_name, load_rgb
from .manifest import MANIFEST_NAME, write_rows
from .pair_lists import checked_name
from .record_sets import DEFAULT_STEM
from .recordio import LARGEST_LABEL, Record, RecordWriter
from .shards import pack, sample_members

FORMS = ("folder", "rec", "shards")
LAYOUTS = ("insightface", "im2rec")
NAMES = ("padded", "original")
_PLACE = ("shard", "file", "offset", "length", "key", "unit", "record_labels")  # of a row: where, not what


@dataclass(frozen=True)
class Sample:
    """One picture on its way: its label, its new name without ending, its ending, its bytes, and its row."""

    label: int
    name: str
    suffix: str
    data: bytes
    row: Mapping[str, Any]


def convert_dataset(source: str | os.PathLike, out: str | os.PathLike, to: str, *, layout: str = "insightface",
                    shard_size: int = 10_000, names: str = "padded") -> dict[str, Any]:
    """Write a dataset in another form.

    Args:
        source: anything ``negface.datasets.open`` reads.
        out: a new folder; it appears complete or not at all.
        to: ``folder``, ``rec`` (``train.rec``, ``.idx``, ``.lst``, ``property``) or ``shards``.
        layout: of ``rec``: ``insightface`` (record 0, keys from 1, records of identities where a person's pictures
            stand together) or ``im2rec`` (neither; keys from 0).
        shard_size: pictures a shard.
        names: of ``folder``: ``padded`` (``000012/00003.jpg``; string order is label order) or ``original`` (the names
            the pictures first had; refused where their string order would permute labels).

    Returns:
        counts, the form, and ``content_sha256``, which is equal for equal labels, pictures and order in any form.

    Raises:
        InputError, FormatError: the source cannot be read, or has what the form cannot hold. OutputError: ``out``
        exists. IncompleteError: what was written does not read back the same (nothing is left).
    """
    _known("form", to, FORMS), _known("layout", layout, LAYOUTS), _known("naming", names, NAMES)
    if shard_size < 1:
        raise InputError("a shard holds at least one picture", where="shard_size")
    out, dataset, digest = new_place(out), open_dataset(source), Digest()
    if names == "original" and to != "folder":
        raise InputError("original names are for folders; other forms keep them in their sidecar", where="names")
    with atomic_folder(out) as folder:
        samples = track(_samples(dataset, digest, names), "converting", total=len(dataset), unit="images")
        if to == "folder":
            write_rows(folder / MANIFEST_NAME, _write_folder(folder, samples))
        elif to == "shards":
            write_rows(folder / MANIFEST_NAME, _write_shards(folder, samples, len(dataset), shard_size))
        else:
            write_rows(folder / f"{DEFAULT_STEM}.jsonl", _write_records(folder, samples, dataset, layout))
        _verify(dataset, open_dataset(folder), digest, out)
    return {"source": str(source), "out": str(out), "form": to, "n_images": len(dataset),
            "n_identities": len(dataset.identities), "content_sha256": digest.hex()}


def _known(kind: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise UnknownNameError(kind, name, known)


def _samples(dataset: FaceDataset, digest: Digest, names: str) -> Iterator[Sample]:
    """The pictures in order; what a row says of the picture itself travels on, and ``name`` is its first name."""
    wide = max(6, len(str(len(dataset.identities) - 1)))
    counts = np.bincount(dataset.labels, minlength=len(dataset.identities))
    deep = max(5, len(str(int(counts.max()) - 1)))
    seen = np.zeros(len(counts), np.int64)
    if names == "original":
        _check_originals(dataset)
    for index, (label, row) in enumerate(zip(dataset.labels.tolist(), dataset.manifest)):
        data, first = dataset.read(index), _first_name(row)
        digest.add(label, data)
        number, seen[label] = int(seen[label]), seen[label] + 1
        suffix = suffix_of(data, first, dataset.name(index))
        name = f"{label:0{wide}d}/{number:0{deep}d}"
        if names == "original":
            first = checked_name(first, dataset.name(index))
            name, suffix = os.path.splitext(first) if is_image_name(first) else (first, suffix)
        kept = {key: value for key, value in row.items() if key not in _PLACE}
        extra = {"record_labels": row["record_labels"]} if row.get("record_labels") else {}
        yield Sample(label, name, suffix, data, {**kept, **extra, "label": label, "name": first,
                                                 "identity": dataset.identities[label]})


def _first_name(row: Mapping[str, Any]) -> str:
    return str(row.get("name") or row.get("file") or "")


def _check_originals(dataset: FaceDataset) -> None:
    """Original names must be distinct and sort, as text, in order of labels."""
    folders: dict[int, str] = {}
    seen: set[str] = set()
    for label, row in zip(dataset.labels.tolist(), dataset.manifest):
        name = _first_name(row)
        if name in seen:
            raise InputError(f"two pictures were called {name!r}", where=dataset.root, fix="use padded names")
        seen.add(name)
        top = name.partition("/")[0]
        if top == name:
            raise InputError(f"picture {name!r} was in no folder", where=dataset.root, fix="use padded names")
        if folders.setdefault(label, top) != top:
            raise InputError(f"the pictures of label {label} were in {folders[label]!r} and {top!r}",
                             where=dataset.root, fix="use padded names")
    tops = [folders[label] for label in sorted(folders)]
    if tops != sorted(set(tops)):
        raise InputError("the original names do not sort, as text, in the order of the labels", where=dataset.root,
                         fix="use padded names, so that readers which sort names as text do not permute labels")


def _write_folder(folder: Path, samples: Iterator[Sample]) -> Iterator[dict[str, Any]]:
    for sample in samples:
        path = folder / (sample.name + sample.suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sample.data)
        yield {**sample.row, "file": sample.name + sample.suffix}


def _write_shards(folder: Path, samples: Iterator[Sample], total: int, size: int) -> Iterator[dict[str, Any]]:
    for number in range(-(-total // size)):
        rows: list[dict[str, Any]] = []
        name = f"{number:06d}.tar"
        with open(folder / name, "wb") as handle:
            written = pack(handle, _members(islice(samples, size), rows), where=name)[::2]
        yield from ({**row, "shard": name, "offset": member.offset, "length": member.length}
                    for row, member in zip(rows, written, strict=True))


def _members(samples: Iterable[Sample], rows: list[dict[str, Any]]) -> Iterator[tuple[str, bytes]]:
    """The tar members of samples; their rows are added to ``rows`` as they go."""
    for sample in samples:
        rows.append({**sample.row, "file": sample.name + sample.suffix})
        yield from sample_members(sample.label, sample.name, sample.suffix, sample.data)


def _write_records(folder: Path, samples: Iterator[Sample], dataset: FaceDataset,
                   layout: str) -> Iterator[dict[str, Any]]:
    n, people = len(dataset), len(dataset.identities)
    if people - 1 > LARGEST_LABEL:
        raise InputError(f"{people} identities are too many: RecordIO keeps labels as float32", where=dataset.root)
    grouped = bool((np.diff(dataset.labels) >= 0).all())
    first = 1 if layout == "insightface" else 0
    ranges = _ranges(dataset.labels, first) if first and grouped else []
    with ExitStack() as stack:
        files = [stack.enter_context(open(folder / f"{DEFAULT_STEM}{end}", "wb")) for end in (".rec", ".idx", ".lst")]
        writer = RecordWriter(files[0], files[1])
        if first:
            writer.write(0, Record((float(n + 1), float(n + 1 + len(ranges))), 0, b""))
        for key, sample in enumerate(samples, first):
            if key == first:
                height, width = load_rgb(sample.data, where=sample.name).shape[:2]
                write_text(folder / "property", f"{people},{height},{width}\n")
            writer.write(key, Record((float(sample.label), *_extra(sample.row)), key, sample.data))
            files[2].write(f"{key}\t{sample.label}\t{sample.name}{sample.suffix}\n".encode())
            yield {**{k: v for k, v in sample.row.items() if k != "record_labels"}, "key": key,
                   "file": sample.name + sample.suffix}
        for label, (start, end) in enumerate(ranges):
            writer.write(n + 1 + label, Record((float(start), float(end)), label, b""))


def _extra(row: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else float(value) for value in row.get("record_labels", ()))


def _ranges(labels: np.ndarray, first: int) -> list[tuple[int, int]]:
    """For each label the first key of its pictures and the first key after them."""
    ends = np.searchsorted(labels, np.arange(labels.max() + 1), side="right") + first
    return list(zip([first, *ends[:-1].tolist()], ends.tolist()))


def _verify(source: FaceDataset, written: FaceDataset, digest: Digest, out: Path) -> None:
    if len(written) != len(source) or digest.count != len(source):
        raise IncompleteError(f"{len(written)} pictures were written, {len(source)} were to be", where=out)
    if not np.array_equal(written.labels, source.labels) or written.identities != source.identities:
        raise IncompleteError("labels or identities do not read back as they were", where=out)
    again = Digest()
    for index, label in enumerate(track(written.labels.tolist(), "verifying", unit="images")):
        again.add(label, written.read(index))
    if again.hex() != digest.hex():
        raise IncompleteError("pictures do not read back as they were", where=out, fix="check the disk; run it again")
