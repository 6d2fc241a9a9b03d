"""``negface experiment``: which strategy makes the better training set, at equal w and at equal diversity."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negface.cli.common import Engine, JsonOption, command_line, emit
from negface.foundation.errors import InputError

app = typer.Typer()


@app.command()
def experiment(
    recipe: Annotated[Path, typer.Argument(metavar="EXPERIMENT", help="Recipe (TOML); see docs/experiments.md and "
                                                                      "recipes/experiment-*.toml.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the experiment; one begun is resumed.")],
    model: Annotated[Path | None, typer.Option("--model", metavar="DIR", help="Trained pipeline.  [default: the "
                                               "recipe's]", show_default=False)] = None,
    conditioner: Annotated[Path | None, typer.Option("--conditioner", metavar="FILE", show_default=False,
                                                     help="Recogniser that makes contexts.  [default: the "
                                                          "recipe's]")] = None,
    judge: Annotated[Path | None, typer.Option("--judge", metavar="FILE", show_default=False,
                                               help="Another recogniser, which measures.  [default: the "
                                                    "recipe's]")] = None,
    faces: Annotated[Path | None, typer.Option("--faces", metavar="DIR", help="Faces behind the contexts, instead of "
                                               "the recipe's population.")] = None,
    people: Annotated[Path | None, typer.Option("--people", metavar="CSV", help="Of the faces, who trained the "
                                                "generator and who is new: person,split (train or test).")] = None,
    benchmark: Annotated[list[str] | None, typer.Option("--benchmark", metavar="NAME=FILE", help="Examine students on "
                                                        "a .bin or a pair list; may be given several times.")] = None,
    pictures: Annotated[Path | None, typer.Option("--pictures", metavar="DIR", help="Where the names of a pair list "
                                                  "start.  [default: where it lies]", show_default=False)] = None,
    students: Annotated[bool, typer.Option("--students/--no-students", help="Train students, or only generate and "
                                           "judge.")] = True,
    workers: Annotated[int | None, typer.Option(
        "--workers", min=1, help="Processes, or tasks of a cluster; each takes whole cells. The same command on "
        "another machine that sees the folder takes cells too.  [default: 1; of a cluster as many as it has room for]",
        show_default=False)] = None,
    engine: Annotated[Engine, typer.Option(
        "--engine", help="local: this machine; ray: also a Ray cluster whose nodes see --out and all files under the "
        "same paths (extra negface[ray]).")] = Engine.local,
    address: Annotated[str | None, typer.Option(
        "--address", metavar="auto|HOST[:PORT]", help="A running Ray cluster; without it one is started here.",
        show_default=False)] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Of perception.  [default: all processors]",
                                                show_default=False)] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the cells and how long they will take; make "
                                       "nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Accept a judge that is the conditioner or was trained on "
                                        "people it measures; the page says so.")] = False,
    json: JsonOption = None,
) -> None:
    """Generate, judge, teach and examine every cell of a grid; one table and one page. Resumable.

    Every cell is kept by the hash of all that decides it; a changed recipe works beside what is there.

    Example: negface experiment recipes/experiment-population.toml --out runs/population --workers 2
    """
    from negface.experiments import ExperimentSetup, Given, load_experiment
    from negface.experiments import experiment as carry_out
    from negface.experiments.costs import plan_text, planned

    given = Given(model=model, conditioner=conditioner, judge=judge, faces=faces, people=people, pictures=pictures,
                  benchmarks=_named(benchmark or []), threads=threads, workers=workers or 1, force=force)
    wanted = load_experiment(recipe)
    if plan:
        found = planned(wanted, given, students=students, workers=workers or 1)
        emit(found, json=json, text=plan_text(found))
        return
    summary = carry_out(wanted, ExperimentSetup(out=out, given=given, students=students, workers=workers,
                                                engine=engine.value, address=address, command=command_line()))
    notes = "".join(f"\nnote: {warning}" for warning in summary["warnings"])
    emit(summary, json=json, text=f"{summary['verdict']}{notes}\n{summary['report']}\n{summary['results']}")


def _named(items: list[str]) -> dict[str, Path]:
    """``NAME=FILE`` options as a mapping."""
    found = {}
    for item in items:
        name, _, path = item.partition("=")
        if not name or not path or name in found:
            raise InputError(f"{item!r} is not NAME=FILE with a new name", where="--benchmark",
                             fix="for example --benchmark lfw=lfw.bin")
        found[name] = Path(path)
    return found
