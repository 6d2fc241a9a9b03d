"""Sampling with a distilled model: the guided prediction is one prediction, told the negative and its weight.

Sources: guidance as an input of the network (arXiv 2210.03142, sec. 3), few steps (arXiv 2202.00512, sec. 3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from negface.contexts.selection import LEARNED
from negface.foundation.errors import InputError, UnknownNameError
from negface.models import FastDecoder, IDiffUNet, PreparedContext, VQAutoencoder
from negface.sampling import guidance as rules
from negface.sampling.distilled import Distilled
from negface.sampling.guidance import Guidance
from negface.sampling.schedulers import Scheduler

from .inputs import Negatives

FULL, FAST = "full", "fast"


def check_distilled(distilled: dict[str, Any] | None, guidance: Guidance, scheduler: Scheduler) -> None:
    """Refuse what a distilled model was not taught; nothing to check for any other denoiser.

    Args:
        distilled: what the denoiser says of its distillation; ``None`` of one that is not distilled.
        guidance: the rule asked for: a distilled model knows one weight for all its steps.
        scheduler: the scheduler asked for.

    Raises:
        InputError: a rule that is not ``constant(w)`` or ``none()``, a weight it was not distilled for, timesteps of
            another scheduler than its own; timesteps of a distilled model for one that is not.
    """
    if distilled is None:
        if isinstance(scheduler, Distilled):
            raise InputError("is for a distilled model, which this is not", where="scheduler distilled",
                             fix="use dpmpp, or distil the model: negface train distill")
        return
    weight = guidance.weight(0)
    if guidance not in (rules.constant(weight), rules.none()):
        raise InputError(f"this model was distilled for a constant weight away from the negative, not for {guidance}",
                         where="guidance", fix="use guidance.constant(w), or the model it was distilled from")
    low, high = distilled.get("weights", (0.0, float("inf")))
    if weight and not low <= weight <= high:
        raise InputError(f"this model was distilled for weights {low:g} to {high:g}, not {weight:g}", where="guidance",
                         fix="choose a weight within, or use the model it was distilled from")
    if not isinstance(scheduler, Distilled):
        raise InputError(f"this model was distilled for its own timesteps, not for those of {scheduler.name}",
                         where="scheduler", fix="leave the scheduler out")


def guided_contexts(unet: IDiffUNet, wanted: Tensor, negatives: Negatives, rows: Tensor,
                    rule: Guidance) -> PreparedContext:
    """Contexts of some rows, prepared so that one prediction is the guided one of a constant rule.

    Args:
        wanted: contexts ``[n, d]``; negatives of the same n.
        rows: int64 ``[m]``, which of them.
    """
    device, weight = unet.device, rule.weight(0, rules.NEGATIVE)
    learned = torch.from_numpy(negatives.kind)[rows] == LEARNED
    return unet.prepare_embedding(unet.guided_embedding(
        wanted[rows].to(device), negatives.vectors[rows].to(device), learned.to(device),
        torch.full((len(rows),), weight, device=device)))


def choose_decoder(wanted: str | None, full: VQAutoencoder | None,
                   fast: FastDecoder | None) -> VQAutoencoder | FastDecoder | None:
    """The decoder by name; ``None``: the fast one where there is one.

    Raises:
        UnknownNameError: neither ``full`` nor ``fast``. InputError: ``fast`` of a pipeline that has none.
    """
    if wanted not in (None, FULL, FAST):
        raise UnknownNameError("decoder", wanted, (FULL, FAST))
    if wanted == FAST and fast is None:
        raise InputError("the pipeline has no fast decoder", where="decoder",
                         fix="leave it out, or distil one: negface train distill")
    return full if fast is None or wanted == FULL else fast
