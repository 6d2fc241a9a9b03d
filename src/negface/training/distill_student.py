"""The student denoiser: one prediction in place of the teacher's guided two, few steps in place of many.

Guidance as an input of the network (arXiv 2210.03142, sec. 3); where a step must land (arXiv 2202.00512, sec. 3),
learned from whole runs of the teacher (``distill_trajectories``), in stages of fewer and fewer predictions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from negface.foundation.errors import InputError
from negface.foundation.noise import keyed_generator
from negface.models import IDiffUNet
from negface.pipelines import NegFaceDiffPipeline, SchedulerChoice
from negface.sampling import guidance
from negface.sampling.distilled import Distilled
from negface.sampling.loop import sample

from .distill_recipe import DistillRecipe, StudentSettings
from .distill_trajectories import Trajectories, choose_states, guided, implied_clean
from .ema import WeightAverage
from .pictures import sheet

SHEET_PEOPLE = 8
MEASURE_BATCH = 64


def make_student(teacher: IDiffUNet, distilled: dict[str, Any]) -> IDiffUNet:
    """A denoiser with the teacher's weights that also takes the negative and its weight, both without effect at first.

    ``InputError`` for a teacher that is distilled already, and for one that predicts noise: at the first step its clean
    latent is an error divided by 0.006, so few steps cannot be learned from it (arXiv 2202.00512, sec. 4).
    """
    if teacher.config.guidance_input:
        raise InputError("the model is a distilled one already", where="teacher", fix="give the one it was made from")
    if teacher.config.prediction_type != "v_prediction":
        raise InputError("the model predicts noise; few steps can only be learned by one that predicts velocities",
                         where="teacher", fix="train it with prediction_type = \"v_prediction\"")
    options = {key: value for key, value in teacher.config.items() if not key.startswith("_")}
    student = IDiffUNet(**{**options, "guidance_input": True, "distilled": distilled,
                           "context_dropout_probability": 0.0})
    student.load_state_dict({**student.state_dict(), **teacher.state_dict()})
    return student


class VelocityLoss(nn.Module):
    """Squared error of the velocity; a module of its own for distributed wrappers."""

    def __init__(self, unet: IDiffUNet):
        super().__init__()
        self.unet = unet

    def forward(self, latents: Tensor, target: Tensor, timesteps: Tensor, *condition: Tensor) -> Tensor:
        """States and velocities ``[n, c, h, w]``, timesteps ``[n]``, and contexts, negatives, learned, weights."""
        context = self.unet.prepare_embedding(self.unet.guided_embedding(*condition))
        return (self.unet.raw(latents, timesteps, context).float() - target).square().mean()


class StudentTask:
    """The student's part of the training loop.

    Args:
        settings: the recipe's ``student`` section.
        data: the teacher's runs; the last ``held_out`` of them are not trained on.
        teacher: the teacher's pipeline.
        distilled: what the model's configuration says of its origin.
        held_out: how many runs measure the result.
        accelerator: process group, device, precision.
    """

    name = "student"

    def __init__(self, settings: StudentSettings, data: Trajectories, teacher: NegFaceDiffPipeline,
                 distilled: dict[str, Any], held_out: int, accelerator: Accelerator):
        self.settings, self.data, self.teacher, self.accelerator = settings, data, teacher, accelerator
        self.held_out, self.n_items = held_out, len(data) - held_out
        self.paths = [choose_states(data, stage.predictions) for stage in settings.stages]
        torch.manual_seed(settings.train.seed)
        unet = make_student(teacher.unet, {**distilled, "timesteps": list(self.visits(-1))})
        self.objective = VelocityLoss(unet.train()).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(self.objective.parameters(), lr=settings.train.learning_rate,
                                      betas=settings.train.betas, weight_decay=settings.train.weight_decay, fused=True)
        self.prepared, self.optimizer = accelerator.prepare(self.objective, optimizer)
        self.average = WeightAverage(self.objective.unet, settings.train.ema)

    def visits(self, stage: int) -> tuple[int, ...]:
        """The timesteps of a stage."""
        return tuple(self.data.timesteps[state] for state in self.paths[stage])

    def modules(self) -> dict[str, nn.Module]:
        return {"weights": self.objective.unet, "average": self.average.module}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"weights": self.optimizer}

    def stage_at(self, step: int) -> int:
        """The stage of a step: shares of the training's length, in order."""
        shares = np.cumsum([stage.share for stage in self.settings.stages])
        reached = np.searchsorted(shares / shares[-1], (step + 0.5) / self.settings.train.steps)
        return min(int(reached), len(shares) - 1)

    def step(self, step: int, rows: np.ndarray, rate: float) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self.accelerator.autocast():
            loss = self.prepared(*self._batch(step, rows))
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.objective.parameters(), self.settings.train.clip)
        self.optimizer.step()
        self.average.update(self.objective.unet, step + 1)
        predictions = self.settings.stages[self.stage_at(step)].predictions
        return {"loss": float(loss.detach()), "predictions": predictions, "gradient_norm": float(norm)}

    def _batch(self, step: int, rows: np.ndarray) -> tuple[Tensor, ...]:
        """A state of each run, and the velocity that lands on the next one of the stage's path.

        Segments are drawn evenly, keyed by (seed, step, place in the global batch).
        """
        path, data, device = self.paths[self.stage_at(step)], self.data, self.accelerator.device
        train, rank, world = self.settings.train, self.accelerator.process_index, self.accelerator.num_processes
        drawn = keyed_generator("distill-segments", train.seed, step).permutation(train.batch)[rank::world] % len(path)
        ends = (*path, len(data.timesteps))
        latents = np.empty((len(rows), *data.states.shape[2:]), np.float32)
        target = np.empty_like(latents)
        for segment in np.unique(drawn):
            i, j = ends[segment], ends[segment + 1]
            mine = drawn == segment
            latents[mine] = before = data.states[rows[mine], i]
            signal, sigma = data.levels(i)
            target[mine] = (signal * before - implied_clean(data, before, data.states[rows[mine], j], i, j)) / sigma
        timesteps = np.array([data.timesteps[path[segment]] for segment in drawn])
        values = (torch.from_numpy(value).to(device) for value in (latents, target, timesteps))
        return *values, *data.conditions.tensors(rows, device)

    @torch.no_grad()
    def draw(self, rows: np.ndarray) -> Tensor:
        """Clean latents float32 ``[n, c, h, w]`` of runs of the averaged student, from the noise of the teacher's."""
        return _draw(self.average.module, self.visits(-1), self.data, rows, self.accelerator)

    def measure(self) -> dict[str, float]:
        """Squared distance to the teacher's clean latents over their variance, on the runs held out: of the student,
        and of the teacher's own scheduler at as many steps (twice as many predictions)."""
        rows = np.arange(self.n_items, len(self.data))
        target = self.data.states[rows, -1]
        student = _blocks(self.draw, rows)
        plain = _blocks(lambda some: _teacher_at(self, some, len(self.paths[-1])), rows)
        return {"student": _distance(student, target), "teacher_same_steps": _distance(plain, target)}

    @torch.no_grad()
    def sample_sheet(self, path: Path, step: int) -> None:
        """People in rows, of the runs held out: the teacher's picture, the student's of the same noise."""
        rows = np.arange(self.n_items, len(self.data))[:SHEET_PEOPLE]
        device = self.accelerator.device
        with self.accelerator.autocast():
            columns = [self.teacher.decode(latents.to(device), "full").float()
                       for latents in (torch.from_numpy(self.data.states[rows, -1]), self.draw(rows))]
        sheet([torch.stack([column[row] for column in columns]) for row in range(len(rows))], path)

    def save(self, folder: Path) -> None:
        """A complete pipeline folder."""
        self.pipeline().save_pretrained(folder)

    def pipeline(self) -> NegFaceDiffPipeline:
        """The averaged student with the teacher's autoencoder, its timesteps as default scheduler."""
        own = self.teacher.scheduler.config
        choice = SchedulerChoice(Distilled.name, {"visits": list(self.visits(-1))}, own.num_train_timesteps,
                                 own.beta_start, own.beta_end)
        return NegFaceDiffPipeline(self.average.module, self.teacher.vae, choice)


