"""A population on disk: identity folders, one line of truth for each picture, parsing maps; or one contact sheet.

The folder appears complete or not at all; its bytes do not depend on the number of workers, nor on interruptions.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..datasets.codecs import Codec
from ..datasets.codecs import codec as codec_of
from ..datasets.manifest import write_rows
from ..foundation.errors import InputError
from ..foundation.files import atomic_path, ensure_folder, write_json
from ..foundation.progress import Progress
from ..foundation.threads import torch_threads
from .processes import in_order, stop_if_orphaned, workers_for
from .rendering import RENDERER, Rendered, check_size, cut, render
from .resuming import flush, refuse_existing, resumable_folder
from .shots import NUISANCE_NAMES, Shots, check_spreads, sample_shots
from .skin import CLASSES
from .traits import TRAIT_NAMES, People, sample_people
from .truth import row

LABELS_NAME, PARSING_NAME, CARD_NAME = "labels.jsonl", ".parsing", "population.json"
_ROWS_NAME = ".rows"  # one file of truth a person while the folder is made; a person who has one is whole
_PICTURES_A_JOB = 16

Photographed = tuple[People, Shots, Rendered]
Shoot = Callable[[People], tuple[People, Shots]]
"""People to themselves repeated and their shots, the same number for each, person by person; it must pickle."""


def _jobs(people: People, per_person: int) -> Iterator[People]:
    """A few people at a time, so that pictures are rendered in whole batches."""
    step = -(-_PICTURES_A_JOB // per_person)
    return (people.take(range(first, min(first + step, len(people)))) for first in range(0, len(people), step))


def _photograph(people: People, shoot: Shoot, per_person: int, size: int,
                options: Mapping[str, Any]) -> list[Photographed]:
    repeated, shots = shoot(people)
    with torch_threads(1):  # pictures are small
        rendered = render(repeated, shots, size, **options)
    rows = [range(first, first + per_person) for first in range(0, len(shots), per_person)]
    return [(repeated.take(own), shots.take(own), cut(rendered, own)) for own in rows]


def photograph(people: People, per_person: int, *, seed: int = 0, size: int = 112, workers: int | None = None,
               spreads: Mapping[str, tuple] | None = None, **options: Any) -> Iterator[Photographed]:
    """Wild pictures of each person in turn: ``(the person repeated, shots, rendered)``.

    Args:
        people: of whom.
        per_person: pictures of each.
        seed: of the shots.
        size: side of the pictures.
        workers: processes (unless given one a processor, and none but this for a few hundred pictures); the pictures
            do not depend on it.
        spreads: other distributions of nuisances, as in ``sample_shots``.
        options: passed to ``render`` (``frame``, ``template``, ``device``).
    """
    check_pictures(per_person)
    shoot = partial(sample_shots, per_person=per_person, seed=seed, spreads=check_spreads(spreads))
    work = partial(_photograph, shoot=shoot, per_person=per_person, size=size, options=options)
    for found in in_order(work, _jobs(people, per_person), workers_for(len(people) * per_person, workers)):
        yield from found


def check_pictures(per_person: int) -> None:
    """``InputError`` for less than one picture of each person."""
    if per_person < 1:
        raise InputError(f"{per_person} pictures of each person were asked for", where="population",
                         fix="ask for at least one")


def _parsing_png(parsing: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(parsing).save(buffer, "PNG")
    return buffer.getvalue()


def _rows_file(folder: Path, identity: str) -> Path:
    return folder / _ROWS_NAME / f"{identity}.jsonl"


def _write_person(folder: Path, people: People, shots: Shots, rendered: Rendered, codec: Codec) -> None:
    """Pictures and maps, brought to the disk, and only then the rows, which say that the person is whole."""
    identity, rows, files = people.ids[0], [], []
    ensure_folder(folder / identity)
    ensure_folder(folder / PARSING_NAME / identity)
    for index in range(len(rendered)):
        name, parsing = f"{identity}/{index:04d}{codec.suffix}", f"{PARSING_NAME}/{identity}/{index:04d}.png"
        (folder / name).write_bytes(codec.encode(rendered.images[index]))
        (folder / parsing).write_bytes(_parsing_png(rendered.parsing[index]))
        rows.append({"image": name, "parsing": parsing, **row(people, shots, rendered, index)})
        files += [folder / name, folder / parsing]
    flush(files)
    write_rows(_rows_file(folder, identity), rows)


def _write(people: People, folder: Path, codec: str, **how: Any) -> int:
    for person in _photograph(people, **how, options={}):
        stop_if_orphaned()
        _write_person(folder, *person, codec_of(codec))
    return len(people)


def write_people(folder: Path, people: People, shoot: Shoot, per_person: int, *, size: int, codec: str,
                 workers: int | None) -> None:
    """Write pictures, parsing maps and ``labels.jsonl`` of everybody not yet written, into a ``resumable_folder``."""
    if (folder / LABELS_NAME).exists():
        return
    missing = [index for index, identity in enumerate(people.ids) if not _rows_file(folder, identity).exists()]
    total, done = len(people) * per_person, (len(people) - len(missing)) * per_person
    work = partial(_write, folder=folder, codec=codec, shoot=shoot, per_person=per_person, size=size)
    with Progress("rendering", total, unit="images", done=done) as bar:
        jobs = _jobs(people.take(missing), per_person) if missing else iter(())
        for count in in_order(work, jobs, workers_for(total - done, workers)):
            bar.advance(count * per_person)
    with atomic_path(folder / LABELS_NAME) as temporary, open(temporary, "wb") as labels:
        for identity in people.ids:
            labels.write(_rows_file(folder, identity).read_bytes())


def drop_rows(folder: Path) -> None:
    """Remove what only an unfinished folder needs; the last thing before it is published."""
    shutil.rmtree(folder / _ROWS_NAME, ignore_errors=True)


def make(out: str | os.PathLike, *, people: int, images: int, size: int = 112, seed: int = 0, start: int = 0,
         codec: str = "jpeg", spreads: Mapping[str, tuple] | None = None, workers: int | None = None) -> dict[str, Any]:
    """Write a population to a new folder; interrupted, the same call goes on with the people already written.

    ``out/<identity>/<image>`` opens with ``negface.datasets.open``; ``labels.jsonl`` holds the truth (``truth.row``)
    in the same order, ``.parsing/`` the maps (grey levels are indices into ``CLASSES``), ``population.json`` what was
    asked for. Until all is there, the folder stands beside ``out`` under a hidden name.

    Args:
        people, images: how many people, and pictures of each.
        seed, start: the population, and the number of its first person.
        codec: ``jpeg``, ``png`` or ``simplejpeg``.
        spreads: other distributions of nuisances, as in ``sample_shots``.
        workers: processes; see ``photograph``.

    Returns:
        the content of ``population.json``.

    Raises:
        InputError: zero people or pictures, a size or spread out of range. OutputError: the folder exists, or another
        process is writing it.
    """
    refuse_existing(Path(out))
    check_pictures(images)
    check_size(size)
    spreads, drawn = check_spreads(spreads), sample_people(people, seed=seed, start=start)
    card = {"kind": "population", "renderer": RENDERER, "people": people, "images_per_person": images, "size": size,
            "seed": seed, "start": start, "spreads": {name: list(spread) for name, spread in spreads.items()},
            "codec": codec_of(codec).to_dict(), "torch": torch.__version__, "classes": list(CLASSES),
            "traits": list(TRAIT_NAMES), "nuisances": list(NUISANCE_NAMES), "describes_real_people": False}
    shoot = partial(sample_shots, per_person=images, seed=seed, spreads=spreads)
    with resumable_folder(out, card) as folder:
        write_people(folder, drawn, shoot, images, size=size, codec=codec, workers=workers)
        write_json(folder / CARD_NAME, card)
        drop_rows(folder)
    return card


def sheet(out: str | os.PathLike, *, people: int, images: int, size: int = 112, seed: int = 0, start: int = 0,
          frame: str = "aligned", workers: int | None = None) -> tuple[int, int]:
    """Draw people in rows, ``images`` pictures each, to one PNG; returns its width and height."""
    drawn = sample_people(people, seed=seed, start=start)
    rows = [np.concatenate(list(rendered.images), 1)
            for _, _, rendered in photograph(drawn, images, seed=seed, size=size, workers=workers, frame=frame)]
    picture = Image.fromarray(np.concatenate(rows, 0))
    with atomic_path(out) as temporary:
        picture.save(temporary, "PNG")
    return picture.size
