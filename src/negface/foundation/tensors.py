"""safetensors with one canonical-JSON metadata key: the format of banks, selections, embeddings and checkpoints.

Files are byte-identical for equal content, so their SHA-256 is the content's name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as _save

from .errors import FormatError
from .files import existing_file, write_bytes
from .hashing import canonical_json

METADATA_KEY = "negface"


def write_tensors(path: str | os.PathLike, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write arrays and one JSON metadata value atomically."""
    arrays = {key: np.ascontiguousarray(value) for key, value in sorted(tensors.items())}
    write_bytes(path, _save(arrays, metadata={METADATA_KEY: canonical_json(dict(metadata))}))


def read_tensors(
    path: str | os.PathLike, required: tuple[str, ...] = ()
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read all arrays and the metadata (``{}`` if the file has none); ``FormatError`` if truncated or incomplete."""
    path = existing_file(path)
    try:
        with safe_open(path, framework="np") as handle:
            metadata = (handle.metadata() or {}).get(METADATA_KEY, "{}")
            keys = set(handle.keys())
            missing = [key for key in required if key not in keys]
            if missing:
                raise FormatError(
                    f"has no {', '.join(missing)}", where=path, fix=f"it holds: {', '.join(sorted(keys)) or 'nothing'}"
                )
            tensors = {key: handle.get_tensor(key) for key in keys}
    except SafetensorError as error:
        raise FormatError(
            f"not a complete safetensors file ({error})", where=path, fix="make or copy it again"
        ) from error
    except TypeError as error:  # bfloat16 and float8, which numpy does not have
        raise FormatError(f"holds a type of numbers that numpy lacks ({error})", where=path,
                          fix="save it as float32") from error
    return tensors, _parsed(metadata, path)


def _parsed(metadata: str, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(metadata)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"metadata is not JSON ({error})", where=path) from error
    if not isinstance(found, dict):
        raise FormatError(f"metadata is a {type(found).__name__}, a JSON object was expected", where=path)
    return found


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """Only the metadata of a safetensors file."""
    path = existing_file(Path(path))
    try:
        with safe_open(path, framework="np") as handle:
            metadata = (handle.metadata() or {}).get(METADATA_KEY, "{}")
    except SafetensorError as error:
        raise FormatError(
            f"not a complete safetensors file ({error})", where=path, fix="make or copy it again"
        ) from error
    return _parsed(metadata, path)
