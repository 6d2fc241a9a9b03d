"""Rows of the manifest: all that is needed to make an image again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .inputs import Inputs
from .plan import Plan


def shared_row(plan: Plan) -> dict[str, Any]:
    """What all rows of a plan say: model, bank, guidance with its mean weight, scheduler, steps, seed, versions."""
    varied = {key: plan.contexts[key] for key in ("variation",) if key in plan.contexts}
    decoded = {} if plan.decoder is None else {"decoder": plan.decoder}
    return {
        "plan": plan.hash, "model": plan.model["hash"], "bank": plan.contexts["hash"], "guidance": plan.guidance,
        "mean_weight": plan.mean_weight, "scheduler": plan.scheduler, "steps": plan.steps, "seed": plan.seed,
        "dtype": plan.dtype, "device": plan.device, "batch": plan.batch, "threads": plan.threads, "size": plan.size,
        "align": plan.align, "codec": plan.codec, **varied, **decoded, "versions": plan.versions,
        "processor": plan.processor,
    }


def row_details(plan: Plan, inputs: Inputs, items: Sequence[tuple[int, int]]) -> dict[tuple[int, int], dict[str, Any]]:
    """What each ``(label, image)`` adds: its negative, by kind (0 to 4) and row in the pool (-1 if in none)."""
    if not items:
        return {}
    labels, images = zip(*items, strict=True)
    chosen = inputs.negatives(labels, images)
    said = {key: plan.negatives[key] for key in ("strategy", "scope", "pool", "hash")}
    return {item: {"negative": {**said, "kind": int(kind), "index": int(index)}}
            for item, kind, index in zip(items, chosen.kind, chosen.indices, strict=True)}
