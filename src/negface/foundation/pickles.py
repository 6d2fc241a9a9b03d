"""Restricted unpickling: only allow-listed globals are ever imported; inert framework classes become placeholders.

A pickle is a program. ``restricted_loads`` refuses, by name and before it runs, every global that is not on the list.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, BinaryIO

from .errors import FormatError, NegFaceError, UnsafePickleError
from .pickled_arrays import ARRAY_GLOBALS

# Globals that plain containers need, each harmless whatever it is called with; arrays are rebuilt by us.
PLAIN_GLOBALS = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "complex"): complex,
    ("__builtin__", "set"): set,
    **ARRAY_GLOBALS,
}
INERT_PREFIXES = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.", "lightning_lite.")

NOTHING_RAN = "nothing of it was run; do not open this file with anything that would"


class Placeholder:
    """Stands where an inert framework object stood; keeps its name, can be neither called nor used."""

    __slots__ = ("qualified_name", "state")

    def __init__(self, qualified_name: str):
        self.qualified_name, self.state = qualified_name, None

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise UnsafePickleError(f"placeholder of {self.qualified_name} cannot be called")


def _placeholder_class(module: str, name: str) -> type:
    qualified = f"{module}.{name}"

    def new(cls, *_: Any, **__: Any):
        return object.__new__(cls)

    def init(self, *_: Any, **__: Any):
        Placeholder.__init__(self, qualified)

    def setstate(self, state: Any):
        self.state = state

    def ignore(self, *_: Any, **__: Any):
        return None

    return type(
        "InertPlaceholder",
        (Placeholder,),
        {
            "__new__": new,
            "__init__": init,
            "__setstate__": setstate,
            "__setitem__": ignore,
            "append": ignore,
            "extend": ignore,
            "__slots__": (),
        },
    )


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that knows only the allow-list, extra globals given by name, and inert placeholders."""

    def __init__(
        self,
        file: BinaryIO,
        *,
        where: object,
        extra: Mapping[tuple[str, str], Any] | None = None,
        inert: bool = False,
        encoding: str = "ASCII",
    ):
        super().__init__(file, encoding=encoding)
        self.file = file
        self.where, self.extra, self.inert = where, dict(extra or {}), inert

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.extra:
            return self.extra[module, name]
        if (module, name) in PLAIN_GLOBALS:
            return PLAIN_GLOBALS[module, name]
        if self.inert and f"{module}.".startswith(INERT_PREFIXES):
            return _placeholder_class(module, name)
        raise UnsafePickleError(
            f"the pickle asks for {module}.{name}, which is not on the allow-list",
            where=self.where,
            fix=NOTHING_RAN,
        )


def restricted_loads(
    data: bytes,
    *,
    where: object,
    extra: Mapping[tuple[str, str], Any] | None = None,
    inert: bool = False,
    encoding: str = "ASCII",
) -> Any:
    """Unpickle plain containers and arrays; ``UnsafePickleError`` for anything else, ``FormatError`` if broken."""
    return carefully(RestrictedUnpickler(io.BytesIO(data), where=where, extra=extra, inert=inert, encoding=encoding))


def _check_memo(file: BinaryIO) -> None:
    """Refuse memo places that no pickler hands out: C's unpickler allocates a table as long as the largest."""
    start = file.tell()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > max(count, 256):
            raise ValueError(f"memo place {argument} after {count} opcodes")
    file.seek(start)


def carefully(unpickler: RestrictedUnpickler) -> Any:
    """The next object of an unpickler; ``FormatError`` for whatever a broken pickle raises."""
    try:
        _check_memo(unpickler.file)
        return unpickler.load()
    except NegFaceError as error:
        if error.where is not None:
            raise
        raise type(error)(error.what, where=unpickler.where, fix=error.fix or NOTHING_RAN) from error
    except Exception as error:  # a broken pickle can raise nearly anything
        reason = f"{type(error).__name__}: {error}"[:200]
        raise FormatError(f"not a readable pickle ({reason})", where=unpickler.where,
                          fix="it is truncated or not a pickle: copy it again") from error
