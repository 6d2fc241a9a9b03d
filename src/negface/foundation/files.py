"""Atomic files: temporary name in the same folder, fsync, rename. A reader never sees half a file.

Published artefacts go through ``atomic_path``/``atomic_folder`` or one of the writers built on them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import FormatError, InputError, OutputError
from .hashing import canonical_json

TEMPORARY_MARK = ".tmp-"


def _output_error(error: OSError, path: Path) -> OutputError:
    reason = {
        errno.ENOSPC: ("no space left on the device", "free some space or choose another folder"),
        errno.EDQUOT: ("disk quota exceeded", "free some space or choose another folder"),
        errno.EACCES: ("permission denied", "choose a folder you may write to"),
        errno.EPERM: ("operation not permitted", "choose a folder you may write to"),
        errno.EROFS: ("the file system is read-only", "choose a folder you may write to"),
        errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another path"),
        errno.EISDIR: ("is a folder", "name a file"),
    }.get(error.errno, (error.strerror or str(error), None))
    return OutputError(f"cannot write: {reason[0]}", where=path, fix=reason[1])


@contextlib.contextmanager
def output_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turn ``OSError`` raised while writing ``path`` into an ``OutputError`` that says why."""
    try:
        yield
    except OSError as error:
        raise _output_error(error, Path(path)) from error


def ensure_folder(path: str | os.PathLike) -> Path:
    """Make a folder (and its parents); ``OutputError`` if that is not possible."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise OutputError("exists and is not a folder", where=path, fix="choose another path")
    with output_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def fsync_folder(path: str | os.PathLike) -> None:
    """Flush a folder's entries, so that a rename survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success fsync and rename it, on failure remove it."""
    path = Path(path)
    ensure_folder(path.parent)
    temporary = path.with_name(f"{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        with output_errors(path):
            yield temporary
            with open(temporary, "rb") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, path)
            fsync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it replaces ``path``, on failure it is removed."""
    path = Path(path)
    ensure_folder(path.parent)
    temporary = path.with_name(f"{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        with output_errors(path):
            temporary.mkdir()
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    with open(file, "rb") as handle:
                        os.fsync(handle.fileno())
            if path.exists():
                old = path.with_name(f"{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}-old-{path.name}")
                os.replace(path, old)
                os.replace(temporary, path)
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.replace(temporary, path)
            fsync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike, value: Any, *, indent: int | None = 2) -> None:
    """Write JSON atomically; NaN is refused (write ``None`` for "not measured")."""
    text = canonical_json(value) if indent is None else json.dumps(value, indent=indent, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Read JSON; ``FormatError`` names the file and the place of the fault."""
    path = existing_file(path)
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:  # undecodable text is a ValueError
        raise FormatError(f"not valid JSON ({error})", where=path) from error


def existing_file(path: str | os.PathLike, what: str = "file") -> Path:
    """The path, if it is a readable file; else ``InputError``."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"is a folder, a {what} was expected", where=path)
    if not path.is_file():
        raise InputError(f"no such {what}", where=path, fix="check the path")
    return path


def existing_folder(path: str | os.PathLike, what: str = "folder") -> Path:
    """The path, if it is a folder; else ``InputError``."""
    path = Path(path)
    if not path.is_dir():
        raise InputError(
            f"no such {what}" if not path.exists() else f"is a file, a {what} was expected",
            where=path,
            fix="check the path",
        )
    return path


def remove_temporaries(folder: str | os.PathLike) -> int:
    """Remove what an interrupted writer left in ``folder`` (not below it); returns how many."""
    count = 0
    for entry in Path(folder).glob(f"{TEMPORARY_MARK}*"):
        shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
        count += 1
    return count
