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
                                             help="Processes; one a core unless given, fewer for a few pictures. The "
                                                  "pictures do not depend on it.")]
Spread = Annotated[list[str] | None, typer.Option(
    "--spread", metavar="NAME=KIND,A,B", show_default=False, help="Another distribution of a nuisance, as "
    "yaw=uniform,-5,5, age=normal,40,5 (mean, deviation) or mask=some,0.5,1,1 (probability, low, high); may be "
    "repeated.")]


def _spreads(texts: list[str] | None) -> dict[str, tuple]:
    """``yaw=uniform,-5,5`` as ``{"yaw": ("uniform", "-5", "5")}``; the numbers are checked where they are used."""
    from negface.foundation.errors import InputError

    found: dict[str, tuple] = {}
    for text in texts or []:
        name, equals, spread = text.partition("=")
        if not equals or name in found:
            raise InputError(f"--spread {text!r} {'names a nuisance twice' if equals else 'has no ='}",
                             fix="write NAME=KIND,A,B, once for each nuisance")
        found[name] = tuple(spread.split(","))
    return found


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
    spread: Spread = None,
    workers: Workers = None,
    json: JsonOption = None,
) -> None:
    """Write a dataset of procedural people: identity folders, labels.jsonl with all truth, parsing maps.

    Interrupted, the same command goes on where it stopped.

    Example: negface population make --people 100 --images 20 --size 112 --seed 0 --out people
    """
    from negface import population

    card = population.make(out, people=people, images=images, size=size, seed=seed, start=start, codec=codec,
                           spreads=_spreads(spread), workers=workers)
    emit({"out": str(out), **card}, json=json, text=f"{people} people x {images} pictures with labels.jsonl in {out}")


@app.command()
def protocol(
    name: Annotated[str, typer.Argument(metavar="NAME", help="One of `negface population protocols`, or all.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder; for all, one in it for each.")],
    size: Size = 112,
    seed: Seed = 0,
    start: Annotated[int | None, typer.Option("--start", min=0, show_default=False, help="Number of the first person; "
                                              "they must be in no training set.  [default: 900000]")] = None,
    people: Annotated[int | None, typer.Option("--people", show_default=False, help="Another number of people than "
                                               "published; the result is called altered.")] = None,
    pairs: Annotated[int | None, typer.Option("--pairs", show_default=False, help="Another number of pairs.")] = None,
    codec: Annotated[str, typer.Option("--codec", help="jpeg (q95, 4:4:4), png or simplejpeg.")] = "jpeg",
    as_bin: Annotated[bool, typer.Option("--bin", help="Also write insightface's NAME.bin.")] = False,
    workers: Workers = None,
    json: JsonOption = None,
) -> None:
    """Write a verification protocol of procedural people: pictures, pair list with 10 folds, truth, README.

    Interrupted, the same command goes on where it stopped; of all, those written already are kept.

    Example: negface population protocol cross-pose --size 64 --out benchmarks/cross-pose
    """
    from negface.population import protocols

    how = {"size": size, "seed": seed, "people": people, "pairs": pairs, "codec": codec, "as_bin": as_bin,
           "workers": workers, "start": protocols.FIRST_PERSON if start is None else start}
    if name != "all":
        card = protocols.write(name, out, **how)
        emit({"out": str(out), **card}, json=json, text=f"{card['title']}: {card['pairs']} pairs in {out}")
        return
    cards = protocols.write_all(out, **how)
    emit({"out": str(out), "protocols": cards}, json=json,
         text="\n".join(f"{card['title']}: {card['pairs']} pairs in {out / card['name']}" for card in cards))


@app.command(name="protocols")
def list_protocols(json: JsonOption = None) -> None:
    """List the verification protocols with their counts.

    Example: negface population protocols
    """
    from negface.population.protocols import table

    rows = table()
    lines = [f"{row['name'] + '/' + str(row['version']):<14} {row['people']} people, {row['pictures']} pictures, "
             f"{row['pairs']} pairs: {row['summary']}" for row in rows]
    emit({"protocols": rows}, json=json, text="\n".join(lines))
