"""The page of one dataset: its people, how it was made, what its filters kept out, and what was measured of it.

Reads what ``negface generate``, ``negface curate`` and ``negface evaluate … --json`` left behind.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import negface
from negface import datasets
from negface.contexts.bank import REAL_PEOPLE_NOTE
from negface.foundation.errors import FormatError, MismatchError
from negface.foundation.files import read_json
from negface.report import render
from negface.sampling import guidance as rules

from .nearest import MOST, NamedPictures

CURATION = "curation.json"
PEOPLE, IMAGES, PAIRS = 8, 4, 6
STAYS = {
    "align": "five points of a face are found",
    "adherence": "its cosine to the wanted identity is at least {least:g}",
    "face": "a face is found with a score of at least {least:g}",
    "quality": "its quality is at least {least:g}",
    "leakage": "its cosine to every training picture is at most {most:g}",
    "duplicates": "it is no copy of an earlier one: more than {bits:g} bits of their hashes differ",
    "too few left": "enough pictures of the person are left",
}


def dataset_page(folder: Path, out: Path, *, measures: Iterable[Path] = (), training: Path | None = None,
                 command: str = "") -> dict[str, Any]:
    """Write the page of a dataset.

    Args:
        folder: anything ``negface.datasets.open`` reads. out: the page.
        measures: JSON of ``negface evaluate separability`` or ``leakage``, of this dataset's embeddings.
        training: the generator's training pictures, shown beside the nearest generated ones.

    Returns the summary of ``negface.report.render``. Errors: those of the readers; ``MismatchError`` for measures of
    other pictures.
    """
    faces = datasets.open(folder)
    measured = _measures(measures, faces)
    with tempfile.TemporaryDirectory(prefix="negface-page-") as scratch:
        data = _results(Path(folder), faces, measured, NamedPictures(training) if training else None, Path(scratch))
        return render({**data, "command": command}, out, folder=scratch)


def _results(folder: Path, faces: datasets.FaceDataset, measured: dict[str, Any], training: NamedPictures | None,
             scratch: Path) -> dict[str, Any]:
    plan = read_json(folder / datasets.PLAN_NAME) if (folder / datasets.PLAN_NAME).is_file() else {}
    rejections = _rejections(folder)
    made = NamedPictures(folder)

    def shown(name: str) -> str:
        return made.copy(name, scratch, "pictures")

    cell = {**_setting(faces, plan), "metrics": {**_numbers(measured), "n_images": len(faces)},
            "histogram": measured.get("histogram"), "det": measured.get("det"),
            "images": [[shown(faces.manifest[int(row)]["file"]) for row in faces.indices_of(label)[:IMAGES]]
                       for label in range(min(PEOPLE, len(faces.identities)))],
            "closest_pairs": [_pair(shown(pair["a_name"]), shown(pair["b_name"]), pair["cosine"], pair["a_identity"],
                                    pair["b_identity"])
                              for pair in measured.get("closest_pairs", [])[:PAIRS] if "a_name" in pair],
            "leakage_pairs": _leaked(measured, training, scratch, shown), "rejections": rejections}
    return {"title": Path(folder).resolve().name, "versions": plan.get("versions") or {"negface": negface.__version__},
            "warnings": _warnings(plan, measured), "provenance": _provenance(plan), "cells": [cell],
            "lead": {"sentence": _sentence(faces, rejections), "tiles": _tiles(faces, rejections)}}


def _measures(paths: Iterable[Path], faces: datasets.FaceDataset) -> dict[str, Any]:
    """All measures as one; refused where they are of another number of pictures."""
    found: dict[str, Any] = {}
    for path in paths:
        value = read_json(path)
        if not isinstance(value, dict):
            raise FormatError("is no result of `negface evaluate`", where=path)
        if value.get("n_images", len(faces)) != len(faces):
            raise MismatchError(f"measures {value['n_images']} pictures, the dataset has {len(faces)}", where=path,
                                fix="embed and measure this dataset")
        found |= value
    return found


def _numbers(measured: Mapping[str, Any]) -> dict[str, float | int]:
    return {key: value for key, value in measured.items()
            if isinstance(value, int | float) and not isinstance(value, bool)}


def _pair(a: str, b: str, cosine: float, a_identity: Any, b_identity: Any) -> dict[str, Any]:
    return {"a": a, "b": b, "cosine": cosine, "a_identity": str(a_identity), "b_identity": str(b_identity)}


def _leaked(measured: Mapping[str, Any], training: NamedPictures | None, scratch: Path,
            shown: Any) -> list[dict[str, Any]]:
    if training is None:
        return []
    closest = [item for item in measured.get("leakage_closest", ())[:MOST] if "training_image_name" in item]
    return [_pair(shown(item["image_name"]), training.copy(item["training_image_name"], scratch, "training"),
                  item["cosine"], item["identity"], item["training_identity"]) for item in closest]


def _setting(faces: datasets.FaceDataset, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Strategy, weight and contexts, as the first row of the manifest says them; it outlives curation."""
    row = faces.manifest[0]
    if "guidance" not in row or "negative" not in row:
        return {"strategy": "pictures", "contexts": "unknown"}
    rule = rules.from_dict(row["guidance"])
    strategy = "baseline" if rule == rules.none() else row["negative"]["strategy"]
    varied = row.get("variation")
    if varied is not None:
        strategy += f" + {varied['name']}-{varied['lower']:g}" + ("-safe" if varied["safe"] else "")
    return {"strategy": strategy, "weight": round(float(row["mean_weight"]), 4), "seed": row["seed"],
            "contexts": (plan.get("contexts") or {}).get("source") or "unknown"}


