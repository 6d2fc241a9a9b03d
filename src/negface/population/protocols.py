"""Verification protocols on disk: a folder of pictures with pair list, truth and README, or insightface's ``.bin``.

``load`` gives back pictures, pairs, and who is in each pair, so that errors can be told apart by group.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import torch

from ..datasets.bin_pairs import write_bin
from ..datasets.codecs import codec as codec_of
from ..datasets.images import load_rgb
from ..datasets.manifest import read_rows
from ..datasets.pair_lists import PairImages, checked_name, listed_images, read_pairs, write_pairs
from ..foundation.errors import FormatError, MismatchError
from ..foundation.files import read_json, write_json, write_text
from .pairing import cast, pair_up, shoot
from .protocol_specs import FIRST_PERSON, PROTOCOLS, Protocol, protocol
from .rendering import RENDERER, check_size
from .resuming import refuse_existing, resumable_folder
from .writing import LABELS_NAME, drop_rows, write_people

PROTOCOL_NAME, PAIRS_NAME, README_NAME = "protocol.json", "pairs.csv", "README.md"
MIXED = "mixed"
"""The group of a pair whose two people are of different groups."""


def write(name: str, out: str | os.PathLike, *, size: int = 112, seed: int = 0, start: int = FIRST_PERSON,
          people: int | None = None, pairs: int | None = None, codec: str = "jpeg", as_bin: bool = False,
          workers: int | None = None) -> dict[str, Any]:
    """Write one protocol to a new folder; interrupted, the same call goes on.

    The folder holds ``<identity>/<picture>``, ``pairs.csv`` (folds contiguous, genuine pairs first in each),
    ``labels.jsonl`` and ``.parsing/`` as ``make`` writes them, ``protocol.json`` and ``README.md``.

    Args:
        name: one of ``PROTOCOLS``.
        size: side of the pictures.
        seed, start: population and first person. Pictures and pairs follow from them, the name and its version.
        people, pairs: other counts than published; the result is then called altered.
        codec: of the pictures.
        as_bin: also write ``<name>.bin`` with its list of names.
        workers: processes; see ``photograph``.

    Returns:
        the content of ``protocol.json``.

    Raises:
        UnknownNameError: the name. InputError: counts that cannot be made, a size out of range. OutputError: the
        folder exists, or another process is writing it.
    """
    out, spec = Path(out), protocol(name, people=people, pairs=pairs)
    refuse_existing(out)
    check_size(size)
    card = _card(spec, size=size, seed=seed, start=start, codec=codec, as_bin=as_bin)
    drawn = cast(spec, seed=seed, start=start)
    with resumable_folder(out, card) as folder:
        write_people(folder, drawn, partial(shoot, protocol=spec, seed=seed), spec.pictures, size=size, codec=codec,
                     workers=workers)
        names, same = _names(spec, drawn.ids, seed, codec_of(codec).suffix)
        write_pairs(folder / PAIRS_NAME, names, same)
        if as_bin:
            write_bin(folder / f"{name}.bin", listed_images(read_pairs(folder / PAIRS_NAME), folder).images(), same,
                      names)
        write_text(folder / README_NAME, readme(spec, card))
        write_json(folder / PROTOCOL_NAME, card)
        drop_rows(folder)
    return card





def write_all(out: str | os.PathLike, *, people: int | None = None, pairs: int | None = None,
              **how: Any) -> list[dict[str, Any]]:
    """Every protocol, each in a folder of its name below ``out``; those there already with these settings are kept.

    Arguments and errors as of ``write``, and ``OutputError`` for a folder that holds anything else.
    """
    specs = [protocol(name, people=people, pairs=pairs) for name in PROTOCOLS]  # refused before any is rendered
    cards = []
    for spec in specs:
        place = Path(out) / spec.name
        found = read_json(place / PROTOCOL_NAME) if (place / PROTOCOL_NAME).is_file() else None
        wanted = _card(spec, **{key: value for key, value in how.items() if key != "workers"})
        cards.append(found if found == wanted else write(spec.name, place, people=people, pairs=pairs, **how))
    return cards


def _card(spec: Protocol, *, size: int = 112, seed: int = 0, start: int = FIRST_PERSON, codec: str = "jpeg",
          as_bin: bool = False) -> dict[str, Any]:
    return {"kind": "population-protocol", **spec.to_dict(), "size": size, "seed": seed, "start": start,
            "reserved_people": [start, start + spec.reserved], "renderer": RENDERER, "torch": torch.__version__,
            "codec": codec_of(codec).to_dict(), "bin": as_bin, "describes_real_people": False}


def _names(spec: Protocol, ids: Sequence[str], seed: int, suffix: str) -> tuple[list[str], np.ndarray]:
    pairs = pair_up(spec, seed=seed)
    names = [f"{ids[person]}/{picture:04d}{suffix}" for pair in zip(pairs.first, pairs.second)
             for person, picture in pair]
    return names, pairs.same


def readme(spec: Protocol, card: Mapping[str, Any]) -> str:
    """The protocol's own text, with the counts it was written with."""
    first, last = card["reserved_people"]
    half = spec.pairs // 2
    return f"""# {card["title"]}: {spec.summary}

{fill(spec.about, 112)}

{spec.people} people who do not exist, {spec.pictures} pictures of each, {card["size"]} x {card["size"]} pixels.
{half} genuine and {half} impostor pairs in {spec.folds} contiguous folds (`pairs.csv`; in a fold genuine pairs come
first). No person is in two folds.

People {first} to {last - 1} of population {card["seed"]} belong to this protocol: a model trained on any of them must
not be measured with it. Written by renderer {card["renderer"]}; another renderer, version, seed or first person is
another benchmark, and its figures are not comparable.

Truth of every picture is in `labels.jsonl`, parsing maps in `.parsing/`, all settings in `protocol.json`.
"""


