"""Tar shards: webdataset's layout, written atomically and deterministically, read back at random by byte offset.

A sample is the members ``<label>/<image>.jpg`` (the picture) and ``<label>/<image>.cls`` (the label as text). Times,
owners and modes are constant, so equal content gives equal bytes.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from negface.foundation.errors import FormatError, InputError
from negface.foundation.files import atomic_path, existing_file

BLOCK = tarfile.BLOCKSIZE
RECORD = tarfile.RECORDSIZE


class Member(NamedTuple):
    """One file inside a tar: its name and where its bytes lie."""

    name: str
    offset: int
    length: int


def write_shard(path: str | os.PathLike, members: Iterable[tuple[str, bytes]]) -> list[Member]:
    """Write a tar atomically, in the order given; returns where each member's bytes lie.

    Plain USTAR with time 0, owner 0:0, mode 0644, so the bytes depend on the members only. A name given twice or too
    long for USTAR is an ``InputError``.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        return pack(handle, members, where=path)


def pack(handle: BinaryIO, members: Iterable[tuple[str, bytes]], *, where: object = None) -> list[Member]:
    """The same into an open file that stands at its beginning."""
    written: list[Member] = []
    seen: set[str] = set()
    for name, data in members:
        if name in seen:
            raise InputError(f"member {name!r} given twice", where=where)
        seen.add(name)
        handle.write(_header(name, len(data), where))
        written.append(Member(name, handle.tell(), len(data)))
        handle.write(data)
        handle.write(b"\0" * (-len(data) % BLOCK))
    handle.write(b"\0" * (2 * BLOCK))
    handle.write(b"\0" * (-handle.tell() % RECORD))
    return written


def _header(name: str, length: int, path: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime, info.uid, info.gid = length, 0o644, 0, 0, 0
    try:
        return info.tobuf(tarfile.USTAR_FORMAT)
    except ValueError as error:
        raise InputError(f"member name {name!r} does not fit a tar header ({error})", where=path) from error


def sample_members(label: int, name: str, suffix: str, data: bytes) -> list[tuple[str, bytes]]:
    """The two members of one sample, in the order webdataset groups them: picture, then label."""
    return [(f"{name}{suffix}", data), (f"{name}.cls", str(int(label)).encode())]


def read_range(path: str | os.PathLike, offset: int, length: int) -> bytes:
    """``length`` bytes at ``offset``; ``FormatError`` if the file ends before."""
    with open(existing_file(path, "shard"), "rb") as handle:
        data = os.pread(handle.fileno(), length, offset)
    if len(data) != length:
        raise FormatError(f"ends before byte {offset + length}", where=path,
                          fix="the shard is truncated; make or copy it again")
    return data


def scan_shard(path: str | os.PathLike) -> Iterator[Member]:
    """The members of any tar, in order; ``FormatError`` if it is no tar or is truncated."""
    path = existing_file(Path(path), "shard")
    total = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                if not info.isfile():
                    continue
                if info.offset_data + info.size > total:
                    raise FormatError(f"ends inside {info.name}", where=path, fix="make or copy it again")
                yield Member(info.name, info.offset_data, info.size)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise FormatError(f"not a complete tar ({error})", where=path, fix="make or copy it again") from error
