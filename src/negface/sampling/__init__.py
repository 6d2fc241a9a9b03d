"""Sampling: guidance rules with their weights over time, noise schedulers, and the loop that joins them.

A rule says which predictions a step needs and how they are mixed; a scheduler says where a step goes; the loop knows
neither faces nor networks. Sources: NegFaceDiff (arXiv 2508.09661), AdaptDiff (arXiv 2603.29569), DDPM (arXiv
2006.11239), DDIM (arXiv 2010.02502), DPM-Solver++ (arXiv 2211.01095), UniPC (arXiv 2302.04867).
"""

from __future__ import annotations

import importlib
from typing import Any

from negface.foundation.registry import register

__all__ = ["guidance", "loop", "schedulers"]

_GUIDANCE, _SCHEDULERS = "negface.sampling.guidance", "negface.sampling.schedulers"

register("guidance", "none", f"{_GUIDANCE}:none", "no negative: plain conditional sampling, one prediction a step",
         paper="arXiv 2308.04995 (IDiff-Face)")
register("guidance", "constant", f"{_GUIDANCE}:constant", "the same weight at every step",
         paper="arXiv 2508.09661 (NegFaceDiff), w = 0.5")
register("guidance", "rising", f"{_GUIDANCE}:rising", "weight w (1 - t/T): layout first, then away from the negative",
         paper="arXiv 2603.29569 (AdaptDiff), w = 1")
register("guidance", "falling", f"{_GUIDANCE}:falling", "weight w t/T: strong early, gone at the end",
         paper="arXiv 2603.29569 (AdaptDiff), the ablation called reverse")

register("scheduler", "ddpm", f"{_SCHEDULERS}:DDPM", "ancestral sampling; stochastic",
         paper="arXiv 2006.11239, Algorithm 2")
register("scheduler", "ddim", f"{_SCHEDULERS}:DDIM", "first-order ODE steps (eta = 0)",
         paper="arXiv 2010.02502, eq. 12")
register("scheduler", "dpmpp", f"{_SCHEDULERS}:DPMpp", "DPM-Solver++ 2M, second-order multistep (diffusers)",
         paper="arXiv 2211.01095, Algorithm 2")
register("scheduler", "unipc", f"{_SCHEDULERS}:UniPC", "UniPC, predictor and corrector of second order (diffusers)",
         paper="arXiv 2302.04867, Algorithms 5 to 8")
register("scheduler", "distilled", "negface.sampling.distilled:Distilled",
         "first-order steps over the few timesteps a distilled model knows (option: visits)",
         paper="arXiv 2202.00512, sec. 3")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'negface.sampling' has no attribute {name!r}")
    return importlib.import_module(f"negface.sampling.{name}")