@dataclass(frozen=True)
class Benchmark:
    """A protocol read from disk.

    Attributes:
        root, card: the folder and its ``protocol.json``.
        names: of the pictures, each once, in the order of ``truth``.
        truth: the rows of ``labels.jsonl``.
        index: int64 ``[2n]``, into ``names``: pair i is entries 2i and 2i + 1.
        same: bool ``[n]``.
    """

    root: Path
    card: Mapping[str, Any]
    names: tuple[str, ...]
    truth: tuple[Mapping[str, Any], ...]
    index: np.ndarray
    same: np.ndarray

    def __len__(self) -> int:
        return len(self.same)

    def images(self) -> Iterator[np.ndarray]:
        """The pictures of ``names``, uint8 ``[size, size, 3]``, one at a time: embed each once, then take ``index``."""
        return (load_rgb((self.root / name).read_bytes(), where=self.root / name) for name in self.names)

    @property
    def pairs(self) -> PairImages:
        """The pairs as ``negface.datasets.open_pairs`` gives them."""
        listed = tuple(self.names[place] for place in self.index)
        return PairImages(self.same, listed, lambda k: (self.root / listed[k]).read_bytes())

    @cached_property
    def groups(self) -> dict[str, np.ndarray]:
        """The group of each pair by ``sex``, ``skin`` (Monk tones) and ``age``, ``[n]`` text each; ``mixed`` where its
        two pictures differ. Read off the truth, not off the pictures."""
        return {name: self._pairwise([group(row) for row in self.truth]) for name, group in _GROUPS.items()}

    def _pairwise(self, groups: list[str]) -> np.ndarray:
        of = np.array(groups)[self.index].reshape(-1, 2)
        return np.where(of[:, 0] == of[:, 1], of[:, 0], MIXED)

    def check_unseen(self, training: Mapping[str, Any]) -> None:
        """``MismatchError`` if a population (its ``population.json``) holds people of this protocol."""
        first, last = self.card["reserved_people"]
        begin, end = training["start"], training["start"] + training["people"]
        if training["seed"] == self.card["seed"] and begin < last and first < end:
            raise MismatchError(f"people {max(first, begin)} to {min(last, end) - 1} of population {training['seed']} "
                                "are in the training set and in the protocol", where=self.root,
                                fix="write the protocol with another --start or --seed")


def _age_group(row: Mapping[str, Any]) -> str:
    age = row["nuisances"]["age"]
    return "under 30" if age < 30 else "30 to 59" if age < 60 else "60 and over"


_GROUPS = {
    "sex": lambda row: "feminine" if row["traits"]["femininity"] > 0.5 else "masculine",
    "skin": lambda row: ("Monk 1-3", "Monk 4-7", "Monk 8-10")[(row["monk_tone"] > 3) + (row["monk_tone"] > 7)],
    "age": _age_group}


def load(path: str | os.PathLike) -> Benchmark:
    """Read a protocol's folder; ``FormatError`` if it is none, or if a pair names a picture it does not hold."""
    root = Path(path)
    card = read_json(root / PROTOCOL_NAME)
    if not isinstance(card, dict) or card.get("kind") != "population-protocol":
        raise FormatError("does not describe a population protocol", where=root / PROTOCOL_NAME)
    truth, listed = tuple(read_rows(root / LABELS_NAME)), read_pairs(root / PAIRS_NAME)
    try:
        names = tuple(checked_name(row["image"], root / LABELS_NAME) for row in truth)
    except KeyError as error:
        raise FormatError(f"has a row without {error}", where=root / LABELS_NAME) from error
    place = {name: number for number, name in enumerate(names)}
    stray = next((name for name in listed.names if name not in place), None)
    if stray is not None:
        raise FormatError(f"names {stray}, which labels.jsonl does not", where=root / PAIRS_NAME)
    return Benchmark(root, card, names, truth, np.array([place[name] for name in listed.names]), listed.same)


def table() -> list[dict[str, Any]]:
    """Name, version, counts and summary of every protocol."""
    return [{"name": item.name, "version": item.version, "people": item.people, "pictures": item.people * item.pictures,
             "pairs": item.pairs, "folds": item.folds, "summary": item.summary} for item in PROTOCOLS.values()]
