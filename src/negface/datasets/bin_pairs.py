"""insightface's verification ``.bin``: a pickle of (list of encoded pictures, list of bool), read without running it.

Plain files are indexed opcode by opcode, so a picture is read when asked for; others (numpy entries, old protocols)
go through the restricted unpickler. The writer makes the opcodes itself, so it never holds more than one picture.
"""

from __future__ import annotations

import os
import pickle
import pickletools
import reprlib
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from negface.foundation.errors import FormatError, InputError, MismatchError
from negface.foundation.files import atomic_path, existing_file
from negface.foundation.pickles import restricted_loads

from .pair_lists import PairImages, listed_images, read_pairs, write_pairs

_BATCH = 1000
_PROTOCOL = 3  # the first with bytes


def bin_sidecar(path: str | os.PathLike) -> Path:
    """Where the names of a ``.bin`` stand: a CSV pair list beside it."""
    return Path(f"{path}.csv")


def open_pairs(path: str | os.PathLike, images: str | os.PathLike | None = None) -> PairImages:
    """Verification pairs with their pictures: a ``.bin``, or a pair list with the folder its names start from.

    ``images`` is that folder (None = where the list lies).
    """
    path = Path(path)
    return read_bin(path) if path.suffix == ".bin" else listed_images(read_pairs(path), images or path.parent)


def read_bin(path: str | os.PathLike) -> PairImages:
    """Open a ``.bin``; names come from its sidecar if that is there.

    Raises:
        FormatError: not such a pickle, an odd count, an entry that is no encoded picture; names the entry.
        UnsafePickleError: the pickle asks for anything but containers, numbers and arrays; nothing of it was run.
        MismatchError: the sidecar tells of other pairs.
    """
    path = existing_file(Path(path), "verification file")
    pictures, same = _content(path)
    if len(pictures) != 2 * len(same):
        raise FormatError(f"holds {len(pictures)} pictures for {len(same)} pairs; {2 * len(same)} were expected",
                          where=path, fix="pair i is pictures 2i and 2i + 1; make or copy the file again")
    if not len(same):
        raise InputError("holds no pairs", where=path)
    names: tuple[str, ...] = ()
    if bin_sidecar(path).is_file():
        listed = read_pairs(bin_sidecar(path))
        if not np.array_equal(listed.same, same):
            raise MismatchError(f"names {len(listed)} pairs that are not the {len(same)} of the .bin",
                                where=bin_sidecar(path), fix="remove it, or put back the one written with the .bin")
        names = listed.names
    return PairImages(same, names, pictures.__getitem__)


def write_bin(path: str | os.PathLike, pictures: Iterable[bytes], same: np.ndarray, names: Sequence[str] = ()) -> None:
    """Write a ``.bin`` atomically from a stream of 2n encoded pictures; names go to the sidecar.

    Raises ``InputError`` if the stream does not hold ``2 * len(same)`` pictures; nothing is written then.
    """
    path = Path(path)
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        count = _dump(handle, pictures, same)
        if count != 2 * len(same):
            raise InputError(f"{count} pictures for {len(same)} pairs; {2 * len(same)} were expected", where=path)
    if len(names):
        write_pairs(bin_sidecar(path), names, same)
    else:
        bin_sidecar(path).unlink(missing_ok=True)


def _dump(handle: BinaryIO, pictures: Iterable[bytes], same: Iterable[bool]) -> int:
    count = 0
    handle.write(pickle.PROTO + bytes([_PROTOCOL]) + pickle.EMPTY_LIST)
    for count, picture in enumerate(pictures, 1):
        if count % _BATCH == 1:
            handle.write((pickle.APPENDS if count > 1 else b"") + pickle.MARK)
        handle.write(pickle.BINBYTES + struct.pack("<I", len(picture)) + picture)
    handle.write((pickle.APPENDS if count else b"") + pickle.EMPTY_LIST + pickle.MARK)
    handle.write(b"".join(pickle.NEWTRUE if flag else pickle.NEWFALSE for flag in same))
    handle.write(pickle.APPENDS + pickle.TUPLE2 + pickle.STOP)
    return count


