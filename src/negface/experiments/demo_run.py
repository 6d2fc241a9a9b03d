"""``demo``: the shipped models at work. The same noise twice, plain and with far negatives, judged and shown.

Nothing is trained and nothing is downloaded. Contexts of held-out people and random ones are reported side by side.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from negface.foundation.files import write_json
from negface.perception import read_embeddings, write_embeddings
from negface.perception.networks import available_threads

from . import assets
from .recipe import BASELINE, RunRecipe, load_run_recipe
from .runner import Setup, run, say_aloud
from .tables import SUMMARY

HELD_OUT, RANDOM = "authentic", "uniform"
FIGURES = ("fdr", "eer", "fmr100", "fmr1000", "genuine_mean", "genuine_std", "impostor_mean", "impostor_std",
           "adherence", "diversity", "pose_spread", "fdr_ratio")
NOTE = ("rendered people, not photographs: generator and recognisers were trained on procedural people who do not "
        "exist, and the numbers say nothing about photographs")
RANDOM_NOTE = ("random (uniform) contexts are directions no face of the conditioner points to: adherence to them is "
               "low by construction, and people drawn from them are told apart for other reasons; they are reported "
               "beside the held-out people's, never mixed with them")


def demo_recipe() -> RunRecipe:
    """The recipe that ships with the package."""
    with as_file(files(__package__) / "demo.toml") as path:
        return load_run_recipe(path)


def demo(out: Path, *, workers: int | None = None, recipe: RunRecipe | None = None, models: Path | None = None,
         say: Callable[[str], None] = say_aloud) -> dict[str, Any]:
    """Run the demo into ``out``; resumable like every run.

    Args:
        out: folder for datasets, ``report.html`` and ``summary.json``.
        workers: processes of generation; as many as processors if None.
        recipe: default: the demo's own.
        models: folder of assets; default: the shipped ones.

    Returns:
        what ``summary.json`` holds: ``strategies`` (on held-out people's contexts) and ``random_contexts``, each
        strategy with its figures and intervals; ``table``, ``verdict``, ``warnings``, ``seconds``, ``report``.

    Errors: ``InputError`` or ``MismatchError`` naming a shipped file that is missing or damaged.
    """
    started, out = time.monotonic(), Path(out)
    shipped = {name: assets.load(name, models) for name in assets.PLACES}
    seen = {eye: _unpacked(shipped[f"embeddings-{eye}"], out / "material" / f"{eye}.safetensors")
            for eye in ("conditioner", "judge")}
    summary = run(recipe or demo_recipe(), Setup(
        faces=None, seen=seen, people=shipped["people"], conditioner=shipped["conditioner"], judge=shipped["judge"],
        pose=(shipped["analyser"],), model=shipped["generator"], out=out, workers=workers or available_threads(),
        command="negface demo", say=say, notes=(NOTE, RANDOM_NOTE)))
    result = {"strategies": strategies(summary["table"], HELD_OUT),
              "random_contexts": strategies(summary["table"], RANDOM), **summary,
              "seconds": round(time.monotonic() - started, 1)}
    write_json(out / SUMMARY, {**result, "report": "report.html", "results": "results.csv", "model": "shipped"})
    return result


def _unpacked(shipped: Path, out: Path) -> Path:
    """Half-precision embeddings as unit vectors in single precision."""
    found = read_embeddings(shipped)
    vectors = np.asarray(found.embeddings, np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_embeddings(out, vectors.astype(np.float32), found.labels, identities=found.identities, images=found.images,
                     provenance=found.provenance)
    return out


def strategies(table: list[dict[str, Any]], contexts: str) -> dict[str, dict[str, Any]]:
    """Figures of every strategy on one kind of contexts; of several weights, the published 0.5 bears the name."""
    found: dict[str, dict[str, Any]] = {}
    for row in table:
        if row["contexts"] != contexts:
            continue
        plain = row["strategy"] == BASELINE or row["weight"] == 0.5
        values = {f"{name}{end}": row[f"{name}{end}"] for name in FIGURES for end in ("", "_low", "_high")
                  if row.get(f"{name}{end}") is not None}
        leaked = {f"leakage{end}": row[f"leakage_rate{end}"] for end in ("", "_low", "_high")
                  if row.get(f"leakage_rate{end}") is not None}
        found[row["strategy"] if plain else f"{row['strategy']}-w{row['weight']:g}"] = {
            "weight": row["weight"], **values, **leaked,
            **{name: row[name] for name in ("leakage_chance_rate", "n_identities", "n_images", "seconds",
                                            "images_per_second")}}
    return found
