"""Experiments: the ``run`` recipe, from a folder of faces to a dataset and its verdict. Composes every other room.

The only room that calls ``report``. Every step leaves a record with the hash of its inputs, so a second run does
nothing and a changed input redoes what depends on it.
"""

import importlib
from typing import Any

from negface.foundation.registry import register

_LAZY = {"ExperimentRecipe": "grid", "ExperimentSetup": "conduct", "Given": "materials", "RunRecipe": "recipe",
         "Setup": "runner", "Strategy": "recipe", "demo": "demo_run", "demo_from_scratch": "demo_scratch",
         "experiment": "conduct", "load_experiment": "grid", "load_run_recipe": "recipe", "run": "runner"}
__all__ = sorted(_LAZY)

register("model", "demo-recognizer", "negface.experiments.demo_eyes:build_conditioner",
         "small recogniser of drawn faces, 32 px: the demo's conditioner", paper="CosFace, arXiv 1801.09414 (loss)")
register("model", "demo-judge", "negface.experiments.demo_eyes:build_judge",
         "small recogniser of drawn faces, 32 px: the demo's judge", paper="CosFace, arXiv 1801.09414 (loss)")


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'negface.experiments' has no attribute {name!r}")
    return getattr(importlib.import_module(f"negface.experiments.{_LAZY[name]}"), name)
