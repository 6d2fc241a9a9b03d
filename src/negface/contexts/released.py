"""Context files of the released systems, in and out: pickled dicts named ``.npy`` (IDiff-Face, NegFaceDiff), plain
arrays (UIFace). Pickles go through the allow-list; the files written load in the old code and its old numpy.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..foundation.checkpoints import LEGACY_MAGIC, is_checkpoint, read_checkpoint
from ..foundation.errors import FormatError, UnknownNameError
from ..foundation.files import existing_file, write_bytes
from ..foundation.hashing import sha256_file
from ..foundation.pickles import restricted_loads
from .bank import UNIT_TOLERANCE, ContextBank, unit_rows

LAYOUTS = ("dict", "array")
NPY_MAGIC = b"\x93NUMPY"
ARCHIVE_TIME = (1980, 1, 1, 0, 0, 0)


def read_released(path: str | os.PathLike, *, conditioner: Mapping[str, Any] | None = None,
                  real_people: bool = True) -> ContextBank:
    """A bank from a released context file: a dict of vectors, or an array ``[n, d]`` (ids ``"0" … "n-1"``).

    Rows that are no unit vectors are normalised, as UIFace does; unit rows keep every bit.

    Args:
        path: written by ``torch.save``, ``numpy.save`` or ``pickle``; the name's ending says nothing.
        conditioner: name and hash of the recogniser whose embeddings these are.
        real_people: whether they describe people who exist; a released file does not say, so they count as real.

    Raises:
        FormatError: truncated, or no contexts; UnsafePickleError: it asks for more than arrays.
    """
    path = existing_file(path, "context file")
    ids, vectors = _vectors(_content(path), path)
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise FormatError("holds NaN or infinity", where=f"{path}, context {ids[row]!r}")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    normalised = bool((np.abs(lengths - 1) > UNIT_TOLERANCE).any())
    if normalised and not lengths.all():
        raise FormatError("is zero", where=f"{path}, context {ids[int(np.flatnonzero(lengths == 0)[0])]!r}")
    contexts = unit_rows(vectors) if normalised else vectors.astype(np.float32)
    return ContextBank.from_vectors(
        contexts, ids, source="released file", conditioner=dict(conditioner) if conditioner else None,
        describes_real_people=real_people,
        parameters={"file": path.name, "sha256": sha256_file(path), "normalised": normalised})


def write_released(bank: ContextBank, path: str | os.PathLike, layout: str = "dict") -> None:
    """Write a bank as the released code reads it, atomically; equal banks give equal bytes.

    ``dict``: ``{id: float32 [d]}`` as ``torch.save`` writes it (IDiff-Face, NegFaceDiff: ``torch.load``).
    ``array``: float32 ``[n, d]`` without ids (UIFace: ``numpy.load``). Provenance has no place in either.
    """
    if layout not in LAYOUTS:
        raise UnknownNameError("layout", layout, LAYOUTS)
    if layout == "array":
        buffer = io.BytesIO()
        np.save(buffer, bank.contexts, allow_pickle=False)
        write_bytes(path, buffer.getvalue())
    else:
        write_bytes(path, _torch_zip(dict(zip(bank.ids, bank.contexts))))


def _content(path: Path) -> Any:
    with open(path, "rb") as file:
        if file.read(len(NPY_MAGIC)) == NPY_MAGIC:
            return _read_npy(path)
    data = path.read_bytes()
    if not is_checkpoint(path):
        raise FormatError("is no file of torch.save, numpy.save or pickle", where=path,
                          fix="give a released context file")
    if data[:1] == b"\x80":
        found = restricted_loads(data, where=path, encoding="latin1")
        return read_checkpoint(path) if isinstance(found, int) and found == LEGACY_MAGIC else found
    return read_checkpoint(path)


def _read_npy(path: Path) -> Any:
    """An ``.npy`` file; one that holds a pickled object gives the object, through the allow-list."""
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            _, _, dtype = read(file)
            if not dtype.hasobject:
                return np.load(path, allow_pickle=False)
        except Exception as error:  # the header is parsed as Python, which fails in many ways
            reason = " ".join(f"{error}".split())[:100]
            raise FormatError(f"not a complete .npy file ({reason})", where=path, fix="copy it again") from error
        found = restricted_loads(file.read(), where=path, encoding="latin1")
    return found.item() if isinstance(found, np.ndarray) and found.ndim == 0 else found


def _vectors(content: Any, path: Path) -> tuple[list[str], np.ndarray]:
    """Ids and float ``[n, d]``."""
    if not isinstance(content, Mapping):
        array = _array(content, path, "the array")
        if array.ndim != 2 or 0 in array.shape:
            raise FormatError(f"holds an array {list(array.shape)}, contexts are [n, d]", where=path)
        return [str(row) for row in range(len(array))], array
    if not content:
        raise FormatError("holds no context", where=path)
    rows = {str(name): _array(value, path, f"context {name!r}") for name, value in content.items()}
    if len(rows) != len(content):
        raise FormatError("has two ids that read the same", where=path)
    if all(row.ndim == 0 for row in rows.values()):
        raise FormatError("is a table of negatives (one number per identity), not of contexts", where=path,
                          fix="choose negatives with `negface negatives`")
    rows = {name: row[0] if row.ndim == 2 and len(row) == 1 else row for name, row in rows.items()}
    first = next(iter(rows.values())).shape
    wrong = next((name for name, row in rows.items() if row.ndim != 1 or row.shape != first or not row.size), None)
    if wrong is not None:
        raise FormatError(f"has shape {list(rows[wrong].shape)}, expected {list(first) if len(first) == 1 else '[d]'}",
                          where=f"{path}, context {wrong!r}")
    return list(rows), np.stack(list(rows.values()))


def _array(value: Any, path: Path, what: str) -> np.ndarray:
    if hasattr(value, "detach"):  # a torch tensor, without importing torch
        value = value.detach().to("cpu").float().numpy() if value.is_floating_point() else value.detach().numpy()
    if isinstance(value, list | tuple) and all(isinstance(item, float | int) for item in value):
        value = np.array(value, dtype=np.float64)
    if not isinstance(value, np.ndarray | np.generic) or np.asarray(value).dtype.kind not in "fiu":
        kind = f"{type(value).__name__}" + (f" of {value.dtype}" if isinstance(value, np.ndarray) else "")
        raise FormatError(f"is {kind}, real numbers were expected", where=f"{path}, {what}")
    return np.asarray(value).view(np.ndarray)


class _OldPickler(pickle._Pickler):
    """Names numpy's rebuilder as numpy 1 did: numpy 2 reads both names, numpy 1 only its own."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if getattr(obj, "__module__", "") == "numpy._core.multiarray":
            self.write(pickle.GLOBAL + f"numpy.core.multiarray\n{obj.__name__}\n".encode())
            self.memoize(obj)
        else:
            super().save_global(obj, name)


def _torch_zip(content: Any) -> bytes:
    """What ``torch.save`` writes for an object without tensors (zip, entries stored), free of clocks."""
    pickled, archive = io.BytesIO(), io.BytesIO()
    _OldPickler(pickled, protocol=2).dump(content)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as writer:
        for name, data in (("data.pkl", pickled.getvalue()), ("version", b"3\n")):
            writer.writestr(zipfile.ZipInfo(f"archive/{name}", ARCHIVE_TIME), data)
    return archive.getvalue()


