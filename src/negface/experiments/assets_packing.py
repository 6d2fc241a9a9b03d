"""``negface assets make``, last step: half-precision copies of what was trained, into the package, with hashes.

The conditioner is shipped in half precision, so the shipped generator is declared for that copy; how far the two see
alike is measured and stands in ``assets.json``.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from negface import datasets
from negface.evaluation.provenance import people_text
from negface.foundation.files import atomic_folder, read_json, write_json, write_text
from negface.foundation.hashing import sha256_file
from negface.foundation.tensors import write_tensors
from negface.generation.machine import versions
from negface.perception import load_recognizer, read_declaration
from negface.perception.declarations import sidecar_path
from negface.pipelines import NegFaceDiffPipeline

from .assets import CARD, PLACES
from .assets_making import Workshop
from .people import Split

SHARD = "12MB"
TRAIN_PEOPLE, TRAIN_IMAGES, TEST_IMAGES = 1000, 3, 6
"""How much of what the recognisers see of the generator's people is shipped (for pools and leakage)."""
LICENCE = "Apache-2.0"


def pack(shop: Workshop, out: Path, figures: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write the shipped folder anew; returns its card.

    Args:
        shop: where everything was trained.
        out: the folder; it is replaced as a whole.
        figures: what was measured, for the card.
    """
    out = Path(out)
    with atomic_folder(out) as folder:
        seen = {name: _copy_perception(shop.recognizer(name), folder / PLACES[name]) for name in ("conditioner",
                                                                                                 "judge")}
        _copy_perception(shop.analyser, folder / PLACES["analyser"], (figures or {}).get("analyser_errors"))
        agreement = _agreement(shop, folder)
        _copy_generator(shop, folder, seen["conditioner"])
        split = _embeddings(shop, folder)
        split.save(folder / PLACES["people"])
        _records(shop, folder)
        card = {"files": {}, "recipe_hash": shop.recipe_hash, "versions": versions(),
                "half_precision_cosine": agreement, "figures": dict(figures or {}), "licence": LICENCE,
                "describes_real_people": False, "made_by": "negface assets make"}
        for path in sorted(item for item in folder.rglob("*") if item.is_file()):
            card["files"][path.relative_to(folder).as_posix()] = {"sha256": sha256_file(path),
                                                                  "bytes": path.stat().st_size}
        card["bytes"] = sum(item["bytes"] for item in card["files"].values())
        write_json(folder / CARD, card)
    return card


def _halved(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.half() if value.is_floating_point() else value for key, value in state.items()}


def _copy_perception(source: Path, target: Path, measured: Mapping[str, float] | None = None) -> dict[str, str]:
    """Weights in half precision with their declaration; returns its ``{"name", "hash"}``."""
    save_file(_halved(load_file(source)), target)
    declared = read_declaration(sidecar_path(source))
    people = read_json(source.parents[1] / "training.json")["identities"]
    declared = dataclasses.replace(declared, sha256=sha256_file(target), licence=LICENCE,
                                   trained_on=people_text(people), measured=dict(measured or declared.measured))
    write_json(sidecar_path(target), declared.to_dict())
    return declared.identity


def _agreement(shop: Workshop, folder: Path) -> dict[str, float]:
    """Least cosine between what full and half precision see, over pictures of test people."""
    dataset = datasets.open(shop.people("test"))
    images = np.stack([dataset[row][0] for row in range(0, len(dataset), max(1, len(dataset) // 200))])
    found = {}
    for name in ("conditioner", "judge"):
        full, half = (load_recognizer(path).embed(images) for path in (shop.recognizer(name), folder / PLACES[name]))
        found[name] = float((full * half).sum(1).min())
    return found


def _copy_generator(shop: Workshop, folder: Path, conditioner: dict[str, str]) -> None:
    target = folder / PLACES["generator"]
    pipe = NegFaceDiffPipeline.from_pretrained(shop.generator)
    pipe.unet.register_to_config(conditioner=conditioner)
    pipe.unet.half().save_pretrained(target / "unet", max_shard_size=SHARD)
    pipe.vae.half().save_pretrained(target / "vae", max_shard_size=SHARD)
    for name in ("unet", "vae"):
        config = read_json(target / name / "config.json")
        config.pop("_name_or_path", None)  # where it lay on the machine that trained it
        write_json(target / name / "config.json", config)
    shutil.copytree(shop.generator / "scheduler", target / "scheduler")
    shutil.copy(shop.generator / "model_index.json", target / "model_index.json")
    record = read_json(shop.generator.parent / "training.json")
    write_json(target / "training.json", {key: record[key] for key in (
        "steps", "seconds", "n_images", "n_identities", "made_from", "identities") if key in record})


def _embeddings(shop: Workshop, folder: Path) -> Split:
    """What the shipped recognisers see of some of the generator's people and of all test people, half precision."""
    parts = []
    for group, people, images in (("generator", TRAIN_PEOPLE, TRAIN_IMAGES), ("test", None, TEST_IMAGES)):
        dataset = datasets.open(shop.people(group))
        rows = [int(row) for label in range(len(dataset.identities))[:people] for row in
                dataset.indices_of(label)[:images]]
        parts.append((dataset, rows))
    for eye in ("conditioner", "judge"):
        recognizer = load_recognizer(folder / PLACES[eye])
        seen = [_seen(dataset, rows, recognizer) for dataset, rows in parts]
        identities = [name for _, _, names, _ in seen for name in names]
        places = {name: place for place, name in enumerate(identities)}
        labels = np.array([places[names[label]] for _, found, names, _ in seen for label in found], np.int64)
        write_tensors(folder / PLACES[f"embeddings-{eye}"], {
            "embeddings": np.concatenate([vectors for vectors, *_ in seen]).astype(np.float16), "labels": labels},
            {"identities": identities, "images": [file for *_, names in seen for file in names],
             "provenance": {"recognizer": recognizer.declaration.identity, "precision": "float16",
                            "describes_real_people": False}})
    train, test = (tuple(dict.fromkeys(dataset.identities[dataset.labels[row]] for row in rows))
                   for dataset, rows in parts)
    return Split(train, test)


def _seen(dataset: Any, rows: list[int], recognizer: Any) -> tuple[np.ndarray, list[int], list[str], list[str]]:
    images = np.stack([dataset[row][0] for row in rows])
    labels = [int(dataset.labels[row]) for row in rows]
    kept = list(dict.fromkeys(labels))
    files = [dataset.manifest[row]["file"] for row in rows]
    return (recognizer.embed(images), [kept.index(label) for label in labels],
            [dataset.identities[label] for label in kept], files)


def _records(shop: Workshop, folder: Path) -> None:
    """Logs of the trainings, and the recipe."""
    import json

    for name in ("conditioner", "judge", "analyser", "autoencoder", "generator"):
        log = shop.root / "training" / name / "log.csv"
        if log.is_file():
            write_text(folder / "logs" / f"{name}.csv", log.read_text())
    write_text(folder / "recipe.json", json.dumps(shop.recipe.model_dump(mode="json"), indent=1) + "\n")


