"""NegFaceDiff (arXiv 2508.09661): images of a wanted identity, steered away from a negative one, without retraining.

One network batch per step holds all branches; what depends only on contexts is computed once per call.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from negface.contexts import ContextBank, Selection
from negface.contexts.selection import LEARNED
from negface.foundation.errors import InputError, NegFaceError
from negface.foundation.files import atomic_folder
from negface.foundation.progress import Progress
from negface.models import FastDecoder, IDiffUNet, PreparedContext, PreparedTimes, VQAutoencoder
from negface.sampling import guidance as rules
from negface.sampling.compat import resolve
from negface.sampling.guidance import Guidance
from negface.sampling.loop import trajectory
from negface.sampling.schedulers import Noise, Scheduler

from .distilled import check_distilled, choose_decoder, guided_contexts
from .fast_decoder import check_decoder, open_decoder, weights_hash
from .images import check_output_type, convert
from .inputs import Negatives, check_count, read_contexts, read_latents, read_negatives
from .loading import check_target, load_components, model_folder
from .noise import ImageNoise, Key, Remembered
from .precision import as_asked
from .released import released
from .scheduler_choice import SchedulerChoice

NEGFACEDIFF = rules.constant(0.5)


@dataclass
class NegFaceOutput(BaseOutput):
    """What a call gives.

    Attributes:
        images: as ``output_type`` asks.
        mean_weight: mean guidance weight over the run's steps, of the rows that have a negative; 0 if none has.
        predictions: rows the network was evaluated on (the cost of the call).
        scheduler: full description of the scheduler.
        guidance: full description of the rule.
    """

    images: list[Image.Image] | np.ndarray | Tensor
    mean_weight: float
    predictions: int
    scheduler: dict[str, Any]
    guidance: dict[str, Any]


class NegFaceDiffPipeline(DiffusionPipeline):
    """Identity contexts and negative contexts to images; ``save_pretrained``/``from_pretrained`` as in diffusers.

    Args:
        unet: the denoiser; predicts noise in latents of unit variance.
        vae: the autoencoder; ``None`` for a denoiser of pixels (its latents then *are* images in [-1, 1]).
        scheduler: default scheduler and noise schedule.
        fast_decoder: a small decoder distilled from the autoencoder's, used unless ``decoder="full"`` is asked for.
    """

    model_cpu_offload_seq = "unet->vae->fast_decoder"
    _optional_components = ["vae", "scheduler", "fast_decoder"]  # noqa: RUF012 - diffusers reads it from the class

    def __init__(self, unet: IDiffUNet, vae: VQAutoencoder | None = None, scheduler: SchedulerChoice | None = None,
                 fast_decoder: FastDecoder | None = None):
        super().__init__()
        if fast_decoder is not None and vae is None:
            raise InputError("a fast decoder stands in for an autoencoder, and there is none",
                             where="NegFaceDiffPipeline")
        if vae is not None and vae.config.latent_channels != unet.config.in_channels:
            raise InputError(f"the autoencoder has {vae.config.latent_channels} latent channels, the denoiser takes "
                             f"{unet.config.in_channels}", where="NegFaceDiffPipeline")
        if fast_decoder is not None:
            check_decoder(fast_decoder, latent_channels=vae.config.latent_channels, downsample=vae.downsample)
        self.register_modules(unet=unet, vae=vae, scheduler=scheduler or SchedulerChoice(), fast_decoder=fast_decoder)

    @classmethod
    def from_pretrained(cls, path_or_name: str | Path, *, torch_dtype: torch.dtype | None = None,
                        **components: Any) -> NegFaceDiffPipeline:
        """Load a folder that ``save_pretrained`` wrote: no network access, safetensors only, our classes only.

        Args:
            path_or_name: the folder.
            torch_dtype: dtype of the networks, float32 by default.
            components: ready-made ``unet``, ``vae``, ``scheduler`` or ``fast_decoder`` to use instead of the saved one;
                ``fast_decoder`` may also be a folder of ``negface train distill``, and ``None`` leaves it out.

        Raises:
            InputError: no such folder. FormatError: not a saved pipeline, or incomplete; nothing is left half-loaded.
            MismatchError: a ``fast_decoder`` that imitates another autoencoder.
        """
        folder = model_folder(path_or_name)
        classes = {"unet": IDiffUNet, "vae": VQAutoencoder, "scheduler": SchedulerChoice,
                   "fast_decoder": FastDecoder}
        unknown = sorted(set(components) - set(classes))
        if unknown:
            raise InputError(f"unknown argument {unknown[0]!r}", where="from_pretrained",
                             fix=f"known: torch_dtype, {', '.join(classes)}")
        wanted = {name: build for name, build in classes.items() if name not in components}
        found = {**load_components(folder, wanted, tuple(cls._optional_components), torch_dtype), **components}
        if components.get("fast_decoder") is not None and found["vae"] is not None:
            found["fast_decoder"] = cls._given_decoder(components["fast_decoder"], found["vae"], folder,
                                                       saved="vae" not in components, torch_dtype=torch_dtype)
        return cls(**found)

    @staticmethod
    def _given_decoder(given: FastDecoder | str | Path, vae: VQAutoencoder, folder: Path, *, saved: bool,
                       torch_dtype: torch.dtype | None) -> FastDecoder:
        """A decoder from elsewhere, checked against the autoencoder of the folder."""
        known = {"latent_channels": vae.config.latent_channels, "downsample": vae.downsample,
                 "weights": weights_hash(folder / "vae") if saved else None}
        if not isinstance(given, FastDecoder):
            return open_decoder(given, **known).to(torch_dtype or torch.float32)
        check_decoder(given, **known)
        return given

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write ``model_index.json``, ``unet/``, ``vae/``, ``scheduler/`` all at once.

        A saved pipeline already there is replaced; ``OutputError`` if the folder holds anything else.
        """
        target = Path(save_directory)
        check_target(target)
        with atomic_folder(target) as temporary:
            super().save_pretrained(temporary, **options)

    @torch.no_grad()
    def __call__(
        self,
        context: Tensor | np.ndarray | ContextBank,
        negative_context: Tensor | np.ndarray | Selection | str | None = None,
        guidance: Guidance = NEGFACEDIFF,
        num_inference_steps: int | None = None,
        seeds: Sequence[Key] | None = None,
        latents: Tensor | None = None,
        noise: Noise | None = None,
        output_type: str = "pil",
        scheduler: str | dict[str, Any] | Scheduler | None = None,
        dtype: torch.dtype | None = None,
        allow_other_conditioner: bool = False,
        compat: Iterable[str] = (),
        decoder: str | None = None,
        progress: bool = True,
    ) -> NegFaceOutput:
        """Draw one image per context.

        The rule is ``e_pos + w (e_pos - e_neg)``: diffusers' classifier-free guidance with ``guidance_scale = 1 + w``
        and the negative identity in the unconditional slot. Published weights: ``guidance.constant(0.5)`` (NegFaceDiff,
        arXiv 2508.09661), ``guidance.rising(1.0)`` (AdaptDiff, arXiv 2603.29569).

        Args:
            context: identity contexts, unit rows ``[n, d]``, or a bank.
            negative_context: ``None`` (plain sampling, one prediction a step); unit rows ``[n, d]`` (a row of zeros is
                the zero input); a ``Selection``, whose kinds are honoured row by row; or ``"null-learned"``.
            guidance: weights over time (``negface.guidance``); a step of weight 0 costs one prediction, and so does
                one at which ``guidance.reusing(k)`` keeps the direction of an earlier step.
            num_inference_steps: steps of the scheduler; default 8 of ``unipc``, 20 of the others, and of a distilled
                model those it was made for.
            seeds: one per image: an int ``s`` or ``(dataset seed, identity id, image index)``; ``s`` is short for
                ``(s, "", 0)``. The noise is ``foundation.noise.image_normal(shape, seed, identity, image, purpose)``
                with purpose ``"prior"`` or ``"step/<t>"``, so an image does not depend on its batch.
                Default: ``0 .. n-1``.
            latents: x_T ``[n, c, h, w]`` instead of the seeds' prior.
            noise: ``noise(t) -> [n, c, h, w]`` for stochastic schedulers, instead of the seeds' noise.
            output_type: ``"pil"``, ``"np"`` (float32 ``[n, H, W, 3]`` in [0, 1]), ``"pt"`` (float32 ``[n, 3, H, W]`` in
                [0, 1]), ``"uint8"`` (``[n, H, W, 3]``), ``"latent"`` (float32 ``[n, c, h, w]`` of unit variance).
            scheduler: ``"ddpm"``, ``"ddim"``, ``"dpmpp"``, ``"unipc"``, a description or a scheduler; ``None``: the
                pipeline's own, which is ``"unipc"`` unless another was saved with it.
            dtype: ``torch.bfloat16`` runs the networks in it (autocast); latents and steps stay float32.
            allow_other_conditioner: accept a bank whose contexts another recogniser made.
            compat: do as the released code: ``["reference"]``, or quirks by name (``negface.sampling.compat``); the
                scheduler must then be given by name.
            decoder: ``"full"`` or ``"fast"``; default the fast one where the pipeline has one.
            progress: show steps on a terminal if they take more than a second.

        Raises:
            InputError: contexts, negatives, latents or seeds that do not fit the model or each other, NaN, rows that
                are no unit vectors, a learned null the model does not have, an unknown scheduler or output type, a
                quirk of another scheduler than the one used, negatives that the released code selects otherwise.
            MismatchError: a bank of another conditioner.
        """
        check_output_type(output_type)
        if not isinstance(guidance, Guidance):
            raise InputError(f"{guidance!r} is no guidance rule", where="guidance", fix="use guidance.constant(0.5)")
        config = self.unet.config
        wanted = read_contexts(context, config.context_input, config.conditioner, allow_other_conditioner)
        if num_inference_steps is None:
            num_inference_steps = self.scheduler.steps(scheduler)
        scheduler, num_inference_steps, negative_context = released(
            resolve(compat), scheduler, num_inference_steps, negative_context, default=self.scheduler.config.name,
            shape=tuple(wanted.shape))
        negatives = read_negatives(negative_context, len(wanted), config.context_input, self.unet.has_learned_null)
        chosen = self.scheduler.build(scheduler)
        check_distilled((config.distilled or {}) if config.guidance_input else None, guidance, chosen)
        choose_decoder(decoder, self.vae, self.fast_decoder)
        latents, noise = self._start(len(wanted), seeds, latents, noise)
        timesteps = chosen.timesteps(num_inference_steps)
        groups = _groups(guidance, negatives)
        self._check_null(groups)
        with self._inference(dtype):
            times = self.unet.prepare_times(timesteps)
            batches = [_Batch(self.unet, times, rows, wanted, negatives, rule) for rows, rule in groups]
            runs = [trajectory(batch.predict, chosen, batch.rule, latents[batch.rows], num_inference_steps,
                               batch.its(noise)) for batch in batches]
            finals = _lockstep(runs, len(timesteps), progress)
            for batch, final in zip(batches, finals, strict=True):
                latents[batch.rows] = final
            _check_finite(latents)
            images = latents.cpu() if output_type == "latent" else convert(self.decode(latents, decoder),
                                                                                   output_type)
        mean = max((rule.mean_weight(timesteps) for _, rule in groups), default=0.0)
        return NegFaceOutput(images, mean, sum(batch.predictions for batch in batches), chosen.to_dict(),
                             guidance.to_dict())

    def decode(self, latents: Tensor, decoder: str | None = None) -> Tensor:
        """Latents of unit variance ``[n, c, h, w]`` to images ``[n, 3, H, W]``, nominally in [-1, 1].

        ``decoder``: ``"full"`` or ``"fast"``; default the fast one where the pipeline has one.
        """
        if self.vae is None:
            return latents
        chosen = choose_decoder(decoder, self.vae, self.fast_decoder)
        return chosen.decode((latents / self.vae.config.scaling_factor).to(chosen.dtype))

    def _start(self, n: int, seeds: Sequence[Key] | None, latents: Tensor | None,
               noise: Noise | None) -> tuple[Tensor, Noise]:
        """x_T on the denoiser's device, and the noise of the steps."""
        config = self.unet.config
        shape = (config.in_channels, config.sample_size, config.sample_size)
        seeds = range(n) if seeds is None else seeds
        check_count(seeds, n, "seeds")
        keyed = ImageNoise(seeds, shape)
        latents = keyed.prior() if latents is None else read_latents(latents, n, shape).clone()
        return latents.to(self.unet.device), Remembered(keyed if noise is None else noise, latents.shape)

    def _check_null(self, groups: list[tuple[Tensor, Guidance]]) -> None:
        if not self.unet.has_learned_null and any(rules.NULL in rule.all_branches for _, rule in groups):
            raise InputError("the rule steers away from the learned null, which the model does not have",
                             where="guidance", fix="use a model trained with whole-context dropout")

    @contextlib.contextmanager
    def _inference(self, dtype: torch.dtype | None) -> Iterator[None]:
        """Evaluation mode, channels last in memory and the dtype asked for; modes are put back afterwards.

        On a GPU, float32 means float32: its convolutions would otherwise round their inputs to TF32 by default.
        """
        networks = [network for network in (self.unet, self.vae, self.fast_decoder) if network is not None]
        training = [network.training for network in networks]
        lower = dtype not in (None, torch.float32)
        try:
            for network in networks:
                network.eval().to(memory_format=torch.channels_last)
            with as_asked(), torch.autocast(self.unet.device.type, dtype=dtype if lower else None, enabled=lower):
                yield
        finally:
            for network, mode in zip(networks, training, strict=True):
                network.train(mode)


