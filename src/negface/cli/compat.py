"""``negface compat``: the released code's deviations, each a named choice of ``negface generate --compat``."""

from __future__ import annotations

from typing import Annotated

import typer

from negface.cli.common import JsonOption, emit

app = typer.Typer(no_args_is_help=True, help="The released code's behaviour, deviation by deviation.")


@app.callback()
def compat() -> None:
    """The released code's behaviour, deviation by deviation.

    Example: negface compat list
    """


@app.command("list")
def list_quirks(
    acts_on: Annotated[str | None, typer.Option(
        "--acts-on", help="Only those of ddim, ddpm, negatives or decoding.")] = None,
    json: JsonOption = None,
) -> None:
    """What the released code does otherwise than it should, by name; each can be asked for alone, or all as reference.

    Example: negface compat list
    """
    from negface.foundation.errors import UnknownNameError
    from negface.sampling.compat import QUIRKS

    known = sorted({part for quirk in QUIRKS for part in quirk.acts_on.split()})
    if acts_on is not None and acts_on not in known:
        raise UnknownNameError("part", acts_on, known)
    chosen = [quirk for quirk in QUIRKS if acts_on is None or acts_on in quirk.acts_on.split()]
    lines = [f"{quirk.name} ({quirk.number}, {quirk.acts_on})\n  released:  {quirk.released}\n"
             f"  corrected: {quirk.corrected}\n  effect on FDR: {quirk.effect}" for quirk in chosen]
    emit({"quirks": [quirk.to_dict() for quirk in chosen]}, json=json,
         text="\n".join([*lines, "reference: all of them"]))
