"""``negface embed``: faces in, recogniser embeddings out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negface.cli.common import JsonOption, emit

app = typer.Typer()


@app.command()
def embed(
    faces: Annotated[Path, typer.Argument(metavar="FACES", help="Identity folders, tar shards or a dataset.")],
    recognizer: Annotated[Path, typer.Option("--recognizer", metavar="FILE", help="Recogniser: ONNX or state dict.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE",
                                      help="Embeddings: .npz, or .safetensors (memory-mapped).")],
    declaration: Annotated[Path | None, typer.Option(
        "--declaration", metavar="FILE", help="What the recogniser expects, as JSON or TOML (size, channels, mean, "
        "std, dim); not needed for well-known files or beside a sidecar RECOGNIZER.json.")] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Sum picture and mirror before normalising.")] = False,
    resize: Annotated[bool, typer.Option("--resize", help="Resize pictures of another size.")] = False,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Pictures at a time; the result does not "
                                                "depend on it.  [default: all processors]", show_default=False)] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
    json: JsonOption = None,
) -> None:
    """Turn faces into recogniser embeddings, with labels, names and provenance.

    Example: negface embed faces --recognizer edgeface_xs.onnx --flip --out embeddings.npz
    """
    import time

    from negface import datasets
    from negface.perception import embed_dataset, load_recognizer, write_embeddings
    from negface.perception.embeddings import checked_suffix

    checked_suffix(out)
    eyes = load_recognizer(recognizer, declaration, threads=threads, device=device)
    started = time.perf_counter()
    found = embed_dataset(datasets.open(faces), eyes, flip=flip, resize=resize)
    seconds = time.perf_counter() - started
    write_embeddings(out, found.embeddings, found.labels, identities=found.identities, images=found.images,
                     provenance=found.provenance)
    result = {"out": str(out), "n_images": len(found), "n_identities": len(found.identities),
              "dim": found.embeddings.shape[1], "seconds": round(seconds, 3),
              "images_per_second": round(len(found) / seconds, 2), **found.provenance}
    said = "".join(f"\n  {count} x {note}" for note, count in found.provenance["converted"].items())
    emit(result, json=json, text=f"embedded {len(found)} images of {len(found.identities)} identities with "
         f"{eyes.declaration.name} ({result['images_per_second']:.1f} images/s{', flip summed' if flip else ''}) "
         f"into {out}{said}")
