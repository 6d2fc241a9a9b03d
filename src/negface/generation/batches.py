"""Batches: ``(label, image index)`` pairs to pictures through the pipeline, in one fixed shape.

The noise of a picture is keyed by (dataset seed, identity id, image index, purpose), so a picture does not depend on
its batch beyond rounding; identities mix freely in a batch, and the last one is padded with copies.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from negface.sampling import guidance as guidance_rules

from .inputs import Inputs
from .plan import Plan

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_pipeline(folder: str | os.PathLike, plan: Plan) -> Any:
    """The pipeline of a model folder, on the plan's device."""
    from negface.pipelines import NegFaceDiffPipeline

    return NegFaceDiffPipeline.from_pretrained(os.fspath(folder)).to(plan.device)


class BatchSampler:
    """``sampler([(label, image), ...]) -> uint8 [n, H, W, 3]`` for up to ``plan.batch`` pictures."""

    def __init__(self, plan: Plan, inputs: Inputs, pipeline: Any):
        self.plan, self.inputs, self.pipeline = plan, inputs, pipeline
        self.guidance = guidance_rules.from_dict(plan.guidance)

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