class _Batch:
    """Rows that share a rule: their contexts, prepared once; their predictions, all branches in one network batch."""

    def __init__(self, unet: IDiffUNet, times: PreparedTimes, rows: Tensor, wanted: Tensor, negatives: Negatives,
                 rule: Guidance):
        if unet.config.guidance_input:
            positive, rule = guided_contexts(unet, wanted, negatives, rows, rule), rules.none()
        else:
            positive = _once_each(unet, wanted[rows])
        self.unet, self.times, self.rows, self.rule, self.predictions = unet, times, rows, rule, 0
        self.parts = {rules.POSITIVE: positive}
        if rules.NEGATIVE in rule.all_branches:
            self.parts[rules.NEGATIVE] = _prepare_negatives(unet, rows, negatives)
        if rules.NULL in rule.all_branches:
            self.parts[rules.NULL] = unet.prepare_context("learned", len(rows))
        self.stacked: dict[tuple[str, ...], PreparedContext] = {}

    def its(self, noise: Noise) -> Noise:
        """The noise of these rows."""
        return lambda t: noise(t)[self.rows]

    def predict(self, latents: Tensor, t: int, branches: tuple[str, ...]) -> dict[str, Tensor]:
        """Predicted noise float32 ``[n, c, h, w]`` of each branch."""
        if branches not in self.stacked:
            self.stacked[branches] = PreparedContext.cat([self.parts[branch] for branch in branches])
        predicted = self.unet(latents, self.times.at(t), self.stacked[branches], branches=len(branches)).float()
        self.predictions += len(predicted)
        return dict(zip(branches, predicted.chunk(len(branches)), strict=True))


