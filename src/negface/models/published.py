"""Released key layouts: the state dicts of IDiff-Face, NegFaceDiff, UIFace, LDM's VQ-f4 and the iResNet recognisers.

Our networks carry the released names, so a layout is a matter of prefixes, wrappers and one renamed entry; every entry
is accounted for, and what does not fit is named with the file, the key and what was expected.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from negface.foundation.errors import FormatError, InputError
from negface.sampling.guidance import T
from negface.sampling.schedule import NoiseSchedule

from .backbones import BLOCKS
from .unet import CONDITION_TYPES

WRAPPERS = ("state_dict", "model_state_dict", "model")
DENOISER, PARALLEL, FIRST_STAGE = "eps_model.", "module.", "first_stage_model."
RENAMED = {"empty_context_embedding": "empty_context"}
SCHEDULE_BUFFERS = frozenset({
    "betas", "alphas", "sigmas", "sqrt_alphas_inv", "alpha_bars", "sqrt_alpha_bars", "sqrt_one_minus_alpha_bars",
    "one_minus_alphas_over_sqrt_one_minus_alpha_bars"})
ENCODER_PARTS, DECODER_PARTS = ("encoder.", "quant_conv."), ("decoder.", "quantize.", "post_quant_conv.")
TRAINING_PARTS = ("loss.", "model_ema.", "model.", "cond_stage_model.")
LINEAR_TOLERANCE = 1e-6
# What a file may ask for before a network is built: far beyond any published one, and soon built.
LARGEST_SETTING, LARGEST_LEVELS, LARGEST_BLOCKS, LARGEST_MULTIPLIER = 8192, 8, 32, 8


def plain_state(found: Any, where: object) -> dict[str, Tensor]:
    """The state dict in a checkpoint's object: unwrapped, without the ``module.`` of distributed training.

    ``FormatError`` if there is none, if it holds other things than tensors, or if only some keys have the prefix.
    """
    wrapper = next((name for name in WRAPPERS if isinstance(found, Mapping) and isinstance(found.get(name), Mapping)),
                   None)
    state = found[wrapper] if wrapper else found
    if not isinstance(state, Mapping) or not state:
        raise FormatError(f"holds {_kind(state)}, a state dict was expected", where=where,
                          fix="give the file with the weights")
    bad = next((key for key, value in state.items() if not isinstance(key, str) or not isinstance(value, Tensor)), None)
    if bad is not None:
        raise FormatError(f"entry {bad!r} is {_kind(state[bad])}, a tensor was expected", where=where,
                          fix="give the file with the weights (optimiser states and class headers are not)")
    return without_prefix(dict(state), PARALLEL, where)


def without_prefix(state: dict[str, Tensor], prefix: str, where: object,
                   apart: frozenset[str] = frozenset()) -> dict[str, Tensor]:
    """The state dict without a prefix that all keys have, or none has; ``FormatError`` for a mixture.

    ``apart`` names keys that stand beside the prefixed ones and are kept as they are.
    """
    having = [key for key in state if key.startswith(prefix)]
    lacking = [key for key in state if not key.startswith(prefix) and key not in apart]
    if having and lacking:
        raise FormatError(f"mixes keys with and without {prefix!r}: {having[0]!r} beside {lacking[0]!r} "
                          f"({len(having)} with, {len(lacking)} without)", where=where,
                          fix="a state dict has the prefix on every key or on none")
    return {key.removeprefix(prefix): value for key, value in state.items()}


def denoiser_state(found: Any, where: object) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The denoiser's entries under our names, and the diffusion wrapper's schedule buffers, of a released checkpoint.

    The 850 entries of a released file are 842 of the network behind ``eps_model.`` and 8 buffers; UIFace's has one more
    (the learned empty context) and may come without the wrapper.
    """
    state = without_prefix(plain_state(found, where), DENOISER, where, apart=SCHEDULE_BUFFERS)
    state = without_prefix(state, PARALLEL, where, apart=SCHEDULE_BUFFERS)
    buffers = {key: state.pop(key) for key in SCHEDULE_BUFFERS & set(state)}
    return {RENAMED.get(key, key): value for key, value in state.items()}, buffers


