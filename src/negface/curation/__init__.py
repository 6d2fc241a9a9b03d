"""Curation: declared steps with counts. Align to a template, filter; every picture's fate is written down."""

from ..datasets.templates import ARCFACE, TEMPLATES, fit_similarity, template
from . import catalogue  # noqa: F401  (registers the filters)
from .align_dataset import ON_MISSING, align_dataset
from .alignment import CHOICES, Aligner, Alignment, centre_crop, warp
from .curate_dataset import curate_dataset
from .filters import Loader
from .landmark_file import Landmarks, read_landmarks
from .screening import Rejection, Screen
from .steps import Step, filter_names, make_step, ordered, parse_step

__all__ = ["ARCFACE", "CHOICES", "ON_MISSING", "TEMPLATES", "Aligner", "Alignment", "Landmarks", "Loader", "Rejection",
           "Screen", "Step", "align_dataset", "centre_crop", "curate_dataset", "filter_names", "fit_similarity",
           "make_step", "ordered", "parse_step", "read_landmarks", "template", "warp"]
