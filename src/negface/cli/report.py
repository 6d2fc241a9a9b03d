"""``negface report``: results or a dataset in, one self-contained HTML page out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negface.cli.common import JsonOption, command_line, emit
from negface.foundation.errors import InputError

app = typer.Typer()


@app.command()
def report(
    results: Annotated[Path, typer.Argument(metavar="RESULTS|DATASET", help="Results file (JSON; see "
                                            "docs/report-schema.md), or the folder of a dataset.")],
    out: Annotated[Path, typer.Option("--out", metavar="PAGE", help="The HTML page to write.")] = Path("report.html"),
    picture: Annotated[Path | None, typer.Option("--picture", metavar="PNG", help="Also draw one picture: people in "
                                                 "rows and histograms, plain and far.")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", metavar="PAGE.md", help="Also a Markdown page with its "
                                                  "plots, for a repository.")] = None,
    measures: Annotated[list[Path] | None, typer.Option(
        "--measures", metavar="JSON", help="Of a dataset: what `negface evaluate separability` or `leakage` wrote with "
        "--json (repeatable).")] = None,
    training: Annotated[Path | None, typer.Option(
        "--training", metavar="FACES", help="Of a dataset: the generator's training pictures, shown beside the nearest "
        "generated ones where --measures has leakage.")] = None,
    json: JsonOption = None,
) -> None:
    """Turn results, or one dataset, into one self-contained HTML page that needs no network.

    Pictures lie beside the results file (their paths are relative to it) and are inlined. Of a dataset the page shows
    people, what its filters rejected, how it was made, and what --measures says.

    Example: negface report runs/lfw64/results.json --out report.html
    """
    from negface.report import render_file

    if results.is_dir():
        from negface.experiments.dataset_page import dataset_page

        for option, given in (("--picture", picture), ("--markdown", markdown)):
            if given is not None:
                raise InputError("is made from results, not from one dataset", where=option)
        summary = dataset_page(results, out, measures=measures or (), training=training, command=command_line())
    elif measures or training is not None:
        raise InputError("--measures and --training are for a dataset; results hold theirs", where=results)
    else:
        summary = render_file(results, out)
    drawn = ""
    if picture is not None:
        from negface.report.opening import opening

        summary["picture"] = opening(results, picture)
        drawn = f" and {picture}"
    if markdown is not None:
        from negface.report.markdown import markdown as write_markdown

        summary["markdown"] = write_markdown(results, markdown)
        drawn += f" and {markdown}"
    emit(summary, json=json, text=f"{summary['verdict']}\nwrote {out} ({summary['bytes'] / 1e6:.1f} MB){drawn}")
