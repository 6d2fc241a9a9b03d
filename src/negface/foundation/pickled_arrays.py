"""Numpy arrays out of pickles, rebuilt by us: numpy's own rebuilders trust the data types a pickle describes.

A crafted data type can make numpy read bytes as object pointers; here a type is one of a few plain kinds or refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import UnsafePickleError

PLAIN_KINDS = "biufcSUO"
BYTE_ORDERS = "<>|="


class PickledType:
    """What a pickle says of a data type: only its code and byte order are taken."""

    __slots__ = ("code", "order")

    def __init__(self, code: str | bytes, *_: Any):
        if not isinstance(code, str | bytes):
            raise UnsafePickleError("the pickle describes a numpy data type without a code")
        self.code, self.order = (code.decode("ascii") if isinstance(code, bytes) else code), "|"

    def __setstate__(self, state: tuple) -> None:
        order, subtype, names, fields = (state[1].decode() if isinstance(state[1], bytes) else state[1]), *state[2:5]
        if order not in BYTE_ORDERS or subtype is not None or names is not None or fields is not None:
            raise UnsafePickleError(f"the pickle describes a compound numpy data type ({self.code!r})")
        self.order = order

    @property
    def dtype(self) -> np.dtype:
        """The numpy data type; ``UnsafePickleError`` unless it is of a plain kind."""
        found = np.dtype(self.code)
        if found.kind not in PLAIN_KINDS or found.hasobject != (found.kind == "O") or found.names or found.subdtype:
            raise UnsafePickleError(f"the pickle describes a numpy data type that is not plain ({self.code!r})")
        return found if self.order == "|" else found.newbyteorder(self.order)


class PickledArray(np.ndarray):
    """An ordinary array whose state was checked when it was unpickled."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, described, fortran, data = state
        if not isinstance(described, PickledType):
            raise UnsafePickleError("the pickle holds an array without a data type")
        dtype, count = described.dtype, int(np.prod([_size(side) for side in shape], dtype=object))
        if isinstance(data, str):  # protocol 2 of Python 2, read with encoding latin1
            data = data.encode("latin1")
        kept, length = (list, count) if dtype.hasobject else ((bytes, bytearray), count * dtype.itemsize)
        if not isinstance(data, kept) or len(data) != length:
            raise ValueError(f"an array of shape {tuple(shape)} and type {dtype} does not have {length} items of data")
        super().__setstate__((1, tuple(shape), dtype, bool(fortran), data))


def _size(side: Any) -> int:
    if not isinstance(side, int) or side < 0:
        raise ValueError(f"a {type(side).__name__} is no length of an axis")
    return side


class Rebuild:
    """What pickles of arrays call, as bound methods: unlike functions, a pickle cannot change their defaults."""

    @classmethod
    def array(cls, *_: Any) -> PickledArray:
        """Stands for ``numpy.core.multiarray._reconstruct``: an empty array that ``__setstate__`` fills."""
        return np.empty(0, np.uint8).view(PickledArray)

    @classmethod
    def scalar(cls, described: PickledType, data: Any = b"") -> Any:
        """Stands for ``numpy.core.multiarray.scalar``."""
        if described.dtype.hasobject:
            raise UnsafePickleError("the pickle holds a numpy scalar of objects")
        data = data.encode("latin1") if isinstance(data, str) else bytes(data)
        return np.frombuffer(data, described.dtype, count=1)[0]

    @classmethod
    def from_buffer(cls, data: Any, described: PickledType, shape: tuple, order: str) -> np.ndarray:
        """Stands for ``numpy.core.numeric._frombuffer`` (pickle protocol 5)."""
        if described.dtype.hasobject:
            raise UnsafePickleError("the pickle holds a buffer of objects")
        return np.frombuffer(bytes(data), described.dtype).reshape([_size(side) for side in shape], order=order)

    @classmethod
    def bytearray(cls, data: Any = b"", encoding: str = "latin1") -> bytearray:
        """Stands for ``bytearray``, which would allocate any number of bytes it is asked for."""
        return bytearray(cls.encode(data, encoding) if isinstance(data, str) else bytes(memoryview(data)))

    @classmethod
    def encode(cls, text: str, encoding: str = "latin1") -> bytes:
        """Stands for ``_codecs.encode``, with which protocol 2 writes bytes; other codecs can be made to hang."""
        if encoding not in ("latin1", "latin-1"):
            raise UnsafePickleError(f"the pickle asks for the codec {encoding!r}")
        return text.encode("latin1")


ARRAY_GLOBALS = {
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): PickledType,
    ("builtins", "bytearray"): Rebuild.bytearray,
    ("_codecs", "encode"): Rebuild.encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): Rebuild.array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): Rebuild.scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): Rebuild.from_buffer for core in ("core", "_core")},
}
