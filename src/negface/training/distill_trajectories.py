"""The teacher's guided runs, kept state by state: all that distillation learns from, without any picture.

A run is deterministic, so two of its states are an exact lesson: from the one, one step must land on the other
(arXiv 2202.00512, sec. 3, with the teacher's steps made beforehand and used again in every epoch).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from negface.contexts import ContextBank, Selection, negatives
from negface.contexts.selection import LEARNED, NONE
from negface.foundation.errors import InputError, NegFaceError
from negface.foundation.files import ensure_folder
from negface.foundation.hashing import sha256_json
from negface.foundation.noise import keyed_generator, keyed_normal
from negface.foundation.progress import Progress
from negface.foundation.tensors import read_metadata, read_tensors, write_tensors
from negface.models import IDiffUNet, PreparedContext
from negface.pipelines import NegFaceDiffPipeline
from negface.sampling import guidance
from negface.sampling.loop import Predict, trajectory
from negface.sampling.schedule import NoiseSchedule
from negface.sampling.schedulers import Scheduler

from .distill_recipe import TrajectorySettings

GRID_SAMPLE = 256


@dataclass(frozen=True)
class Conditions:
    """What n runs are told: contexts and negatives float32 ``[n, d]`` (zeros where there is no vector), ``learned``
    bool ``[n]`` (the negative is the learned null), weights float32 ``[n]`` (0 where there is no negative)."""

    contexts: np.ndarray
    negatives: np.ndarray
    learned: np.ndarray
    weights: np.ndarray

    def tensors(self, rows: np.ndarray | slice, device: torch.device) -> tuple[Tensor, ...]:
        """Contexts, negatives, learned, weights of some runs."""
        values = (self.contexts, self.negatives, self.learned, self.weights)
        return tuple(torch.from_numpy(np.ascontiguousarray(value[rows])).to(device) for value in values)


@dataclass(frozen=True)
class Trajectories:
    """n runs over M timesteps.

    Attributes:
        states: float32 ``[n, M + 1, c, h, w]``: the noise, the state after each step; the last is the clean latent.
        timesteps: int, falling ``[M]``; state i is that at ``timesteps[i]``.
        conditions: what each run was told.
        schedule: the noise schedule.
        hash: of the teacher, the bank and the settings.
    """

    states: np.ndarray
    timesteps: tuple[int, ...]
    conditions: Conditions
    schedule: NoiseSchedule
    hash: str

    def __len__(self) -> int:
        return len(self.states)

    def levels(self, index: int) -> tuple[float, float]:
        """Signal and noise amplitude of state ``index``; (1, 0) of the clean latent."""
        power = 1.0 if index == len(self.timesteps) else self.schedule.alpha_bar(self.timesteps[index])
        return power**0.5, (1 - power) ** 0.5


def draw_conditions(bank: ContextBank, settings: TrajectorySettings, has_learned_null: bool) -> Conditions:
    """Persons in turn, strategies and weights by keyed chance; run i does not depend on ``count``.

    ``InputError`` for a strategy whose negative the model does not have.
    """
    selections = [negatives.select(bank, name, seed=settings.seed) for name in settings.negatives]
    if not has_learned_null and any((selection.kind == LEARNED).any() for selection in selections):
        raise InputError("the model has no learned null", where="trajectories.negatives", fix="leave null-learned out")
    low, high = settings.weights
    rows, chosen = np.arange(settings.count) % len(bank), []
    uniform = np.stack([keyed_generator("distill", settings.seed, run).random(2) for run in range(settings.count)])
    for row, chance in zip(rows, uniform[:, 0], strict=True):
        chosen.append(_condition(selections[int(chance * len(selections))], int(row)))
    vectors, kinds = (np.array(part) for part in zip(*chosen, strict=True))
    weights = np.where(kinds == NONE, 0.0, low + (high - low) * uniform[:, 1]).astype(np.float32)
    return Conditions(bank.contexts[rows], vectors.astype(np.float32), kinds == LEARNED, weights)


def _condition(selection: Selection, row: int) -> tuple[np.ndarray, int]:
    vector = selection.negatives[row] if selection.has_vector[row] else np.zeros(selection.dim, np.float32)
    return vector, int(selection.kind[row])


@torch.no_grad()
def make_trajectories(teacher: NegFaceDiffPipeline, teacher_hash: str, bank: ContextBank,
                      settings: TrajectorySettings, folder: Path) -> Trajectories:
    """Run the teacher, or read what ``folder`` has of just these runs; a killed call goes on where it was.

    Args:
        teacher: the pipeline to distil, on the device to run on.
        teacher_hash: of its weights.
        bank: whom to draw.
        folder: parts ``00000.safetensors`` … are kept here.
    """
    config = teacher.unet.config
    bank.check_conditioner(config.conditioner)
    if bank.dim != config.context_input:
        raise InputError(f"the bank has contexts of length {bank.dim}, the model takes {config.context_input}",
                         where="contexts")
    scheduler = teacher.scheduler.build(settings.scheduler)
    conditions = draw_conditions(bank, settings, teacher.unet.has_learned_null)
    shared = settings.model_dump(mode="json", exclude={"count", "held_out"})
    key = sha256_json({"teacher": teacher_hash, "bank": bank.hash, "settings": shared})
    parts, ensured = [], ensure_folder(folder)
    with Progress("teacher's runs", settings.count, unit="runs") as bar:
        for start in range(0, settings.count, settings.part):
            rows = np.arange(start, min(start + settings.part, settings.count))
            path = ensured / f"{start // settings.part:05d}.safetensors"
            if not _is_part(path, key, len(rows)):
                write_tensors(path, {"states": _run(teacher, scheduler, conditions, rows, settings)},
                              {"key": key, "runs": len(rows)})
            parts.append(read_tensors(path, ("states",))[0]["states"])
            bar.advance(len(rows))
    return Trajectories(np.concatenate(parts), scheduler.timesteps(settings.steps), conditions, scheduler.schedule, key)


def _is_part(path: Path, key: str, runs: int) -> bool:
    if not path.exists():
        return False
    found = read_metadata(path)
    return found.get("key") == key and found.get("runs") == runs


def _run(teacher: NegFaceDiffPipeline, scheduler: Scheduler, conditions: Conditions, rows: np.ndarray,
         settings: TrajectorySettings) -> np.ndarray:
    shape = (teacher.unet.config.in_channels, *(teacher.unet.config.sample_size,) * 2)
    noise = np.stack([keyed_normal(shape, "distill-prior", settings.seed, int(row)) for row in rows])
    blocks = []
    for start in range(0, len(rows), settings.batch):
        block = slice(start, start + settings.batch)
        latents = torch.from_numpy(noise[block]).to(teacher.unet.device)
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            predict = guided(teacher.unet, *conditions.tensors(rows[block], latents.device))
            states = [latents] + [state.float() for _, state in trajectory(
                predict, scheduler, guidance.none(), latents, settings.steps)]
        blocks.append(torch.stack(states, dim=1).cpu().numpy())
    states = np.concatenate(blocks)
    bad = np.flatnonzero(~np.isfinite(states).reshape(len(states), -1).all(axis=1))
    if len(bad):
        raise NegFaceError("the teacher gave NaN or infinity", where=f"run {int(rows[bad[0]])}",
                           fix="check the model; try trajectories.precision = \"fp32\", or smaller weights")
    return states


def guided(unet: IDiffUNet, contexts: Tensor, vectors: Tensor, learned: Tensor, weights: Tensor) -> Predict:
    """A ``predict`` for ``sampling.loop`` that answers with ``e_pos + w (e_pos − e_neg)``, a weight for each row."""
    other = unet.project_context(vectors, len(vectors))
    if learned.any():
        other = torch.where(learned[:, None], unet.project_context("learned", len(vectors)).to(other.dtype), other)
    both = PreparedContext.cat([unet.prepare_context(contexts), unet.prepare_embedding(other)])
    weights = weights[:, None, None, None]

    def predict(latents: Tensor, t: int, _: tuple[str, ...]) -> dict[str, Tensor]:
        positive, negative = unet(latents.repeat(2, 1, 1, 1), t, both).float().chunk(2)
        return {guidance.POSITIVE: positive + weights * (positive - negative)}

    return predict


def implied_clean(data: Trajectories, before: np.ndarray, after: np.ndarray, i: int, j: int) -> np.ndarray:
    """The clean latent that a DDIM step from state ``i`` must predict in order to land on state ``j``.

    ``x_j = α_j x̂ + (σ_j/σ_i)(x_i − α_i x̂)``, solved for x̂ (arXiv 2202.00512, app. G).
    """
    (signal, sigma), (after_signal, after_sigma) = data.levels(i), data.levels(j)
    return (after - after_sigma / sigma * before) / (after_signal - after_sigma * signal / sigma)


def choose_states(data: Trajectories, predictions: int) -> tuple[int, ...]:
    """Which states a student of so many predictions visits: where the teacher's runs bend least between them.

    For each pair of states the error of one DDIM step with the teacher's own clean prediction is measured on the
    runs; the path of ``predictions`` steps with the least total is found by dynamic programming (after Watson et al.,
    arXiv 2106.03802, who do it with the variational bound).

    Returns:
        Indices of states, the first 0, each below ``len(data.timesteps)``, rising.
    """
    total, states = len(data.timesteps), data.states[:GRID_SAMPLE]
    cost = np.full((total + 1, total + 1), np.inf)
    for i in range(total):
        clean = implied_clean(data, states[:, i], states[:, i + 1], i, i + 1)
        signal, sigma = data.levels(i)
        direction = (states[:, i] - signal * clean) / sigma
        for j in range(i + 1, total + 1):
            after_signal, after_sigma = data.levels(j)
            cost[i, j] = np.square(after_signal * clean + after_sigma * direction - states[:, j]).mean()
    best, came = np.full((predictions + 1, total + 1), np.inf), np.zeros((predictions + 1, total + 1), int)
    best[0, 0] = 0.0
    for step in range(1, predictions + 1):
        through = best[step - 1][:, None] + cost
        best[step], came[step] = through.min(axis=0), through.argmin(axis=0)
    path, state = [], total
    for step in range(predictions, 0, -1):
        state = int(came[step, state])
        path.append(state)
    return tuple(reversed(path))
