"""Verification pairs from a list to a ``.bin`` and back; every byte of a picture, every flag and the order are kept.

What was written is opened again, and its flags and the digest of its pictures are compared with the source.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from negface.foundation.errors import FormatError, IncompleteError, InputError
from negface.foundation.files import atomic_folder
from negface.foundation.progress import track

from .bin_pairs import bin_sidecar, open_pairs, write_bin
from .copying import Digest, new_place, suffix_of
from .pair_lists import PairImages, checked_name, read_pairs, write_pairs

PAIRS_NAME = "pairs.csv"


def convert_pairs(source: str | os.PathLike, out: str | os.PathLike, *,
                  images: str | os.PathLike | None = None) -> dict[str, Any]:
    """Verification pairs between a list and a ``.bin``, told apart by the endings.

    Args:
        source: a ``.bin``, or a pair list (CSV, LFW's ``pairs.txt``, lines ``a b 0|1``).
        out: ``NAME.bin`` (names go to ``NAME.bin.csv``); ``NAME.csv`` from a list: the list as CSV, no pictures; any
            other name: a new folder with ``pairs.csv`` and the pictures.
        images: the folder a list's names start from (None = where the list lies).

    Returns counts, and ``content_sha256`` over pictures and flags in order, equal in any form (absent for ``.csv``).
    """
    source, out = Path(source), new_place(out)
    if out.suffix == ".csv":
        if source.suffix == ".bin":
            raise InputError("a list alone cannot hold pictures", where=out, fix="name a folder")
        listed = read_pairs(source)
        write_pairs(out, listed.names, listed.same)
        return _pairs_summary(source, out, "list", listed.same)
    pairs, digest = open_pairs(source, images), Digest()
    write = _pairs_bin if out.suffix == ".bin" else _pairs_folder
    write(pairs, out, digest)
    return {**_pairs_summary(source, out, "bin" if out.suffix == ".bin" else "folder", pairs.same),
            "content_sha256": digest.hex()}


def _pairs_summary(source: Path, out: Path, form: str, same: np.ndarray) -> dict[str, Any]:
    return {"source": str(source), "out": str(out), "form": form, "n_pairs": len(same), "n_genuine": int(same.sum())}


def _hashed(pairs: PairImages, digest: Digest) -> Iterator[bytes]:
    for index, data in enumerate(track(pairs.images(), "converting", total=2 * len(pairs), unit="images")):
        digest.add(int(pairs.same[index // 2]), data)
        yield data


def _pairs_bin(pairs: PairImages, out: Path, digest: Digest) -> None:
    write_bin(out, _hashed(pairs, digest), pairs.same, pairs.names)
    with _removed_on_failure(out):
        _verify_pairs(pairs, open_pairs(out), digest, out)


def _pairs_folder(pairs: PairImages, out: Path, digest: Digest) -> None:
    written: dict[str, bytes] = {}
    names = []
    with atomic_folder(out) as folder:
        for index, data in enumerate(_hashed(pairs, digest)):
            where = f"picture {index}"
            name = pairs.names[index] if pairs.names else (
                f"images/{index // 2000:03d}/{index // 2:06d}{'ab'[index % 2]}{suffix_of(data, '', where)}")
            name, mark = checked_name(name, where), hashlib.sha256(data).digest()
            if written.setdefault(name, mark) != mark or name == PAIRS_NAME:
                raise FormatError(f"two pictures are called {name!r}", where=where, fix="remove the sidecar")
            names.append(name)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        write_pairs(folder / PAIRS_NAME, names, pairs.same)
        _verify_pairs(pairs, open_pairs(folder / PAIRS_NAME), digest, out)


def _verify_pairs(source: PairImages, written: PairImages, digest: Digest, out: Path) -> None:
    again = Digest()
    for index, data in enumerate(written.images()):
        again.add(int(written.same[index // 2]), data)
    if len(written) != len(source) or again.hex() != digest.hex():
        raise IncompleteError("pairs do not read back as they were", where=out, fix="check the disk; run it again")


@contextlib.contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        bin_sidecar(path).unlink(missing_ok=True)
        raise
