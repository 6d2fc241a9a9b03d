"""Identity folders: ``root/<identity>/<image>``, any naming, in natural order.

Numbers inside names are compared as numbers, so ``2`` comes before ``10`` and label 2 is person 2 whether or not the
names are padded. (torchvision's ImageFolder sorts unpadded names as text: ``10`` before ``2``.)
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from negface.foundation.errors import InputError
from negface.foundation.files import existing_folder

from .images import IMAGE_SUFFIXES, is_image_name

_DIGITS = re.compile(r"(\d+)")


def natural_key(name: str) -> tuple:
    """Sort key: digit runs as numbers, the rest as text; ties (``1`` and ``01``) by the text itself."""
    parts = _DIGITS.split(name)
    return (tuple((int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)), name)


def scan_identity_folders(root: str | os.PathLike) -> dict[str, list[str]]:
    """Identities and their pictures, both in natural order: ``{identity: [path relative to root, ...]}``.

    Hidden names are left out; pictures may lie deeper than one level below the identity. Files that are no pictures
    by name are left out; a folder without pictures is not an identity.

    Raises:
        InputError: no such folder, or no pictures in folders of identities below it.
    """
    root = existing_folder(root, "folder of faces")
    found: dict[str, list[str]] = {}
    for entry in sorted((e for e in os.scandir(root) if e.is_dir() and not e.name.startswith(".")),
                        key=lambda e: natural_key(e.name)):
        pictures = sorted(_pictures(entry.path, entry.name), key=natural_key)
        if pictures:
            found[entry.name] = pictures
    if not found:
        raise InputError(_why_empty(root), where=root,
                         fix=f"expected root/<identity>/<image> with one of {', '.join(IMAGE_SUFFIXES)}")
    return found


def _pictures(folder: str, prefix: str) -> list[str]:
    pictures: list[str] = []
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            pictures += _pictures(entry.path, f"{prefix}/{entry.name}")
        elif is_image_name(entry.name):
            pictures.append(f"{prefix}/{entry.name}")
    return pictures


def _why_empty(root: Path) -> str:
    entries = [entry for entry in os.scandir(root) if not entry.name.startswith(".")]
    if not entries:
        return "is empty: no identity folders"
    if any(entry.is_file() and is_image_name(entry.name) for entry in entries):
        return "holds pictures, not a folder for each identity"
    return "has no pictures in folders of identities"
