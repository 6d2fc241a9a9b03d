"""torch checkpoints without torch's unpickler: zip (torch >= 1.6) and the older stream, through the allow-list.

Tensors are rebuilt here from raw storages; inert classes of old frameworks become placeholders; everything else that a
pickle asks for is refused by name before it runs. Nothing is extracted, so no entry can leave its archive.
"""

from __future__ import annotations

import io
import math
import os
import re
import struct
import sys
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from .errors import FormatError, UnsafePickleError
from .files import existing_file
from .pickles import RestrictedUnpickler, carefully

LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
ZIP_MAGIC = b"PK\x03\x04"
STORAGES = {"Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64",
            "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool"}
DTYPES = (*STORAGES.values(), "float", "double", "half", "long", "int", "short")


class StorageType:
    """What a pickle names as the type of a storage: a dtype's name and nothing that can be called."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: str):
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        raise UnsafePickleError("the pickle tries to change a storage type")


def read_checkpoint(path: str | os.PathLike) -> Any:
    """The object in a torch checkpoint: plain containers, CPU tensors, arrays, placeholders.

    Raises:
        UnsafePickleError: it asks for a global that is not on the allow-list; the message names it.
        FormatError: truncated, damaged, compressed, TorchScript, or no torch checkpoint at all.
    """
    path = existing_file(path, "checkpoint")
    with open(path, "rb") as file:
        start = file.read(len(ZIP_MAGIC))
        file.seek(0)
        if start == ZIP_MAGIC:
            return _read_zip(path, file)
        if start[:1] == b"\x80":
            return _Legacy(path, file).read()
    fix = "make or copy it again" if not start else "give a file that torch.save wrote"
    raise FormatError("is empty" if not start else "is no torch checkpoint", where=path, fix=fix)


def is_checkpoint(path: str | os.PathLike) -> bool:
    """Whether a file starts like one that ``torch.save`` wrote."""
    with open(path, "rb") as file:
        start = file.read(len(ZIP_MAGIC))
    return start == ZIP_MAGIC or start[:1] == b"\x80"


class _Tensors:
    """Rebuilds the tensors of one file; its bound methods stand where torch's functions stood."""

    def __init__(self, path: Path):
        import torch

        self.path, self.torch = path, torch
        self.globals: dict[tuple[str, str], Any] = {
            **{("torch", f"{name}Storage"): StorageType(dtype) for name, dtype in STORAGES.items()},
            ("torch.storage", "UntypedStorage"): StorageType("uint8"),
            **{("torch", name): StorageType(str(getattr(torch, name)).removeprefix("torch.")) for name in DTYPES},
            ("torch._utils", "_rebuild_tensor_v2"): self.rebuild,
            ("torch._utils", "_rebuild_tensor"): self.rebuild,
            ("torch._utils", "_rebuild_parameter"): self.parameter,
            ("torch.nn.parameter", "Parameter"): self.parameter,
            ("torch", "Size"): self.size,
            ("torch", "device"): self.device,
        }

    def flat(self, raw: bytearray, dtype: str, key: str) -> Any:
        """Raw bytes as a flat tensor of a dtype."""
        kind = getattr(self.torch, dtype)
        if len(raw) % kind.itemsize:
            raise FormatError(f"storage {key} has {len(raw)} bytes, no multiple of {kind.itemsize}", where=self.path)
        return self.torch.frombuffer(raw, dtype=kind) if raw else self.torch.empty(0, dtype=kind)

    def rebuild(self, flat: Any, offset: int, shape: tuple, stride: tuple, *_: Any) -> Any:
        """A view of a flat storage; ``ValueError`` where it would reach outside of it."""
        numbers = (offset, *shape, *stride)
        if not all(isinstance(number, int) and number >= 0 for number in numbers) or len(shape) != len(stride):
            raise ValueError("a tensor whose shape, stride and offset are not whole numbers that fit each other")
        last = offset + sum((side - 1) * step for side, step in zip(shape, stride))
        if 0 not in shape and (last >= flat.numel() or math.prod(shape) > flat.numel()):
            raise ValueError(f"a tensor of shape {tuple(shape)} reaches beyond its {flat.numel()} stored numbers")
        return flat.as_strided(tuple(shape), tuple(stride), offset)

    def parameter(self, data: Any, *_: Any) -> Any:
        """A parameter is its tensor."""
        if not isinstance(data, self.torch.Tensor):
            raise ValueError("a parameter without a tensor")
        return data

    def size(self, shape: Any = ()) -> tuple:
        """A shape is a tuple."""
        return tuple(shape)

    def device(self, *described: Any) -> str:
        """A device is its name: everything is read to the CPU."""
        return ":".join(str(part) for part in described if isinstance(part, str | int))


class _Unpickler(RestrictedUnpickler):
    def __init__(self, file: BinaryIO, tensors: _Tensors, load: Any):
        # latin1: bytes and arrays in checkpoints that Python 2 wrote
        super().__init__(file, where=tensors.path, extra=tensors.globals, inert=True, encoding="latin1")
        self.load_storage = load

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("torch.nn.modules"):
            raise UnsafePickleError(f"is a whole module (it asks for {module}.{name}), whose code is never run here",
                                    where=self.where, fix="save the module's state_dict() instead")
        return super().find_class(module, name)

    def persistent_load(self, saved: Any) -> Any:
        if not (isinstance(saved, tuple) and len(saved) >= 5 and saved[0] == "storage"
                and isinstance(saved[1], StorageType) and isinstance(saved[2], str)):
            raise UnsafePickleError("the pickle refers to something outside that is no storage")
        return self.load_storage(saved[1].dtype, saved[2], *saved[4:])


