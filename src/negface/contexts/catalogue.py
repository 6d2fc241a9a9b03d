"""What this room registers: identity sources, negative strategies, variations, each with its paper."""

from __future__ import annotations

from ..foundation.registry import register

_HERE = "negface.contexts"
_IDIFF, _NEG, _VEC2FACE, _IDPERTURB = ("arXiv 2308.04995", "arXiv 2508.09661", "arXiv 2409.02979", "arXiv 2602.18831")


def _source(name: str, function: str, summary: str, paper: str) -> None:
    register("identity-source", name, f"{_HERE}.sources:{function}", summary, paper=paper)


def _negative(name: str, summary: str, paper: str, *tags: str) -> None:
    register("negative", name, f"{_HERE}.negatives:{name.replace('-', '_')}", summary, paper=paper, tags=tags)


_source("uniform", "uniform", "normalised Gaussians on the sphere", f"{_IDIFF}, synthetic uniform contexts")
_source("authentic", "authentic", "normalised mean of a real person's embeddings", f"{_IDIFF}, authentic contexts")
_source("two-stage", "two_stage", "embeddings of pictures sampled with the learned null",
        f"{_IDIFF}, two-stage contexts")
_source("pca", "pca", "Gaussian in the principal-component space of embeddings", f"{_VEC2FACE}, identity sampling")

_negative("none", "no negative: plain sampling", f"{_IDIFF}, w = 0")
_negative("close", "the most similar other identity", f"{_NEG}, Close-Neg: argmax cos(c_i, c_j), j != i", "pool")
_negative("mid", "the other identity of middle rank", f"{_NEG}, Mid-Neg: rank (m - 1) // 2 of the m others", "pool")
_negative("mid-with-self", "rank m // 2 of the m members, the identity counted", f"{_NEG}, Mid-Neg as released", "pool")
_negative("far", "the least similar identity", f"{_NEG}, Far-Neg: argmin cos(c_i, c_j)", "pool")
_negative("random", "a seeded uniform draw among the others", f"{_NEG}, Rand-Neg as described", "pool", "scope:image")
_negative("previous", "the identity before this one", f"{_NEG}, Rand-Neg as released (i - 1)", "pool")
_negative("null-zero", "zeros before the context projection", f"{_NEG}, Null")
_negative("null-learned", "the trained empty context", "arXiv 2207.12598, eq. 6 with scale 1 + w")
_negative("antipodal", "the opposite direction, -c", "ours: the limit of Far-Neg in an unbounded pool")

register("variation", "angular", f"{_HERE}.variation:angular", "rotate the context by a random angle",
         paper=f"{_IDPERTURB}: v' = s v + sqrt(1 - s^2) u, s ~ U[lower, 1]")
