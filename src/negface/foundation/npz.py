"""``.npz`` archives of plain arrays from anywhere: read, or refused with a ``FormatError``; never unpickled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .errors import FormatError, NegFaceError


@contextmanager
def open_npz(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """The archive at ``path``; whatever fails while it is open makes a ``FormatError`` that names the file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            yield archive
    except NegFaceError:
        raise
    except Exception as error:  # archives, compression and headers parsed as Python each fail in many ways
        reason = " ".join(f"{error}".split())[:120]
        raise FormatError(f"not a complete .npz of plain arrays ({reason})", where=path,
                          fix="make or copy it again") from error
