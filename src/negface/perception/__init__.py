"""Perception: the eyes of curation and evaluation: recognisers, detector, pose, quality, analyser, all declared."""

from . import known  # noqa: F401  (registers the well-known files)
from .analyser import Analyser, load_analyser
from .declarations import Declaration, declaration_from_dict, read_declaration, resolve_declaration
from .embed_dataset import embed_dataset
from .embeddings import Embeddings, read_embeddings, write_embeddings
from .faces import Detections, Detector, load_detector, load_pose, load_quality
from .recognizers import Recognizer, load_recognizer, recognizer_hash, same_recognizer

__all__ = [
    "Analyser", "Declaration", "Detections", "Detector", "Embeddings", "Recognizer", "declaration_from_dict",
    "embed_dataset", "load_analyser", "load_detector", "load_pose", "load_quality", "load_recognizer",
    "read_declaration", "read_embeddings", "recognizer_hash", "resolve_declaration", "same_recognizer",
    "write_embeddings",
]
