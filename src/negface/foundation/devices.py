"""On what may be computed: this processor, or a GPU of this machine."""

from __future__ import annotations

import re

from negface.foundation.errors import InputError


def device_parts(name: str) -> tuple[str, int | None]:
    """``("cuda", N)`` of ``cuda:N``, ``("cpu", None)``, ``("cuda", None)``; ``InputError`` for another name."""
    asked = re.fullmatch(r"(cpu)|(cuda)(?::(\d+))?", str(name))
    if asked is None:
        raise InputError(f"no device is called {name!r}", where="device", fix="cpu, cuda or cuda:N")
    return asked[1] or asked[2], None if asked[3] is None else int(asked[3])


def check_device(name: str) -> str:
    """``cpu``, ``cuda`` or ``cuda:N``, as it was given; ``InputError`` for another name, or where no such GPU is
    usable here."""
    import torch

    kind, number = device_parts(name)
    usable = torch.cuda.device_count() if kind != "cpu" and torch.cuda.is_available() else 0
    if kind != "cpu" and (number or 0) >= usable:
        raise InputError(f"{name} is not usable: torch {torch.__version__} sees {usable} GPUs here", where="device",
                         fix="use cpu, or a torch built for CUDA on a machine with such a GPU")
    return str(name)
