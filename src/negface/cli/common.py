"""What every verb shares: the ``--json`` option, and one way to hand a result to a person and to a program.

Only the standard library and typer are imported here, so that ``negface --help`` stays fast.
"""

from __future__ import annotations

import json as json_module
import math
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

JsonOption = Annotated[
    Path | None,
    typer.Option("--json", metavar="PATH", allow_dash=True, show_default=False,
                 help="Write the result as JSON to PATH ('-' for standard output)."),
]


class Engine(StrEnum):
    """Who works."""

    local = "local"
    ray = "ray"


def plain(value: Any) -> Any:
    """The value as JSON can hold it: arrays become lists, paths strings, NaN and infinities ``None`` (not measured)."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Path):
        return str(value)
    for method in ("tolist", "to_dict"):
        if hasattr(value, method):
            return plain(getattr(value, method)())
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


def emit(result: dict[str, Any], *, json: Path | None = None, text: str = "") -> None:
    """Hand over a verb's result: ``text`` for a person, ``result`` for a program.

    ``text`` goes to standard output, or to standard error where ``json`` is ``-`` (standard output then holds the JSON
    and nothing else). A file is written atomically. Errors: ``OutputError`` where it cannot be.
    """
    if text:
        typer.echo(text, err=json is not None and str(json) == "-")
    if json is None:
        return
    if str(json) == "-":
        typer.echo(json_module.dumps(plain(result), indent=2, allow_nan=False))
        return
    from negface.foundation.files import write_json

    write_json(json, plain(result))


def command_line() -> str:
    """The command as typed, with the last part of every absolute path: where files lay is nobody's business."""
    said = [Path(item).name if Path(item).is_absolute() else item for item in sys.argv[1:]]
    return " ".join(["negface", *said])