def origin(recipe: DistillRecipe, teacher_hash: str, bank_hash: str) -> dict[str, Any]:
    """What a distilled model's configuration says: teacher and pool by hash, strategies and weights it was taught."""
    settings = recipe.trajectories
    return {"teacher": teacher_hash, "pool": bank_hash, "negatives": list(settings.negatives),
            "weights": list(settings.weights), "teacher_scheduler": settings.scheduler,
            "teacher_steps": settings.steps}


def _draw(unet: IDiffUNet, visits: tuple[int, ...], data: Trajectories, rows: np.ndarray,
          accelerator: Accelerator) -> Tensor:
    device = accelerator.device
    with accelerator.autocast():
        context = unet.prepare_embedding(unet.guided_embedding(*data.conditions.tensors(rows, device)))
        return sample(lambda latents, t, _: {guidance.POSITIVE: unet(latents, t, context).float()},
                      Distilled(visits, data.schedule), guidance.none(),
                      torch.from_numpy(data.states[rows, 0]).to(device), len(visits))


@torch.no_grad()
def _teacher_at(task: StudentTask, rows: np.ndarray, steps: int) -> Tensor:
    device, data = task.accelerator.device, task.data
    scheduler = task.teacher.scheduler.build(task.objective.unet.config.distilled["teacher_scheduler"])
    with task.accelerator.autocast():
        predict = guided(task.teacher.unet, *data.conditions.tensors(rows, device))
        return sample(predict, scheduler, guidance.none(), torch.from_numpy(data.states[rows, 0]).to(device), steps)


def _blocks(draw: Any, rows: np.ndarray) -> np.ndarray:
    return np.concatenate([draw(rows[start : start + MEASURE_BATCH]).float().cpu().numpy()
                           for start in range(0, len(rows), MEASURE_BATCH)])


def _distance(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.square(found - wanted).mean() / wanted.var())
