"""The training loop all trainers share: keyed data order, warm-up and cosine, log, checkpoints, NaN guard, progress.

Everything random in a step is keyed by (seed, step), so a resumed run repeats the losses of an uninterrupted one and
the data order does not depend on the number of processes.
"""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from negface.foundation.errors import FormatError, MismatchError, TrainingError
from negface.foundation.files import (
    TEMPORARY_MARK,
    atomic_folder,
    atomic_path,
    ensure_folder,
    read_json,
    remove_temporaries,
    write_json,
)
from negface.foundation.hashing import sha256_json
from negface.foundation.noise import keyed_generator
from negface.foundation.progress import Progress, format_seconds

from .recipe import Optimisation


class Task(Protocol):
    """What a trainer brings to the loop."""

    name: str
    n_items: int

    def modules(self) -> dict[str, nn.Module]:
        """Modules whose state is checkpointed, the averages among them."""

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Optimisers, by name."""

    def step(self, step: int, rows: np.ndarray, rate: float) -> dict[str, float]:
        """One optimiser step on this process's rows of the global batch; returns losses to log."""

    def sample_sheet(self, path: Path, step: int) -> None:
        """Write a picture that shows how far the training is."""

    def save(self, folder: Path) -> None:
        """Write the trained (averaged) model."""


def learning_rate(recipe: Optimisation, step: int) -> float:
    """Linear warm-up over ``warmup`` steps, then cosine to ``final_share`` of the peak; ``step`` from 0."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (
        recipe.final_share + (1 - recipe.final_share) * 0.5 * (1 + math.cos(math.pi * min(1, progress)))
    )


class Course(Protocol):
    """Learning rate of each step, and what happens between steps."""

    @property
    def finished(self) -> bool:
        """Whether to stop before the last step."""

    def rate(self, step: int) -> float:
        """Learning rate of step ``step`` (from 0)."""

    def after(self, done: int, losses: dict[str, float]) -> None:
        """Called in every process after step number ``done`` (from 1), before the checkpoint of that step."""


class WarmCosine:
    """The course of the generators' trainings: ``learning_rate``, to the last step."""

    finished = False

    def __init__(self, recipe: Optimisation):
        self.recipe = recipe

    def rate(self, step: int) -> float:
        return learning_rate(self.recipe, step)

    def after(self, done: int, losses: dict[str, float]) -> None:
        pass


class KeyedOrder:
    """The row numbers of every global batch: a fresh permutation per epoch, keyed by (seed, epoch)."""

    def __init__(self, n_items: int, batch: int, seed: int):
        self.n_items, self.batch, self.seed = n_items, batch, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def rows(self, step: int) -> np.ndarray:
        """Rows int64 ``[batch]`` of step ``step``; batches run on across epochs, no item is dropped."""
        wanted = np.arange(step * self.batch, (step + 1) * self.batch)
        return np.array(
            [self._permutation(int(epoch))[place] for epoch, place in zip(*np.divmod(wanted, self.n_items))]
        )

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._order = keyed_generator("order", self.seed, epoch).permutation(self.n_items)
            self._epoch = epoch
        return self._order


def run(
    task: Task,
    recipe: Optimisation,
    out: str | os.PathLike,
    accelerator: Accelerator,
    *,
    identity: dict[str, Any],
    say: Callable[[str], None] = print,
    course: Course | None = None,
    order: KeyedOrder | None = None,
) -> dict[str, Any]:
    """Train ``task`` for ``recipe.steps`` optimiser steps, resuming from ``out`` if it holds a checkpoint.

    Args:
        task: the trainer.
        recipe: shared optimisation settings.
        out: folder for ``log.csv``, ``checkpoint/``, ``samples/`` and the final ``model/``.
        accelerator: process group, device, precision.
        identity: recipe and data description; a checkpoint of another identity is refused.
        say: where status lines go.
        course: learning rates and when to stop; warm-up and cosine if ``None``.
        order: which rows each step takes; a permutation an epoch if ``None``.

    Returns:
        ``{"steps", "seconds", "resumed_at", "loss", "model"}``.

    Raises:
        MismatchError: ``out`` holds a checkpoint of another recipe or other data.
        TrainingError: a loss that is not finite; the batch is saved beside the log.
    """
    out, main = ensure_folder(out), accelerator.is_main_process
    key = sha256_json(identity)
    if main:
        _rescue_checkpoint(out)
        remove_temporaries(out)
    accelerator.wait_for_everyone()
    start, seconds_before = _resume(task, out, key)
    if start and main:
        say(f"{task.name}: resuming at step {start} of {recipe.steps}")
    order = order or KeyedOrder(task.n_items, recipe.batch, recipe.seed)
    course = course or WarmCosine(recipe)
    log = _Log(out / "log.csv", start) if main else None
    began, last, done = time.monotonic(), log.last if log else {}, start
    with Progress(task.name, recipe.steps, unit="steps", done=start) as bar:
        if not main:
            bar.visible = False
        for step in range(start, recipe.steps):
            if course.finished:
                break
            rows = order.rows(step)
            mine = rows[accelerator.process_index :: accelerator.num_processes]
            rate = course.rate(step)
            losses = task.step(step, mine, rate)
            _guard(losses, step, mine, out, task.name)
            done = step + 1
            course.after(done, losses)
            if done % recipe.log_every == 0 or done == recipe.steps:
                last = losses = _over_processes(losses, accelerator)
                if log:
                    elapsed = round(seconds_before + time.monotonic() - began, 2)
                    log.row(
                        {"step": done, "seconds": elapsed, "learning_rate": rate, **losses}
                    )
            if done % recipe.checkpoint_every == 0 and done < recipe.steps:
                if main:
                    _checkpoint(task, out, key, done, seconds_before + time.monotonic() - began)
                    if not bar.visible:
                        say(
                            f"{task.name}: step {done}/{recipe.steps}, loss {losses['loss']:.4f}, {bar.rate:.2f}/s, "
                            f"{format_seconds(bar.seconds_left or 0)} left"
                        )
                accelerator.wait_for_everyone()
            if main and done % recipe.sample_every == 0:
                task.sample_sheet(out / "samples" / f"{done:07d}.png", done)
            bar.advance(note=f"loss {losses['loss']:.4f}")
    seconds = seconds_before + time.monotonic() - began
    if main:
        _checkpoint(task, out, key, done, seconds)
        task.save(out / "model")
        task.sample_sheet(out / "samples" / "final.png", done)
    accelerator.wait_for_everyone()
    return {
        "steps": done,
        "seconds": round(seconds, 1),
        "resumed_at": start,
        "loss": last.get("loss"),
        "model": str(out / "model"),
    }


