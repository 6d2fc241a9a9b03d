"""``negface report``: results in, one self-contained HTML page out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negface.cli.common import JsonOption, emit

app = typer.Typer()


@app.command()
def report(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="Results file (JSON); see docs/report-schema.md.")],
    out: Annotated[Path, typer.Option("--out", metavar="PAGE", help="The HTML page to write.")] = Path("report.html"),
    picture: Annotated[Path | None, typer.Option("--picture", metavar="PNG", help="Also draw one picture: people in "
                                                 "rows and histograms, plain and far.")] = None,
    json: JsonOption = None,
) -> None:
    """Turn results into one self-contained HTML page that needs no network.

    Pictures lie beside the results file (their paths are relative to it) and are inlined.

    Example: negface report runs/lfw64/results.json --out report.html
    """
    from negface.report import render_file

    summary = render_file(results, out)
    drawn = ""
    if picture is not None:
        from negface.report.opening import opening

        summary["picture"] = opening(results, picture)
        drawn = f" and {picture}"
    emit(summary, json=json, text=f"{summary['verdict']}\nwrote {out} ({summary['bytes'] / 1e6:.1f} MB){drawn}")
