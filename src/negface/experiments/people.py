"""Who trains the generator and who is held out. Test people are in no training; the split is by identity, and kept."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negface.evaluation.provenance import check_unseen
from negface.foundation.errors import FormatError, InputError, MismatchError
from negface.foundation.files import existing_file, read_json, write_text
from negface.foundation.hashing import sha256_json
from negface.foundation.noise import keyed_generator
from negface.perception import Declaration

TRAIN, TEST = "train", "test"
TRAINED_ON = "training.json"


@dataclass(frozen=True)
class Split:
    """Names of the people of a dataset, in its order: ``train``, ``test``, and those of neither (``left_out``)."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """SHA-256 of who is where."""
        return sha256_json({TRAIN: self.train, TEST: self.test})

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Names by what they are for, as errors and warnings call it."""
        return {"the generator's training": self.train, "the tests": self.test}

    def save(self, path: str | os.PathLike) -> None:
        """Write ``person,split`` rows."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["person", "split"])
        writer.writerows([(name, part) for part, names in ((TRAIN, self.train), (TEST, self.test)) for name in names])
        write_text(path, buffer.getvalue())


def keyed_split(identities: Sequence[str], share: float, seed: int) -> Split:
    """The ``share`` of the people with the lowest keyed numbers trains; at least two on either side.

    Errors: ``InputError`` for fewer than four people.
    """
    if len(identities) < 4:
        raise InputError(f"{len(identities)} people cannot be split into train and test", where="faces",
                         fix="at least 4 are needed; a comparison worth reading needs hundreds")
    numbers = {name: keyed_generator("people", seed, name).random() for name in identities}
    n_train = min(max(round(share * len(identities)), 2), len(identities) - 2)
    chosen = set(sorted(identities, key=lambda name: (numbers[name], name))[:n_train])
    return Split(tuple(n for n in identities if n in chosen), tuple(n for n in identities if n not in chosen))


def read_split(path: str | os.PathLike, identities: Sequence[str]) -> Split:
    """The split of a CSV with columns ``person`` and ``split`` (``train`` or ``test``; anything else is left out).

    People of the dataset that the table does not name are left out. Errors: ``FormatError`` for missing columns and a
    person in two splits, ``InputError`` if nobody of the dataset trains or is tested.
    """
    path = existing_file(path, "table of people")
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.DictReader(handle))
    except (UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"not a CSV table ({error})", where=path) from error
    if not rows or not {"person", "split"} <= set(rows[0]):
        raise FormatError("has no columns 'person' and 'split'", where=path, fix="first line: person,split")
    part: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        if part.setdefault(row["person"], row["split"]) != row["split"]:
            raise FormatError(f"{row['person']!r} stands in two splits", where=f"{path}, line {number}")
    train, test = (tuple(n for n in identities if part.get(n) == name) for name in (TRAIN, TEST))
    for name, found in ((TRAIN, train), (TEST, test)):
        if not found:
            raise InputError(f"names nobody of the faces as {name!r}", where=path,
                             fix="the names must be those of the identity folders")
    return Split(train, test, tuple(n for n in identities if part.get(n) not in (TRAIN, TEST)))


def check_training(model: Path, split: Split) -> bool:
    """Refuse a model that saw test people; False where nothing beside it says who trained it.

    ``training.json``, in the model folder or above it, is what ``negface train`` and ``negface run`` leave. Errors:
    ``MismatchError`` naming the first such person.
    """
    people = training_record(model).get("identities")
    both = sorted(set(people or ()) & set(split.test))
    if both:
        raise MismatchError(f"was trained on {len(both)} of the test people, {both[0]!r} among them", where=model,
                            fix="give the table of people it was trained with (--people)")
    return bool(people)


def check_judge_training(judge: Declaration, people: Mapping[str, Iterable[str]], *, force: bool = False) -> list[str]:
    """Refuse a judge that was trained on people it is to measure: it knows them, and tells them apart too well.

    Args:
        judge: its declaration; of one that names nobody it is said that it was not checked.
        people: names of people, by what they are for.

    Returns, where ``force`` lets it pass, a warning for each group with such people; else ``MismatchError``.
    """
    known = {what: check_unseen(judge, names, benchmark=what, force=force)["trained_on_test_people"]
             for what, names in people.items()}
    said = [f"the judge was trained on {count} of the people of {what}" for what, count in known.items() if count]
    if None in known.values():
        said.append(f"the judge says no names of those it was trained on ({judge.trained_on}): it was not checked that "
                    "the people it measures are new to it")
    return said


def training_record(model: Path) -> dict[str, Any]:
    """What training left beside a model; empty if it left nothing."""
    for folder in (model, model.resolve().parent):
        if (folder / TRAINED_ON).is_file():
            return read_json(folder / TRAINED_ON)
    return {}
