"""``train_distill``: a teacher pipeline and a bank in, a pipeline of few predictions and a fast decoder out.

The order: the teacher's runs, made once; the student denoiser; the fast decoder; the pipeline of what was trained.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from negface.contexts import ContextBank
from negface.foundation.errors import InputError
from negface.foundation.files import ensure_folder, existing_folder, write_json
from negface.foundation.hashing import sha256_json
from negface.models import FastDecoder
from negface.pipelines import NegFaceDiffPipeline
from negface.pipelines.fast_decoder import weights_hash

from .distill_decoder import DecoderTask
from .distill_recipe import DistillRecipe
from .distill_student import StudentTask, make_student, origin
from .distill_trajectories import Trajectories, make_trajectories
from .loop import run
from .trainers import make_accelerator

Say = Callable[[str], None]


def train_distill(recipe: DistillRecipe, model: str | os.PathLike, contexts: str | os.PathLike | ContextBank,
                  out: str | os.PathLike, *, say: Say = print) -> dict[str, Any]:
    """Distil a pipeline, resuming what ``out`` holds.

    Args:
        recipe: validated recipe.
        model: folder of the teacher, a saved pipeline with an autoencoder.
        contexts: bank of the people to draw while learning; negatives are chosen among them.
        out: folder for ``trajectories/``, ``student/`` and ``decoder/`` (log, checkpoint, samples), and ``model/``, a
            complete pipeline: the student (or the teacher, if only a decoder is trained) with the fast decoder.
        say: where status lines go.

    Returns:
        ``{"model", "runs", "student": {...}, "decoder": {...}}``; each part has ``steps``, ``seconds``, ``resumed_at``,
        ``loss`` and its measures on the runs held out.

    Raises:
        InputError: a teacher without autoencoder, one that predicts noise, or one that is distilled already.
        MismatchError: a bank of another conditioner, or ``out`` is of another recipe. TrainingError: loss not finite.
    """
    folder, out = existing_folder(Path(model), "model folder"), Path(out)
    bank = contexts if isinstance(contexts, ContextBank) else ContextBank.load(contexts)
    parts = [part for part in (recipe.student, recipe.decoder) if part is not None]
    accelerator = make_accelerator(parts[0].train)
    teacher = _teacher(folder, recipe).to(accelerator.device)
    ensure_folder(out)
    hashes = {name: weights_hash(folder / name) for name in ("unet", "vae")}
    with accelerator.main_process_first():
        data = make_trajectories(teacher, sha256_json(hashes), bank, recipe.trajectories, out / "trajectories")
    result: dict[str, Any] = {"model": str(out / "model"), "runs": len(data)}
    made_from = {"recipe": recipe.model_dump(mode="json"), "teacher": hashes, "contexts": bank.hash}
    pipeline = teacher
    if recipe.student is not None:
        task = StudentTask(recipe.student, data, teacher, origin(recipe, hashes["unet"], bank.hash),
                           recipe.trajectories.held_out, accelerator)
        result["student"] = _train(task, recipe, "student", data, out, accelerator, say)
        result["student"]["timesteps"] = list(task.visits(-1))
        pipeline = task.pipeline()
    decoder = None
    if recipe.decoder is not None:
        decoder = _decoder(recipe, data, teacher, hashes["vae"], out, result, say)
    if accelerator.is_main_process:
        NegFaceDiffPipeline(pipeline.unet, teacher.vae, pipeline.scheduler, decoder).save_pretrained(out / "model")
        write_json(out / "training.json", {**result, "made_from": made_from})
    accelerator.wait_for_everyone()
    return result


def _teacher(folder: Path, recipe: DistillRecipe) -> NegFaceDiffPipeline:
    """The teacher, checked before its runs are made."""
    teacher = NegFaceDiffPipeline.from_pretrained(folder)
    if teacher.vae is None:
        raise InputError("has no autoencoder", where=folder, fix="give a pipeline with a vae folder")
    if recipe.student is not None:
        make_student(teacher.unet, {})
    for network in (teacher.unet, teacher.vae):
        network.requires_grad_(False)
    return teacher


def _train(task: StudentTask | DecoderTask, recipe: DistillRecipe, part: str, data: Trajectories, out: Path,
           accelerator: Accelerator, say: Say) -> dict[str, Any]:
    """Train one part in a folder of its own, and measure it on the runs held out."""
    settings = getattr(recipe, part)
    identity = {"recipe": settings.model_dump(mode="json"), "runs": data.hash, "count": len(data),
                "held_out": recipe.trajectories.held_out}
    result = run(task, settings.train, out / part, accelerator, identity=identity, say=say)
    return {key: value for key, value in result.items() if key != "model"} | task.measure()


def _decoder(recipe: DistillRecipe, data: Trajectories, teacher: NegFaceDiffPipeline, vae_hash: str, out: Path,
             result: dict[str, Any], say: Say) -> FastDecoder:
    accelerator = make_accelerator(recipe.decoder.train)
    task = DecoderTask(recipe.decoder, data.states[:, -1], teacher.vae, vae_hash, recipe.trajectories.held_out,
                       accelerator)
    result["decoder"] = _train(task, recipe, "decoder", data, out, accelerator, say)
    return task.average.module
