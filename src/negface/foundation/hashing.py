"""Content hashes: SHA-256 of files, of canonical JSON and of arrays: names of things that must not change silently."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import numpy as np


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no white space, no NaN: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON of a value."""
    return sha256_bytes(canonical_json(value).encode())


def sha256_array(array: np.ndarray) -> str:
    """Hex SHA-256 of an array's dtype, shape and C-ordered bytes."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def sha256_file(path: str | os.PathLike) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
