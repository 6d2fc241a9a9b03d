"""Pictures for recognition training: decoded by worker threads ahead of the steps, kept while memory allows.

A set of half a million pictures does not fit in memory; a small one is decoded once. What cannot be read is passed over
up to a stated share: its place is taken by the next readable picture of the set, the same one in every run.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import numpy as np

from negface.datasets import FaceDataset, resize_rgb
from negface.foundation.errors import InputError, NegFaceError
from negface.foundation.hashing import sha256_array, sha256_json
from negface.foundation.noise import keyed_generator

from .loop import KeyedOrder
from .recipe import RecognitionData


class Pictures:
    """Labelled pictures of a dataset, by place.

    Args:
        dataset: where they lie.
        rows: int64 ``[n]``, the dataset's rows to use.
        size: side in pixels that they are resized to.
        recipe: memory, threads, share of broken pictures.

    Attributes:
        labels: int64 ``[n]``, 0 to the number of people less one, without gaps.
        names: the people, by label.
        broken: places whose pictures could not be read so far, with the reason.

    Raises:
        InputError: one person only, or one picture a person.
    """

    def __init__(self, dataset: FaceDataset, rows: np.ndarray, size: int, recipe: RecognitionData):
        self.dataset, self.rows, self.size, self.recipe = dataset, rows, size, recipe
        present, labels = np.unique(dataset.labels[rows], return_inverse=True)
        self.labels = labels.astype(np.int64)
        self.names = tuple(dataset.identities[label] for label in present)
        self._refuse_hopeless()
        self.broken: dict[int, str] = {}
        shape = (len(rows), size, size, 3)
        fits = int(np.prod(shape, dtype=np.int64)) <= recipe.memory * 2**30
        self._kept = np.empty(shape, np.uint8) if fits else None
        self._have = np.zeros(len(rows), bool)
        self._pool = ThreadPoolExecutor(recipe.threads, thread_name_prefix="decode")
        self._waiting: dict[bytes, tuple[np.ndarray, np.ndarray, list[Future]]] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def hash(self) -> str:
        """Names the set by its people and the names of its pictures: half a million are not read for it."""
        names = [self.dataset.name(int(row)).removeprefix(str(self.dataset.root)) for row in self.rows]
        return sha256_json({"people": self.names, "labels": sha256_array(self.labels), "pictures": names,
                            "size": self.size})

    def _refuse_hopeless(self) -> None:
        where = self.dataset.root
        if len(self.names) < 2:
            raise InputError("one identity only: there is nobody to tell it from", where=where, fix="add people")
        if np.bincount(self.labels).max() < 2:
            raise InputError(f"one picture of each of {len(self.names)} identities: nothing shows what pictures of "
                             "one person share", where=where, fix="give two or more pictures a person")

    def ahead(self, places: np.ndarray) -> None:
        """Begin to decode a batch that will be asked for, in one part a thread; one that was begun already is not
        begun again."""
        key = places.tobytes()
        if key in self._waiting:
            return
        images = np.empty((len(places), self.size, self.size, 3), np.uint8)
        labels = np.empty(len(places), np.int64)
        parts = zip(*(np.array_split(each, self.recipe.threads) for each in (places, images, labels)), strict=True)
        self._waiting[key] = images, labels, [self._pool.submit(self._decode, *part) for part in parts]

    def batch(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures uint8 ``[n, S, S, 3]`` RGB and labels int64 ``[n]`` of places int64 ``[n]``.

        Raises:
            InputError: more pictures cannot be read than the recipe passes over.
        """
        self.ahead(places)
        images, labels, parts = self._waiting.pop(places.tobytes())
        for part in parts:
            part.result()
        return images, labels

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _decode(self, places: np.ndarray, images: np.ndarray, labels: np.ndarray) -> None:
        for i, place in enumerate(places):
            images[i], used = self._readable(int(place))
            labels[i] = self.labels[used]

    def _readable(self, place: int) -> tuple[np.ndarray, int]:
        """The picture of a place, or of the next one that can be read, and whose it is."""
        for used in range(place, place + len(self)):
            used %= len(self)
            if used in self.broken:
                continue
            try:
                return self._read(used), used
            except NegFaceError as error:
                self._pass_over(used, error)
        raise InputError("no picture can be read", where=self.dataset.root)

    def _read(self, place: int) -> np.ndarray:
        if self._kept is not None and self._have[place]:
            return self._kept[place]
        picture = resize_rgb(self.dataset[int(self.rows[place])][0], self.size)
        if self._kept is not None:
            self._kept[place] = picture
            self._have[place] = True
        return picture

    def _pass_over(self, place: int, error: NegFaceError) -> None:
        with self._lock:
            self.broken[place] = str(error)
            count, limit = len(self.broken), self.recipe.broken_share
        if count > limit * len(self):
            raise InputError(
                f"{count} of {len(self)} pictures cannot be read, more than data.broken_share {limit:g}; the last: "
                f"{error}", where=self.dataset.root, fix="replace or remove them, or raise data.broken_share"
            ) from error


class IdentityOrder(KeyedOrder):
    """Batches of ``per_identity`` pictures of each of their people; people in a fresh permutation an epoch.

    A person with fewer pictures is shown some of them twice. Keyed by (seed, turn of the person), so it does not depend
    on the number of processes.
    """

    def __init__(self, labels: np.ndarray, batch: int, per_identity: int, seed: int):
        sizes = np.bincount(labels)
        super().__init__(len(sizes), batch // per_identity, seed)
        self.per_identity = per_identity
        self._members = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])

    def rows(self, step: int) -> np.ndarray:
        """Rows int64 ``[batch]`` of step ``step``, a person's one after another."""
        turns = range(step * self.batch, (step + 1) * self.batch)
        people = super().rows(step)
        return np.concatenate([self._drawn(int(person), turn) for person, turn in zip(people, turns)])

    def _drawn(self, person: int, turn: int) -> np.ndarray:
        members, generator = self._members[person], keyed_generator("pictures", self.seed, turn)
        rounds = -(-self.per_identity // len(members))
        return np.concatenate([generator.permutation(members) for _ in range(rounds)])[: self.per_identity]
