"""Training of recognisers: a backbone and a head on labelled faces (ArcFace, arXiv 1801.07698, sec. 2; CosFace).

What is saved is a perception model: weights and the declaration that says size, colour order, normalisation and whom it
was trained on.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from negface import datasets
from negface import models as _architectures  # noqa: F401  (registers the backbones)
from negface.evaluation.provenance import check_unseen, people_text
from negface.foundation import registry
from negface.foundation.errors import InputError
from negface.foundation.files import atomic_path, ensure_folder, write_json
from negface.foundation.hashing import sha256_file
from negface.foundation.noise import keyed_generator
from negface.perception.declarations import Declaration

from .augment import Draws, augment, draw
from .ema import WeightAverage
from .heads import MarginHead, make_head
from .latents import chosen_rows
from .loop import KeyedOrder, run
from .onnx_export import export_onnx
from .pictures import sheet
from .recipe import RecognitionOptimisation, RecognitionRecipe
from .recognition_course import RecognitionCourse, Standing, resolved
from .recognition_data import IdentityOrder, Pictures
from .sampled import SampledHead
from .tracking import tracker
from .trainers import make_accelerator
from .validation import accuracy, developed_on, read_development

WEIGHTS_NAME = "recognizer.safetensors"
ONNX_NAME = "recognizer.onnx"
BEST_NAME = "best.safetensors"
MIDDLE = 127.5
AHEAD = 3


class RecognitionLoss(nn.Module):
    """Backbone and head; a module of its own so that distributed wrappers see one forward pass.

    ``accelerator``: the processes that share a batch, for a head that compares its pictures with each other.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, accelerator: Accelerator):
        super().__init__()
        self.backbone, self.head, self.accelerator = backbone, head, accelerator

    def forward(self, images: Tensor, labels: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Normalised images ``[n, 3, S, S]``, labels int64 ``[n]``, standard normal numbers ``[n]`` to the ``loss``
        and, of heads with classes, ``right``: the share of pictures told right in spite of the margin."""
        embeddings = self.backbone(images).float()
        if not isinstance(self.head, MarginHead):
            return {"loss": whole_batch_loss(self.head, embeddings, labels, self.accelerator)}
        logits = self.head(embeddings, labels, noise)
        right = (logits.detach().argmax(1) == labels).float().mean()
        return {"loss": F.cross_entropy(logits, labels), "right": right}


def whole_batch_loss(head: nn.Module, embeddings: Tensor, labels: Tensor, accelerator: Accelerator) -> Tensor:
    """The loss of the batch of all processes, a scalar, the same in each.

    A process has the graph of its own ``embeddings`` ``[n, d]`` only; the others' are numbers to it. Its gradient is
    made ``num_processes`` times as large, because the mean over processes comes after it: that mean is then the
    gradient that one process with the whole batch would find.
    """
    processes, mine = accelerator.num_processes, accelerator.process_index
    if processes == 1:
        return head.loss(embeddings, labels)
    shares = list(accelerator.gather(embeddings.detach()).chunk(processes))
    shares[mine] = embeddings
    loss = head.loss(torch.cat(shares), accelerator.gather(labels))
    return processes * loss - (processes - 1) * loss.detach()


class RecognitionTask:
    """The recogniser's part of the training loop.

    Args:
        recipe: the recipe.
        train: its ``resolved`` optimisation.
        pictures: what to train on.
        order: the rows of every step, to decode ahead.
        accelerator: process group, device, precision.
        declaration: what is saved beside the weights.
        out: folder of the training; the best weights of validation lie there.
    """

    name = "recognition"

    def __init__(
        self,
        recipe: RecognitionRecipe,
        train: RecognitionOptimisation,
        pictures: Pictures,
        order: KeyedOrder,
        accelerator: Accelerator,
        declaration: Declaration,
        out: Path,
    ):
        torch.manual_seed(train.seed)
        self.recipe, self.train, self.pictures, self.order = recipe, train, pictures, order
        self.accelerator, self.declaration, self.best = accelerator, declaration, out / BEST_NAME
        self.n_items, self.standing = len(pictures), Standing()
        self.share = slice(accelerator.process_index, None, accelerator.num_processes)
        self.backbone = make_backbone(recipe).to(accelerator.device, memory_format=torch.channels_last)
        self.head = make_head(recipe.head.name, len(pictures.names), recipe.model.dim, **recipe.head.options)
        self.head.to(accelerator.device)
        self.sampled = None
        if recipe.head.sample_rate < 1:
            options = {"momentum": recipe.momentum, "weight_decay": train.weight_decay}
            self.sampled = SampledHead(self.head, recipe.head.sample_rate, **options)
        objective = self.backbone if self.sampled else RecognitionLoss(self.backbone, self.head, accelerator)
        self.prepared, self.optimizer = accelerator.prepare(objective, self._make_optimizer(objective))
        self.average = WeightAverage(self.backbone, train.ema) if train.ema else None

    def _make_optimizer(self, objective: nn.Module) -> torch.optim.Optimizer:
        options = {"lr": self.train.learning_rate, "weight_decay": self.train.weight_decay, "fused": True}
        parameters = [value for value in objective.parameters() if value.requires_grad]
        if self.recipe.optimizer == "adamw":
            return torch.optim.AdamW(parameters, betas=self.train.betas, **options)
        return torch.optim.SGD(parameters, momentum=self.recipe.momentum, **options)

    def modules(self) -> dict[str, nn.Module]:
        modules = {"backbone": self.backbone, "head": self.sampled or self.head, "standing": self.standing}
        return modules | ({"average": self.average.module} if self.average else {})

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"weights": self.optimizer}

    def normalised(self, images: np.ndarray, draws: Draws | None = None) -> Tensor:
        """Pictures uint8 ``[n, S, S, 3]`` as ``[n, 3, S, S]`` on the device, augmented by ``draws``, about [-1, 1]."""
        tensor = torch.from_numpy(images).to(self.accelerator.device, non_blocking=True).permute(0, 3, 1, 2)
        if draws is not None:
            tensor = augment(tensor, draws)
        return tensor.float().sub_(MIDDLE).div_(MIDDLE).contiguous(memory_format=torch.channels_last)

    def step(self, step: int, rows: np.ndarray, rate: float) -> dict[str, float]:
        self.pictures.ahead(rows)
        for later in range(step + 1, min(step + 1 + AHEAD, self.train.steps)):
            self.pictures.ahead(self.order.rows(later)[self.share])
        images, labels = self.pictures.batch(rows)
        noise, draws = self._drawn(step)
        images, labels = self.normalised(images, draws), torch.from_numpy(labels).to(self.accelerator.device)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.prepared.train()
        parts = self._losses(step, images, labels, noise)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(parts["loss"])
        norm = self.accelerator.clip_grad_norm_(self.backbone.parameters(), self.train.clip)
        if self.sampled:
            reduce = self.accelerator.reduce if self.accelerator.num_processes > 1 else None
            self.sampled.update(rate, clip=self.train.clip, reduce=reduce and (lambda tensor: reduce(tensor, "mean")))
        elif list(self.head.parameters()):
            self.accelerator.clip_grad_norm_(self.head.parameters(), self.train.clip)
        self.optimizer.step()
        if self.average:
            self.average.update(self.backbone, step + 1)
        return {key: float(value.detach()) for key, value in {**parts, "gradient_norm": norm}.items()}

    def _drawn(self, step: int) -> tuple[Tensor, Draws]:
        """This process's share of what is random in a step."""
        generator, recipe = keyed_generator("recognition", self.train.seed, step), self.recipe.augmentation
        draws = draw(recipe.policy, self.train.batch, self.recipe.model.image_size, generator, flips=self.recipe.flips,
                     operations=recipe.operations, largest=recipe.largest)
        noise = generator.standard_normal(self.train.batch, dtype=np.float32)[self.share]
        mine = {key: np.ascontiguousarray(values[self.share]) for key, values in draws.items()}
        return torch.from_numpy(np.ascontiguousarray(noise)).to(self.accelerator.device), mine

    def _losses(self, step: int, images: Tensor, labels: Tensor, noise: Tensor) -> dict[str, Tensor]:
        with self.accelerator.autocast():
            if not self.sampled:
                return self.prepared(images, labels, noise)
            everyone = self.accelerator.gather(labels).cpu().numpy()
            self.sampled.choose(everyone, keyed_generator("classes", self.train.seed, step))
            return {"loss": self.sampled.loss(self.prepared(images), labels, noise)}

    @property
    def present(self) -> nn.Module:
        """The backbone that is validated and saved."""
        return self.average.module if self.average else self.backbone

    def keep(self) -> None:
        """Keep the present weights as the best so far."""
        with atomic_path(self.best) as path:
            save_file({key: value.contiguous() for key, value in self.present.state_dict().items()}, path)

    def sample_sheet(self, path: Path, step: int) -> None:
        """Training pictures as the network sees them, a person a row."""
        labels = self.pictures.labels
        rows = [np.flatnonzero(labels == person)[:8] for person in range(min(8, len(self.pictures.names)))]
        width = min(len(row) for row in rows)
        shown = np.concatenate([row[:width] for row in rows])
        images, _ = self.pictures.batch(shown)
        recipe = self.recipe.augmentation
        draws = draw(recipe.policy, len(shown), self.recipe.model.image_size, keyed_generator("sheet", step),
                     flips=self.recipe.flips, operations=recipe.operations, largest=recipe.largest)
        sheet(list(self.normalised(images, draws).cpu().split(width)), path)

    def save(self, folder: Path) -> None:
        """Weights, the best of validation if there was any, and declaration."""
        save_recognizer(self.chosen(), self.declaration, folder)

    def chosen(self) -> nn.Module:
        """The best backbone of validation, the present one without validation."""
        if float(self.standing.best) < 0:
            return self.present
        model = make_backbone(self.recipe)
        model.load_state_dict(load_file(self.best))
        return model


def make_backbone(recipe: RecognitionRecipe) -> nn.Module:
    """The untrained backbone of a recipe."""
    model = recipe.model
    return registry.load("model", model.architecture)(dim=model.dim, image_size=model.image_size, **model.options)


def save_recognizer(
    backbone: nn.Module, declaration: Declaration, folder: Path, dtype: torch.dtype | None = None
) -> Path:
    """Write ``recognizer.safetensors`` and its declaration beside it; returns the file."""
    path = ensure_folder(folder) / WEIGHTS_NAME
    state = {key: value.detach().cpu().contiguous() for key, value in backbone.state_dict().items()}
    if dtype is not None:
        state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    save_file(state, path)
    write_json(Path(f"{path}.json"), dataclasses.replace(declaration, sha256=sha256_file(path)).to_dict())
    return path


def train_recognition(
    recipe: RecognitionRecipe,
    faces: str | os.PathLike | datasets.FaceDataset,
    out: str | os.PathLike,
    *,
    name: str = "recognizer",
    identities: Sequence[str] | None = None,
    development: Sequence[str | os.PathLike] = (),
    held_out: Sequence[str] = (),
    track: bool = False,
    onnx: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train a recogniser, resuming what ``out`` holds.

    Args:
        recipe: validated recipe.
        faces: dataset of aligned face pictures (resized to the recipe's size).
        out: folder for log, checkpoint and ``model/`` (weights and declaration for ``load_recognizer``).
        name: of the recogniser, in its declaration and in reports.
        identities: the people to train on; all if ``None``.
        development: ``.bin`` files or pair lists to validate on; none: the last weights are kept.
        held_out: people who must be in no training, such as those of the tests to come.
        track: write TensorBoard events to ``out/events``.
        onnx: write ``model/recognizer.onnx`` as well, its answers compared with torch's.
        say: where status lines go.

    Returns:
        ``{"steps", "seconds", "resumed_at", "loss", "model", "n_images", "n_identities", "n_broken",
        "images_per_second", "validation", "onnx_difference"}``; ``validation`` is the best accuracy, ``None`` without;
        ``onnx_difference`` the largest difference from torch as a share of the largest value, ``None`` without.

    Raises:
        InputError: nothing to train on, one identity only, one picture a person, too many unreadable pictures, a test
            benchmark given for development, a plateau or an early stop without development pairs.
        MismatchError: held-out or development people among those trained on; ``out`` is of another recipe.
        TrainingError: a loss that is not finite.
    """
    out, size = Path(out), recipe.model.image_size
    accelerator = make_accelerator(recipe.train)
    dataset = faces if isinstance(faces, datasets.FaceDataset) else datasets.open(faces)
    pictures = Pictures(dataset, chosen_rows(dataset, identities), size, recipe.data)
    declaration = _declaration(name, recipe, pictures.names)
    check_unseen(declaration, held_out, benchmark="those held out")
    _refuse_blind(recipe, development)
    pairs = read_development(development, size, recipe.validation)
    declaration = dataclasses.replace(declaration, developed_on=developed_on(pairs))
    for item in pairs:
        check_unseen(declaration, item.people, benchmark=item.name, force=recipe.validation.selection == "released")
    train = resolved(recipe, len(pictures))
    order = _order(recipe, pictures)
    identity = {"recipe": recipe.model_dump(mode="json"), "faces": pictures.hash,
                "development": [item.hash for item in pairs]}
    ensure_folder(out)
    with ExitStack() as stack:
        stack.callback(pictures.close)
        task = RecognitionTask(recipe, train, pictures, order, accelerator, declaration, out)
        note = stack.enter_context(tracker(out / "events", track and accelerator.is_main_process))
        device = accelerator.device.type
        course = RecognitionCourse(
            recipe, train, len(pictures), task.standing, accelerator, keep=task.keep, note=note, say=say,
            validate=(lambda: accuracy(task.present, declaration, pairs, device)) if pairs else None)
        result = run(task, train, out, accelerator, identity=identity, say=say, course=course,
                     order=_order(recipe, pictures))
    best, broken = float(task.standing.best), dict(gather_object(list(pictures.broken.items())))
    result |= {"n_images": len(pictures), "n_identities": len(pictures.names), "n_broken": len(broken),
               "images_per_second": round(result["steps"] * train.batch / max(result["seconds"], 0.1), 1),
               "validation": best if best >= 0 else None, "onnx_difference": None}
    if accelerator.is_main_process:
        if onnx:
            result["onnx_difference"] = export_onnx(task.chosen(), declaration, out / "model" / ONNX_NAME)
        write_json(out / "training.json", {**result, "made_from": identity, "identities": list(pictures.names),
                                           "broken": list(broken.values())})
    accelerator.wait_for_everyone()
    return result


def _refuse_blind(recipe: RecognitionRecipe, development: Sequence) -> None:
    if development:
        return
    for key, needs in (("train.schedule", recipe.train.schedule == "plateau"),
                       ("validation.stop_after", recipe.validation.stop_after is not None)):
        if needs:
            raise InputError(f"{key} follows validation, and there are no development pairs", where="recipe",
                             fix="give --development pairs.bin, or take another schedule")


def _order(recipe: RecognitionRecipe, pictures: Pictures) -> KeyedOrder:
    """A fresh one for each who asks in turn: it remembers the epoch it was last asked for."""
    train, shared = recipe.train, recipe.data.per_identity
    if shared:
        return IdentityOrder(pictures.labels, train.batch, shared, train.seed)
    return KeyedOrder(len(pictures), train.batch, train.seed)


def _declaration(name: str, recipe: RecognitionRecipe, people: Sequence[str]) -> Declaration:
    model = recipe.model
    return Declaration(
        name=name, kind="torch", size=(model.image_size, model.image_size), dim=model.dim,
        architecture=model.architecture,
        options={"dim": model.dim, "image_size": model.image_size, **model.options},
        licence="of its training pictures",
        trained_on=people_text(people),
        source="negface train recognition",
    )
