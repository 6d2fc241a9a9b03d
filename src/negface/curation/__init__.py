"""Curation: declared steps with counts. Align faces to a template; every picture's fate is written down."""

from ..datasets.templates import ARCFACE, TEMPLATES, fit_similarity, template
from ..foundation.registry import register
from .align_dataset import ON_MISSING, align_dataset
from .alignment import CHOICES, Aligner, Alignment, centre_crop, warp

register("filter", "align", f"{__name__}.align_dataset:align_dataset",
         "five-point similarity to a named 112 x 112 template", paper="Umeyama, IEEE TPAMI 13(4), 1991")

__all__ = ["ARCFACE", "CHOICES", "ON_MISSING", "TEMPLATES", "Aligner", "Alignment", "align_dataset", "centre_crop",
           "fit_similarity", "template", "warp"]
