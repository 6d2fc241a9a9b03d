"""What this room registers: alignment, and the filters that a line can declare (tag ``step``)."""

from __future__ import annotations

from ..foundation.registry import register

_HERE = "negface.curation"

register("filter", "align", f"{_HERE}.align_dataset:align_dataset",
         "five-point similarity to a named 112 x 112 template", paper="Umeyama, IEEE TPAMI 13(4), 1991")


def _filter(name: str, class_name: str, summary: str, paper: str) -> None:
    register("filter", name, f"{_HERE}.filters:{class_name}", summary, paper=paper, tags=("step",))


_filter("adherence", "Adherence", "cosine to the wanted identity's context, at least",
        "arXiv 2508.09661, identity contexts")
_filter("face", "Face", "score of the best face a detector finds, at least",
        "YuNet, Machine Intelligence Research 2023")
_filter("quality", "Quality", "face image quality, at least", "LightQNet, IEEE Signal Processing Letters 2021")
_filter("leakage", "Leakage", "cosine to the nearest training picture, at most",
        "ours: the measure `leakage`, picture by picture")
_filter("duplicates", "Duplicates", "copies among one identity's pictures", "N. Krawetz, dHash, Hacker Factor 2013")
