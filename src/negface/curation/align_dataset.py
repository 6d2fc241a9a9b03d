"""The declared step ``align``: a folder of faces in, aligned faces out, and a line for every picture on what was done.

Nothing is dropped silently: every source picture has a row in ``alignment.jsonl``, and what happens to a picture
without a face is what the caller said (refuse, skip, centre-crop).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import datasets
from ..foundation.errors import IncompleteError, InputError, OutputError, UnknownNameError
from ..foundation.files import atomic_folder, write_json
from ..foundation.progress import Progress
from ..perception.faces import Detections
from .alignment import Aligner, Alignment, centre_crop
from .landmark_file import Landmarks

ON_MISSING = ("refuse", "skip", "centre-crop")
RECORD_NAME, SUMMARY_NAME = "alignment.jsonl", "alignment.json"


def output_names(dataset: datasets.FaceDataset, suffix: str) -> list[str]:
    """``<identity>/<picture><suffix>``; where names would meet (shards), a number in the identity."""
    wanted = [f"{dataset.identities[dataset.labels[i]]}/{Path(dataset.manifest[i]['file']).stem}"
              for i in range(len(dataset))]
    met, seen, names = Counter(wanted), Counter(), []
    for label, name in zip(dataset.labels.tolist(), wanted):
        seen[label] += 1
        names.append(f"{dataset.identities[label]}/{seen[label] - 1:06d}" if met[name] > 1 else name)
    if len(set(names)) < len(names):
        names = [f"{name}-{i:07d}" for i, name in enumerate(names)]
    return [name + suffix for name in names]


def _decided(found: Alignment, image: Any, aligner: Aligner, on_missing: str) -> Alignment:
    if found.image is None and on_missing == "centre-crop":
        return replace(found, image=centre_crop(image, aligner.size), method="centre-crop")
    return found


def _refuse(missing: list[str], total: int) -> None:
    others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    raise IncompleteError(f"no face found in {len(missing)} of {total} pictures", where=f"{missing[0]}{others}",
                          fix="remove them, or say --on-missing skip or centre-crop; nothing was written")


def align_dataset(source: str | os.PathLike, out: str | os.PathLike, aligner: Aligner, *, on_missing: str = "refuse",
                  codec: str = datasets.DEFAULT_CODEC, landmarks: Landmarks | None = None) -> dict[str, Any]:
    """Align every picture of ``source`` into a new folder of identity folders.

    Args:
        source: anything ``negface.datasets.open`` reads.
        out: a folder that does not exist yet (or is empty); it appears complete or not at all.
        on_missing: a picture without a face: ``refuse`` (``IncompleteError`` that counts them all, nothing written),
            ``skip`` (a row says so), ``centre-crop`` (the largest centred square, and a row says so).
        codec: how pictures are written.
        landmarks: faces by name, in place of the aligner's detector; a picture they do not name has no face.

    Returns:
        the summary, also in ``alignment.json``: counts by method, identities left without a picture, and how.
    """
    if on_missing not in ON_MISSING:
        raise UnknownNameError("on-missing rule", on_missing, ON_MISSING)
    out, dataset, writer = Path(out), datasets.open(source), datasets.codec(codec)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError("exists already", where=out, fix="choose another folder, or remove it")
    names = output_names(dataset, writer.suffix)
    faces, unused = landmarks.of([row["file"] for row in dataset.manifest]) if landmarks else (None, 0)
    counts: Counter[str] = Counter()
    missing: list[str] = []
    rows: list[dict[str, Any]] = []
    kept: set[int] = set()
    with atomic_folder(out) as folder:
        for index, (image, found) in enumerate(_aligned(dataset, aligner, faces)):
            found = _decided(found, image, aligner, on_missing)
            counts[found.method] += 1
            if found.image is None:
                missing.append(dataset.name(index))
            else:
                kept.add(int(dataset.labels[index]))
                path = folder / names[index]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(writer.encode(found.image))
            rows.append({"identity": dataset.identities[dataset.labels[index]],
                         "source": dataset.manifest[index]["file"], "size": list(image.shape[:2]),
                         "file": None if found.image is None else names[index], **found.to_dict()})
        if missing and on_missing == "refuse":
            _refuse(missing, len(dataset))
        if not kept:
            raise InputError("no face found in any picture", where=source, fix="check the pictures and the detector")
        summary = _summary(dataset, aligner, on_missing, counts, kept, writer)
        if landmarks:
            summary["landmarks"] = {**landmarks.to_dict(), "n_unused": unused}
        datasets.write_rows(folder / RECORD_NAME, rows)
        write_json(folder / SUMMARY_NAME, summary)
    return summary


def _aligned(dataset: datasets.FaceDataset, aligner: Aligner,
             faces: list[Detections] | None) -> Iterator[tuple[Any, Alignment]]:
    """Pictures with their alignment, in order; the next one is read while one is being aligned."""
    with ThreadPoolExecutor(1) as reader, Progress("aligning", len(dataset), unit="images") as bar:
        coming = reader.submit(dataset.__getitem__, 0)
        for index in range(len(dataset)):
            image = coming.result()[0]
            if index + 1 < len(dataset):
                coming = reader.submit(dataset.__getitem__, index + 1)
            yield image, aligner.align(image, faces[index] if faces else None)
            bar.advance()


def _summary(dataset: datasets.FaceDataset, aligner: Aligner, on_missing: str, counts: Counter[str], kept: set[int],
             writer: datasets.Codec) -> dict[str, Any]:
    lost = [name for label, name in enumerate(dataset.identities) if label not in kept]
    return {"step": "align", "n_source": len(dataset), "n_written": len(dataset) - counts["missing"],
            "n_identities": len(kept), "counts": dict(sorted(counts.items())), "identities_lost": lost,
            "converted": dict(sorted(dataset.notes.items())), "on_missing": on_missing, **aligner.to_dict(),
            "codec": writer.to_dict()}