def _rejections(folder: Path) -> dict[str, Any] | None:
    """What ``generate`` or ``curate`` recorded of its filters; ``None`` where nothing could be rejected."""
    if not (folder / CURATION).is_file():
        return None
    record = read_json(folder / CURATION)
    try:
        declared = {item["name"]: item for item in record["filters"]}
        steps = [{"step": item["step"], "declared": _stays(item["step"], declared.get(item["step"])),
                  "seen": item["seen"], "rejected": item["rejected"]} for item in record["counts"]]
    except (KeyError, TypeError) as error:
        raise FormatError(f"is no record of filters ({error})", where=folder / CURATION) from error
    fate = "left out" if record.get("step") == "curate" else "replaced"
    return {"fate": fate, "steps": steps} if steps else None


def _stays(name: str, declared: Mapping[str, Any] | None) -> str:
    parameters = dict(declared["parameters"]) if declared else {}
    try:
        said = STAYS[name].format(**parameters)
    except KeyError:
        said = ", ".join(f"{key} {value:g}" for key, value in parameters.items())
    files = ", ".join(file["name"] for file in declared["files"].values()) if declared else ""
    return f"{said} ({files})" if files else said


def _counts(rejections: Mapping[str, Any] | None) -> tuple[int, int]:
    """Pictures that the first filter saw, and those rejected by any."""
    if rejections is None:
        return 0, 0
    return int(rejections["steps"][0]["seen"]), int(sum(item["rejected"] for item in rejections["steps"]))


def _sentence(faces: datasets.FaceDataset, rejections: Mapping[str, Any] | None) -> str:
    said = f"{len(faces):,} pictures of {len(faces.identities):,} people"
    drawn, lost = _counts(rejections)
    if rejections is None:
        return f"{said}; no filter was applied."
    if not lost:
        return f"{said}; its filters rejected none."
    return f"{said}; {lost:,} of {drawn:,} were rejected and {rejections['fate']} ({lost / drawn:.1%})."


def _tiles(faces: datasets.FaceDataset, rejections: Mapping[str, Any] | None) -> list[dict[str, str]]:
    each = len(faces) / max(len(faces.identities), 1)
    tiles = [{"heading": "Pictures", "value": f"{len(faces):,}", "note": f"{each:.4g} of each person"},
             {"heading": "People", "value": f"{len(faces.identities):,}", "note": "identities"}]
    drawn, lost = _counts(rejections)
    if drawn:
        tiles.append({"heading": f"Rejected and {rejections['fate']}", "value": f"{lost / drawn:.1%}",
                      "note": f"{lost:,} of {drawn:,} pictures"})
    return tiles


def _warnings(plan: Mapping[str, Any], measured: Mapping[str, Any]) -> list[str]:
    said = []
    if (plan.get("contexts") or {}).get("describes_real_people"):
        said.append(REAL_PEOPLE_NOTE)
    if measured.get("judge_is_conditioner"):
        said.append("the judge is the conditioner: it grades its own work")
    return said


def _provenance(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What made it, from its plan: without lists of people, and without what the page says elsewhere."""
    left_out = ("identities", "versions", "filters", "layout", "latent_shape")
    return {key: value for key, value in plan.items() if key not in left_out}
