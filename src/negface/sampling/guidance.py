"""Guidance rules: which predictions a step needs, and how they are mixed. Immutable values without arrays in them.

    e = e_pos + sum over branches b of  w_b(t) (e_pos - e_b),      t on the 0..T scale, T = 1000

With one branch, the negative identity context, this is the rule of NegFaceDiff (arXiv 2508.09661: constant w = 0.5)
and of AdaptDiff (arXiv 2603.29569: w rising from 0 to 1 while t falls from T to 0).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from negface.foundation import registry
from negface.foundation.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from torch import Tensor

T = 1000
POSITIVE, NEGATIVE, NULL = "positive", "negative", "null"
BRANCHES = (NEGATIVE, NULL)

_SHAPES = {
    "constant": lambda share: 1.0,
    "rising": lambda share: 1.0 - share,
    "falling": lambda share: share,
}


@dataclass(frozen=True)
class Term:
    """One branch steered away from: its weight over time, and the timesteps (inclusive) at which it acts."""

    shape: str
    w: float
    branch: str = NEGATIVE
    low: float = 0.0
    high: float = float(T)

    def __post_init__(self) -> None:
        if self.shape not in _SHAPES:
            raise UnknownNameError("guidance", self.shape, _SHAPES)
        if self.branch not in BRANCHES:
            raise UnknownNameError("guidance branch", self.branch, BRANCHES)
        if not (math.isfinite(self.w) and self.w >= 0):
            raise InputError(f"a guidance weight must be a finite number >= 0, not {self.w}", where=f"{self.shape}(w)",
                             fix="0.5 is NegFaceDiff's weight; a weight below 0 would pull towards the negative")
        if not 0 <= self.low <= self.high <= T:
            raise InputError(f"timesteps must satisfy 0 <= low <= high <= {T}, not {self.low}, {self.high}",
                             where="on(low, high)")

    def weight(self, t: float) -> float:
        """The weight at timestep ``t``; 0 outside of ``[low, high]``."""
        return self.w * _SHAPES[self.shape](float(t) / T) if self.low <= t <= self.high else 0.0

    def __str__(self) -> str:
        against = "" if self.branch == NEGATIVE else f", branch={self.branch!r}"
        window = "" if (self.low, self.high) == (0, T) else f".on({self.low:g}, {self.high:g})"
        return f"{self.shape}({self.w:g}{against}){window}"


@dataclass(frozen=True)
class Guidance:
    """A guidance rule: a sum of terms, built with ``none``, ``constant``, ``rising``, ``falling``, ``+`` and ``.on``.

    Hashable and immutable: equal rules are equal values. ``to_dict``/``from_dict`` round-trip through JSON.
    ``reuse``: predict the branches steered away from at every ``reuse``-th guided step only (``reusing``).
    """

    terms: tuple[Term, ...] = ()
    reuse: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.reuse, bool) or not isinstance(self.reuse, int) or self.reuse < 1:
            raise InputError(f"must be a whole number of at least 1, not {self.reuse!r}", where="guidance reuse",
                             fix="1 predicts the negative at every guided step, 2 at every second one")

    def on(self, low: float, high: float) -> Guidance:
        """The same rule, acting only at timesteps ``low <= t <= high`` (0..1000; 1000 is pure noise).

        Restrictions intersect: ``rule.on(0, 600).on(300, 1000)`` acts on 300..600.
        """
        Term("constant", 0.0, low=low, high=high)
        kept = [replace(term, low=max(term.low, float(low)), high=min(term.high, float(high)))
                for term in self.terms if max(term.low, low) <= min(term.high, high)]
        return replace(self, terms=tuple(kept))

    def reusing(self, k: int) -> Guidance:
        """The same rule with the negative predicted at every ``k``-th guided step only.

        Exactly: count the steps of an unbroken run of steps that ask for the same branches from 0. At those whose
        number is a multiple of ``k`` every branch is predicted; at the others the positive alone is, and the direction
        ``e_pos - e_b`` of the last full step stands in for its own: ``e = e_pos(x_t) + w_b(t) (e_pos - e_b)(x_last)``.
        Weights stay those of each step. A step of weight 0 and ``k = 1`` are not affected.

        The direction is kept, not the bare negative prediction, because it changes more slowly: closer to the full rule
        (1.6 to 1.8 times over 20 steps of DPM-Solver++, docs/speed.md).
        """
        return replace(self, reuse=k)

    def __add__(self, other: Guidance) -> Guidance:
        """Both rules at once: weights of the same branch add up. ``InputError`` where they reuse differently."""
        if not isinstance(other, Guidance):
            return NotImplemented
        if self.reuse != other.reuse:
            raise InputError(f"one rule reuses its predictions for {self.reuse} steps, the other for {other.reuse}",
                             where="guidance", fix="add the rules first, then say reusing(k) of the sum")
        return replace(self, terms=self.terms + other.terms)

    def without(self, branch: str) -> Guidance:
        """The same rule for rows that have no such branch (no negative context, say)."""
        return replace(self, terms=tuple(term for term in self.terms if term.branch != branch))

    def weight(self, t: float, branch: str | None = None) -> float:
        """Total weight at timestep ``t``, of one branch or of all."""
        return math.fsum(term.weight(t) for term in self.terms if branch in (None, term.branch))

    def branches(self, t: float) -> tuple[str, ...]:
        """The predictions needed at ``t``, ``"positive"`` first; a branch whose weight is 0 is not asked for."""
        return (POSITIVE, *(branch for branch in BRANCHES if self.weight(t, branch) != 0))

    def predicted(self, timesteps: Iterable[float]) -> tuple[tuple[str, ...], ...]:
        """What the network is asked for at each step of a run: ``branches(t)``, or the positive alone (``reusing``)."""
        asked, before, age = [], None, 0
        for t in timesteps:
            branches = self.branches(t)
            age = age + 1 if branches == before else 0
            asked.append(branches if age % self.reuse == 0 else branches[:1])
            before = branches
        return tuple(asked)

    @property
    def all_branches(self) -> tuple[str, ...]:
        """Every branch this rule can ask for at some integer timestep."""
        return (POSITIVE, *(b for b in BRANCHES if any(self.weight(t, b) for t in range(T))))

    def mix(self, predictions: Mapping[str, Tensor], t: float) -> Tensor:
        """Mix noise predictions, one tensor per name of ``branches(t)``, as ``e_pos + w (e_pos - e_neg)``.

        Where only the positive is asked for, it is returned as it is (so weight 0 equals plain sampling bit for bit).
        """
        positive = mixed = predictions[POSITIVE]
        for branch in self.branches(t)[1:]:
            mixed = mixed + self.weight(t, branch) * (positive - predictions[branch])
        return mixed

    def mean_weight(self, timesteps: Iterable[float]) -> float:
        """Mean total weight over the timesteps of a run.

        What a weight over time really spends: ``rising(1)`` 0.5 over 1000 steps, but 0.48 over 20.
        """
        weights = [self.weight(t) for t in timesteps]
        return math.fsum(weights) / len(weights) if weights else 0.0

    @property
    def x0_gradient(self) -> None:
        """Plan for rules that push the predicted clean image along a gradient; none of today's rules has one."""
        return None

    @property
    def attention(self) -> None:
        """Plan for rules that act inside attention blocks; none of today's rules has one."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready description; ``from_dict`` gives an equal rule."""
        # Only where it says something: rules written before there was reuse keep their hash.
        reuse = {"reuse": self.reuse} if self.reuse > 1 else {}
        return {"rule": str(self), "terms": [asdict(term) for term in self.terms], **reuse, "num_train_timesteps": T}

    def __str__(self) -> str:
        total = " + ".join(map(str, self.terms)) or "none()"
        if self.reuse == 1:
            return total
        return f"({total}).reusing({self.reuse})" if len(self.terms) > 1 else f"{total}.reusing({self.reuse})"


