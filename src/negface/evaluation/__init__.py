"""Evaluation: separability, adherence, diversity and leakage, each a number with an interval over identities.

``separability`` is never printed without its company; docs/evaluation.md holds the protocols.
"""

from . import catalogue  # noqa: F401  (registers the metrics)
from ._adherence import Adherence, adherence
from ._diversity import Diversity, feature_diversity, pose_diversity
from ._leakage import Leakage, leakage
from ._separability import MEASURES, Separability, separability
from .judges import check_judge

__all__ = ["MEASURES", "Adherence", "Diversity", "Leakage", "Separability", "adherence", "check_judge",
           "feature_diversity", "leakage", "pose_diversity", "separability"]
