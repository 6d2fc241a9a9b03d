"""Claims: which process works on what. An advisory lock on a file, which the system drops when its holder dies.

So a killed worker leaves nothing to clean up, and two commands on one folder share the work and never do it twice.
A lock file may be removed by who holds it alone: whoever waited for it takes the one that lies there then.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from negface.foundation.files import output_errors


@contextlib.contextmanager
def claim(path: str | os.PathLike, *, wait: bool = False, shared: bool = False) -> Iterator[bool]:
    """Hold the lock on ``path`` while inside; yields False at once if another process has it (unless ``wait``)."""
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    while True:
        with output_errors(path):
            descriptor = os.open(Path(path), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, kind)
                held = True
            except BlockingIOError:
                held = False
            if held and not _is_there(descriptor, path):
                continue
            yield held
            return
        finally:
            os.close(descriptor)


def _is_there(descriptor: int, path: str | os.PathLike) -> bool:
    """Whether the path still leads to the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
