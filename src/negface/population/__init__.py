"""Population: procedural people rendered in batches, with exact truth for every picture. Nobody in it exists."""

from . import protocols
from .landmarks import MIRROR_5, MIRROR_68
from .rendering import Rendered, render
from .shots import NUISANCE_NAMES, NUISANCES, Nuisance, Shots, neutral_shots, sample_shots
from .skin import CLASSES
from .traits import TRAIT_NAMES, TRAITS, People, Trait, sample_people
from .truth import attributes, caption, mirror, mirror_parameters, monk_tone, row
from .writing import make, photograph, sheet

__all__ = [
    "CLASSES", "MIRROR_5", "MIRROR_68", "NUISANCES", "NUISANCE_NAMES", "TRAITS", "TRAIT_NAMES", "Nuisance", "People",
    "Rendered", "Shots", "Trait", "attributes", "caption", "make", "mirror", "mirror_parameters", "monk_tone",
    "neutral_shots", "photograph", "protocols", "render", "row", "sample_people", "sample_shots", "sheet",
]
