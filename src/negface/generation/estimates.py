"""What a plan will cost, before it is begun: predictions, FLOP, disk and time, from a calibration of ten seconds."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from negface.contexts.selection import NONE
from negface.datasets.codecs import codec_from_dict
from negface.foundation.threads import torch_threads
from negface.sampling import guidance as guidance_rules
from negface.sampling import schedulers
from negface.sampling.distilled import Distilled

from .batches import BatchSampler
from .finishing import Finisher
from .inputs import Inputs
from .plan import Plan
from .rows import row_details, shared_row
from .workers import Tools

CALIBRATION_SECONDS = 10.0
_TAR_BLOCK = 512


def predictions(plan: Plan, inputs: Inputs) -> int:
    """Rows the denoiser will be evaluated on for the pictures asked for (padding and replacements apart)."""
    rule = guidance_rules.from_dict(plan.guidance)
    plain = rule.without(guidance_rules.NEGATIVE)
    timesteps = schedulers.from_dict(plan.scheduler).timesteps(plan.steps)
    if plan.scheduler["name"] == Distilled.name:
        return plan.total_images * len(timesteps)
    steered, alone = (sum(map(len, each.predicted(timesteps))) for each in (rule, plain))
    count = len(plan.identities)
    without = 0 if inputs.selection is None else int((inputs.selection.kind[:count] == NONE).sum())
    return plan.images * ((count - without) * steered + without * alone)


def flop_counts(pipeline: Any) -> dict[str, int]:
    """FLOP (2 for a multiply-add) of one prediction, of preparing one context and of decoding one picture."""
    unet, config = pipeline.unet, pipeline.unet.config
    shape = (1, config.in_channels, config.sample_size, config.sample_size)
    latents, context = torch.zeros(shape), torch.zeros(1, config.context_input)
    latents, context = latents.to(unet.device), context.to(unet.device)

    def count(call: Any) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call()
        return counter.get_total_flops()

    with torch.no_grad():
        prepared = unet.prepare_context(context)
    return {"prediction": count(lambda: unet(latents, 0, prepared)),
            "context": count(lambda: unet.prepare_context(context)), "decode": count(lambda: pipeline.decode(latents))}


def estimate(plan: Plan, inputs: Inputs, tools: Tools, *, workers: int = 1,
             seconds: float = CALIBRATION_SECONDS) -> dict[str, Any]:
    """Predict the cost of a plan by running a batch of it for about ``seconds``.

    Returns:
        ``images, predictions, tflop, disk_bytes, batches, seconds, images_per_second, calibration_seconds``; the time
        supposes that workers (at most one for each ``threads`` cores) do not slow each other down.
    """
    with torch_threads(plan.threads):
        pipeline = tools.open_pipeline(plan)
        flop = flop_counts(pipeline)
        started = time.perf_counter()
        fixed, per_prediction, data_bytes = _calibrate(plan, inputs, pipeline, seconds)
        spent = time.perf_counter() - started
    total, wanted = plan.total_images, predictions(plan, inputs)
    batches = sum(-(-unit.count * plan.images // plan.batch) for unit in plan.units())
    padded = wanted / total * batches * plan.batch
    useful = max(1, min(workers, len(plan.units()), (os.cpu_count() or 1) // plan.threads or 1))
    duration = (batches * fixed + padded * per_prediction) / useful
    row = len(str({**shared_row(plan), **row_details(plan, inputs, [(0, 0)])[0, 0]})) + 200
    overhead = (4 * _TAR_BLOCK if plan.format == "shards" else 0) + row
    return {"images": total, "predictions": wanted, "batches": batches,
            "tflop": (wanted * flop["prediction"] + total * (2 * flop["context"] + flop["decode"])) / 1e12,
            "gflop_per_prediction": flop["prediction"] / 1e9, "gflop_per_decode": flop["decode"] / 1e9,
            "disk_bytes": int(total * (data_bytes + overhead)), "seconds": duration,
            "images_per_second": total / max(duration, 1e-9), "workers": useful, "calibration_seconds": spent,
            "mean_weight": plan.mean_weight}


def _first_steps(scheduler: dict[str, Any], steps: int) -> dict[str, Any]:
    """A scheduler that can be run for ``steps`` steps: of a distilled model's, its first."""
    return {**scheduler, "visits": scheduler["visits"][:steps]} if scheduler["name"] == Distilled.name else scheduler


def _calibrate(plan: Plan, inputs: Inputs, pipeline: Any, seconds: float) -> tuple[float, float, float]:
    """Seconds of a batch apart from its predictions, seconds of a prediction, bytes of a picture.

    A batch of one step, then one of as many steps as the time allows; on a slow machine both with fewer rows, and the
    answer is scaled.
    """
    def timed(steps: int, rows: int) -> tuple[float, int, Any]:
        part = replace(plan, steps=steps, batch=rows, scheduler=_first_steps(plan.scheduler, steps))
        items = [(row % len(plan.identities), row // len(plan.identities) % plan.images) for row in range(rows)]
        before = time.perf_counter()
        pictures = BatchSampler(part, inputs, pipeline)(items)
        return time.perf_counter() - before, predictions(part, inputs) * rows // part.total_images, pictures

    few_rows = min(2, plan.batch)
    timed(1, few_rows)
    expected = timed(1, few_rows)[0] / few_rows * plan.batch
    rows = max(few_rows, min(plan.batch, int(plan.batch * seconds / (4 * expected))))
    short, few, pictures = timed(1, rows)
    most = min(plan.steps, max(1, int(seconds / 2 / short)))
    long, many, pictures = timed(most, rows) if most > 1 else (short, few, pictures)
    per_prediction = max(long - short, 0.0) / (many - few) if many > few else short / few
    encode = Finisher(codec_from_dict(plan.codec), plan.size).start()
    sizes = [len(data) for data in encode(pictures, [""] * len(pictures)) if isinstance(data, bytes)]
    return max(short - few * per_prediction, 0.0) / rows * plan.batch, per_prediction, sum(sizes) / len(sizes)
