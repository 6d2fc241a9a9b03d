"""RecordIO: the record layer of insightface's ``.rec`` / ``.idx`` training sets, read and written without mxnet.

A part is the magic word, a word of 3-bit flag and 29-bit length, and the data padded to four bytes. A payload that
holds the magic word on a four-byte boundary is cut there into parts (flags 1, 2, 3) and the word is put back on
joining. The payload is ``<IfQQ`` (flag, label, id, id2), then ``flag`` float32 labels if flag > 0, then the picture.
Source: the RecordIO format of dmlc-core, and the IRHeader of MXNet.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from negface.foundation.errors import FormatError, InputError
from negface.foundation.files import existing_file

MAGIC = 0xCED7230A
LARGEST_PART = (1 << 29) - 1
LARGEST_LABEL = 1 << 24  # float32 holds every integer up to here
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_PART = struct.Struct("<II")
_HEADER = struct.Struct("<IfQQ")
HEADER_SIZE = _HEADER.size
WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_TRUNCATED = "the file is truncated or damaged; make or copy it again"


class Record(NamedTuple):
    """One record: its labels (one or more float32 as floats), its id, and the encoded picture (may be empty)."""

    labels: tuple[float, ...]
    id: int
    data: bytes


def pack_record(record: Record) -> bytes:
    """The payload of a record: one label stands in the header, several follow it.

    Raises ``InputError`` for a class label that float32 cannot hold exactly.
    """
    if not record.labels:
        raise InputError("a record needs at least one label", where=f"record {record.id}")
    if not 0 <= record.labels[0] <= LARGEST_LABEL and record.data:
        raise InputError(f"label {record.labels[0]:g} does not fit: RecordIO keeps labels as float32",
                         where=f"record {record.id}", fix=f"labels go from 0 to {LARGEST_LABEL:,}")
    if len(record.labels) == 1:
        return _HEADER.pack(0, record.labels[0], record.id, 0) + record.data
    labels = np.asarray(record.labels, "<f4").tobytes()
    return _HEADER.pack(len(record.labels), 0.0, record.id, 0) + labels + record.data


def unpack_record(payload: bytes, where: object) -> Record:
    """The record of a payload; ``FormatError`` if it is too short for its header."""
    if len(payload) < HEADER_SIZE:
        raise FormatError(f"the record has {len(payload)} bytes, its header alone needs {HEADER_SIZE}", where=where,
                          fix=_TRUNCATED)
    flag, label, identifier, _ = _HEADER.unpack_from(payload)
    start = HEADER_SIZE + 4 * flag
    if start > len(payload):
        raise FormatError(f"the header announces {flag} labels, the record has room for "
                          f"{(len(payload) - HEADER_SIZE) // 4}", where=where, fix=_TRUNCATED)
    labels = np.frombuffer(payload, "<f4", flag, HEADER_SIZE).tolist() if flag else [label]
    return Record(tuple(labels), identifier, payload[start:])


def frame(payload: bytes, where: object = "record") -> bytes:
    """The bytes of a payload in the file: cut at aligned magic words, padded to four bytes."""
    cuts = _aligned_magics(payload)
    pieces = [payload[start:end] for start, end in zip([0, *(cut + 4 for cut in cuts)], [*cuts, len(payload)])]
    if max(map(len, pieces)) > LARGEST_PART:
        raise InputError(f"{len(payload)} bytes are too many for a record", where=where,
                         fix=f"a record holds at most {LARGEST_PART:,} bytes")
    last = len(pieces) - 1
    flags = [WHOLE] if not last else [_FIRST] + [_MIDDLE] * (last - 1) + [_LAST]
    parts = [_PART.pack(MAGIC, flag << 29 | len(piece)) + piece for flag, piece in zip(flags, pieces)]
    return b"".join(parts) + b"\0" * (-len(pieces[-1]) % 4)


def _aligned_magics(payload: bytes) -> list[int]:
    found, start = [], payload.find(_MAGIC_BYTES)
    while start >= 0:
        aligned = start % 4 == 0
        if aligned:
            found.append(start)
        start = payload.find(_MAGIC_BYTES, start + (4 if aligned else 1))
    return found


def read_payload(handle: BinaryIO, offset: int, where: object) -> tuple[bytes, int]:
    """The joined payload of the record at ``offset``, and where the next record begins.

    Raises ``FormatError`` naming the byte: bad magic, a part that does not fit its place, or the end of the file.
    """
    descriptor, pieces, place, expected = handle.fileno(), [], offset, (WHOLE, _FIRST)
    while True:
        head = os.pread(descriptor, _PART.size, place)
        if len(head) < _PART.size:
            raise FormatError(f"ends at byte {place + len(head)}, inside the head of a record", where=where,
                              fix=_TRUNCATED)
        magic, word = _PART.unpack(head)
        flag, length = word >> 29, word & LARGEST_PART
        if magic != MAGIC:
            raise FormatError(f"bad magic {magic:#010x} at byte {place}, {MAGIC:#010x} was expected", where=where,
                              fix="the index does not belong to this file, or the file is damaged")
        if flag not in expected:
            raise FormatError(f"part flag {flag} at byte {place}, one of {expected} was expected", where=where,
                              fix=_TRUNCATED)
        piece = os.pread(descriptor, length, place + _PART.size)
        if len(piece) < length:
            raise FormatError(f"ends after {len(piece)} of the {length} bytes of the record at byte {place}",
                              where=where, fix=_TRUNCATED)
        pieces.append(piece)
        place += _PART.size + length + -length % 4
        if flag in (WHOLE, _LAST):
            return _MAGIC_BYTES.join(pieces), place
        expected = (_MIDDLE, _LAST)


def read_picture(path: str | os.PathLike, offset: int, length: int = -1) -> bytes:
    """The encoded picture of the record at ``offset``; ``length`` is not needed (byte ranges of shards have one)."""
    path = existing_file(path, "record file")
    with open(path, "rb") as handle:
        return unpack_record(read_payload(handle, offset, path)[0], f"{path}@{offset}").data


def read_record(path: str | os.PathLike, offset: int) -> Record:
    """The record at ``offset``, parts joined."""
    path = existing_file(path, "record file")
    with open(path, "rb") as handle:
        return unpack_record(read_payload(handle, offset, path)[0], f"{path}@{offset}")


def scan_records(path: str | os.PathLike) -> Iterator[tuple[int, Record]]:
    """All records in the order of the file with their offsets, without an index."""
    path = existing_file(Path(path), "record file")
    total, offset = path.stat().st_size, 0
    with open(path, "rb") as handle:
        while offset < total:
            payload, following = read_payload(handle, offset, path)
            yield offset, unpack_record(payload, f"{path}@{offset}")
            offset = following


class RecordWriter:
    """Writes records and their index to two open files that stand at their beginnings."""

    def __init__(self, records: BinaryIO, index: BinaryIO):
        self._records, self._index, self._offset = records, index, 0

    def write(self, key: int, record: Record) -> None:
        """Append a record under ``key``."""
        data = frame(pack_record(record), f"record {key}")
        self._records.write(data)
        self._index.write(b"%d\t%d\n" % (key, self._offset))
        self._offset += len(data)
