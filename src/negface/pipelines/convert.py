"""A released model folder of the IDiff-Face family becomes a pipeline of ours: the same function, in safetensors.

The folder holds ``.hydra/config.yaml`` and ``checkpoints/``; the first stage (LDM's VQ-f4) lies apart, in two halves or
in LDM's ``model.ckpt``. Nothing of the old code is needed, and nothing a checkpoint says is run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import DiffusionPipeline

from negface.foundation.checkpoints import read_checkpoint
from negface.foundation.errors import FormatError, InputError
from negface.foundation.files import atomic_folder, existing_file, existing_folder
from negface.foundation.hashing import sha256_file
from negface.models import IDiffUNet, VQAutoencoder, published

from .loading import check_target
from .negface_diff import NegFaceDiffPipeline
from .scheduler_choice import SchedulerChoice

CONFIG = Path(".hydra") / "config.yaml"
CHECKPOINTS = ("ema_averaged_model.ckpt", "model.ckpt")
ENCODER, DECODER = "first_stage_encoder_state_dict.pt", "first_stage_decoder_state_dict.pt"
LDM = "model.ckpt"
FIRST_STAGE_PLACES = (".", "models/autoencoder", "../../models/autoencoder")
IMAGE_SIZE, LARGEST_SIDE = 128, 4096
LICENCES = "CC BY-NC-SA 4.0 (IDiff-Face), CC BY-NC 4.0 (NegFaceDiff), Apache-2.0 (UIFace): see the weights' own terms"
DEEPEST_CONFIGURATION, LARGEST_CONFIGURATION = 16, 10_000  # levels, and values: a released one has 5 and about 100
REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")


@dataclass(frozen=True)
class Sources:
    """The files of a released model. ``first_stage`` is empty for a denoiser of pixels."""

    config: Path
    checkpoint: Path
    first_stage: tuple[Path, ...]


def convert_idiff_face(folder: str | os.PathLike, *, checkpoint: str | os.PathLike | None = None,
                       config: str | os.PathLike | None = None, first_stage: str | os.PathLike | None = None,
                       conditioner: Mapping[str, Any] | None = None,
                       requantize: bool = True) -> tuple[NegFaceDiffPipeline, dict[str, Any]]:
    """Build the pipeline of a released model.

    Args:
        folder: the model's folder (``trained_models/<NAME>``).
        checkpoint: the file with the denoiser's weights; default ``checkpoints/ema_averaged_model.ckpt``, else
            ``checkpoints/model.ckpt`` (equal in the published models, whose average never averaged).
        config: training configuration, or its ``model`` part alone; default ``.hydra/config.yaml``.
        first_stage: LDM's VQ checkpoint, or a folder of the two halves or of LDM's ``model.ckpt``; default looked for
            in the folder, ``models/autoencoder`` in it, and ``../../models/autoencoder`` (the released tree).
        conditioner: name and hash of the recogniser whose embeddings are the contexts, if known.
        requantize: snap latents to the codebook before decoding, as released.

    Returns:
        The pipeline, and a description (files with SHA-256, parameters, settings).

    Raises:
        InputError: a file is not there, or a variant that is not supported.
        FormatError: truncated, incomplete or misshapen checkpoints, by file and key. UnsafePickleError: a checkpoint
            that asks for more than tensors.
    """
    settings = read_configuration(_configuration(Path(folder), config))
    files = _sources(Path(folder), checkpoint, config, first_stage, settings)
    size = _image_size(settings, files.config)
    vae = _autoencoder(files.first_stage, size, requantize) if files.first_stage else None
    unet, schedule = _denoiser(files, settings, vae, conditioner)
    pipeline = NegFaceDiffPipeline(unet, vae, SchedulerChoice(
        num_train_timesteps=schedule.num_train_timesteps, beta_start=schedule.beta_start, beta_end=schedule.beta_end))
    return pipeline, _description(pipeline, files)


def save_converted(pipeline: NegFaceDiffPipeline, description: Mapping[str, Any], out: str | os.PathLike) -> None:
    """Write the pipeline's folder with a card that names its sources; all at once, or nothing."""
    target = Path(out)
    check_target(target)
    with atomic_folder(target) as temporary:
        DiffusionPipeline.save_pretrained(pipeline, temporary)
        (temporary / "README.md").write_text(_card(description))


