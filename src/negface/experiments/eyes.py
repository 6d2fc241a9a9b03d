"""The eyes of a run, opened when first needed: conditioner, judge, head pose; and what they see of a set of faces."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from negface import datasets
from negface.evaluation import check_judge
from negface.foundation.files import write_bytes
from negface.foundation.hashing import sha256_bytes, sha256_file, sha256_json
from negface.perception import (
    Declaration,
    Embeddings,
    Recognizer,
    embed_dataset,
    load_analyser,
    load_pose,
    load_recognizer,
    read_declaration,
    resolve_declaration,
    write_embeddings,
)
from negface.perception.declarations import sidecar_path

POSE_BATCH = 64


class Eyes:
    """Conditioner, judge and pose model of a run.

    ``same`` says whether the judge is the conditioner (``MismatchError`` unless ``force``).
    """

    def __init__(self, conditioner: Path, judge: Path, pose: tuple[Path, ...], *, threads: int | None, force: bool,
                 resize: bool):
        self.paths, self.pose_paths, self.threads, self.resize = (conditioner, judge), pose, threads, resize
        self.conditioner_declaration: Declaration = resolve_declaration(conditioner)
        self.judge_declaration: Declaration = resolve_declaration(judge)
        self.same = check_judge(self.judge_declaration, self.conditioner_declaration, force=force)
        self.told_by_analyser = len(pose) == 1 and is_analyser(pose[0])
        task = "analyser" if self.told_by_analyser else "pose"
        self.pose_hashes = [sha256_file(resolved) for resolved in pose if resolve_declaration(resolved, task=task)]

    @cached_property
    def conditioner(self) -> Recognizer:
        """The recogniser that makes contexts."""
        return load_recognizer(self.paths[0], threads=self.threads)

    @cached_property
    def judge(self) -> Recognizer:
        """The recogniser that measures."""
        return load_recognizer(self.paths[1], threads=self.threads)

    @cached_property
    def pose(self) -> Any:
        """The head-pose model, or an analyser asked for the pose alone, or None."""
        if self.told_by_analyser:
            return AnalyserPose(load_analyser(self.pose_paths[0]))
        return load_pose(self.pose_paths, threads=self.threads) if self.pose_paths else None

    @property
    def pose_name(self) -> str:
        """Names of the pose files' declarations."""
        return " + ".join(item.name for item in self.pose.declarations) if self.pose else "none"

    def describe(self) -> dict[str, Any]:
        """What decides an answer: the files, and whether pictures are resized."""
        return {"conditioner": self.conditioner_declaration.to_dict(), "judge": self.judge_declaration.to_dict(),
                "pose": self.pose_hashes, "resize": self.resize}


def is_analyser(path: Path) -> bool:
    """Whether a file is declared as an analyser."""
    sidecar = sidecar_path(path)
    return sidecar.is_file() and read_declaration(sidecar).task == "analyser"


class AnalyserPose:
    """An analyser that stands where a head-pose model is wanted."""

    def __init__(self, analyser: Any):
        self.declarations, self._analyser = (analyser.declaration,), analyser

    def estimate(self, images: np.ndarray) -> np.ndarray:
        """Yaw, pitch, roll in degrees, float32 ``[n, 3]``, of uint8 ``[n, H, W, 3]``."""
        found = self._analyser.measure(images)
        return np.stack([found[name] for name in ("yaw", "pitch", "roll")], 1)


class Mirrored:
    """A recogniser that looks at mirror images; stands where ``embed_dataset`` wants a recogniser."""

    def __init__(self, recognizer: Recognizer):
        self.declaration, self._recognizer = recognizer.declaration, recognizer

    def embed(self, images: np.ndarray, flip: bool = False) -> np.ndarray:
        """Unit embeddings of the mirror images of uint8 ``[n, H, W, 3]``."""
        return self._recognizer.embed(np.ascontiguousarray(images[:, :, ::-1]), flip=flip)


def faces_hash(dataset: datasets.FaceDataset) -> str:
    """SHA-256 over names, people and bytes of a folder of faces."""
    return sha256_json([(dataset.identities[label], dataset.manifest[row]["file"], sha256_bytes(dataset.read(row)))
                        for row, label in enumerate(dataset.labels.tolist())])


def write_seen(path: Path, dataset: datasets.FaceDataset, recognizer: Any, *, flip: bool = False, resize: bool = False,
               mirrored: bool = False) -> dict[str, Any]:
    """Embed a dataset into a file; returns counts."""
    found = embed_dataset(dataset, Mirrored(recognizer) if mirrored else recognizer, flip=flip, resize=resize)
    # The folder is named by its content; where it lay says nothing and would not survive a move.
    seen = {key: value for key, value in found.provenance["dataset"].items() if key != "path"}
    write_embeddings(path, found.embeddings, found.labels, identities=found.identities, images=found.images,
                     provenance={**found.provenance, "dataset": seen, "mirrored": mirrored})
    return {"n_images": len(found), "n_identities": len(found.identities), "converted": found.provenance["converted"]}


def write_pose(path: Path, dataset: datasets.FaceDataset, pose: Any) -> None:
    """Head pose of every picture of a dataset: ``.npz`` with ``pose`` ``[n, 3]`` in degrees."""
    import io

    angles = []
    for start in range(0, len(dataset), POSE_BATCH):
        rows = range(start, min(start + POSE_BATCH, len(dataset)))
        angles.append(pose.estimate(np.stack([dataset[row][0] for row in rows])))
    buffer = io.BytesIO()
    np.savez(buffer, pose=np.concatenate(angles), pose_model=np.array(" + ".join(d.name for d in pose.declarations)))
    write_bytes(path, buffer.getvalue())


def of_people(embeddings: Embeddings, names: tuple[str, ...]) -> Embeddings:
    """The rows of some people; labels and names stay those of the whole set."""
    wanted = np.isin(np.asarray(embeddings.identities), list(names))[embeddings.labels]
    rows = np.flatnonzero(wanted)
    return dataclasses.replace(
        embeddings, embeddings=np.asarray(embeddings.embeddings)[rows], labels=np.asarray(embeddings.labels)[rows],
        images=tuple(embeddings.images[row] for row in rows) if embeddings.images else ())
