"""Training of the analyser on procedural people, whose pictures carry the truth (``negface population make``).

Loss: smooth L1 of standardised values and of landmarks, cross-entropy of the parsing map. Mirror images are made with
their labels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from negface import datasets
from negface.evaluation.provenance import people_text
from negface.foundation.errors import FormatError, InputError
from negface.foundation.files import ensure_folder, existing_file, write_json
from negface.foundation.hashing import sha256_file, sha256_json
from negface.foundation.noise import keyed_generator
from negface.foundation.progress import Progress
from negface.models.analyser import Analyser
from negface.perception.analyser import VALUES
from negface.perception.declarations import Declaration
from negface.population import CLASSES, MIRROR_68

from .ema import WeightAverage
from .latents import load_faces
from .loop import run
from .pictures import sheet
from .recipe import AnalyserRecipe
from .trainers import make_accelerator

LABELS_NAME, WEIGHTS_NAME, MIDDLE = "labels.jsonl", "analyser.safetensors", 127.5
_MIRRORED = np.array([name in ("yaw", "roll", "light_azimuth") for name in VALUES])


@dataclass(frozen=True)
class Truth:
    """Pictures uint8 ``[n, S, S, 3]``, values float32 ``[n, k]`` in the order of ``VALUES``, landmarks float32 ``[n,
    68, 2]`` as shares of the side around its middle, parsing uint8 ``[n, S, S]``, names of the people, content hash."""

    images: np.ndarray
    values: np.ndarray
    points: np.ndarray
    parsing: np.ndarray
    identities: tuple[str, ...]
    hash: str


def load_truth(folder: str | os.PathLike, size: int) -> Truth:
    """A population with its labels, pictures and maps resized to ``size``.

    Raises:
        InputError: the folder has no labels. FormatError: labels of other pictures than those in the folder.
    """
    dataset = datasets.open(folder)
    path = existing_file(Path(dataset.root) / LABELS_NAME, "truth of the pictures (`negface population make`)")
    rows = {row["image"]: row for row in map(json.loads, path.read_text().splitlines())}
    faces = load_faces(dataset, size)
    names = [dataset.manifest[int(row)]["file"] for row in faces.rows]
    if missing := [name for name in names if name not in rows]:
        raise FormatError(f"{len(missing)} pictures have no truth, the first is {missing[0]}", where=path)
    values, points = np.empty((len(names), len(VALUES)), np.float32), np.empty((len(names), 68, 2), np.float32)
    parsing = np.empty((len(names), size, size), np.uint8)
    with Progress("reading truth", len(names), unit="images") as bar:
        for place, name in enumerate(names):
            row = rows[name]
            found = {**row["nuisances"], **row["pose"], "skin_tone": row["traits"]["skin_tone"]}
            values[place] = [found[value] for value in VALUES]
            with Image.open(Path(dataset.root) / row["parsing"]) as picture:
                points[place] = (np.array(row["points68"]) + 0.5) / picture.width - 0.5
                parsing[place] = np.asarray(picture.resize((size, size), Image.Resampling.NEAREST))
            bar.advance()
    return Truth(faces.images, values, points, parsing, faces.identities,
                 sha256_json({"faces": faces.hash, "labels": sha256_file(path)}))


class AnalyserLoss(nn.Module):
    """The network and its three losses; a module of its own for distributed wrappers."""

    def __init__(self, model: Analyser, recipe: AnalyserRecipe):
        super().__init__()
        self.model, self.recipe = model, recipe

    def forward(self, images: Tensor, values: Tensor, points: Tensor, parsing: Tensor) -> dict[str, Tensor]:
        """Normalised images, standardised values, landmarks, parsing at half the side to the parts of the loss."""
        told, placed, logits = self.model(images)
        parts = {"values": F.smooth_l1_loss(told.float(), values, beta=0.3),
                 "points": F.l1_loss(placed.float(), points), "parsing": F.cross_entropy(logits.float(), parsing)}
        parts["loss"] = (parts["values"] + self.recipe.points_weight * parts["points"]
                         + self.recipe.parsing_weight * parts["parsing"])
        return parts


class AnalyserTask:
    """The analyser's part of the training loop."""

    name = "analyser"

    def __init__(self, recipe: AnalyserRecipe, data: Truth, accelerator: Accelerator):
        torch.manual_seed(recipe.train.seed)
        self.recipe, self.data, self.accelerator, self.n_items = recipe, data, accelerator, len(data.images)
        model = Analyser(n_values=len(VALUES), n_classes=len(CLASSES), **recipe.model.model_dump())
        model.value_mean.copy_(torch.from_numpy(data.values.mean(0)))
        model.value_std.copy_(torch.from_numpy(data.values.std(0).clip(1e-3)))
        self.objective = AnalyserLoss(model, recipe).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(self.objective.parameters(), lr=recipe.train.learning_rate,
                                      betas=recipe.train.betas, weight_decay=recipe.train.weight_decay, fused=True)
        self.prepared, self.optimizer = accelerator.prepare(self.objective, optimizer)
        self.average = WeightAverage(self.objective.model, recipe.train.ema)

    def modules(self) -> dict[str, nn.Module]:
        return {"weights": self.objective.model, "average": self.average.module}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"weights": self.optimizer}

    def _batch(self, rows: np.ndarray, flips: np.ndarray) -> tuple[Tensor, ...]:
        data, model = self.data, self.objective.model
        side = flips[:, None, None]
        images = np.where(side[..., None], data.images[rows][:, :, ::-1], data.images[rows])
        values = np.where(flips[:, None] & _MIRRORED, -data.values[rows], data.values[rows])
        turned = data.points[rows][:, MIRROR_68] * np.array([-1, 1], np.float32)
        points = np.where(side, turned, data.points[rows])
        parsing = np.where(side, data.parsing[rows][:, :, ::-1], data.parsing[rows])[:, ::2, ::2]
        tensors = [torch.from_numpy(np.ascontiguousarray(item)).to(self.accelerator.device)
                   for item in (images, values, points, parsing)]
        pictures = tensors[0].permute(0, 3, 1, 2).float().sub_(MIDDLE).div_(MIDDLE)
        return pictures, (tensors[1] - model.value_mean) / model.value_std, tensors[2], tensors[3].long()

    def step(self, step: int, rows: np.ndarray, rate: float) -> dict[str, float]:
        share = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        generator = keyed_generator("analyser", self.recipe.train.seed, step)
        batch = self._batch(rows, (generator.random(self.recipe.train.batch) < 0.5)[share])
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self.accelerator.autocast():
            parts = self.prepared(*batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(parts["loss"])
        norm = self.accelerator.clip_grad_norm_(self.objective.parameters(), self.recipe.train.clip)
        self.optimizer.step()
        self.average.update(self.objective.model, step + 1)
        return {"loss": float(parts["loss"].detach()),
                **{name: float(parts[name].detach()) for name in ("values", "points", "parsing")},
                "gradient_norm": float(norm)}

    @torch.no_grad()
    def sample_sheet(self, path: Path, step: int) -> None:
        """Pictures, true parsing, parsing told (grey levels are classes)."""
        rows = np.arange(min(8, self.n_items))
        pictures, _, _, _ = self._batch(rows, np.zeros(len(rows), bool))
        _, _, told = self.average.module.read(pictures)
        maps = [torch.as_tensor(item).float() / (len(CLASSES) - 1) * 2 - 1 for item in (self.data.parsing[rows],
                                                                                       told.cpu())]
        sheet([pictures.cpu(), *(item[:, None].expand(-1, 3, -1, -1) for item in maps)], path)

    def save(self, folder: Path) -> None:
        """Averaged weights and their declaration."""
        ensure_folder(folder)
        path, size = folder / WEIGHTS_NAME, self.recipe.model.image_size
        state = self.average.module.state_dict()
        save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, path)
        declaration = Declaration(
            name="analyser", sha256=sha256_file(path), task="analyser", kind="torch", size=(size, size),
            dim=len(VALUES), architecture="analyser",
            options={"n_values": len(VALUES), "n_classes": len(CLASSES), **self.recipe.model.model_dump(mode="json")},
            licence="of its training pictures",
            trained_on=people_text(self.data.identities),
            source="negface train analyser")
        write_json(Path(f"{path}.json"), declaration.to_dict())


