"""One error family: what was wrong, where, what to do about it.

Every error a user can cause derives from ``NegFaceError``; the command line prints it in one line and exits
with ``exit_code`` (2 = wrong use or bad input, 1 = the work could not be completed).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NegFaceError(Exception):
    """Base of all errors raised on purpose.

    Args:
        what: what is wrong, in one sentence.
        where: the file, key, row or argument it was found in.
        fix: what the user can do.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: object = None, fix: str | None = None):
        self.what, self.where, self.fix = what, (None if where is None else str(where)), fix
        parts = [what if self.where is None else f"{self.where}: {what}"]
        if fix:
            parts.append(fix)
        super().__init__("; ".join(parts))


class InputError(NegFaceError):
    """Wrong use or bad input: an argument, a file's content, a shape, a value out of range."""

    exit_code = 2


class FormatError(InputError):
    """A file is not what its name says: truncated, wrong magic, missing key, wrong dtype or shape."""


class UnsafePickleError(FormatError):
    """A pickle asks for a global that is not on the allow-list; nothing of it was run."""


class UnknownNameError(InputError):
    """A name that no registry entry has; carries a suggestion."""

    def __init__(self, kind: str, name: str, known: Iterable[str]):
        known = sorted(known)
        close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        super().__init__(f"unknown {kind} {name!r}", fix=f"{hint}known: {', '.join(known)}")


class MismatchError(InputError):
    """Two things that must belong together do not: contexts and conditioner, judge and conditioner, plan and folder."""


class OutputError(NegFaceError):
    """The output cannot be written: no permission, no space, exists already."""

    exit_code = 2


class IncompleteError(NegFaceError):
    """The work ended without all that was asked for; what is missing is named."""

    exit_code = 1


class TrainingError(NegFaceError):
    """Training stopped because it cannot go on (NaN loss, exhausted data)."""

    exit_code = 1
