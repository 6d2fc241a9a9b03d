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

_PUTS, _GETS = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")
_LARGEST_SHARE = 1_000_000  # objects that tuples hold more than once
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


def _check_opcodes(file: BinaryIO) -> None:
    """Refuse before it runs what would hang or fill the memory of C's unpickler.

    That is a memo place that no pickler hands out (a table as long as the largest is allocated), and a tuple that holds
    itself twice, which holds itself twice, and so on: a short pickle, but hashing it as a key takes for ever.
    """
    start, shared, count = file.tell(), 0, 0
    stack: list[int | None] = []  # what each object would weigh, written out; None is a mark
    memo: dict[int, int | None] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        name = opcode.name
        if name in _PUTS or name == "MEMOIZE":
            place = len(memo) if name == "MEMOIZE" else argument
            if place > max(count, 256):
                raise ValueError(f"memo place {place} after {count} opcodes")
            memo[place] = stack[-1] if stack else 1
        elif name in _GETS or name == "DUP":
            weight = (stack[-1] if stack else 1) if name == "DUP" else memo.get(argument, 1)
            shared += (weight or 1) - 1
            stack.append(weight)
        else:
            weights = _popped(stack, opcode)
            if name.startswith("TUPLE"):
                stack.append(1 + sum(weights))
            else:
                stack += [None if name == "MARK" else 1] * len(opcode.stack_after)
        if shared > max(_LARGEST_SHARE, 10 * count):
            raise ValueError("tuples within tuples that grow without end")
    file.seek(start)


def _popped(stack: list[int | None], opcode: pickletools.OpcodeInfo) -> list[int]:
    """Take from the stack what an opcode takes: to the last mark, and what it wants below that."""
    wanted, taken = list(opcode.stack_before), []
    if pickletools.markobject in wanted:
        while stack and (weight := stack.pop()) is not None:
            taken.append(weight)
        wanted = wanted[: wanted.index(pickletools.markobject)]
    for _ in wanted[: len(stack)]:
        taken.append(stack.pop() or 1)
    return taken


def carefully(unpickler: RestrictedUnpickler) -> Any:
    """The next object of an unpickler; ``FormatError`` for whatever a broken pickle raises."""
    try:
        _check_opcodes(unpickler.file)
        return unpickler.load()
    except NegFaceError as error:
        if error.where is not None:
            raise
        raise type(error)(error.what, where=unpickler.where, fix=error.fix or NOTHING_RAN) from error
    except Exception as error:  # a broken pickle can raise nearly anything
        reason = f"{type(error).__name__}: {error}"[:200]
        raise FormatError(f"not a readable pickle ({reason})", where=unpickler.where,
                          fix="it is truncated or not a pickle: copy it again") from error
