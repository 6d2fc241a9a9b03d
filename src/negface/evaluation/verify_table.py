"""Recognisers times benchmarks: one row each, with intervals, how they were made, and who had seen whom.

Pairs: accuracy by insightface's ten folds (``verification``), EER and TAR at bounds on FAR over all pairs; intervals of
all three from the same draws. Templates: TAR at FAR (``template_protocol``). docs/evaluation.md is the protocol.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from negface.foundation.errors import InputError
from negface.perception import Declaration, Recognizer

from .benchmarks import Benchmark
from .bootstrap import interval, multiplicities
from .group_gaps import table as group_table
from .groups import MIN_PEOPLE
from .pair_embeddings import embed_pictures
from .pair_groups import pair_fairness, pair_groups
from .pair_scores import FARS, Units, far_key, fold_units, linked_units, pair_rates, people_units, share_replicates
from .provenance import check_undeveloped, check_unseen
from .template_protocol import FARS as TEMPLATE_FARS
from .template_protocol import tar_at_far, template_embeddings, template_scores
from .verification import FOLDS, Verification, verification

TEMPLATE_BOOTSTRAP = 100


def verify_row(recognizer: Recognizer, benchmark: Benchmark, *, flip: bool = True, resize: bool = False,
               folds: int = FOLDS, fars: Sequence[float] | None = None, bootstrap: int = 1000, seed: int = 0,
               batch: int = 64, cache: Path | None = None, force: bool = False,
               groups: Mapping[str, Mapping[str, str]] | None = None, min_people: int = MIN_PEOPLE) -> dict[str, Any]:
    """One recogniser on one benchmark; a JSON value.

    ``resampled`` says what all intervals were drawn over: ``identities`` where the pictures' names tell the people
    (or, for templates, genuine pairs link them), else ``folds``; thresholds of the folds stay.
    ``groups``: attribute -> {picture or person -> group} of a pair benchmark; then ``groups`` holds
    ``pair_fairness`` by attribute.

    Errors: ``MismatchError`` for a recogniser that was trained on the benchmark's people, or chosen by it or by pairs
    of its people (unless ``force``), ``InputError`` for groups of templates, else as of the parts.
    """
    declared = recognizer.declaration
    if groups and benchmark.ijb is not None:
        raise InputError("groups are measured on pairs of pictures, not on templates", where=benchmark.name)
    row: dict[str, Any] = {
        "recognizer": declared.name, "recognizer_hash": declared.sha256, "benchmark": benchmark.name,
        "benchmark_hash": benchmark.sha256, "flip": flip, "n_pairs": len(benchmark.same),
        "n_genuine": int(benchmark.same.sum()), "n_pictures": benchmark.pictures.distinct,
        "n_people": len(set(benchmark.people)) or None, "bootstrap": bootstrap, "seed": seed,
        **_made_with(declared, benchmark, force)}
    raw = embed_pictures(recognizer, benchmark.pictures, flip=flip, batch=batch, resize=resize, cache=cache)
    if benchmark.ijb is not None:
        return row | _templates(raw, benchmark, fars or TEMPLATE_FARS, bootstrap, seed)
    scores, units = _scored(raw, benchmark, folds)
    found = verification(raw, benchmark.same, folds=folds)
    row |= _pairs(found, scores, units, benchmark, folds, fars or FARS, bootstrap, seed)
    if groups:
        of_pairs = {name: pair_groups(benchmark.names, benchmark.people, group_of, name)
                    for name, group_of in groups.items()}
        row["groups"] = {name: pair_fairness(scores, benchmark.same, units, of, right=found.right, fars=fars or FARS,
                                             min_people=min_people, bootstrap=bootstrap, seed=seed)
                         for name, of in of_pairs.items()}
    return row


def _made_with(declared: Declaration, benchmark: Benchmark, force: bool) -> dict[str, Any]:
    """Who of the benchmark was in the recogniser's training, and whether it was chosen by it; or the refusal."""
    return {**check_unseen(declared, benchmark.people, benchmark=benchmark.name, force=force),
            **check_undeveloped(declared, benchmark.sha256, benchmark.people, benchmark=benchmark.name, force=force)}


def _scored(raw: np.ndarray, benchmark: Benchmark, folds: int) -> tuple[np.ndarray, Units]:
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    scores = np.einsum("nd,nd->n", unit[0::2], unit[1::2]).astype(np.float32)
    return scores, people_units(benchmark.people) if benchmark.people else fold_units(len(benchmark.same), folds)


def _pairs(found: Verification, scores: np.ndarray, units: Units, benchmark: Benchmark, folds: int,
           fars: Sequence[float], bootstrap: int, seed: int) -> dict[str, Any]:
    drawn = multiplicities(units.count, bootstrap if units.count > 1 else 0, seed)
    low, high = interval(share_replicates(found.right, units, drawn))
    return {"protocol": "verification/1", "accuracy": found.accuracy, "accuracy_std": found.accuracy_std,
            "accuracy_low": low, "accuracy_high": high, "folds": folds,
            **pair_rates(scores, benchmark.same, units, fars=fars, bootstrap=bootstrap, seed=seed)}


