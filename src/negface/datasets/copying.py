"""What every conversion needs: a digest that does not depend on the form, a picture's ending, a place that is free."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from negface.foundation.errors import FormatError, OutputError

from .images import IMAGE_SUFFIXES

_SIGNATURES = ((b"\xff\xd8\xff", ".jpg"), (b"\x89PNG\r\n\x1a\n", ".png"), (b"BM", ".bmp"), (b"II*\0", ".tif"),
               (b"MM\0*", ".tif"), (b"P6", ".ppm"), (b"P5", ".pgm"))


class Digest:
    """SHA-256 over labels and pictures in order: the same for a dataset in every form."""

    def __init__(self):
        self._hash, self.count = hashlib.sha256(), 0

    def add(self, label: int, data: bytes) -> None:
        """Take one picture in."""
        self._hash.update(int(label).to_bytes(8, "little") + len(data).to_bytes(8, "little") + data)
        self.count += 1

    def hex(self) -> str:
        """The digest so far."""
        return self._hash.hexdigest()


def new_place(out: str | os.PathLike) -> Path:
    """The path, if nothing (or an empty folder) is there; ``OutputError`` otherwise."""
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError("exists already", where=out, fix="choose another place, or remove it")
    return out


def suffix_of(data: bytes, name: str, where: object) -> str:
    """The ending that fits a picture's first bytes, else that of its name; ``FormatError`` if neither is a picture."""
    for signature, suffix in _SIGNATURES:
        if data.startswith(signature):
            return suffix
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    suffix = Path(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES and data:
        return suffix
    raise FormatError("is neither by its bytes nor by its name a picture", where=where,
                      fix="records of raw pixels must be encoded first")
