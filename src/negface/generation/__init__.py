"""Generation: plan -> units -> folders or shards -> manifest. Exact counts, resumable, reproducible to the byte."""

import importlib
from typing import Any

_LAZY = {
    "Inputs": "inputs", "Plan": "plan", "Tools": "workers", "Unit": "plan", "dataset_card": "card",
    "estimate": "estimates", "generate": "run", "make_inputs": "inputs", "make_plan": "planning",
    "model_hash": "plan", "parse_shard": "run", "remake": "remaking", "verify": "verifying",
    "yunet_aligner": "finishing",
}
__all__ = sorted(_LAZY)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'negface.generation' has no attribute {name!r}")
    return getattr(importlib.import_module(f"negface.generation.{_LAZY[name]}"), name)