def _templates(raw: np.ndarray, benchmark: Benchmark, fars: Sequence[float], bootstrap: int,
               seed: int) -> dict[str, Any]:
    meta = benchmark.ijb
    embeddings, ids = template_embeddings(raw, meta.templates, meta.media, meta.scores)
    scores = template_scores(embeddings, ids, meta.pairs)
    units: Units = linked_units(meta.pairs, meta.same)
    # Each draw walks over all pairs, millions of them; a hundred draws place the ends well enough.
    rates = pair_rates(scores, meta.same, units, fars=fars, bootstrap=min(bootstrap, TEMPLATE_BOOTSTRAP), seed=seed)
    published = {f"published_{far_key(point['far_target'])}": point["tar_nearest"]
                 for point in tar_at_far(scores, meta.same, fars)}
    return {"protocol": "ijb-1:1/1", "accuracy": None, "accuracy_std": None, "n_templates": len(ids),
            "n_people": units.count, "norm_score": True, "detector_score": True, **rates, **published,
            "bootstrap": min(bootstrap, TEMPLATE_BOOTSTRAP)}


def verify_all(recognizers: Iterable[Recognizer], benchmarks: Sequence[Benchmark], *,
               groups: Mapping[str, Mapping[str, Mapping[str, str]]] | None = None, **options: Any) -> dict[str, Any]:
    """Every recogniser on every benchmark: ``{"rows": [...]}``; all pairings are checked for provenance first.

    ``groups``: benchmark's name -> attribute -> {picture or person -> group}. Other options: as of ``verify_row``.
    """
    recognizers = list(recognizers)
    if not recognizers or not benchmarks:
        raise InputError("nothing to do: no recogniser or no benchmark", where="verify", fix="give one of each")
    for kind, names in (("recognisers", [eye.declaration.name for eye in recognizers]),
                        ("benchmarks", [benchmark.name for benchmark in benchmarks])):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"two {kind} are called {twice!r}", where="verify",
                             fix="name each with NAME=PATH")
    for eye in recognizers:
        for benchmark in benchmarks:
            _made_with(eye.declaration, benchmark, options.get("force", False))
    return {"rows": [verify_row(eye, benchmark, groups=(groups or {}).get(benchmark.name), **options)
                     for benchmark in benchmarks for eye in recognizers]}


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as CSV, one column for every key that any row has but groups; empty where not measured."""
    rows = [{key: value for key, value in row.items() if key != "groups"} for row in rows]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return buffer.getvalue()


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for a person: accuracy with its spread over folds, and 95 % intervals of it and of the rates."""
    fars = list(dict.fromkeys(key for row in rows for key in row if key.startswith("tar_at_far_")
                              and not key.endswith(("_low", "_high"))))
    heads = ["benchmark", "recogniser", "accuracy, %", "EER, %", *(f"TAR@FAR {key[11:]}, %" for key in fars)]
    lines = [[row["benchmark"], row["recognizer"], _accuracy(row), _rate(row, "eer"),
              *(_rate(row, key) for key in fars)] for row in rows]
    widths = [max(len(line[column]) for line in [heads, *lines]) for column in range(len(heads))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in [heads, *lines]]
    drawn = {(row["benchmark"], row["resampled"], row["n_resampled"]) for row in rows}
    text += [f"{name}: intervals over {count} {kind}" for name, kind, count in sorted(drawn)]
    text += [f"WARNING: {row['recognizer']} was trained on {row['trained_on_test_people']} people of "
             f"{row['benchmark']}" for row in rows if row["trained_on_test_people"]]
    text += [f"WARNING: the weights of {row['recognizer']} were chosen by {row['benchmark']}, or by pairs of its people"
             for row in rows if row["developed_on_benchmark"]]
    unknown = sorted({row["recognizer"] for row in rows if row["trained_on_test_people"] is None})
    if unknown:
        text.append(f"note: who trained {', '.join(unknown)}, or who is in a benchmark, is not known by name; overlap "
                    f"was not checked there")
    text += [f"\n{row['benchmark']} by {name}, {row['recognizer']} (threshold: FAR {found['far']:.2%} over all pairs)\n"
             f"{group_table(found)}" for row in rows for name, found in row.get("groups", {}).items()]
    return "\n".join(text)


def _accuracy(row: dict[str, Any]) -> str:
    if row["accuracy"] is None:
        return "-"
    low, high = row["accuracy_low"], row["accuracy_high"]
    ends = "" if low is None else f" [{low:.2%}, {high:.2%}]"
    return f"{row['accuracy']:.2%} ± {row['accuracy_std']:.2%}{ends}".replace("%", "")


def _rate(row: dict[str, Any], key: str) -> str:
    value, low, high = (row.get(f"{key}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return "-" if key not in row else "too few pairs"
    return f"{value:.2%}".replace("%", "") + (f" [{low:.2%}, {high:.2%}]".replace("%", "") if low is not None else "")
