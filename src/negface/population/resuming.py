"""A folder made in many steps: unseen until complete, kept when interrupted, gone on with by the same command."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..foundation.errors import OutputError
from ..foundation.files import TEMPORARY_MARK, ensure_folder, fsync_folder, output_errors, remove_temporaries
from ..foundation.hashing import sha256_json


def refuse_existing(out: Path) -> None:
    """``OutputError`` unless nothing, or an empty folder, has that name."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError("exists already", where=out, fix="choose a new folder or remove this one")


def unfinished_name(out: Path, wanted: Mapping[str, Any]) -> Path:
    """Where ``out`` is made: beside it, named after what is ``wanted``, so that another wish starts afresh."""
    return out.with_name(f"{TEMPORARY_MARK}{sha256_json(dict(wanted))[:12]}-{out.name}")


@contextlib.contextmanager
def resumable_folder(out: str | os.PathLike, wanted: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the folder in which ``out`` is made; on success it becomes ``out``, on failure it waits for another try.

    What stands in it from an earlier try stands as it was written: the caller marks what is whole. Files are flushed
    by whoever writes them (``flush``), not here.

    Args:
        wanted: all that the content follows from, as JSON values.

    Raises:
        OutputError: ``out`` exists already, cannot be written, or is being written by another process.
    """
    out = Path(out)
    refuse_existing(out)
    ensure_folder(out.parent)
    folder = ensure_folder(unfinished_name(out, wanted))
    with output_errors(out), _alone(folder, out):
        remove_temporaries(folder)
        try:
            yield folder
        except BaseException:
            if not any(folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        fsync_folder(folder)
        os.replace(folder, out)
        fsync_folder(out.parent)


@contextlib.contextmanager
def _alone(folder: Path, out: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system drops when its holder dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError("is being written by another process", where=out,
                              fix="wait for it, or choose another folder") from None
        yield
    finally:
        os.close(descriptor)


def flush(files: Iterable[Path]) -> None:
    """Bring files and the entries of their folders to the disk."""
    files = list(files)
    for path in files:
        with open(path, "rb") as handle:
            os.fsync(handle.fileno())
    for folder in {path.parent for path in files}:
        fsync_folder(folder)
