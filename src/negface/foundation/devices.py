"""On what may be computed: this processor, or a GPU of this machine."""

from __future__ import annotations

import re

from negface.foundation.errors import InputError


def check_device(name: str) -> str:
    """``cpu``, ``cuda`` or ``cuda:N``, as it was given; ``InputError`` for another name, or where no such GPU is
    usable here."""
    import torch

    asked = re.fullmatch(r"cpu|cuda(?::(\d+))?", str(name))
    if asked is None:
        raise InputError(f"no device is called {name!r}", where="device", fix="cpu, cuda or cuda:N")
    usable = torch.cuda.device_count() if name != "cpu" and torch.cuda.is_available() else 0
    if name != "cpu" and int(asked[1] or 0) >= usable:
        raise InputError(f"{name} is not usable: torch {torch.__version__} sees {usable} GPUs here", where="device",
                         fix="use cpu, or a torch built for CUDA on a machine with such a GPU")
    return str(name)
