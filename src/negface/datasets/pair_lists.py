"""Verification pairs as lists of names: CSV (``image_a,image_b,same``), LFW's ``pairs.txt``, lines ``a b 0|1``.

LFW's list is that of Huang et al. (UMass TR 07-49): ``name n1 n2`` is a genuine pair, ``name1 n1 name2 n2`` an
impostor pair, and picture n of a person is ``name/name_000n.jpg``.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from negface.foundation.errors import FormatError, InputError
from negface.foundation.files import atomic_path, existing_file

from .images import IMAGE_SUFFIXES

CSV_HEADER = ("image_a", "image_b", "same")
_TRUE, _FALSE = {"1", "true", "yes"}, {"0", "false", "no", "-1"}


@dataclass(frozen=True)
class PairImages:
    """Pairs with their pictures: pair i is pictures 2i and 2i + 1.

    ``same`` bool ``[n]``; ``names`` of the 2n pictures, or empty; ``read(k)`` gives the encoded bytes of picture k.
    """

    same: np.ndarray
    names: tuple[str, ...]
    read: Callable[[int], bytes]

    def __len__(self) -> int:
        return len(self.same)

    def images(self) -> Iterator[bytes]:
        """The encoded bytes of all 2n pictures, in order, one at a time."""
        return (self.read(k) for k in range(2 * len(self)))


@dataclass(frozen=True)
class PairList:
    """Names of pictures two by two: ``names`` (2n), pair i is names 2i and 2i + 1; ``same`` bool ``[n]``."""

    names: tuple[str, ...]
    same: np.ndarray

    def __len__(self) -> int:
        return len(self.same)


def read_pairs(path: str | os.PathLike) -> PairList:
    """Read a pair list in any of the three forms; LFW's names get the ending ``.jpg``.

    Raises ``FormatError`` naming the line that is none of the forms, or a count that LFW's first line announces and
    the list does not hold.
    """
    path = existing_file(Path(path), "pair list")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"is not text ({error.reason} at byte {error.start})", where=path) from error
    filled = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not filled:
        raise InputError("the pair list is empty", where=path)
    if CSV_HEADER[0] in filled[0][1]:
        return _from_csv(text, path)
    return _from_words([(number, _words(line)) for number, line in filled], path)


def _words(line: str) -> list[str]:
    return [word.strip() for word in line.split("\t")] if "\t" in line.strip() else line.split()


def _flag(word: str | None, number: int, path: Path) -> bool:
    value = (word or "").strip().lower()
    if value not in _TRUE | _FALSE:
        raise FormatError(f"line {number}: {word!r} is neither 1 (same person) nor 0", where=path)
    return value in _TRUE


def _from_csv(text: str, path: Path) -> PairList:
    names, same = [], []
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        missing = [column for column in CSV_HEADER if column not in (reader.fieldnames or ())]
        if missing:
            raise FormatError(f"has no column {missing[0]!r}", where=path, fix=f"columns: {', '.join(CSV_HEADER)}")
        for row in reader:
            if not row["image_a"] or not row["image_b"]:
                raise FormatError(f"line {reader.line_num} does not name two pictures", where=path)
            names += [row["image_a"], row["image_b"]]
            same.append(_flag(row["same"], reader.line_num, path))
    except csv.Error as error:
        raise FormatError(f"not a complete CSV file ({error})", where=path) from error
    if not same:
        raise InputError("the pair list is empty", where=path)
    return PairList(tuple(names), np.asarray(same, bool))


def _from_words(lines: list[tuple[int, list[str]]], path: Path) -> PairList:
    announced = None
    if len(lines[0][1]) <= 2 and all(word.isdecimal() for word in lines[0][1]):
        counts = [int(word) for word in lines[0][1]]
        announced, lines = 2 * counts[0] * (counts[1] if len(counts) == 2 else 1), lines[1:]
    names, same = [], []
    for number, words in lines:
        first, second, flag = _pair(number, words, path)
        names += [first, second]
        same.append(flag)
    if announced is not None and announced != len(same):
        raise FormatError(f"announces {announced} pairs, holds {len(same)}", where=path,
                          fix="the list is truncated or was edited; copy it again")
    if not same:
        raise InputError("the pair list is empty", where=path)
    return PairList(tuple(names), np.asarray(same, bool))


def _pair(number: int, words: list[str], path: Path) -> tuple[str, str, bool]:
    if len(words) == 3 and words[1].isdecimal() and words[2].isdecimal():
        return _lfw_name(words[0], words[1]), _lfw_name(words[0], words[2]), True
    if len(words) == 4 and words[1].isdecimal() and words[3].isdecimal():
        return _lfw_name(words[0], words[1]), _lfw_name(words[2], words[3]), False
    if len(words) == 3:
        return words[0], words[1], _flag(words[2], number, path)
    raise FormatError(f"line {number} is neither 'name n1 n2', 'name1 n1 name2 n2' nor 'a b 0|1'", where=path)


def _lfw_name(person: str, number: str) -> str:
    return f"{person}/{person}_{number.zfill(4)}.jpg"


def csv_of_pairs(names: Iterable[str], same: Iterable[bool]) -> str:
    """The CSV text of pairs."""
    buffer, names = io.StringIO(newline=""), list(names)
    # Python's writer leaves a lone carriage return bare when lines end in "\n".
    quoting = csv.QUOTE_ALL if any("\r" in name for name in names) else csv.QUOTE_MINIMAL
    writer = csv.writer(buffer, lineterminator="\n", quoting=quoting)
    writer.writerow(CSV_HEADER)
    writer.writerows((first, second, int(flag)) for first, second, flag in zip(names[0::2], names[1::2], same))
    return buffer.getvalue()


def write_pairs(path: str | os.PathLike, names: Sequence[str], same: np.ndarray) -> None:
    """Write pairs atomically as CSV ``image_a,image_b,same``; ``names`` are 2n, ``same`` n."""
    with atomic_path(path) as temporary:
        temporary.write_text(csv_of_pairs(names, same), encoding="utf-8", newline="")


def listed_images(pairs: PairList, root: str | os.PathLike) -> PairImages:
    """The pictures of a list below ``root``, read when asked for.

    A name whose file is not there is tried with the other endings of pictures (LFW's list has none);
    ``InputError`` counts the missing and names the first.
    """
    root = Path(root)
    found = {name: _locate(root, name) for name in dict.fromkeys(pairs.names)}
    missing = [name for name, place in found.items() if place is None]
    if missing:
        raise InputError(f"{len(missing)} of {len(found)} listed pictures are not there, first {missing[0]!r}",
                         where=root, fix="name the folder that the list's names start from")
    names = tuple(os.path.relpath(found[name], root).replace(os.sep, "/") for name in pairs.names)

    def read(index: int) -> bytes:
        return found[pairs.names[index]].read_bytes()

    return PairImages(pairs.same, names, read)


def _locate(root: Path, name: str) -> Path | None:
    if "\0" in name:
        return None
    path = root / name
    if path.is_file():
        return path
    others = (path.with_name(path.stem + suffix) for suffix in IMAGE_SUFFIXES)
    return next((other for other in others if path.name and other.is_file()), None)


def checked_name(name: str, where: object) -> str:
    """The name, if it stays inside the folder it is put in; ``FormatError`` otherwise (``..``, absolute, empty)."""
    parts = PurePosixPath(name).parts
    if not name or "\0" in name or "\\" in name or name.startswith("/") or ".." in parts or not parts:
        raise FormatError(f"the name {name!r} leads out of the folder", where=where, fix="rename it in the list")
    return name
