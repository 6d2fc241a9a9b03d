"""Models that ship with the package, by their job: ``conditioner``, ``judge``, ``analyser``, ``generator``, and what
the shipped recognisers see of the people they were made for (``embeddings-conditioner``, ``embeddings-judge``).

``assets.json`` states the hash of every file; a file that is not the one that was shipped is refused by name.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from negface.foundation.errors import InputError, MismatchError, UnknownNameError
from negface.foundation.files import read_json
from negface.foundation.hashing import sha256_file

PLACES = {
    "conditioner": "conditioner.safetensors", "judge": "judge.safetensors", "analyser": "analyser.safetensors",
    "generator": "generator", "embeddings-conditioner": "embeddings-conditioner.safetensors",
    "embeddings-judge": "embeddings-judge.safetensors", "people": "people.csv",
}
JOBS = ("conditioner", "judge", "analyser", "generator")
CARD = "assets.json"
REMAKE = "reinstall the package, or make them again: negface assets make"


def shipped_folder() -> Path:
    """Where the package keeps its assets."""
    return Path(str(files("negface"))) / "assets"


def load(job: str, folder: Path | None = None) -> Path:
    """Path of a shipped model: a pipeline folder for ``generator``, a file for the others; its hashes are checked.

    Args:
        job: a name in ``PLACES``.
        folder: where to look; default: the package's own ``assets``.

    Errors: ``UnknownNameError`` for another job, ``InputError`` where this installation holds none, ``MismatchError``
    naming the file that is not the one that was shipped.
    """
    if job not in PLACES:
        raise UnknownNameError("shipped model", job, PLACES)
    root = folder or shipped_folder()
    place = root / PLACES[job]
    if not place.exists() or not (root / CARD).is_file():
        raise InputError(f"there is no {job}", where=root, fix=f"name the folder of the assets; or {REMAKE}")
    _check(root, PLACES[job])
    return place


def card(folder: Path | None = None) -> dict[str, Any]:
    """What is shipped: files with hashes and sizes, recipe, figures."""
    root = folder or shipped_folder()
    if not (root / CARD).is_file():
        raise InputError("this installation ships no models", where=root, fix=REMAKE)
    return read_json(root / CARD)


def check_all(folder: Path | None = None) -> dict[str, Any]:
    """Check every file; returns the card. Errors as ``load``."""
    root = folder or shipped_folder()
    found = card(root)
    _check(root, "")
    return found


def _check(root: Path, place: str) -> None:
    for name, stated in card(root)["files"].items():
        if not place or name == place or name.startswith((f"{place}.", f"{place}/")):
            path = root / name
            if not path.is_file():
                raise MismatchError("a shipped file is missing", where=path, fix=REMAKE)
            state = path.stat()
            if _hash(path, state.st_size, state.st_mtime_ns) != stated["sha256"]:
                raise MismatchError(f"is not the file that was shipped (SHA-256 should begin {stated['sha256'][:12]})",
                                    where=path, fix=REMAKE)


@lru_cache(maxsize=64)
def _hash(path: Path, size: int, changed: int) -> str:
    """Hashed once a process while size and time of change stay."""
    return sha256_file(path)
