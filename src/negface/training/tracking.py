"""TensorBoard events of a training, if asked for and installed (extra ``track``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from negface.foundation.errors import InputError

Note = Callable[[int, dict[str, float]], None]


@contextmanager
def tracker(folder: Path, wanted: bool) -> Iterator[Note]:
    """A function ``(step, values)`` that writes scalars to ``folder``, or nothing where it is not ``wanted``.

    Raises ``InputError`` if it is wanted and TensorBoard is not installed.
    """
    if not wanted:
        yield lambda step, values: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("TensorBoard is not installed", where=folder, fix="pip install 'negface[track]'") from error
    with SummaryWriter(str(folder)) as writer:

        def note(step: int, values: dict[str, float]) -> None:
            for key, value in values.items():
                writer.add_scalar(key, value, step)

        yield note
