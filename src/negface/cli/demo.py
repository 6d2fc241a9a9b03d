"""``negface demo``: the shipped models at work, in a few minutes, without files and without network."""

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
    workers: Annotated[int | None, typer.Option("--workers", min=1, show_default=False,
                                                help="Processes of generation; as many as processors unless given.")] =
    None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Draw simple faces and train small models "
                                               "first, instead of taking the shipped ones.")] = False,
    models: Annotated[Path | None, typer.Option(metavar="DIR", help="Other assets (`negface assets make`) than the "
                                                "shipped ones.")] = None,
    json: JsonOption = None,
) -> None:
    """Generate two datasets of people who do not exist, plain and with far negatives, judge them and show it.

    The same noise in both. On contexts of held-out people and on random ones, reported beside each other. The people
    are procedural: the numbers say nothing about photographs.

    Example: negface demo --out runs/demo
    """
    from negface.experiments import demo as shipped
    from negface.experiments import demo_from_scratch
    from negface.experiments.tables import printed
    from negface.foundation.errors import InputError
    from negface.foundation.progress import format_seconds

    if from_scratch and models:
        raise InputError("--from-scratch trains its own models", where="--models", fix="leave one of the two out")
    summary = demo_from_scratch(out, workers=workers or 1) if from_scratch else shipped(out, workers=workers,
                                                                                        models=models)
    notes = "".join(f"\nnote: {warning}" for warning in summary["warnings"])
    emit(summary, json=json, text=f"{printed(summary['table'])}\n\n{summary['verdict']}{notes}\n"
         f"{format_seconds(summary['seconds'])}; look at {summary['report']}")