def _over_processes(losses: dict[str, float], accelerator: Accelerator) -> dict[str, float]:
    """Losses of the global batch: the mean over equal shares."""
    if accelerator.num_processes == 1:
        return losses
    mine = torch.tensor(list(losses.values()), dtype=torch.float32, device=accelerator.device)
    return dict(zip(losses, accelerator.reduce(mine, "mean").tolist()))


def _guard(losses: dict[str, float], step: int, rows: np.ndarray, out: Path, name: str) -> None:
    bad = [key for key, value in losses.items() if not math.isfinite(value)]
    if bad:
        with atomic_path(out / "bad-batch.npz") as path, open(path, "wb") as handle:
            np.savez(handle, rows=rows, step=step)
        raise TrainingError(
            f"{name}: {', '.join(bad)} is not finite at step {step + 1}",
            where=out / "bad-batch.npz",
            fix="the rows of the batch are saved there; look at them, lower the learning rate, resume",
        )


def _checkpoint(task: Task, out: Path, key: str, step: int, seconds: float) -> None:
    from safetensors.torch import save_file

    with atomic_folder(out / "checkpoint") as folder:
        for name, module in task.modules().items():
            save_file({k: v.contiguous() for k, v in module.state_dict().items()}, folder / f"{name}.safetensors")
        for name, optimizer in task.optimizers().items():
            save_file(_optimizer_tensors(optimizer), folder / f"{name}.optimizer.safetensors")
        write_json(folder / "state.json", {"step": step, "seconds": seconds, "identity": key, "task": task.name})


def _rescue_checkpoint(out: Path) -> None:
    """A kill between the two renames that replace a checkpoint leaves the earlier one under a temporary name."""
    for earlier in out.glob(f"{TEMPORARY_MARK}*-old-checkpoint"):
        if not (out / "checkpoint").exists():
            earlier.rename(out / "checkpoint")


def _resume(task: Task, out: Path, key: str) -> tuple[int, float]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = out / "checkpoint"
    if not folder.exists():
        return 0, 0.0
    if not (folder / "state.json").exists():
        raise FormatError("checkpoint has no state.json", where=folder, fix="remove the folder to start anew")
    state = read_json(folder / "state.json")
    if not isinstance(state, dict) or not {"identity", "step", "seconds"} <= set(state):
        raise FormatError("is no state of a training", where=folder / "state.json",
                          fix="remove the checkpoint folder to start anew")
    if state["identity"] != key:
        raise MismatchError(
            "holds a checkpoint of another recipe or other data",
            where=out,
            fix="choose another folder, or give the recipe and data it was started with",
        )
    try:
        for name, module in task.modules().items():
            module.load_state_dict(load_file(folder / f"{name}.safetensors"))
        for name, optimizer in task.optimizers().items():
            _load_optimizer(optimizer, load_file(folder / f"{name}.optimizer.safetensors"))
        return int(state["step"]), float(state["seconds"])
    except (SafetensorError, RuntimeError, OSError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise FormatError(
            f"checkpoint cannot be read ({error})", where=folder, fix="remove the checkpoint folder to start anew"
        ) from error


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value).contiguous().clone()
        for index, values in state.items()
        for name, value in values.items()
    } or {"empty": torch.zeros(1)}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key != "empty":
            index, _, name = key.partition(".")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    # Fused updates walk raw memory: moments must lie in memory as their parameter does (channels last).
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


class _Log:
    """``log.csv``; rows after the resumed step are dropped first."""

    def __init__(self, path: Path, start: int):
        self.path, self.fields, self.last = path, None, {}
        if path.exists():
            with open(path, newline="") as handle:
                rows = [row for row in csv.DictReader(handle) if int(row["step"]) <= start]
            path.unlink()
            for row in rows:
                self.row(row)
                self.last = {"loss": float(row["loss"])}

    def row(self, values: dict[str, Any]) -> None:
        first = self.fields is None
        self.fields = self.fields or list(values)
        with open(self.path, "a", newline="") as handle:
            writer = csv.DictWriter(handle, self.fields)
            if first:
                writer.writeheader()
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in values.items()})
