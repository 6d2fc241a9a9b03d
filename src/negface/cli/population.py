"""``negface population``: procedural people as a contact sheet or as a dataset with its truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negface.cli.common import JsonOption, emit

app = typer.Typer(help="Render procedural people with exact ground truth.", no_args_is_help=True)

People = Annotated[int, typer.Option("--people", help="How many people.")]
Images = Annotated[int, typer.Option("--images", help="Pictures of each.")]
Size = Annotated[int, typer.Option("--size", help="Side of a picture, 32 to 512 pixels.")]
Seed = Annotated[int, typer.Option("--seed", help="Which population.")]
Start = Annotated[int, typer.Option("--start", min=0, help="Number of the first person; disjoint ranges are disjoint "
                                                           "people.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, show_default=False,
                                             help="Threads; all cores unless given. The pictures do not depend on it.")]


@app.command()
def sheet(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The PNG to write.")],
    people: People = 8,
    images: Images = 8,
    size: Size = 112,
    seed: Seed = 0,
    start: Start = 0,
    frame: Annotated[str, typer.Option("--frame", help="aligned (as recognisers expect it) or portrait (the whole "
                                                       "head).")] = "aligned",
    workers: Workers = None,
    json: JsonOption = None,
) -> None:
    """Draw people in rows, several pictures of each, to look at.

    Example: negface population sheet --people 8 --images 8 --seed 0 --out sheet.png
    """
    from negface import population

    width, height = population.sheet(out, people=people, images=images, size=size, seed=seed, start=start, frame=frame,
                                     workers=workers)
    emit({"out": str(out), "people": people, "images": images, "width": width, "height": height}, json=json,
         text=f"{people} people x {images} pictures in {out}")


@app.command()
def make(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder; it appears complete or not at all.")],
    people: People,
    images: Images,
    size: Size = 112,
    seed: Seed = 0,
    start: Start = 0,
    codec: Annotated[str, typer.Option("--codec", help="jpeg (q95, 4:4:4), png or simplejpeg.")] = "jpeg",
    workers: Workers = None,
    json: JsonOption = None,
) -> None:
    """Write a dataset of procedural people: identity folders, labels.jsonl with all truth, parsing maps.

    Example: negface population make --people 100 --images 20 --size 112 --seed 0 --out people
    """
    from negface import population

    card = population.make(out, people=people, images=images, size=size, seed=seed, start=start, codec=codec,
                           workers=workers)
    emit({"out": str(out), **card}, json=json, text=f"{people} people x {images} pictures with labels.jsonl in {out}")
