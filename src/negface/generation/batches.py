"""Batches: ``(label, image index)`` pairs to pictures through the pipeline, in one fixed shape.

The noise of a picture is keyed by (dataset seed, identity id, image index, purpose), so a picture does not depend on
its batch beyond rounding; identities mix freely in a batch, and the last one is padded with copies.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from negface.foundation.errors import InputError, MismatchError
from negface.sampling import guidance as guidance_rules

from .inputs import Inputs
from .plan import Plan, model_hash

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_pipeline(folder: str | os.PathLike, plan: Plan, decoder: str | os.PathLike | None = None) -> Any:
    """The pipeline of a model folder, on the plan's device, with the plan's decoder.

    ``MismatchError`` where ``decoder`` is not the fast decoder that the plan names.
    """
    from negface.pipelines import NegFaceDiffPipeline

    chosen = {} if plan.decoder is None else {"fast_decoder": _fast_decoder(plan, decoder)}
    return NegFaceDiffPipeline.from_pretrained(os.fspath(folder), **chosen).to(plan.device)


def _fast_decoder(plan: Plan, decoder: str | os.PathLike | None) -> Path | None:
    """The folder of the plan's fast decoder; ``None`` where it wants the full one."""
    from negface.pipelines.distilled import FULL
    from negface.pipelines.fast_decoder import decoder_folder

    if plan.decoder["name"] == FULL:
        return None
    if decoder is None:
        raise InputError("the plan has a fast decoder of its own, and none was given", where="decoder",
                         fix="give --decoder FOLDER")
    folder = decoder_folder(decoder)
    if model_hash(folder) != plan.decoder["hash"]:
        raise MismatchError("is not the decoder of the plan", where=folder,
                            fix=f"give the one with the hash {plan.decoder['hash'][:12]}")
    return folder


class BatchSampler:
    """``sampler([(label, image), ...]) -> uint8 [n, H, W, 3]`` for up to ``plan.batch`` pictures."""

    def __init__(self, plan: Plan, inputs: Inputs, pipeline: Any):
        self.plan, self.inputs, self.pipeline = plan, inputs, pipeline
        self.guidance = guidance_rules.from_dict(plan.guidance)
        if plan.compiled:
            pipeline.unet.compile()

    def __call__(self, items: Sequence[tuple[int, int]]) -> np.ndarray:
        return self.call(items, output_type="uint8")

    def call(self, items: Sequence[tuple[int, int]], *, output_type: str) -> Any:
        """Run one padded batch; only the rows asked for come back, as the pipeline's ``output_type``."""
        plan = self.plan
        padded = [*items, *[items[-1]] * (plan.batch - len(items))]
        labels, images = zip(*padded, strict=True)
        contexts = torch.from_numpy(self.inputs.contexts(labels, images))
        result = self.pipeline(
            contexts, negative_context=self.inputs.negatives(labels, images),
            guidance=self.guidance, num_inference_steps=plan.steps, scheduler=plan.scheduler,
            seeds=[(plan.seed, plan.identities[label], image) for label, image in padded],
            dtype=TORCH_DTYPES[plan.dtype], output_type=output_type, progress=False)
        return result.images[:len(items)]
