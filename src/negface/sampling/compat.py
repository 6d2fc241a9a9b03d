"""The released NegFaceDiff code, quirk by quirk: each deviation a named choice, off unless asked for.

``resolve(["reference"])`` turns all of them on, ``resolve(["ddim-shifted-alpha-bar"])`` one. Numbers (Q1 …) and the
released behaviour are those of the released code, read; "corrected" is the default here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from negface.foundation.errors import InputError, UnknownNameError

from .guidance import T
from .schedule import DEFAULT_STEPS, spaced_timesteps

REFERENCE = "reference"
EFFECTS = "compat_effects.json"
NOT_MEASURED = "not measured yet"
NO_CHANGE = "none: same images"
SCHEDULERS = ("ddim", "ddpm")


@dataclass(frozen=True)
class Quirk:
    """One deviation of the released code.

    Attributes:
        name: what ``--compat`` takes.
        number: its number in the documentation's table.
        acts_on: ``ddim``, ``ddpm``, ``negatives`` or ``decoding``.
        released, corrected: what the released code does, and what is done here by default.
        setting: what it changes: ``(key, value)`` of a scheduler's options, or ``(strategy asked for, strategy used)``.
        changes: False where the corrected behaviour is the same.
    """

    name: str
    number: str
    acts_on: str
    released: str
    corrected: str
    setting: tuple[str, Any]
    changes: bool = True

    @property
    def effect(self) -> str:
        """Its effect on FDR as ``negface compat measure`` found it: the ratio to the corrected rule, paired, 95 %."""
        if not self.changes:
            return NO_CHANGE
        found = measured_effects().get("effects", {}).get(self.name)
        return NOT_MEASURED if found is None else told(found)

    def to_dict(self) -> dict[str, str]:
        """JSON-ready description."""
        return {"name": self.name, "number": self.number, "acts_on": self.acts_on, "released": self.released,
                "corrected": self.corrected, "effect_on_fdr": self.effect}


QUIRKS = (
    Quirk("ddim-shifted-alpha-bar", "Q1", "ddim", "the previous signal power is read one timestep too early, "
          "abar[t - stride - 1]", "abar[t - stride]", ("shifted_alpha_bar", True)),
    Quirk("ddim-leading-spacing", "Q2", "ddim", "visits t = T - stride, ..., 0: never T - 1, and a last pass on an "
          "already clean latent", "trailing: starts at T - 1, ends on the clean latent", ("spacing", "leading")),
    Quirk("ddim-step-count", "Q3", "ddim", "stride T // steps: more steps than asked where steps does not divide T "
          "(300 asked, 334 run)", "exactly the steps asked for", ("count", "released")),
    Quirk("ddpm-two-noiseless-steps", "Q4", "ddpm", "no noise at timesteps 1 and 0", "no noise at the last step only",
          ("noiseless_steps", 2)),
    Quirk("ddpm-beta-variance", "Q5", "ddpm", "variance beta_t, the upper bound",
          "the posterior variance, which bears few steps", ("variance", "beta")),
    Quirk("unclipped-x0", "-", "ddim ddpm", "the predicted clean latent is never clamped", "the same",
          ("clip_x0", None), False),
    Quirk("null-is-zero-input", "Q7", "negatives", "Null is zeros before the context projection, which was never "
          "trained", "the learned null; the zero input has its own name, null-zero", ("null-learned", "null-zero")),
    Quirk("random-is-previous", "Q8", "negatives", "Rand is the identity before (identity 0 takes the last of the "
          "bank)", "a seeded draw among the others", ("random", "previous")),
    Quirk("mid-counts-self", "Q9", "negatives", "Mid ranks the identity itself too and takes the upper median",
          "rank (m - 1) // 2 of the m others", ("mid", "mid-with-self")),
    Quirk("requantized-latents", "Q25", "decoding", "latents are snapped to the codebook before decoding",
          "the same: part of the model; `convert idiff-face --no-requantize` leaves it out", ("requantize", True),
          False),
)


@lru_cache(maxsize=1)
def measured_effects() -> dict[str, Any]:
    """What ``negface compat measure`` wrote into the package; empty where it has not.

    ``{"model", "judge", "date", "n_identities", ..., "effects": {quirk: {"setting", "fdr_ratio", ...}}}``.
    """
    place = files("negface.sampling") / EFFECTS
    return json.loads(place.read_text()) if place.is_file() else {}


def told(effect: dict[str, Any]) -> str:
    """One measured effect in words, FDR with the diversity and adherence it comes with.

    ``FDR x 0.97 [0.95, 0.99], diversity x 1.00 [0.99, 1.01], adherence +0.001 [-0.002, 0.003] (ddim, 50 steps, far)``.
    """
    value, low, high = effect["fdr_ratio"]
    if value is None or low is None:
        return f"not defined ({effect['setting']})"
    if value == low == high == 1:
        return f"none: same images ({effect['setting']})"
    spread, nearer = ("{:.3f} [{:.3f}, {:.3f}]".format(*effect["diversity_ratio"]),
                      "{:+.3f} [{:+.3f}, {:+.3f}]".format(*effect["adherence_difference"]))
    return (f"FDR x {value:.3f} [{low:.3f}, {high:.3f}], diversity x {spread}, adherence {nearer} "
            f"({effect['setting']})")


@dataclass(frozen=True)
class Compat:
    """A choice of quirks; the empty choice is the corrected behaviour.

    Hand ``scheduler(...)`` and ``negatives(...)`` to the pipeline, to ``negatives.select`` or to ``make_plan``.
    """

    quirks: tuple[Quirk, ...] = ()
    is_reference: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the quirks chosen."""
        return tuple(quirk.name for quirk in self.quirks)

    def scheduler(self, name: str | None, steps: int | None) -> tuple[str | dict[str, Any] | None, int | None]:
        """The description of a scheduler with the chosen quirks, and the number of steps it will run.

        Args:
            name: ``ddim`` or ``ddpm``; another one only if no chosen quirk is about these.
            steps: network evaluations asked for; ``None``: the default number.

        Returns:
            What the pipeline's ``scheduler`` and ``num_inference_steps`` take (the name itself where nothing changes).

        Raises:
            InputError: a scheduler the released code does not have; another number of DDPM steps than its 1000.
        """
        about = {scheduler for quirk in self.quirks for scheduler in quirk.acts_on.split() if scheduler in SCHEDULERS}
        if not about:
            return name, steps
        steps = DEFAULT_STEPS if steps is None else steps
        if name not in about:
            raise InputError(f"the quirks chosen are of {' and '.join(sorted(about))}, not of {name or 'the default'}",
                             where="--compat", fix=f"use --scheduler {sorted(about)[0]}, or leave those quirks out")
        if self.is_reference and name == "ddpm" and steps != T:
            raise InputError(f"the released DDPM always runs {T} steps, not {steps}", where="--compat reference",
                             fix=f"use --steps {T}, or name the quirks you want one by one")
        options = dict(quirk.setting for quirk in self.quirks if name in quirk.acts_on.split())
        counted = options.pop("count", None)
        if counted:
            released = len(spaced_timesteps(T, steps, "released"))
            if options.get("spacing") == "leading":
                options["spacing"] = "released"  # its stride is T // steps *asked*, so the count comes with it
            else:
                steps = released
        return {"name": name, **options}, steps

    def negatives(self, strategy: str) -> str:
        """The strategy the released code would use for a strategy's name."""
        return dict(quirk.setting for quirk in self.quirks if quirk.acts_on == "negatives").get(strategy, strategy)


def resolve(names: Iterable[str] = ()) -> Compat:
    """The choice of quirks with these names; ``reference`` is all of them.

    ``UnknownNameError`` with a suggestion for a name that is none.
    """
    known = {quirk.name: quirk for quirk in QUIRKS}
    names = list(dict.fromkeys(names))
    for name in names:
        if name != REFERENCE and name not in known:
            raise UnknownNameError("quirk", name, [REFERENCE, *known])
    if REFERENCE in names:
        return Compat(QUIRKS, is_reference=True)
    return Compat(tuple(known[name] for name in names))
