"""Manifests: JSON lines, one row an image, saying all that is needed to make that image again.

Rows are read on demand by byte offset, so a manifest of millions of rows costs eight bytes a row to hold open.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from negface.foundation.errors import FormatError
from negface.foundation.files import atomic_path, existing_file
from negface.foundation.hashing import canonical_json

MANIFEST_NAME = "manifest.jsonl"


def write_rows(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows atomically as canonical JSON lines; returns how many."""
    count = 0
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii", newline="\n") as handle:
        for row in rows:
            handle.write(canonical_json(dict(row)) + "\n")
            count += 1
    return count


def _parse(line: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"line {number} is not JSON ({error})", where=path,
                          fix="the manifest is damaged or truncated") from error
    if not isinstance(row, dict):
        raise FormatError(f"line {number} is not a JSON object", where=path)
    return row


def read_rows(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """The rows in order; ``FormatError`` names the line that is not a JSON object."""
    path = existing_file(path, "manifest")
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, 1):
            if line.strip():
                yield _parse(line, number, path)


class Manifest(Sequence):
    """The rows of a manifest file, parsed when asked for: ``manifest[i]`` is a dict, iteration goes in order."""

    def __init__(self, path: str | os.PathLike):
        self.path = existing_file(Path(path), "manifest")
        offsets = [0]
        with open(self.path, "rb") as handle:
            for line in handle:
                offsets.append(offsets[-1] + len(line))
        self._offsets = np.asarray(offsets, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        index = range(len(self))[index]
        start, end = int(self._offsets[index]), int(self._offsets[index + 1])
        with open(self.path, "rb") as handle:
            return _parse(os.pread(handle.fileno(), end - start, start), index + 1, self.path)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return read_rows(self.path)
