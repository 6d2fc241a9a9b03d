"""``make_assets``: people, trainings, packing, measuring, in this order; then, if asked, into the package.

Figures are of the packed files, on people in no training: ``results.csv`` beside them.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from negface.evaluation.benchmarks import open_benchmark
from negface.evaluation.verify_table import verify_all
from negface.foundation.errors import UnknownNameError
from negface.foundation.files import atomic_folder, read_json, write_json, write_text
from negface.perception import load_analyser, load_recognizer
from negface.perception.analyser import UNITS
from negface.population import protocols
from negface.training.analyser import analyser_errors

from .assets import CARD, PLACES
from .assets_making import STAGES, Workshop
from .assets_packing import pack
from .assets_recipe import assets_recipe
from .demo_run import HELD_OUT, demo, demo_recipe
from .runner import say_aloud

LAST = ("protocols", "pack", "measure")
COLUMNS = ("asset", "figure", "value", "low", "high", "unit", "n", "measured_on")
_OTHER_UNITS = {"landmarks": "pixels of 64", "parsing": "share of pixels told right"}


def make_assets(out: Path, *, size: str = "cpu", stages: tuple[str, ...] = (), workers: int | None = None,
                packed: Path | None = None, say: Callable[[str], None] = say_aloud) -> dict[str, Any]:
    """Make the assets in ``out``; what is there and unchanged is kept.

    Args:
        size: which recipe, ``cpu`` or ``gpu``.
        stages: only these; all if empty.
        workers: processes of rendering and of the measured generation.
        packed: folder that gets a copy of the result (the package's own, to ship it).

    Returns:
        ``made`` (what was done), ``where``, ``bytes`` and ``figures`` as far as they are there.

    Errors: ``UnknownNameError`` for a stage or size.
    """
    order = (*STAGES, *LAST)
    for stage in stages:
        if stage not in order:
            raise UnknownNameError("stage", stage, order)
    shop = Workshop(assets_recipe(size), Path(out), workers=workers, say=say)
    target, wanted = shop.root / "packed", [stage for stage in order if not stages or stage in stages]
    shop.make(tuple(stage for stage in wanted if stage in STAGES))
    if "protocols" in wanted:
        protocols.write_all(shop.root / "protocols", size=shop.recipe.people.size, workers=workers)
    if "pack" in wanted:
        errors = analyser_errors(load_analyser(shop.analyser), shop.people("test"))
        pack(shop, target, {"analyser_errors": errors})
    if "measure" in wanted:
        _measure(shop, target, workers, say)
    if packed is not None:
        with atomic_folder(packed) as folder:
            shutil.copytree(target, folder, dirs_exist_ok=True)
    card = read_json(target / CARD) if (target / CARD).is_file() else {}
    return {"made": ", ".join(wanted), "where": str(packed or target), "bytes": card.get("bytes"),
            "figures": card.get("figures", {})}


def _measure(shop: Workshop, packed: Path, workers: int | None, say: Callable[[str], None]) -> None:
    """Figures of the packed models; into their card and ``results.csv``."""
    card = read_json(packed / CARD)
    recognizers = [load_recognizer(packed / PLACES[name]) for name in ("conditioner", "judge")]
    benchmarks = [open_benchmark(shop.root / "protocols" / spec["name"]) for spec in protocols.table()]
    verified = verify_all(recognizers, benchmarks)["rows"]
    recipe = demo_recipe()
    shown = demo(shop.root / "generator", workers=workers, models=packed, say=say, recipe=recipe.model_copy(
        update={"strategies": {"baseline": (0.0,), "far": (0.25, 0.5, 1.0, 2.0)}, "contexts": {HELD_OUT: (0,)}}))
    errors = card["figures"]["analyser_errors"]
    rows = [*_verification_rows(verified), *_analyser_rows(errors, shop), *_generator_rows(shown["strategies"])]
    card["figures"] = {"analyser_errors": errors,
                       "eer": {f"{row['recognizer']} {row['benchmark']}": row["eer"] for row in verified},
                       "generator": {name: {key: value[key] for key in ("fdr", "adherence", "diversity", "eer")}
                                     for name, value in shown["strategies"].items()}}
    write_json(packed / CARD, card)
    write_text(shop.root / "results.csv", csv_text(rows, shop, card))


def _verification_rows(verified: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for row in verified:
        for figure in ("eer", "accuracy"):
            rows.append({"asset": row["recognizer"], "figure": f"{row['benchmark']} {figure}", "value": row[figure],
                         "low": row.get(f"{figure}_low"), "high": row.get(f"{figure}_high"), "unit": "share",
                         "n": row["n_pairs"], "measured_on": f"protocol {row['benchmark']}"})
    return rows


def _analyser_rows(errors: dict[str, float], shop: Workshop) -> list[dict[str, Any]]:
    people, images = shop.recipe.people.groups["test"].people, shop.recipe.people.images
    return [{"asset": "analyser", "figure": name if name in _OTHER_UNITS else f"{name} mean absolute error",
             "value": value, "unit": _OTHER_UNITS.get(name, UNITS.get(name)), "n": people * images,
             "measured_on": "renders of people in no training"} for name, value in errors.items()]


def _generator_rows(strategies: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for name, found in strategies.items():
        for figure in ("fdr", "eer", "adherence", "diversity", "pose_spread", "genuine_mean", "impostor_mean",
                       "leakage"):
            if figure in found:
                rows.append({"asset": "generator", "figure": f"{name} w={found['weight']:g} {figure}",
                             "value": found[figure], "low": found.get(f"{figure}_low"),
                             "high": found.get(f"{figure}_high"), "unit": "", "n": found["n_images"],
                             "measured_on": "contexts of people in no training"})
    return rows


def csv_text(rows: list[dict[str, Any]], shop: Workshop, card: dict[str, Any]) -> str:
    """The table, behind remarks that say what made it."""
    buffer = io.StringIO()
    versions = ", ".join(f"{name} {version}" for name, version in card["versions"].items())
    for remark in (f"negface assets make; recipe {shop.recipe_hash[:12]}; {card['bytes'] / 1e6:.1f} MB; {versions}",
                   "intervals 95 %, bootstrap over people; the judge measures, adherence is by the conditioner"):
        buffer.write(f"# {remark}\n")
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else "" if value is None else value
                         for key, value in row.items()})
    return buffer.getvalue()