def _once_each(unet: IDiffUNet, contexts: Tensor) -> PreparedContext:
    """Prepared contexts ``[n, d]``: of several pictures of a person, once."""
    distinct, places = torch.unique(contexts, dim=0, return_inverse=True)
    return unet.prepare_context(distinct.to(unet.device)).index(places.to(unet.device))


def _prepare_negatives(unet: IDiffUNet, rows: Tensor, negatives: Negatives) -> PreparedContext:
    """Prepared negatives of some rows: vectors (zeros for the zero input), or the learned null, as their kind says."""
    learned = torch.from_numpy(negatives.kind)[rows] == LEARNED
    if learned.all():
        return unet.prepare_context("learned", len(rows))
    prepared = _once_each(unet, negatives.vectors[rows])
    if not learned.any():
        return prepared
    order = torch.arange(len(rows))
    order[learned] = len(rows)
    return PreparedContext.cat([prepared, unet.prepare_context("learned", 1)]).index(order.to(unet.device))


def _groups(guidance: Guidance, negatives: Negatives) -> list[tuple[Tensor, Guidance]]:
    """Rows with a negative, and rows without: each sampled as if alone, so no solver restarts where it need not."""
    steered = torch.from_numpy(negatives.steered)
    split = [(steered, guidance), (~steered, guidance.without(rules.NEGATIVE))]
    return [(mask.nonzero()[:, 0], rule) for mask, rule in split if mask.any()]


def _lockstep(runs: list[Iterator[tuple[int, Tensor]]], steps: int, progress: bool) -> list[Tensor]:
    """The last latents of runs that visit the same timesteps, advanced together so that each noise is drawn once."""
    finals: list[Tensor] = []
    bar: Callable = Progress if progress else lambda *_, **__: contextlib.nullcontext()
    with bar("sampling", steps, unit="steps") as display:
        for states in zip(*runs, strict=True):
            finals = [latents for _, latents in states]
            if display is not None:
                display.advance()
    return finals


def _check_finite(latents: Tensor) -> None:
    bad = (~torch.isfinite(latents).flatten(1).all(dim=1)).nonzero()
    if len(bad):
        raise NegFaceError("the denoiser gave NaN or infinity", where=f"image {int(bad[0])} of the batch",
                           fix="check the checkpoint; try float32, or a smaller guidance weight")