def _read_zip(path: Path, file: BinaryIO) -> Any:
    try:
        with zipfile.ZipFile(file) as archive:
            return _read_archive(path, archive)
    except (zipfile.BadZipFile, EOFError, struct.error, NotImplementedError, OSError, UnicodeDecodeError) as error:
        raise FormatError(f"not a complete checkpoint ({error})", where=path,
                          fix="it is truncated or damaged: copy it again") from error


def _read_archive(path: Path, archive: zipfile.ZipFile) -> Any:
    entries = {entry.filename: entry for entry in archive.infolist()}
    for entry in entries.values():
        _check_entry(path, entry)
    if sum(entry.file_size for entry in entries.values()) > path.stat().st_size:
        raise FormatError("announces more bytes than it has", where=path, fix="it is damaged: copy it again")
    pickles = [name for name in entries if PurePosixPath(name).name == "data.pkl"]
    if len(pickles) != 1:
        raise FormatError(f"holds {len(pickles)} data.pkl, one was expected", where=path,
                          fix="give a file that torch.save wrote")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries:
        raise FormatError("is a TorchScript module, whose code is never run here", where=path,
                          fix="save the module's state_dict()")
    if f"{root}byteorder" in entries and archive.read(f"{root}byteorder").decode("ascii", "replace") != sys.byteorder:
        raise FormatError(f"was written on a machine of another byte order than {sys.byteorder}", where=path)
    tensors, found = _Tensors(path), {}

    def storage(dtype: str, key: str, numel: int, *_: Any) -> Any:
        if (dtype, key) not in found:
            name = f"{root}data/{key}"
            if name not in entries:
                raise FormatError(f"has no entry {name}", where=path, fix="it is incomplete: copy it again")
            raw = bytearray(entries[name].file_size)
            with archive.open(name) as handle:
                if handle.readinto(raw) != len(raw) or handle.read(1):
                    raise FormatError(f"entry {name} is truncated", where=path, fix="copy it again")
            found[dtype, key] = tensors.flat(raw, dtype, key)
        return found[dtype, key]

    return carefully(_Unpickler(io.BytesIO(archive.read(pickles[0])), tensors, storage))


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename
    if name.startswith(("/", "\\")) or "\\" in name or re.match("[A-Za-z]:", name) or ".." in PurePosixPath(name).parts:
        raise UnsafePickleError(f"entry {name!r} points outside of the archive", where=path,
                                fix="no checkpoint needs that; nothing of it was read")
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise FormatError(f"entry {name!r} is compressed, checkpoints are not", where=path,
                          fix="give the file as torch.save wrote it")


class _Legacy:
    """The stream of torch < 1.6: magic, protocol, machine, object, storage keys (all pickled), then raw storages."""

    def __init__(self, path: Path, file: BinaryIO):
        self.path, self.file, self.left = path, file, path.stat().st_size
        self.tensors = _Tensors(path)
        self.types: dict[str, tuple[str, int]] = {}
        self.waiting: dict[str, Any] = {}

    def read(self) -> Any:
        if self._object() != LEGACY_MAGIC:
            raise FormatError("is a pickle, but no torch checkpoint", where=self.path,
                              fix="give a file that torch.save wrote")
        protocol, machine = self._object(), self._object()
        if protocol != LEGACY_PROTOCOL or not isinstance(machine, dict) or not machine.get("little_endian", True):
            raise FormatError("is a checkpoint of an unknown protocol", where=self.path)
        found = self._object()
        keys = self._object()
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or (
                sorted(keys) != sorted(self.waiting)):
            raise FormatError(f"promises {len(self.waiting)} storages and lists others", where=self.path,
                              fix="it is damaged: copy it again")
        for key in keys:
            self._fill(key)
        return found

    def _object(self) -> Any:
        return carefully(_Unpickler(self.file, self.tensors, self._storage))

    def _storage(self, dtype: str, key: str, numel: int, view: Any = None, *_: Any) -> Any:
        """A storage of the announced size, filled after the object is read (the raw bytes come last)."""
        kind = getattr(self.tensors.torch, dtype)
        if key not in self.waiting:
            if not isinstance(numel, int) or not 0 <= numel * kind.itemsize <= self.left:
                raise ValueError(f"storage {key} announces {numel} numbers, more than the file holds")
            self.left -= numel * kind.itemsize
            self.waiting[key] = self.tensors.torch.empty(numel, dtype=kind)
        whole = self.waiting[key]
        if view is None:
            return whole
        _, offset, length = view
        return self.tensors.rebuild(whole, offset, (length,), (1,))

    def _fill(self, key: str) -> None:
        target = self.waiting[key]
        head = self.file.read(8)
        if len(head) != 8 or struct.unpack("<q", head)[0] != target.numel():
            raise FormatError(f"storage {key} does not have the {target.numel()} numbers announced", where=self.path,
                              fix="it is truncated or damaged: copy it again")
        raw = memoryview(target.view(self.tensors.torch.uint8).numpy())
        if raw.nbytes and self.file.readinto(raw) != raw.nbytes:
            raise FormatError(f"ends inside storage {key}", where=self.path, fix="it is truncated: copy it again")
