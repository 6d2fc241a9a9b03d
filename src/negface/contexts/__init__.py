"""Who, and who not: identity contexts, negative contexts, per-image variation. Arrays in, arrays out.

A context is a float32 unit vector on a recogniser's sphere (IDiff-Face, arXiv 2308.04995); a negative context is the
identity an image must not look like (NegFaceDiff, arXiv 2508.09661).
"""

from . import catalogue, negatives, packing, sources, variation
from .bank import ContextBank
from .selection import Selection

__all__ = ["ContextBank", "Selection", "catalogue", "negatives", "packing", "sources", "variation"]
