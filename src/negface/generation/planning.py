"""Planning: a model folder, a bank with its negatives and the options become a plan, checked before anything is made.

Only configuration files of the model are read here; no network is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from negface.contexts.selection import LEARNED, NONE
from negface.curation import Step, ordered
from negface.datasets import DEFAULT_CODEC, codec
from negface.foundation.errors import FormatError, InputError
from negface.foundation.files import existing_folder, read_json
from negface.foundation.hashing import sha256_file
from negface.sampling import guidance as guidance_rules
from negface.sampling import schedulers

from .inputs import Inputs
from .machine import processor, versions
from .plan import TEMPLATE_SIZE, TRIES, Plan, model_hash, model_licence, unit_size


def make_plan(model: str | os.PathLike, inputs: Inputs, *, guidance: guidance_rules.Guidance | None = None,
              identities: int | None = None, images: int = 50, steps: int | None = None,
              scheduler: str | schedulers.Scheduler | None = None, seed: int = 0, batch: int = 32, threads: int = 1,
              dtype: str = "fp32", device: str = "cpu", size: int | None = None, align: str = "template",
              detector: str | os.PathLike | None = None, codec_name: str = DEFAULT_CODEC, format: str = "folder",
              unit_images: int | None = None, tries: int = TRIES, filters: Sequence[Step] = (),
              decoder: str | os.PathLike | None = None, compiled: bool = False,
              reuse: int | None = 1, allow_conditioner_mismatch: bool = False) -> Plan:
    """The plan of a dataset.

    Args:
        model: folder of a saved pipeline.
        inputs: the bank and its negatives (``make_inputs``).
        guidance: default ``constant(0.5)``; without any negative it is ``none()``, whatever was asked for.
        identities: draw only the first so many of the bank.
        steps: default 8 of ``unipc``, 20 of the others, and of a distilled model those it was made for.
        scheduler: a name, with the model's own noise schedule; ``None`` is the model's default.
        size: side in pixels; default 112 for ``template`` and ``detect``, the model's own for ``none``.
        align: ``template`` (trust the model to draw in the template: resize), ``detect`` (five points, warp), ``none``.
        detector: the detector's file for ``detect``; named by its content.
        unit_images: about how many pictures are published at a time; default 4 batches (16 for shards).
        tries: at most so many times the pictures asked for are made of a person, where some are rejected.
        filters: what a picture must pass to stay (``negface.curation.parse_step``).
        decoder: folder of a fast decoder (``negface train distill``) to use instead of the model's; ``"full"``: the
            autoencoder's own, also where the model has a fast one.
        compiled: compile the denoiser (``torch.compile``).
        reuse: keep the negative's direction for so many steps (``Guidance.reusing``); 1 leaves the rule as it is;
            ``None``: as the default preset does, where neither scheduler nor steps are asked for.

    Raises:
        InputError: values out of range, contexts of another length, a learned null the model does not have.
        MismatchError: contexts of another conditioner, unless allowed; a decoder of another autoencoder.
    """
    from negface.pipelines.distilled import check_distilled

    facts = model_facts(model)
    check_inputs(inputs, facts, allow_conditioner_mismatch=allow_conditioner_mismatch)
    count = len(inputs.bank) if identities is None else identities
    if not 1 <= count <= len(inputs.bank):
        raise InputError(f"must be 1 to {len(inputs.bank)} (the bank's size), not {count}", where="identities")
    if images < 1 or batch < 1:
        raise InputError(f"must be at least 1, not {min(images, batch)}", where="images" if images < 1 else "batch")
    chosen = facts["schedulers"].build(scheduler)
    asked, steps = steps, facts["schedulers"].steps(scheduler) if steps is None else steps
    described = chosen.to_dict()
    rule = guidance_rules.constant(0.5) if guidance is None else guidance
    rule = rule if reuse in (None, 1) else rule.reusing(reuse)
    if inputs.selection is not None and (inputs.selection.kind == NONE).all():
        rule = rule.without(guidance_rules.NEGATIVE)
    elif reuse is None and rule.all_branches != (guidance_rules.POSITIVE,):
        rule = rule.reusing(facts["schedulers"].reuse(scheduler, asked))
    check_distilled(facts["distilled"], rule, chosen)
    timesteps = schedulers.from_dict(described).timesteps(steps)
    per_unit = unit_size(images, batch, format) if unit_images is None else max(1, round(unit_images / images))
    source = inputs.bank.provenance.get("source")
    varied = {} if inputs.variation is None else {"variation": inputs.varied}
    return Plan(
        model={"name": Path(model).resolve().name, "hash": model_hash(model), "licence": model_licence(model),
               "template": facts["template"]},
        contexts={"hash": inputs.bank.hash, "dim": inputs.bank.dim, "conditioner": inputs.bank.conditioner,
                  "describes_real_people": inputs.describes_real_people, "source": source, **varied},
        identities=inputs.bank.ids[:count], negatives=inputs.describe(), guidance=rule.to_dict(),
        mean_weight=rule.mean_weight(timesteps), scheduler=described, steps=steps, seed=seed, images=images,
        batch=batch, threads=threads, dtype=dtype, device=device, latent_shape=facts["latent_shape"],
        size=TEMPLATE_SIZE if size is None and align != "none" else size,
        align={"mode": align, "detector": _detector(align, detector)}, codec=codec(codec_name).to_dict(), format=format,
        identities_per_unit=min(per_unit, count), tries=tries,
        versions=versions(perception=align == "detect" or bool(filters)), processor=processor(device),
        filters=tuple(step.declared for step in ordered(list(filters))),
        decoder=_decoder(model, facts, decoder), compiled=compiled)


def _decoder(model: str | os.PathLike, facts: dict[str, Any],
             decoder: str | os.PathLike | None) -> dict[str, Any] | None:
    """What the plan says of the decoder: nothing where it is what the model does by itself."""
    from negface.pipelines.distilled import FAST, FULL
    from negface.pipelines.fast_decoder import decoder_folder, open_decoder, weights_hash

    if decoder is None or (decoder == FULL and not facts["fast_decoder"]):
        return None
    if decoder == FULL:
        return {"name": FULL, "hash": None}
    if facts["vae"] is None:
        raise InputError("the model has no autoencoder for a fast decoder to stand in for", where="decoder")
    open_decoder(decoder, **facts["vae"], weights=weights_hash(Path(model) / "vae"))
    return {"name": FAST, "hash": model_hash(decoder_folder(decoder))}


def _detector(align: str, path: str | os.PathLike | None) -> dict[str, Any] | None:
    if align != "detect" or path is None:
        return None
    return {"name": Path(path).name, "sha256": sha256_file(path)}


def model_facts(folder: str | os.PathLike) -> dict[str, Any]:
    """What the model's configuration says: latent shape, context length, conditioner, learned null, template, decoders.
    """
    folder = existing_folder(folder, "model folder")
    if not (folder / "model_index.json").is_file():
        raise FormatError("is not a saved pipeline: no model_index.json", where=folder,
                          fix="give the folder that save_pretrained or `negface train` wrote")
    from negface.pipelines import SchedulerChoice

    unet = read_json(folder / "unet" / "config.json")
    vae = read_json(folder / "vae" / "config.json") if (folder / "vae").is_dir() else {}
    described = read_json(folder / "scheduler" / "scheduler_config.json")
    try:
        choice = SchedulerChoice.from_config(described)
        return {"latent_shape": (unet["in_channels"], unet["sample_size"], unet["sample_size"]),
                "dim": unet["context_input"], "conditioner": unet.get("conditioner"),
                "learned_null": bool(unet.get("learned_null")), "template": vae.get("template"),
                "schedulers": choice, "fast_decoder": (folder / "fast_decoder").is_dir(),
                "vae": {"latent_channels": vae["latent_channels"],
                        "downsample": vae["image_size"] // unet["sample_size"]} if vae else None,
                "distilled": (unet.get("distilled") or {}) if unet.get("guidance_input") else None}
    except (KeyError, TypeError, AttributeError, ValueError, ZeroDivisionError) as error:
        raise FormatError(f"has no usable configuration ({type(error).__name__}: {error})", where=folder,
                          fix="copy or make it again") from error


def check_inputs(inputs: Inputs, facts: dict[str, Any], *, allow_conditioner_mismatch: bool = False) -> None:
    """Refuse contexts or negatives that the model cannot take."""
    if inputs.bank.dim != facts["dim"]:
        raise InputError(f"contexts have length {inputs.bank.dim}, the model takes {facts['dim']}", where="contexts",
                         fix="use a bank made for this model")
    inputs.bank.check_conditioner(facts["conditioner"], allow_mismatch=allow_conditioner_mismatch)
    if inputs.selection is not None and np.any(inputs.selection.kind == LEARNED) and not facts["learned_null"]:
        raise InputError("the learned null was asked for, and this model was trained without one", where="negatives",
                         fix="use null-zero, or train with whole-context dropout")
