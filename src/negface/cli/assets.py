"""``negface assets``: the models that ship with the package: look at them, check them, make them again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import JsonOption, emit

app = typer.Typer(help="The models that ship with the package: check them, make them again.", no_args_is_help=True)


@app.command()
def check(
    folder: Annotated[Path | None, typer.Option(metavar="DIR", help="Other assets than the package's own.")] = None,
    json: JsonOption = None,
) -> None:
    """Check the hash of every shipped file and show what was measured of the models.

    Example: negface assets check
    """
    from negface.experiments import assets

    found = assets.check_all(folder)
    figures = "\n".join(f"  {name:<44}{value:.4f}" for name, value in _flat(found["figures"]))
    head = f"{len(found['files'])} files, {found['bytes'] / 1e6:.1f} MB, all as shipped"
    emit(found, json=json, text=f"{head}\n{figures}")


def _flat(values: dict, prefix: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            found += _flat(value, f"{name}.")
        elif isinstance(value, (int, float)):
            found.append((name, float(value)))
    return found


@app.command()
def make(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where people, trainings and the packed assets go; goes on "
                                      "with what is there.")] = Path("runs/assets"),
    size: Annotated[str, typer.Option(help="cpu (two cores, about three hours) or gpu.")] = "cpu",
    stage: Annotated[list[str] | None, typer.Option(help="Only this stage; may be repeated.")] = None,
    install: Annotated[bool, typer.Option(help="Put the result into the package, in place of what ships.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes of rendering.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Torch threads of training.")] = None,
    json: JsonOption = None,
) -> None:
    """Draw the people, train conditioner, judge, analyser and generator, measure and pack them. Resumable.

    Example: negface assets make --out runs/assets
    """
    import torch

    from negface.experiments.assets import shipped_folder
    from negface.experiments.assets_make import make_assets

    if threads:
        torch.set_num_threads(threads)
    found = make_assets(out, size=size, stages=tuple(stage or ()), workers=workers,
                        packed=shipped_folder() if install else None)
    emit(found, json=json, text=f"{found['made']}: {found['where']}")
