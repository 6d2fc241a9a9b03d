"""``negface verify``: recognisers times benchmarks, one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negface.cli.common import JsonOption, emit
from negface.foundation.errors import InputError

app = typer.Typer()


def named(items: list[str], what: str) -> dict[str, str]:
    """``NAME=PATH`` or ``PATH`` as ``{name: path}``; the name of a bare path is its file's."""
    out: dict[str, str] = {}
    for item in items:
        name, equals, path = item.partition("=")
        name, path = (name, path) if equals and "/" not in name else (Path(item).stem, item)
        if not name or not path or name in out:
            raise InputError(f"{what} {item!r} is given twice or has no name or path", fix=f"give {what}s as NAME=PATH")
        out[name] = path
    return out


def _aligned(image, points):
    """A crop brought to the recognisers' template by its five landmarks."""
    from negface.curation import fit_similarity, template, warp

    return warp(image, fit_similarity(points, template("arcface")), (112, 112))


@app.command()
def verify(
    benchmarks: Annotated[list[str], typer.Argument(metavar="[NAME=]BENCHMARK...", help="A .bin, a pair list (LFW's "
                          "form, CSV, lines 'a b 0|1'), a folder with pairs.csv, or an IJB-B/C folder.")],
    recognizers: Annotated[list[str], typer.Option("--recognizer", metavar="[NAME=]FILE", help="Recogniser, ONNX or "
                                                   "state dict with its declaration beside it; repeat for more.")],
    images: Annotated[list[str] | None, typer.Option("--images", metavar="NAME=FOLDER", help="The folder that "
                      "the names of list NAME start from.  [default: where the list lies]", show_default=False)] = None,
    groups: Annotated[list[str] | None, typer.Option("--groups", metavar="NAME=FILE", help="Groups of benchmark NAME's "
                      "people: a population's labels.jsonl, or a CSV with column identity or image.")] = None,
    min_people: Annotated[int, typer.Option("--min-people", min=2, help="Smaller groups are counted, not "
                                            "measured.")] = 20,
    flip: Annotated[bool, typer.Option("--flip/--no-flip", help="Add the mirrored picture's embedding.")] = True,
    resize: Annotated[bool, typer.Option("--resize", help="Resize pictures of another size.")] = False,
    folds: Annotated[int, typer.Option("--folds", min=2, help="Contiguous folds of pair benchmarks.")] = 10,
    bootstrap: Annotated[int, typer.Option("--bootstrap", min=0, help="Replicates for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")] = 0,
    cache: Annotated[Path | None, typer.Option("--cache", metavar="DIR", help="Keep embeddings here, named by content; "
                                               "a second run reads them.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="PATH", help="Write the table as CSV.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Pictures at a time; numbers do not depend on "
                                                "it.  [default: all processors]", show_default=False)] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Test a recogniser on people it was trained on, or on "
                                        "pairs it was chosen by; the table warns.")] = False,
    json: JsonOption = None,
) -> None:
    """Verification accuracy, EER and TAR@FAR of recognisers on benchmarks, with intervals.

    Example: negface verify lfw=pairs.csv cplfw.bin --recognizer student.safetensors --recognizer judge.onnx
    --images lfw=faces --cache embeddings --csv table.csv
    """
    import dataclasses

    from negface.evaluation.benchmarks import open_benchmark
    from negface.evaluation.group_labels import read_groups
    from negface.evaluation.verify_table import csv_text, table, verify_all
    from negface.foundation.files import write_text
    from negface.perception import load_recognizer

    paths, folders = named(benchmarks, "benchmark"), named(images or [], "folder")
    tables = named(groups or [], "file of groups")
    for option, given in (("--images", folders), ("--groups", tables)):
        stray = next((name for name in given if name not in paths), None)
        if stray is not None:
            raise InputError(f"{option} names {stray!r}, which is no benchmark here", fix=f"known: {', '.join(paths)}")
    grouped = {name: read_groups(path) for name, path in tables.items()}
    opened = [open_benchmark(path, name=name, images=folders.get(name), align=_aligned)
              for name, path in paths.items()]
    eyes = []
    for item in recognizers:
        name, path = next(iter(named([item], "recogniser").items()))
        eye = load_recognizer(path, threads=threads, device=device)
        if path != item:
            eye.declaration = dataclasses.replace(eye.declaration, name=name)
        eyes.append(eye)
    result = verify_all(eyes, opened, flip=flip, resize=resize, folds=folds, bootstrap=bootstrap, seed=seed,
                        cache=cache, force=force, groups=grouped, min_people=min_people)
    if csv is not None:
        write_text(csv, csv_text(result["rows"]))
    emit(result, json=json, text=table(result["rows"]))
