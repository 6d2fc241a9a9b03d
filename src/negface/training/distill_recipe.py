"""The recipe of ``negface train distill``: the teacher's trajectories, the student denoiser, the fast decoder."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from .recipe import Optimisation, Section


class TrajectorySettings(Section):
    """The teacher's own runs, of which both students learn.

    ``count`` runs of ``steps`` steps of ``scheduler``; each with a person of the bank, a negative of one of
    ``negatives`` (strategies) and a guidance weight drawn evenly from ``weights`` (low, high); ``batch`` rows at a
    time, ``part`` runs a file. ``held_out`` of them are never trained on and measure the result.
    """

    count: PositiveInt = 4096
    steps: PositiveInt = 16
    scheduler: Literal["dpmpp", "ddim", "unipc"] = "dpmpp"
    negatives: tuple[str, ...] = Field(("far",), min_length=1)
    weights: tuple[float, float] = (0.0, 1.0)
    held_out: PositiveInt = 64
    batch: PositiveInt = 64
    part: PositiveInt = 256
    precision: Literal["bf16", "fp32"] = "bf16"
    seed: int = 0

    @field_validator("weights")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] <= value[1] < float("inf"):
            raise ValueError("must be low, high with 0 <= low <= high")
        return value

    @model_validator(mode="after")
    def _something_left(self) -> TrajectorySettings:
        if self.held_out >= self.count:
            raise ValueError("held_out must be less than count")
        return self


class Stage(Section):
    """A part of the student's training, ``share`` of its steps, in which it learns to make ``predictions`` steps."""

    predictions: PositiveInt
    share: float = Field(1.0, gt=0.0)


class StudentSettings(Section):
    """The student denoiser: its stages, in order; the last decides how many predictions it makes."""

    train: Optimisation
    stages: tuple[Stage, ...] = Field((Stage(predictions=16, share=0.2), Stage(predictions=4, share=0.8)), min_length=1)


class DecoderModel(Section):
    """Shape of a ``FastDecoder``: widths and residual blocks of its levels, from the latent's size upwards."""

    widths: tuple[PositiveInt, ...] = Field((64, 48), min_length=1)
    blocks: tuple[PositiveInt, ...] = Field((3, 1), min_length=1)


class DecoderSettings(Section):
    """The fast decoder: L1 + ``gradient_weight`` × multi-scale gradients, to the full decoder's pictures.

    ``jitter``: length of the noise added to latents of unit variance, for those a sampler leaves a little off.
    """

    model: DecoderModel = DecoderModel()
    train: Optimisation
    gradient_weight: float = Field(1.0, ge=0.0)
    jitter: float = Field(0.05, ge=0.0, lt=1.0)


class DistillRecipe(Section):
    """``negface train distill``: a student denoiser, a fast decoder, or both."""

    trajectories: TrajectorySettings = TrajectorySettings()
    student: StudentSettings | None = None
    decoder: DecoderSettings | None = None

    @model_validator(mode="after")
    def _checked(self) -> DistillRecipe:
        if self.student is None and self.decoder is None:
            raise ValueError("nothing to train: give a [student] section, a [decoder] section, or both")
        most = max((stage.predictions for stage in self.student.stages), default=0) if self.student else 0
        if most > self.trajectories.steps:
            raise ValueError(f"a stage of {most} predictions needs trajectories of at least as many steps")
        return self