def autoencoder_state(found: Any, where: object) -> dict[str, Tensor]:
    """The first stage's entries: from a released half, LDM's VQ checkpoint, or a full LDM checkpoint.

    What belongs to training or to LDM's own diffusion model is left out.
    """
    state = plain_state(found, where)
    if any(key.startswith(FIRST_STAGE) for key in state):
        state = {key.removeprefix(FIRST_STAGE): value for key, value in state.items() if key.startswith(FIRST_STAGE)}
    state = {key: value for key, value in state.items() if not key.startswith(TRAINING_PARTS)}
    strange = [key for key in state if not key.startswith((*ENCODER_PARTS, *DECODER_PARTS))]
    if strange or not state:
        what = f"has the unknown key {strange[0]!r}" if strange else "has no entry of a first stage"
        expected = ", ".join(f"{part}*" for part in (*ENCODER_PARTS, *DECODER_PARTS))
        raise FormatError(f"{what}; expected {expected}", where=where,
                          fix="give the first stage's encoder, decoder, or LDM model.ckpt")
    return state


def autoencoder_config(state: Mapping[str, Tensor], image_size: int, where: object) -> dict[str, Any]:
    """The settings of ``VQAutoencoder`` that a first stage's shapes tell."""
    try:
        levels = len({key.split(".")[2] for key in state if key.startswith("encoder.down.")})
        blocks = len({key.split(".")[4] for key in state if key.startswith("encoder.down.0.block.")})
        channels = state["encoder.conv_in.weight"].shape[0]
        widths = [state[f"encoder.down.{level}.block.0.conv1.weight"].shape[0]
                  for level in range(min(levels, LARGEST_LEVELS + 1))]
        codes, latent_channels = state["quantize.embedding.weight"].shape
    except (KeyError, ValueError, IndexError) as error:
        missing = error.args[0] if isinstance(error, KeyError) else "a whole encoder and codebook"
        raise FormatError(f"has no {missing}", where=where, fix="the first stage is incomplete: give both halves, "
                          "first_stage_encoder_state_dict.pt and first_stage_decoder_state_dict.pt") from error
    sizes = (levels / LARGEST_LEVELS, blocks / LARGEST_BLOCKS)
    if not (channels and codes and latent_channels) or max(sizes) > 1 or any(width % channels for width in widths):
        raise FormatError(f"is no first stage: {levels} levels of {blocks} blocks with {widths} channels, "
                          f"{channels} in encoder.conv_in, {codes} codes of {latent_channels}", where=where,
                          fix="it is damaged: copy it again")
    return {"image_size": image_size, "latent_channels": latent_channels, "channels": channels, "blocks": blocks,
            "multipliers": tuple(width // channels for width in widths), "codebook_size": codes}


def denoiser_config(model: Mapping[str, Any], where: object) -> dict[str, Any]:
    """The settings of ``IDiffUNet`` that a released model configuration (hydra's ``model`` node) gives.

    ``InputError`` for a variant that no released checkpoint has and that is not rebuilt here (AddPlusGN, DiffAE, class
    labels instead of contexts, unconditional).
    """
    def wanted(key: str) -> Any:
        if key not in model:
            raise FormatError(f"has no model.{key}", where=where, fix="give the training configuration of the model")
        return model[key]

    variant = wanted("condition_type")
    if variant not in CONDITION_TYPES or not model.get("is_context_conditional", True):
        kind = variant if model.get("is_context_conditional", True) else "unconditional"
        raise InputError(f"model.condition_type is {shown(kind)}; loaded here are CA and AdaGN", where=where)
    if model.get("n_context_classes"):
        raise InputError("the model is conditioned on class labels, not on identity contexts", where=where)
    if _number(wanted("attention_head_channels"), where, "model.attention_head_channels", least=-1) < 1:
        raise InputError("the model counts attention heads instead of their channels, which is not supported",
                         where=f"{where}, model.attention_head_channels")
    numbers = {ours: _number(wanted(theirs), where, f"model.{theirs}") for ours, theirs in (
        ("initial_channels", "initial_channels"), ("head_channels", "attention_head_channels"),
        ("blocks_per_resolution", "n_blocks_per_resolution"), ("context_input", "context_input_channels"),
        ("context_channels", "context_channels"))}
    _number(numbers["blocks_per_resolution"], where, "model.n_blocks_per_resolution", most=LARGEST_BLOCKS)
    levels = {key: _list(wanted(key), where, f"model.{key}") for key in ("channel_multipliers", "is_attention")}
    return {**numbers, "condition_type": variant,
            "channel_multipliers": tuple(_number(item, where, "model.channel_multipliers", most=LARGEST_MULTIPLIER)
                                         for item in levels["channel_multipliers"]),
            "is_attention": tuple(bool(item) for item in levels["is_attention"]),
            "learned_null": bool(model.get("learn_empty_context", False)),
            "context_dropout_probability": _probability(model, "context_dropout_probability", where)}


def noise_schedule(buffers: Mapping[str, Tensor], steps: int, where: object) -> NoiseSchedule:
    """The noise schedule of a checkpoint, read from its ``betas`` where it has them.

    ``InputError`` unless it is linear over 1000 timesteps, as all released ones are.
    """
    betas = buffers["betas"].double().flatten() if "betas" in buffers else None
    steps = steps if betas is None else len(betas)
    if steps != T:
        raise InputError(f"was trained with {shown(steps)} timesteps, {T} are supported", where=where)
    if betas is None:
        return NoiseSchedule(steps)
    line = torch.linspace(float(betas[0]), float(betas[-1]), len(betas), dtype=torch.float64)
    if not (betas - line).abs().max() <= LINEAR_TOLERANCE * float(betas[-1]):  # NaN too
        raise InputError("its noise schedule is not linear, which is the only one supported", where=f"{where}, betas")
    # float32 buffers of round numbers: 1e-4 and 0.02, not 9.99999974e-05
    return NoiseSchedule(len(betas), float(f"{float(betas[0]):.6g}"), float(f"{float(betas[-1]):.6g}"))


def backbone_state(found: Any, where: object) -> tuple[dict[str, Tensor], str]:
    """The entries of a released recognition backbone, and the name of its architecture (``iresnet18`` … ``100``)."""
    state = plain_state(found, where)
    blocks = tuple(len({match[1] for key in state if (match := re.match(rf"layer{stage}\.(\d+)\.", key))})
                   for stage in range(1, 5))
    depth = next((depth for depth, known in BLOCKS.items() if known == blocks), None)
    if depth is None:
        raise FormatError(f"has {blocks} blocks in layer1 to layer4 (first key {next(iter(state))!r}); known: "
                          + ", ".join(f"iresnet{depth} {known}" for depth, known in BLOCKS.items()), where=where,
                          fix="give an iResNet backbone (a header, or another network, is not)")
    return state, f"iresnet{depth}"


def without_weights() -> AbstractContextManager[None]:
    """Networks made inside have no memory until ``load_strictly`` fills them: half the peak, and nothing is drawn."""
    from accelerate import init_empty_weights

    return init_empty_weights(include_buffers=False)


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], where: object) -> None:
    """Load a state dict into a network, entry by entry; ``FormatError`` names the first that does not fit."""
    expected = network.state_dict()
    missing = [key for key in expected if key not in state]
    if missing:
        first = expected[missing[0]]
        raise FormatError(f"lacks {len(missing)} of {len(expected)} entries, the first is {missing[0]!r} "
                          f"({_shape(first)})", where=where, fix="the file is incomplete or of another configuration")
    unknown = [key for key in state if key not in expected]
    if unknown:
        raise FormatError(f"has {len(unknown)} entries the network does not, the first is {unknown[0]!r} "
                          f"({_shape(state[unknown[0]])})", where=where, fix="it is of another configuration")
    for key, value in expected.items():
        given = state[key]
        if given.shape != value.shape or given.dtype != value.dtype:
            raise FormatError(f"{key!r} is {_shape(given)}, expected {_shape(value)}", where=where,
                              fix="the file is of another configuration or precision")
        if given.is_floating_point() and not torch.isfinite(given).all():
            raise FormatError(f"{key!r} holds NaN or infinity", where=where, fix="the file is damaged: copy it again")
    network.load_state_dict(_owned(state), assign=True)