def train_analyser(recipe: AnalyserRecipe, population: str | os.PathLike, out: str | os.PathLike, *,
                   say: Callable[[str], None] = print) -> dict[str, Any]:
    """Train an analyser on a population, resuming what ``out`` holds.

    Args:
        recipe: validated recipe.
        population: folder of ``negface population make``.
        out: folder for log, checkpoint and ``model/`` (weights and declaration for ``perception.load_analyser``).

    Returns:
        as ``train_recognition``.
    """
    accelerator = make_accelerator(recipe.train)
    data = load_truth(population, recipe.model.image_size)
    out = ensure_folder(out)
    identity = {"recipe": recipe.model_dump(mode="json"), "truth": data.hash}
    result = run(AnalyserTask(recipe, data, accelerator), recipe.train, out, accelerator, identity=identity, say=say)
    result |= {"n_images": len(data.images), "n_identities": len(data.identities)}
    if accelerator.is_main_process:
        write_json(out / "training.json", {**result, "made_from": identity, "identities": list(data.identities)})
    accelerator.wait_for_everyone()
    return result


def analyser_errors(analyser: Any, population: str | os.PathLike) -> dict[str, float]:
    """Mean absolute error of every value, of landmarks (pixels) and share of parsing pixels told right, on renders.

    Raises:
        InputError: the pictures are not of the analyser's size.
    """
    size = analyser.declaration.size[0]
    truth = load_truth(population, size)
    if len(truth.images) == 0:
        raise InputError("no pictures", where=population)
    values, points, parsing = analyser.read(truth.images)
    errors = dict(zip(VALUES, np.abs(values - truth.values).mean(0).tolist()))
    wanted = (truth.points + 0.5) * size - 0.5
    errors["landmarks"] = float(np.linalg.norm(points - wanted, axis=2).mean())
    errors["parsing"] = float((parsing == truth.parsing).mean())
    return errors
