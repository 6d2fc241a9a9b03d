"""``negface align``: photographs in, faces in the five-point template out, with a record of every picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negface.cli.common import JsonOption, emit

app = typer.Typer()


@app.command()
def align(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Identity folders, or another dataset.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder; it appears complete or not at all.")],
    detector: Annotated[Path | None, typer.Option("--detector", metavar="FILE", help="YuNet face detector "
                                                  "(ONNX).")] = None,
    landmarks: Annotated[Path | None, typer.Option("--landmarks", metavar="FILE", help="What another detector found: "
                                                   "lines 'name x1 y1 ... x5 y5 [score]', parted by blanks, tabs or "
                                                   "commas.")] = None,
    template: Annotated[str, typer.Option("--template", help="arcface (the standard) or released-96.")] = "arcface",
    size: Annotated[int, typer.Option("--size", min=16, help="Side of the result; the template scales.")] = 112,
    on_missing: Annotated[str, typer.Option("--on-missing", help="A picture without a face: refuse (write nothing), "
                                            "skip, or centre-crop.")] = "refuse",
    face: Annotated[str, typer.Option("--face", help="Which of several faces: largest or central.")] = "largest",
    least_score: Annotated[float | None, typer.Option("--least-score", min=0, max=1, help="Drop weaker detections "
                                                      "(default: 0.6 of --detector, none of --landmarks).")] = None,
    codec: Annotated[str, typer.Option("--codec", help="jpeg (q95, 4:4:4), png or simplejpeg.")] = "jpeg",
    json: JsonOption = None,
) -> None:
    """Bring faces into the 112 x 112 five-point template that recognisers expect.

    Faces are found by --detector or told by --landmarks. What was done to each picture stands in DIR/alignment.jsonl;
    no picture is dropped without a line there.

    Example: negface align photographs --out faces --detector yunet.onnx --on-missing skip
    """
    from negface.curation import Aligner, align_dataset, read_landmarks
    from negface.foundation.errors import InputError
    from negface.perception import load_detector

    if (detector is None) == (landmarks is None):
        raise InputError("needs either --detector or --landmarks", where="negface align",
                         fix="name a YuNet file, or the file of another detector's five points")
    finder = load_detector(detector, least_score=0.6 if least_score is None else least_score) if detector else None
    told = read_landmarks(landmarks, least_score=least_score) if landmarks else None
    aligner = Aligner(finder, template_name=template, size=size, choose=face)
    summary = align_dataset(source, out, aligner, on_missing=on_missing, codec=codec, landmarks=told)
    counts = ", ".join(f"{count} {method}" for method, count in summary["counts"].items())
    lost = f"; {len(summary['identities_lost'])} identities have no picture left" if summary["identities_lost"] else ""
    emit({"out": str(out), **summary}, json=json,
         text=f"aligned {summary['n_source']} pictures ({counts}) into {out}{lost}")