def _owned(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each contiguous and alone in its memory, as safetensors wants them; copied only if need be."""
    taken: set[int] = set()
    result = {}
    for key, value in state.items():
        storage = value.untyped_storage()
        whole = value.is_contiguous() and storage.nbytes() == value.numel() * value.element_size()
        fresh = storage.data_ptr() not in taken
        taken.add(storage.data_ptr())
        result[key] = value if whole and fresh else value.clone(memory_format=torch.contiguous_format)
    return result


def _number(value: Any, where: object, key: str, *, least: int = 1, most: int = LARGEST_SETTING) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise FormatError(f"is {shown(value)}, a whole number from {least} to {most} was expected",
                          where=f"{where}, {key}")
    return value


def _list(value: Any, where: object, key: str) -> list[Any]:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= LARGEST_LEVELS:
        raise FormatError(f"is {shown(value)}, a list of 1 to {LARGEST_LEVELS} was expected", where=f"{where}, {key}")
    return list(value)


def _probability(model: Mapping[str, Any], key: str, where: object) -> float:
    value = model.get(key, 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise FormatError(f"is {shown(value)}, a probability below 1 was expected", where=f"{where}, model.{key}")
    return float(value)


def shown(value: Any) -> str:
    """A value in an error: short, whatever it is."""
    return reprlib.repr(value)


def _shape(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _kind(value: Any) -> str:
    return f"{type(value).__name__}" + ("" if not hasattr(value, "qualified_name") else f" {value.qualified_name}")
