"""Evaluation: separability, diversity, fidelity, leakage, verification, fairness: numbers with intervals over people.

``separability`` is never printed without its company; docs/evaluation.md holds the protocols.
"""

from . import catalogue  # noqa: F401  (registers the metrics)
from ._adherence import Adherence, adherence
from ._attributes import AttributeSpread, attribute_spread
from ._diversity import Diversity, feature_diversity, pose_diversity
from ._fidelity import Fidelity, fidelity, frechet_distance, vendi_score
from ._identification import identification
from ._leakage import Leakage, leakage
from ._separability import MEASURES, Separability, separability
from .causal import causal_effects
from .groups import fairness
from .judges import check_judge
from .provenance import check_unseen, people_text

__all__ = ["MEASURES", "Adherence", "AttributeSpread", "Diversity", "Fidelity", "Leakage", "Separability",
           "adherence", "attribute_spread", "causal_effects", "check_judge", "check_unseen", "fairness",
           "feature_diversity", "fidelity", "frechet_distance", "identification", "leakage", "people_text",
           "pose_diversity", "separability", "vendi_score"]
