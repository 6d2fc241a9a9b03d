"""NegFace: face-recognition training sets of people who do not exist.

The public names are imported on first use (PEP 562), so ``import negface`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "ContextBank": ("negface.contexts", "ContextBank"),
    "NegFaceDiffPipeline": ("negface.pipelines", "NegFaceDiffPipeline"),
    "NegFaceError": ("negface.foundation.errors", "NegFaceError"),
    "guidance": ("negface.sampling.guidance", None),
    "negatives": ("negface.contexts.negatives", None),
    "contexts": ("negface.contexts", None),
    "datasets": ("negface.datasets", None),
    "evaluation": ("negface.evaluation", None),
    "models": ("negface.models", None),
    "sampling": ("negface.sampling", None),
    "shipped": ("negface.experiments.assets", "load"),
}

__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'negface' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    value = importlib.import_module(module)
    value = value if attribute is None else getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
