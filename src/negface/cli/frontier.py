"""``negface frontier``: what few steps, guidance on an interval and reused negatives cost in quality."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from negface.cli.common import JsonOption, command_line, emit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from negface.experiments.sampled_sets import Setting, Studio

app = typer.Typer()


@app.command()
def frontier(
    contexts: Annotated[Path, typer.Option("--contexts", help="Bank of identity contexts; each seed draws others.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the sets; one begun is resumed.")],
    model: Annotated[Path | None, typer.Option("--model", help="Folder of a pipeline (default: shipped).")] = None,
    conditioner: Annotated[Path | None, typer.Option(
        "--conditioner", help="Recogniser that made the contexts (default: shipped).")] = None,
    judge: Annotated[Path | None, typer.Option("--judge", help="Recogniser that measures (default: shipped).")] = None,
    student: Annotated[Path | None, typer.Option("--student", help="Also a distilled model, and its fast "
                                         "decoder: up to three rows.")] = None,
    only: Annotated[list[str] | None, typer.Option(
        "--only", help="Only settings of this name, * allowed: dpmpp-* (repeatable; default: all).")] = None,
    identities: Annotated[int, typer.Option("--identities", min=2, help="People of a seed.")] = 16,
    images: Annotated[int, typer.Option("--images", min=2, help="Pictures of a person.")] = 20,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Seeds (DDPM-1000 and DDIM-200: the first).")] = 3,
    weight: Annotated[float, typer.Option("--weight", help="Guidance weight w, away from the far negative.")] = 0.5,
    dtype: Annotated[str, typer.Option("--dtype", help="fp32 or bf16.")] = "bf16",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes of generation.")] = 1,
    csv: Annotated[Path | None, typer.Option("--csv", help="Table (default: OUT/frontier.csv).")] = None,
    page: Annotated[Path | None, typer.Option("--page", help="Also a Markdown page with its curve.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what it would cost.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Accept a judge that is the conditioner.")] = False,
    json: JsonOption = None,
) -> None:
    """Measure FDR, EER, diversity and adherence against the predictions an image costs, and choose the default preset.

    Resumable set by set: what is drawn is kept, and a changed setting redoes only itself.

    Example: negface frontier --contexts bank.safetensors --out runs/frontier --csv results/frontier.csv
    """
    from negface.experiments import frontier as curve
    from negface.experiments.frontier_page import write_page
    from negface.experiments.sampled_sets import facts, open_studio
    from negface.experiments.sampled_sets import only as chosen_by
    from negface.experiments.tables import csv_text
    from negface.foundation.files import write_text

    studio = open_studio(out, model=model, contexts=contexts, conditioner=conditioner, judge=judge, force=force,
                         say=lambda text: typer.echo(text, err=True), identities=identities, images=images, dtype=dtype,
                         workers=workers)
    more = [] if student is None else curve.students(student, weight, tuple(range(seeds)))
    grid = chosen_by([*curve.settings(weight, tuple(range(seeds))), *more], only or ["*"])
    if plan:
        result = forecast(studio, grid)
        emit(result, json=json, text=result["text"])
        return
    table = curve.rows(studio, grid)
    told, said = facts(studio), curve.verdict(table)
    judged_by = f"{told['judge']['name']} {told['judge']['hash']}"
    remarks = [command_line(), f"model {told['model']['name']} {told['model']['hash']}, judge {judged_by}, "
               f"{dtype}, {told['processor']}", f"{identities} people x {images} pictures a seed; DDPM-1000 and "
               f"DDIM-200: one seed, {identities * images} pictures", said]
    columns = [{key: row.get(key) for key in curve.COLUMNS} for row in table]
    write_text(csv or out / "frontier.csv", csv_text(columns, remarks, curve.COLUMNS))
    if page is not None:
        write_page(page, table, said, remarks)
    emit({"rows": table, "verdict": said, **told}, json=json, text=f"{curve.markdown(table)}\n\n{said}")


def forecast(studio: Studio, grid: Sequence[Setting]) -> dict[str, Any]:
    """Predictions and time of each setting of a grid, and of all, from some seconds of the first."""
    from negface.experiments.sampled_sets import seconds_per_prediction
    from negface.foundation.progress import format_seconds

    pace = seconds_per_prediction(studio, grid[0])
    cells = []
    for item in grid:
        count = item.predictions * len(item.seeds) * studio.identities * studio.images
        cells.append({"setting": item.name, "predictions_an_image": item.predictions, "seeds": len(item.seeds),
                      "predictions": count, "seconds": count * pace})
    total = sum(cell["seconds"] for cell in cells)
    lines = [f"{cell['setting']:<28}{cell['predictions_an_image']:>6} predictions an image, {cell['seeds']} seed(s): "
             f"about {format_seconds(cell['seconds'])}" for cell in cells]
    return {"cells": cells, "seconds": total, "seconds_per_prediction": pace,
            "text": "\n".join([*lines, f"all {len(cells)}: about {format_seconds(total)}; nothing was drawn"])}
