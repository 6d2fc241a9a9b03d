"""``negface run``: a folder of faces in, a separable synthetic dataset and its verdict out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negface.cli.common import JsonOption, command_line, emit

app = typer.Typer()


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe (TOML); see docs/run.md and recipes/.")],
    faces: Annotated[Path, typer.Option("--faces", metavar="DIR", help="Identity folders, tar shards or a dataset.")],
    conditioner: Annotated[Path, typer.Option("--conditioner", metavar="FILE", help="Recogniser that makes contexts.")],
    judge: Annotated[Path, typer.Option("--judge", metavar="FILE", help="Another recogniser, which measures.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the run; one begun is resumed.")],
    people: Annotated[Path | None, typer.Option("--people", metavar="CSV", help="Who trains and who is held out: "
                                                "person,split (train or test).  [default: a keyed split]",
                                                show_default=False)] = None,
    pose: Annotated[list[Path] | None, typer.Option("--pose", metavar="FILE", help="Head-pose model; give several to "
                                                    "average them.")] = None,
    autoencoder: Annotated[Path | None, typer.Option("--autoencoder", metavar="DIR", help="A trained autoencoder, "
                                                     "instead of training one.")] = None,
    model: Annotated[Path | None, typer.Option("--model", metavar="DIR", help="A trained pipeline: nothing is "
                                               "trained.")] = None,
    contexts: Annotated[str, typer.Option("--contexts", metavar="A,B", help="Only these of the recipe's contexts.")] =
    "", strategies: Annotated[str, typer.Option("--strategies", metavar="A,B", help="Only these of its strategies.")] =
    "", threads: Annotated[int | None, typer.Option(
        "--threads", min=1, help="Threads of a worker (part of the plan: another number remakes the sets) and of "
        "perception.  [default: the recipe's]", show_default=False)] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes of generation; bytes do not depend on "
                                         "it.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Accept a judge that is the conditioner or was trained on "
                                        "people it measures; the report says so.")] = False,
    json: JsonOption = None,
) -> None:
    """Do all of it: embed, train, generate with every strategy, measure, compare, report. Resumable.

    What is there and unchanged is not made again; a changed input redoes what depends on it.

    Example: negface run recipes/real-lfw64.toml --faces FACES --conditioner edgeface_xs.onnx
    --judge mobilefacenet.onnx --people split.csv --out runs/lfw64
    """
    from negface.experiments import Setup, load_run_recipe
    from negface.experiments import run as carry_out
    from negface.experiments.tables import printed

    summary = carry_out(load_run_recipe(recipe), Setup(
        faces=faces, conditioner=conditioner, judge=judge, out=out, people=people, pose=tuple(pose or ()),
        autoencoder=autoencoder, model=model, contexts=_names(contexts), strategies=_names(strategies),
        threads=threads, workers=workers, force=force, command=command_line()))
    notes = "".join(f"\nnote: {warning}" for warning in summary["warnings"])
    emit(summary, json=json, text=f"{printed(summary['table'])}\n\n{summary['verdict']}{notes}\n{summary['report']}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
