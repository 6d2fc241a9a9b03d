"""What each quirk of the released code does: the same people from the same noise, with it and without, paired.

Quirks of a scheduler are compared on that scheduler with the far negative, those of negatives on the default scheduler
with the negative they change. ``negface.sampling.compat`` describes them and shows what was found.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import Any

import numpy as np

from negface.evaluation.bootstrap import interval, multiplicities
from negface.evaluation.company import wanted_rows
from negface.foundation.errors import InputError
from negface.generation.planning import model_facts
from negface.perception import Embeddings
from negface.sampling import guidance
from negface.sampling.compat import QUIRKS, SCHEDULERS, resolve, told

from .paired import ratio, replicates
from .sampled_sets import Setting, Studio, draw, facts, seen

RULE = guidance.constant(0.5)
COUNTED_STEPS = 30  # 1000 // 30 = 33: the released stride then runs 31 steps


@dataclass(frozen=True)
class Comparison:
    """A quirk's name (or ``reference-ddim``, ``reference-ddpm``: all of that scheduler), without and with it."""

    name: str
    without: Setting
    having: Setting

    @property
    def described(self) -> str:
        """The setting in words."""
        base = self.without
        return f"{base.scheduler}, {base.steps} steps, {base.negatives}"


def comparisons(studio: Studio, *, ddim_steps: int = 50, ddpm_steps: int = 1000, seeds: tuple[int, ...] = (0, 1, 2),
                only: str = "*") -> list[Comparison]:
    """One comparison for each quirk that changes something, then all of a scheduler together; DDPM on one seed.

    A model without a learned null has no comparison of ``null-is-zero-input``. ``InputError`` if ``only`` fits none.
    """
    bases = {"ddim": Setting("ddim", RULE, "ddim", ddim_steps, seeds=seeds),
             "ddpm": Setting("ddpm", RULE, "ddpm", ddpm_steps, seeds=seeds[:1])}
    changing = [quirk for quirk in QUIRKS if quirk.changes]
    found = []
    for quirk in changing:
        if quirk.acts_on in bases:
            base = bases[quirk.acts_on]
            if quirk.setting[0] == "count":
                base = replace(base, steps=COUNTED_STEPS)
            found.append(_with(base, quirk.name, [quirk.name]))
        elif quirk.acts_on == "negatives":
            asked, used = quirk.setting
            if asked == "null-learned" and not model_facts(studio.model)["learned_null"]:
                continue
            base = Setting(asked, RULE, negatives=asked, seeds=seeds)
            found.append(Comparison(quirk.name, base, replace(base, name=used, negatives=used)))
    for name in SCHEDULERS:
        together = [quirk.name for quirk in changing if quirk.acts_on == name]
        found.append(_with(bases[name], f"reference-{name}", together))
    chosen = [item for item in found if fnmatch(item.name, only)]
    if not chosen:
        raise InputError(f"{only!r} fits none of {', '.join(item.name for item in found)}", where="--only")
    return chosen


def _with(base: Setting, name: str, quirks: Sequence[str]) -> Comparison:
    described, steps = resolve(quirks).scheduler(str(base.scheduler), base.steps)
    return Comparison(name, base, replace(base, name=name, scheduler=described, steps=steps))


def measure_effects(studio: Studio, chosen: Sequence[Comparison], *, command: str) -> dict[str, Any]:
    """Draw what is missing and compare; JSON-ready, with where the figures come from."""
    effects = {item.name: _effect(studio, item) for item in chosen}
    told_of = facts(studio)
    kept = {key: told_of[key] for key in ("model", "judge", "conditioner", "bank", "dtype", "identities_of_a_seed",
                                          "images_of_a_person")}
    return {**kept, "rule": str(RULE), "bootstrap": studio.bootstrap, "command": command,
            "date": datetime.date.today().isoformat(), "effects": effects}


def _effect(studio: Studio, item: Comparison) -> dict[str, Any]:
    plain, changed = (seen([draw(studio, each, seed)[0] for seed in each.seeds])
                      for each in (item.without, item.having))
    mine, theirs = (replicates(judged.embeddings, judged.labels, bootstrap=studio.bootstrap, seed=0)
                    for judged, _ in (changed, plain))
    near, far = (adherence_replicates(studio, conditioned) for _, conditioned in (changed, plain))
    return {"setting": item.described, "seeds": list(item.without.seeds), "n_images": len(plain[0]),
            "n_identities": len(plain[0].identities), "fdr_without": float(theirs.fdr[0]),
            "fdr_ratio": list(ratio(mine.fdr, theirs.fdr)),
            "diversity_ratio": list(ratio(mine.diversity, theirs.diversity)),
            "adherence_difference": [float(near[0] - far[0]), *interval((near - far)[1:])]}


def adherence_replicates(studio: Studio, images: Embeddings) -> np.ndarray:
    """Mean cosine to the wanted context, float64 ``[1 + replicates]``, with the same draws of people for every set."""
    wanted = studio.bank.contexts[wanted_rows(images, studio.bank)]
    cosines = np.einsum("nd,nd->n", np.asarray(images.embeddings, np.float64), wanted)
    k = len(images.identities)
    sums, counts = np.bincount(images.labels, cosines, k), np.bincount(images.labels, minlength=k)
    weights = np.concatenate([np.ones((k, 1)), multiplicities(k, studio.bootstrap, 0)], axis=1)
    return (sums @ weights) / (counts @ weights)


def summary(found: dict[str, Any]) -> str:
    """The effects for a person: FDR never without diversity and adherence."""
    return "\n".join(f"{name}: {told(effect)}" for name, effect in found["effects"].items())
