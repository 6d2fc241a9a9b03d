"""``negface curate``: a dataset in, what declared filters keep out, with counts and the fate of every picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negface.cli.common import JsonOption, emit

app = typer.Typer()


@app.command()
def curate(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Identity folders, or another dataset.")],
    filters: Annotated[list[str], typer.Option(
        "--filter", metavar="NAME,KEY=VALUE,...", help="A filter (repeatable): "
        "adherence,least=0.3,recognizer=FILE,contexts=BANK | face,least=0.6,detector=FILE | "
        "quality,least=0.4,model=FILE | leakage,most=0.5,recognizer=FILE,training=EMBEDDINGS | "
        "duplicates,bits=2[,recognizer=FILE,cosine=0.95].")],
    out: Annotated[Path | None, typer.Option(
        "--out", metavar="DIR", help="A new folder; it appears complete or not at all. Without it, only counts.",
        show_default=False)] = None,
    least_images: Annotated[int, typer.Option(
        "--least-images", min=1, help="Leave out people of whom fewer pictures stay.")] = 1,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Pictures at a time; the result does not "
                                                "depend on it.  [default: all processors]", show_default=False)] = None,
    json: JsonOption = None,
) -> None:
    """Filter a dataset: wanted identity, face found, quality, leakage of training people, copies.

    Filters are applied in the order given, copies last. Pictures are copied byte for byte; the fate of each stands in
    DIR/curation.jsonl, the counts in DIR/curation.json.

    Example: negface curate faces --filter face,detector=yunet.onnx --filter duplicates,bits=2 --out kept
    """
    from negface.curation import curate_dataset, parse_step

    summary = curate_dataset(source, [parse_step(text) for text in filters], out, least_images=least_images,
                             threads=threads)
    lines = [f"{summary['n_kept']} of {summary['n_source']} pictures stay, {summary['n_identities']} identities"
             + ("" if out is None else f", in {out}")]
    lines += [f"  {item['step']}: {item['rejected']} of {item['seen']} rejected" for item in summary["counts"]]
    if summary["identities_lost"]:
        lines.append(f"  {len(summary['identities_lost'])} identities have no picture left")
    emit({"out": None if out is None else str(out), **summary}, json=json, text="\n".join(lines))