def _content(path: Path) -> tuple[Sequence[bytes], np.ndarray]:
    """Pictures and flags: by opcodes where all of them are plain, else by the restricted unpickler."""
    try:
        with open(path, "rb") as handle:
            pictures, same = _scan(handle)
        return _Spans(path, pictures), _flags(same, path)
    except (_NotPlain, ValueError, IndexError, TypeError, AttributeError, KeyError, MemoryError, OverflowError):
        pass
    value = restricted_loads(path.read_bytes(), where=path, encoding="bytes")
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise FormatError(f"holds a {type(value).__name__}, (list of pictures, list of bool) was expected", where=path)
    pictures, same = value
    if not isinstance(pictures, list | tuple | np.ndarray):
        raise FormatError(f"its pictures are a {type(pictures).__name__}, a list was expected", where=path)
    return [_encoded(entry, i, path) for i, entry in enumerate(pictures)], _flags(same, path)


def _encoded(entry: Any, index: int, path: Path) -> bytes:
    if isinstance(entry, bytes | bytearray):
        return bytes(entry)
    if isinstance(entry, np.ndarray) and entry.dtype == np.uint8 and entry.size == max(entry.shape, default=0):
        return entry.tobytes()
    got = f"{entry.dtype} {list(entry.shape)}" if isinstance(entry, np.ndarray) else type(entry).__name__
    raise FormatError(f"picture {index} is {got}, encoded bytes were expected", where=path,
                      fix="pictures are JPEG or PNG bytes, as bytes or as a flat uint8 array")


def _flags(same: Any, path: Path) -> np.ndarray:
    if not isinstance(same, list | tuple | np.ndarray):
        raise FormatError(f"its flags are a {type(same).__name__}, a list was expected", where=path)
    for i, flag in enumerate(same):
        if not isinstance(flag, bool | int | np.bool_ | np.integer) or int(flag) not in (0, 1):
            raise FormatError(f"flag {i} is {reprlib.repr(flag)}, True or False was expected", where=path)
    return np.asarray(same, dtype=bool)


class _Spans(Sequence):
    """Pictures of a file by offset and length."""

    def __init__(self, path: Path, spans: Sequence[_Span]):
        self._path = path
        self._spans = np.asarray(spans, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]
        offset, length = map(int, self._spans[index])
        with open(self._path, "rb") as handle:
            return os.pread(handle.fileno(), length, offset)


class _NotPlain(Exception):
    """The pickle needs more than lists, bytes and bools."""


class _Span(NamedTuple):
    offset: int
    length: int


_BYTES = {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BINSTRING", "SHORT_BINSTRING"}
_VALUES = {"NEWTRUE": True, "NEWFALSE": False}
_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
_MARK = object()


def _scan(handle: BinaryIO) -> tuple[list[_Span], list[Any]]:
    """Run a pickle's plain opcodes on where its bytes lie instead of on the bytes; ``_NotPlain`` for any other."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, argument, _ in pickletools.genops(handle):
        name = opcode.name
        if name in _BYTES:
            stack.append(_Span(handle.tell() - len(argument), len(argument)))
        elif name in _VALUES:
            stack.append(_VALUES[name])
        elif name in ("INT", "BININT", "BININT1", "BININT2"):
            stack.append(argument)
        elif name in _PUTS or name == "MEMOIZE":
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in _GETS:
            stack.append(memo[argument])
        elif name not in ("PROTO", "FRAME", "STOP"):
            _build(name, stack)
    value = stack.pop()
    if stack or not isinstance(value, tuple | list) or len(value) != 2 or not all(isinstance(v, list) for v in value):
        raise _NotPlain
    if not all(isinstance(span, _Span) for span in value[0]):
        raise _NotPlain
    return value[0], value[1]


def _build(name: str, stack: list[Any]) -> None:
    if name == "MARK":
        stack.append(_MARK)
    elif name == "EMPTY_LIST":
        stack.append([])
    elif name == "APPEND":
        item = stack.pop()
        stack[-1].append(item)
    elif name == "APPENDS":
        items = _since_mark(stack)
        stack[-1].extend(items)
    elif name in ("LIST", "TUPLE"):
        items = _since_mark(stack)
        stack.append(items if name == "LIST" else tuple(items))
    elif name == "TUPLE2":
        stack[-2:] = [(stack[-2], stack[-1])]
    else:
        raise _NotPlain


def _since_mark(stack: list[Any]) -> list[Any]:
    at = len(stack) - 1
    while stack[at] is not _MARK:
        at -= 1
        if at < 0:
            raise _NotPlain
    items = stack[at + 1 :]
    del stack[at:]
    return items
