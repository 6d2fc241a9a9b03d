"""The course of a recognition training: the learning rate by step, epoch or plateau; validation, best weights, stop.

Published: SGD, a rate of 0.1 for 512 pictures in proportion to the total batch (Goyal et al., arXiv 1706.02677,
sec. 2.1), divided by ten at given steps or epochs (ArcFace, arXiv 1801.07698, sec. 3.1) or where validation stands
still.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from negface.foundation.errors import TrainingError

from .loop import learning_rate
from .recipe import RecognitionOptimisation, RecognitionRecipe


def resolved(recipe: RecognitionRecipe, n_items: int) -> RecognitionOptimisation:
    """The optimisation with its number of steps, and the learning rate of its batch."""
    train = recipe.train
    scale = train.batch / (train.reference_batch or train.batch)
    # Batches run on across epochs, so an epoch need not be a whole number of steps.
    steps = train.steps or math.ceil(train.epochs * n_items / train.batch)
    return train.model_copy(update={"steps": steps, "learning_rate": train.learning_rate * scale})


class Standing(nn.Module):
    """How validation stands; a module, so that it is checkpointed with the weights."""

    best: Tensor
    waited: Tensor
    waited_for_drop: Tensor
    drops: Tensor
    stopped: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("best", torch.tensor(-1.0, dtype=torch.float64))
        for name in ("waited", "waited_for_drop", "drops", "stopped"):
            self.register_buffer(name, torch.tensor(0))


class RecognitionCourse:
    """Learning rates, and validation between steps.

    Args:
        recipe: the recipe.
        train: its ``resolved`` optimisation.
        n_items: pictures in an epoch.
        standing: checkpointed state of validation.
        accelerator: process group; the main process validates.
        validate: accuracy of the present weights; ``None``: no validation.
        keep: keep the present weights as the best so far.
        note: where the course of losses and accuracies goes besides the log.
        say: where status lines go.
    """

    def __init__(
        self,
        recipe: RecognitionRecipe,
        train: RecognitionOptimisation,
        n_items: int,
        standing: Standing,
        accelerator: Accelerator,
        *,
        validate: Callable[[], float] | None = None,
        keep: Callable[[], None] = lambda: None,
        note: Callable[[int, dict[str, float]], None] = lambda step, values: None,
        say: Callable[[str], None] = print,
    ):
        self.recipe, self.train, self.standing, self.accelerator = recipe, train, standing, accelerator
        self.validate, self.keep, self.note, self.say = validate, keep, note, say
        self.steps_per_epoch = n_items / train.batch
        self.every = max(1, round(recipe.validation.every * self.steps_per_epoch))

    @property
    def finished(self) -> bool:
        return bool(self.standing.stopped)

    def rate(self, step: int) -> float:
        if self.train.schedule == "cosine":
            return learning_rate(self.train, step)
        if step < self.train.warmup:
            return self.train.learning_rate * (step + 1) / self.train.warmup
        epoch = step / self.steps_per_epoch
        drops = sum(epoch >= drop for drop in self.train.drops) + sum(step >= at for at in self.train.drop_steps)
        if self.train.schedule == "plateau":
            drops = int(self.standing.drops)
        return self.train.learning_rate * self.train.drop_factor**drops

    def after(self, done: int, losses: dict[str, float]) -> None:
        if done % self.train.log_every == 0:
            self.note(done, {**losses, "learning_rate": self.rate(done - 1)})
        if self.validate is None or (done % self.every and done != self.train.steps):
            return
        score = torch.zeros((), dtype=torch.float64, device=self.accelerator.device)
        if self.accelerator.is_main_process:
            score += self.validate()
        found = float(broadcast(score))
        if not math.isfinite(found):
            raise TrainingError("the accuracy of validation is not finite", where=f"step {done}")
        self._take(found, done)

    def _take(self, accuracy: float, done: int) -> None:
        standing, gained = self.standing, accuracy > float(self.standing.best)
        if gained:
            standing.best.fill_(accuracy)
            if self.accelerator.is_main_process:
                self.keep()
        for counter in (standing.waited, standing.waited_for_drop):
            counter.fill_(0 if gained else int(counter) + 1)
        # As torch's plateau rule: patience validations without gain are borne, the next one drops.
        if self.train.schedule == "plateau" and int(standing.waited_for_drop) > self.train.patience:
            standing.drops += 1
            standing.waited_for_drop.zero_()
        limit = self.recipe.validation.stop_after
        standing.stopped.fill_(int(limit is not None and int(standing.waited) >= limit))
        if self.accelerator.is_main_process:
            self.note(done, {"validation": accuracy})
            more = ", stop" if self.finished else ""
            self.say(f"recognition: step {done}, accuracy {accuracy:.4f}, best {float(standing.best):.4f}{more}")
