"""``negface convert``: other people's files in, ours out, and back: datasets, verification pairs, released models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negface.cli.common import JsonOption, emit
from negface.cli.convert_models import register

app = typer.Typer()


@app.callback()
def convert() -> None:
    """Turn datasets, verification pairs and released models into the form you need; nothing is lost on the way.

    Example: negface convert dataset faces --out faces-rec --to rec
    """


@app.command()
def dataset(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Identity folders, a .rec or its folder, tar shards, "
                                           "or a generated dataset.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder; it appears complete or not at all.")],
    to: Annotated[str, typer.Option("--to", help="folder, rec (insightface's RecordIO) or shards (webdataset tars).")],
    layout: Annotated[str, typer.Option("--layout", help="Of rec: insightface (record 0, keys from 1) or im2rec (no "
                                        "record 0, keys from 0).")] = "insightface",
    shard_size: Annotated[int, typer.Option("--shard-size", min=1, help="Pictures a shard.")] = 10_000,
    names: Annotated[str, typer.Option("--names", help="Of folder: padded (000012/00003.jpg: sorting as text never "
                                       "permutes labels) or original.")] = "padded",
    json: JsonOption = None,
) -> None:
    """Write a dataset as folders, RecordIO or shards; every byte of every picture, every label and the order are kept.

    Names travel in a sidecar (manifest.jsonl, for rec train.jsonl). The result is read back and compared before it
    appears; the printed digest is equal for equal content in any form.

    Example: negface convert dataset faces --out faces-rec --to rec
    """
    from negface.datasets import convert_dataset

    done = convert_dataset(source, out, to, layout=layout, shard_size=shard_size, names=names)
    emit(done, json=json, text=f"wrote {done['n_images']} pictures of {done['n_identities']} identities to {out} "
                               f"({to}); content {done['content_sha256'][:16]}")


@app.command()
def pairs(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A .bin, or a pair list: CSV with image_a,image_b,same; "
                                           "LFW's pairs.txt; lines 'a b 0|1'.")],
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help="NAME.bin; NAME.csv (only the list); or a new "
                                      "folder for pairs.csv and the pictures.")],
    images: Annotated[Path | None, typer.Option("--images", metavar="DIR", help="The folder that a list's names start "
                                                "from.  [default: where the list lies]", show_default=False)] = None,
    json: JsonOption = None,
) -> None:
    """Verification pairs between a list and insightface's .bin; bytes, flags and order are kept.

    A .bin is read without running what its pickle asks for. Names go to NAME.bin.csv.

    Example: negface convert pairs lfw/pairs.txt --images lfw/aligned --out lfw.bin
    """
    from negface.datasets import convert_pairs

    done = convert_pairs(source, out, images=images)
    emit(done, json=json, text=f"wrote {done['n_pairs']} pairs ({done['n_genuine']} of one person) to {out}")


register(app)
