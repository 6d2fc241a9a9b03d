"""A population on disk: identity folders, one line of truth for each picture, parsing maps; or one contact sheet.

The folder appears complete or not at all, and its bytes do not depend on the number of workers.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..datasets.codecs import codec as codec_of
from ..datasets.manifest import write_rows
from ..foundation.errors import InputError, OutputError
from ..foundation.files import atomic_folder, atomic_path, ensure_folder, write_json
from ..foundation.progress import Progress
from .rendering import Rendered, render
from .shots import NUISANCE_NAMES, sample_shots
from .skin import CLASSES
from .traits import TRAIT_NAMES, People, sample_people
from .truth import row

LABELS_NAME, PARSING_NAME, CARD_NAME = "labels.jsonl", ".parsing", "population.json"


@contextmanager
def _threads_for(workers: int) -> Iterator[None]:
    """One torch thread for each worker, so that workers do not get into each other's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if workers > 1 else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def photograph(people: People, per_person: int, *, seed: int = 0, size: int = 112, workers: int | None = None,
               spreads: Mapping[str, tuple] | None = None, **options: Any) -> Iterator[tuple[People, Any, Rendered]]:
    """Wild pictures of each person in turn: ``(the person repeated, shots, rendered)``.

    Args:
        people: of whom.
        per_person: pictures of each.
        seed: of the shots.
        size: side of the pictures.
        workers: threads (all cores unless given); the pictures do not depend on it.
        spreads: other distributions of nuisances, as in ``sample_shots``.
        options: passed to ``render`` (``frame``, ``template``, ``device``).
    """
    workers = workers or os.cpu_count() or 1

    def one(index: int) -> tuple[People, Any, Rendered]:
        person, shots = sample_shots(people.take([index]), per_person, seed=seed, spreads=spreads)
        return person, shots, render(person, shots, size, **options)

    with _threads_for(workers), ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(one, index) for index in range(min(2 * workers, len(people)))]
        for index in range(len(people)):
            found = waiting.pop(0).result()
            if index + 2 * workers < len(people):
                waiting.append(pool.submit(one, index + 2 * workers))
            yield found


def _parsing_png(parsing: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(parsing).save(buffer, "PNG")
    return buffer.getvalue()


def _write(folder: Path, people: People, shots: Any, rendered: Rendered, codec: Any) -> list[dict[str, Any]]:
    identity, rows = people.ids[0], []
    ensure_folder(folder / identity)
    ensure_folder(folder / PARSING_NAME / identity)
    for index in range(len(rendered)):
        name, parsing = f"{identity}/{index:04d}{codec.suffix}", f"{PARSING_NAME}/{identity}/{index:04d}.png"
        (folder / name).write_bytes(codec.encode(rendered.images[index]))
        (folder / parsing).write_bytes(_parsing_png(rendered.parsing[index]))
        rows.append({"image": name, "parsing": parsing, **row(people, shots, rendered, index)})
    return rows


def make(out: str | os.PathLike, *, people: int, images: int, size: int = 112, seed: int = 0, start: int = 0,
         codec: str = "jpeg", workers: int | None = None) -> dict[str, Any]:
    """Write a population to a new folder.

    ``out/<identity>/<image>`` opens with ``negface.datasets.open``; ``labels.jsonl`` holds the truth (``truth.row``)
    in the same order, ``.parsing/`` the maps (grey levels are indices into ``CLASSES``), ``population.json`` what was
    asked for.

    Args:
        people, images: how many people, and pictures of each.
        seed, start: the population, and the number of its first person.
        codec: ``jpeg``, ``png`` or ``simplejpeg``.

    Returns:
        the content of ``population.json``.

    Raises:
        InputError: zero people or pictures, or a size out of range. OutputError: the folder exists.
    """
    out, encoder = Path(out), codec_of(codec)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError("exists already", where=out, fix="choose a new folder or remove this one")
    if images < 1:
        raise InputError(f"{images} pictures of each person were asked for", where="population",
                         fix="ask for at least one")
    drawn, rows = sample_people(people, seed=seed, start=start), []
    with atomic_folder(out) as folder, Progress("rendering", people * images, unit="images") as bar:
        for person, shots, rendered in photograph(drawn, images, seed=seed, size=size, workers=workers):
            rows += _write(folder, person, shots, rendered, encoder)
            bar.advance(images)
        write_rows(folder / LABELS_NAME, rows)
        card = {"kind": "population", "people": people, "images_per_person": images, "size": size, "seed": seed,
                "start": start, "codec": encoder.to_dict(), "torch": torch.__version__, "classes": list(CLASSES),
                "traits": list(TRAIT_NAMES), "nuisances": list(NUISANCE_NAMES), "describes_real_people": False}
        write_json(folder / CARD_NAME, card)
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