def none() -> Guidance:
    """Plain conditional sampling: one prediction a step."""
    return Guidance()


def constant(w: float, branch: str = NEGATIVE) -> Guidance:
    """Weight ``w`` at every step: NegFaceDiff (arXiv 2508.09661), published with ``w = 0.5``.

    In diffusers' terms this is classifier-free guidance with ``guidance_scale = 1 + w`` and the negative identity in
    the unconditional slot; with ``branch="null"`` (or a learned null as the negative) it *is* classifier-free guidance.
    """
    return Guidance((Term("constant", float(w), branch),))


def rising(w: float, branch: str = NEGATIVE) -> Guidance:
    """Weight ``w (1 - t/T)``: AdaptDiff (arXiv 2603.29569), published with ``w = 1``; 0 at first, ``w`` at the end."""
    return Guidance((Term("rising", float(w), branch),))


def falling(w: float, branch: str = NEGATIVE) -> Guidance:
    """Weight ``w t/T``: AdaptDiff's ablation "reverse" (arXiv 2603.29569); strong at first, 0 at ``t = 0``."""
    return Guidance((Term("falling", float(w), branch),))


def make(name: str, weight: float | None = None) -> Guidance:
    """A rule by its registered name; ``weight`` is required except for ``"none"``, which takes none."""
    build = registry.load("guidance", name)
    if name == "none":
        return build()
    if weight is None:
        raise InputError("needs a weight", where=f"guidance {name}", fix="0.5 for constant, 1.0 for rising")
    return build(weight)


def from_dict(description: Mapping[str, Any]) -> Guidance:
    """The rule of a ``to_dict`` description; ``InputError`` if it is not one."""
    try:
        if description.get("num_train_timesteps", T) != T:
            raise InputError(f"written for another number of timesteps than {T}", where="guidance")
        return Guidance(tuple(Term(**term) for term in description["terms"]), description.get("reuse", 1))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"not a guidance description ({error})", where="guidance",
                         fix="use Guidance.to_dict()") from error
