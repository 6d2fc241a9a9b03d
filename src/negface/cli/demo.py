"""``negface demo``: the whole path at work on drawn faces, in a few minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negface.cli.common import JsonOption, emit

app = typer.Typer()


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the run; one begun is resumed.")] =
    Path("runs/demo"),
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes of generation.")] = 1,
    json: JsonOption = None,
) -> None:
    """Draw people, train two small recognisers and a generator, and compare negatives. Needs no files, no network.

    The faces are drawn ellipses: it shows the path, and its numbers say nothing about photographs.

    Example: negface demo --out runs/demo
    """
    from negface.experiments import demo as carry_out
    from negface.experiments.tables import printed
    from negface.foundation.progress import format_seconds

    summary = carry_out(out, workers=workers)
    notes = "".join(f"\nnote: {warning}" for warning in summary["warnings"])
    emit(summary, json=json, text=f"{printed(summary['table'])}\n\n{summary['verdict']}{notes}\n"
         f"{format_seconds(summary['seconds'])}; look at {summary['report']}")