def read_configuration(path: Path) -> dict[str, Any]:
    """A hydra configuration as plain data; references (``${model}``) stay text until ``lookup`` follows them.

    ``FormatError`` if it is no YAML mapping. Tags that would build objects are refused (``safe_load``).
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # the last three: dates, numbers, depth
        reason = " ".join(str(error).split())[:200]
        raise FormatError(f"not a plain YAML file ({reason})", where=path) from error
    if not isinstance(found, dict):
        raise FormatError("is no YAML mapping", where=path, fix="give the training configuration of the model")
    # UIFace publishes the model's part alone
    return {"model": found} if "condition_type" in found and "model" not in found else found


def lookup(settings: Mapping[str, Any], key: str, where: object, default: Any = None) -> Any:
    """The value at a dotted key, references followed; ``default`` where there is none."""
    return _Resolver(settings, where).resolve(_at(settings, key, default), depth=0)


def _at(settings: Mapping[str, Any], key: str, default: Any) -> Any:
    value: Any = settings
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return value


class _Resolver:
    """Follows references; stops at circles, and at values that grow without end by naming each other."""

    def __init__(self, settings: Mapping[str, Any], where: object):
        self.settings, self.where, self.left = settings, where, LARGEST_CONFIGURATION

    def resolve(self, value: Any, depth: int) -> Any:
        self.left -= 1
        if depth > DEEPEST_CONFIGURATION or self.left < 0:
            what = "its references go in a circle" if depth > DEEPEST_CONFIGURATION else "its references grow too large"
            raise FormatError(what, where=self.where)
        if isinstance(value, Mapping):
            return {key: self.resolve(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item, depth + 1) for item in value]
        reference = REFERENCE.fullmatch(value) if isinstance(value, str) else None
        return value if reference is None else self.resolve(_at(self.settings, reference[1], None), depth + 1)


def _configuration(folder: Path, config: str | os.PathLike | None) -> Path:
    if config is not None:
        return existing_file(config, "configuration")
    path = existing_folder(folder, "model folder") / CONFIG
    if not path.is_file():
        raise InputError(f"has no {CONFIG}", where=folder,
                         fix="give the released model folder, or the configuration with --config")
    return path


def _sources(folder: Path, checkpoint: str | os.PathLike | None, config: str | os.PathLike | None,
             first_stage: str | os.PathLike | None, settings: Mapping[str, Any]) -> Sources:
    path = _configuration(folder, config)
    if checkpoint is None:
        found = [folder / "checkpoints" / name for name in CHECKPOINTS if (folder / "checkpoints" / name).is_file()]
        if not found:
            raise InputError(f"has no checkpoints/{' and no checkpoints/'.join(CHECKPOINTS)}", where=folder,
                             fix="give the released model folder, or the weights with --checkpoint")
        checkpoint = found[0]
    latent = lookup(settings, "latent_diffusion", path, True)
    halves = _first_stage(folder, first_stage) if latent else ()
    return Sources(path, existing_file(checkpoint, "checkpoint"), halves)


def _first_stage(folder: Path, given: str | os.PathLike | None) -> tuple[Path, ...]:
    if given is not None and not Path(given).is_dir():
        return (existing_file(given, "first stage"),)
    places = [Path(given)] if given is not None else [folder / place for place in FIRST_STAGE_PLACES]
    for place in places:
        if (place / ENCODER).is_file() or (place / DECODER).is_file():
            return existing_file(place / ENCODER, "first stage"), existing_file(place / DECODER, "first stage")
        if (place / LDM).is_file():
            return (place / LDM,)
    looked = ", ".join(os.path.normpath(place) for place in places)
    raise InputError(f"no {ENCODER} and {DECODER}, and no {LDM} of LDM", where=looked,
                     fix="name their folder, or LDM's model.ckpt, with --first-stage")


def _image_size(settings: Mapping[str, Any], where: object) -> int:
    return _side(settings, "constants.image_size", IMAGE_SIZE, where)


def _side(settings: Mapping[str, Any], key: str, default: int, where: object) -> int:
    size = lookup(settings, key, where, default)
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= LARGEST_SIDE:
        raise FormatError(f"is {published.shown(size)}, a number from 1 to {LARGEST_SIDE} was expected",
                          where=f"{where}, {key}")
    return size


def _autoencoder(files: tuple[Path, ...], image_size: int, requantize: bool) -> VQAutoencoder:
    state: dict[str, torch.Tensor] = {}
    for path in files:
        state.update(published.autoencoder_state(read_checkpoint(path), path))
    where = " + ".join(map(str, files))
    options = published.autoencoder_config(state, image_size, where)
    with published.without_weights():
        vae = VQAutoencoder(**options, requantize=requantize)
    published.load_strictly(vae, state, where)
    return vae.eval()


def _denoiser(files: Sources, settings: Mapping[str, Any], vae: VQAutoencoder | None,
              conditioner: Mapping[str, Any] | None) -> tuple[IDiffUNet, Any]:
    model = lookup(settings, "model", files.config) or lookup(settings, "diffusion.eps_model", files.config)
    if not isinstance(model, Mapping):
        raise FormatError("has no model part", where=files.config, fix="give the training configuration of the model")
    options = published.denoiser_config(model, files.config)
    state, buffers = published.denoiser_state(read_checkpoint(files.checkpoint), files.checkpoint)
    steps = lookup(settings, "diffusion.T", files.config, 1000)
    schedule = published.noise_schedule(buffers, steps, files.checkpoint)
    channels = vae.config.latent_channels if vae else _side(settings, "constants.input_channels", 3, files.config)
    side = vae.latent_shape[1] if vae else _image_size(settings, files.config)
    with published.without_weights():
        unet = IDiffUNet(**options, in_channels=channels, sample_size=side,
                         conditioner=dict(conditioner) if conditioner else None)
    published.load_strictly(unet, state, files.checkpoint)
    return unet.eval(), schedule


def _description(pipeline: NegFaceDiffPipeline, files: Sources) -> dict[str, Any]:
    networks = {name: getattr(pipeline, name) for name in ("unet", "vae") if getattr(pipeline, name) is not None}
    config = pipeline.unet.config
    return {
        "sources": [{"file": path.name, "sha256": sha256_file(path)}
                    for path in (files.config, files.checkpoint, *files.first_stage)],
        "parameters": {name: sum(item.numel() for item in network.parameters()) for name, network in networks.items()},
        "condition_type": config.condition_type, "context_dropout_probability": config.context_dropout_probability,
        "learned_null": config.learned_null, "context_input": config.context_input, "conditioner": config.conditioner,
        "latent_shape": [config.in_channels, config.sample_size, config.sample_size],
    }


def _card(description: Mapping[str, Any]) -> str:
    made = "\n".join(f"- `{item['file']}`, SHA-256 `{item['sha256']}`" for item in description["sources"])
    conditioner = description["conditioner"]
    named = conditioner["name"] if conditioner else "not recorded (released IDiff-Face models: ElasticFace-Arc R100)"
    return (f"---\nlicense: {LICENCES}\n---\n\n# Converted model\n\nThe same function as the released files it was "
            f"made from, and their licence:\n\n{made}\n\n{description['parameters']['unet']:,} parameters, "
            f"{description['condition_type']}, contextual partial dropout "
            f"{description['context_dropout_probability']:g}, "
            f"{'with' if description['learned_null'] else 'without'} a learned empty context.\n"
            f"Conditioner: {named}. Alignment of the training pictures: unknown.\n")
