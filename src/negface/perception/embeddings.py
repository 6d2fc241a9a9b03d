"""Embeddings on disk: ``embeddings [n, d]`` and ``labels [n]`` with who, which picture, and by which recogniser.

``.npz`` for small sets; ``.safetensors`` is memory-mapped. Neither is ever unpickled.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..foundation.errors import FormatError, InputError
from ..foundation.files import existing_file, write_bytes
from ..foundation.hashing import canonical_json
from ..foundation.npz import open_npz
from ..foundation.tensors import read_metadata, write_tensors

SUFFIXES = (".npz", ".safetensors")


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of a set of pictures.

    ``embeddings`` float32 ``[n, d]``; ``labels`` int64 ``[n]``, indices into ``identities`` if these are known;
    ``images`` one name a row, or empty; ``provenance`` says the recogniser (``{"name", "hash"}``), the dataset and how.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    identities: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recognizer(self) -> dict[str, str] | None:
        """``{"name", "hash"}`` of the recogniser that made them; None if the file does not say."""
        return self.provenance.get("recognizer")

    @property
    def describes_real_people(self) -> bool:
        """True unless the provenance says that nobody in the pictures exists."""
        return bool(self.provenance.get("describes_real_people", True))

    def __len__(self) -> int:
        return len(self.labels)


def _checked(value: Embeddings, where: object, error: type[InputError]) -> Embeddings:
    vectors, labels = value.embeddings, value.labels
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise error(f"embeddings are {vectors.dtype} {list(vectors.shape)}, floats [n, d] were expected", where=where)
    if labels.shape != (len(vectors),) or labels.dtype.kind not in "iu":
        raise error(f"labels are {labels.dtype} {list(labels.shape)}, {len(vectors)} integers were expected",
                    where=where)
    if value.images and len(value.images) != len(vectors):
        raise error(f"{len(value.images)} picture names for {len(vectors)} embeddings", where=where)
    if value.identities and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(value.identities):
        raise error(f"labels reach {int(labels.max())}, {len(value.identities)} identities are named", where=where)
    return value


def checked_suffix(path: str | os.PathLike) -> str:
    """The ending of an embeddings file; ``InputError`` if it is not one of ``SUFFIXES``."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"embeddings are kept as {' or '.join(SUFFIXES)}", where=path, fix="change the file's ending")
    return path.suffix


def write_embeddings(path: str | os.PathLike, embeddings: np.ndarray, labels: np.ndarray, *,
                     identities: Sequence[str] = (), images: Sequence[str] = (),
                     provenance: Mapping[str, Any] | None = None) -> Embeddings:
    """Write embeddings atomically; the ending of ``path`` chooses the format. Equal content gives equal bytes."""
    path = Path(path)
    suffix = checked_suffix(path)
    value = Embeddings(np.ascontiguousarray(embeddings, np.float32), np.ascontiguousarray(labels, np.int64),
                       tuple(map(str, identities)), tuple(map(str, images)), dict(provenance or {}))
    _checked(value, path, InputError)
    if not np.isfinite(value.embeddings).all():
        raise InputError("embeddings hold NaN or infinity", where=path)
    metadata = {"identities": list(value.identities), "images": list(value.images),
                "provenance": dict(value.provenance)}
    arrays = {"embeddings": value.embeddings, "labels": value.labels}
    if suffix == ".safetensors":
        write_tensors(path, arrays, metadata)
    else:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays, metadata=np.array(canonical_json(metadata)))
        write_bytes(path, buffer.getvalue())
    return value


def _map_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a (checked) safetensors file as memory maps: 8 bytes header length, JSON header, data.

    Copy on write: torch warns of arrays that cannot be written, and nothing written to these reaches the file.
    """
    with open(path, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(length))
    arrays = {}
    for key in ("embeddings", "labels"):
        if key not in header:
            raise FormatError(f"has no {key}", where=path)
        dtype = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I64": "<i8", "I32": "<i4"}.get(header[key]["dtype"])
        if dtype is None:
            raise FormatError(f"{key} are {header[key]['dtype']}", where=path, fix="save float32 and int64")
        shape, (start, end) = tuple(header[key]["shape"]), header[key]["data_offsets"]
        arrays[key] = np.memmap(path, dtype, "c", 8 + length + start, shape) if end > start else np.zeros(shape, dtype)
    return arrays


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with open_npz(path) as archive:
        missing = [key for key in ("embeddings", "labels") if key not in archive]
        if missing:
            raise FormatError(f"has no {', '.join(missing)}", where=path, fix=f"it holds: {', '.join(archive.files)}")
        arrays = {key: archive[key] for key in ("embeddings", "labels")}
        return arrays, json.loads(str(archive["metadata"])) if "metadata" in archive else {}


def _check_metadata(metadata: Any, path: Path) -> None:
    if not isinstance(metadata, dict):
        raise FormatError(f"metadata is a {type(metadata).__name__}, a JSON object was expected", where=path)
    provenance = metadata.get("provenance", {})
    recognizer = provenance.get("recognizer") if isinstance(provenance, dict) else None
    for key, value, kind in (("identities", metadata.get("identities", []), list),
                             ("images", metadata.get("images", []), list), ("provenance", provenance, dict),
                             ("provenance.recognizer", recognizer, dict | None)):
        if not isinstance(value, kind):
            raise FormatError(f"{key} is a {type(value).__name__}, another kind of value was expected", where=path)


def read_embeddings(path: str | os.PathLike) -> Embeddings:
    """Read embeddings; those of a ``.safetensors`` file stay on disk until touched.

    Files with only ``embeddings`` and ``labels`` are read too. ``FormatError`` if truncated, incomplete or
    inconsistent.
    """
    path = existing_file(path, "embeddings file")
    if checked_suffix(path) == ".safetensors":
        metadata = read_metadata(path)
        arrays = _map_safetensors(path)
    else:
        arrays, metadata = _read_npz(path)
    _check_metadata(metadata, path)
    labels = arrays["labels"]
    value = Embeddings(arrays["embeddings"], labels.astype(np.int64) if labels.dtype.kind in "iu" else labels,
                       tuple(metadata.get("identities", ())), tuple(metadata.get("images", ())),
                       metadata.get("provenance", {}))
    return _checked(value, path, FormatError)
