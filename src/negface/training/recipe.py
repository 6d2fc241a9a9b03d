"""Recipes: TOML to frozen, validated values; an unknown key is an error with a suggestion, never ignored."""

from __future__ import annotations

import inspect
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from negface.foundation.errors import FormatError, InputError, UnknownNameError
from negface.foundation.files import existing_file

R = TypeVar("R", bound=BaseModel)
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """Base of all recipe sections: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EMA(Section):
    """Weight average. ``power``: relative width ``sigma_rel`` of the run (EDM2, arXiv 2312.02696, sec. 3.1);
    ``exponential``: fixed ``decay`` after the inverse-gamma warm-up of IDiff-Face (power 0.75)."""

    kind: Literal["power", "exponential"] = "power"
    sigma_rel: float = Field(0.08, gt=0.0, lt=0.28)
    decay: float = Field(0.9999, gt=0.0, lt=1.0)


class Optimisation(Section):
    """What every trainer shares. Learning rate: linear warm-up, then cosine to ``final_share`` of the peak."""

    seed: int = 0
    steps: PositiveInt
    batch: PositiveInt = 64
    learning_rate: float = Field(1e-4, gt=0.0)
    warmup: int = Field(200, ge=0)
    final_share: float = Field(0.01, ge=0.0, le=1.0)
    weight_decay: float = Field(0.0, ge=0.0)
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    clip: float = Field(1.0, gt=0.0)
    precision: Literal["bf16", "fp32"] = "bf16"
    ema: EMA = EMA()
    log_every: PositiveInt = 20
    checkpoint_every: PositiveInt = 500
    sample_every: PositiveInt = 1000


class Adversary(Section):
    """Patch discriminator (VQGAN, arXiv 2012.09841, sec. 3.1): hinge loss from step ``start`` on."""

    start: int = Field(1000, ge=0)
    weight: float = Field(0.1, gt=0.0)
    channels: PositiveInt = 32
    learning_rate: float = Field(2e-4, gt=0.0)


class AutoencoderModel(Section):
    """Shape of a ``VQAutoencoder``; the defaults are the published f4."""

    image_size: PositiveInt = 128
    latent_channels: PositiveInt = 3
    channels: PositiveInt = 128
    multipliers: tuple[PositiveInt, ...] = Field((1, 2, 4), min_length=1)
    blocks: PositiveInt = 2
    codebook_size: PositiveInt = 8192
    patch: PositiveInt = 1
    group_channels: PositiveInt | None = None
    requantize: bool = True


class AutoencoderRecipe(Section):
    """``negface train autoencoder``: L1 + multi-scale gradient + commitment, optional patch adversary."""

    model: AutoencoderModel = AutoencoderModel()
    train: Optimisation
    gradient_weight: float = Field(1.0, ge=0.0)
    commitment_weight: float = Field(0.25, ge=0.0)
    feature_weight: float = Field(0.0, ge=0.0)
    quantized_share: float = Field(1.0, ge=0.0, le=1.0)
    adversary: Adversary | None = None

    @field_validator("feature_weight")
    @classmethod
    def _no_feature_loss_yet(cls, value: float) -> float:
        if value:
            raise ValueError("the feature loss is not there yet; leave feature_weight at 0")
        return value


class DiffusionModel(Section):
    """Shape of an ``IDiffUNet``; the defaults are the published cross-attention model with CPD 25 %."""

    initial_channels: PositiveInt = 96
    channel_multipliers: tuple[PositiveInt, ...] = Field((1, 2, 2, 2), min_length=1)
    is_attention: tuple[bool, ...] = (False, True, True, True)
    head_channels: PositiveInt = 32
    blocks_per_resolution: PositiveInt = 2
    context_channels: PositiveInt = 256
    condition_type: Literal["CA", "AdaGN", "CA+AdaGN"] = "CA"
    context_dropout_probability: float = Field(0.25, ge=0.0, lt=1.0)
    learned_null: bool = True
    group_channels: PositiveInt | None = None
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"


class IdentityLoss(Section):
    """Identity loss on one-step reconstructions, on ``share`` of each batch, from step ``start`` on."""

    weight: float = Field(0.1, gt=0.0)
    start: int = Field(0, ge=0)
    share: float = Field(0.5, gt=0.0, le=1.0)
    reader_steps: PositiveInt = 2000
    reader_batch: PositiveInt = 64
    reader_learning_rate: float = Field(1e-3, gt=0.0)

    def reader_recipe(self) -> dict[str, Any]:
        """What decides the reader."""
        return self.model_dump(include={"reader_steps", "reader_batch", "reader_learning_rate"})


class DiffusionRecipe(Section):
    """``negface train diffusion``: denoising on cached latents, with partial and whole-context dropout.

    ``loss_weighting``: ``uniform`` (published) or ``min-snr`` (arXiv 2303.09556, eq. 4-6, γ = ``min_snr_gamma``).
    ``context_of``: the context of a training picture is the embedding of that ``image`` (published), of the
    ``person`` (normalised mean), or ``mixed``, one or the other by chance.
    """

    model: DiffusionModel = DiffusionModel()
    train: Optimisation
    empty_share: float = Field(0.15, ge=0.0, le=1.0)
    loss_weighting: Literal["uniform", "min-snr"] = "uniform"
    min_snr_gamma: float = Field(5.0, gt=0.0)
    context_of: Literal["image", "person", "mixed"] = "image"
    context_noise: float = Field(0.0, ge=0.0, lt=1.0)
    flips: bool = True
    identity: IdentityLoss | None = None


class RecognitionModel(Section):
    """A recognition backbone: a ``model`` registry entry, its arguments; ``dim`` and ``image_size`` are among them."""

    architecture: str = "mobilefacenet"
    dim: PositiveInt = 128
    image_size: PositiveInt = 112
    options: dict[str, Any] = {}


class RecognitionHead(Section):
    """The loss over identities, by its registered name, and its arguments.

    ``sample_rate``: share of the identities that a step scores and moves (Partial FC, arXiv 2010.05222); 1 = all.
    """

    name: str = "cosface"
    options: dict[str, Any] = {}
    sample_rate: float = Field(1.0, gt=0.0, le=1.0)


class RecognitionOptimisation(Optimisation):
    """``steps`` or ``epochs``. ``learning_rate`` is for ``reference_batch`` pictures (None: for ``batch``) and grows
    in proportion. ``clip`` holds for backbone and head each. ``schedule``: ``cosine``; ``drops`` multiplies by
    ``drop_factor`` at each epoch in ``drops`` or each step in ``drop_steps``; ``plateau`` does so after ``patience``
    validations without gain.
    ``ema``: what is validated and saved is the average of weights."""

    steps: PositiveInt | None = None  # type: ignore[assignment]
    epochs: PositiveInt | None = None
    reference_batch: PositiveInt | None = None
    schedule: Literal["cosine", "drops", "plateau"] = "cosine"
    drops: tuple[Annotated[float, Field(gt=0.0)], ...] = ()
    drop_steps: tuple[PositiveInt, ...] = ()
    drop_factor: float = Field(0.1, gt=0.0, lt=1.0)
    patience: int = Field(4, ge=0)
    ema: EMA | None = None  # type: ignore[assignment]

    @model_validator(mode="after")
    def _one_length(self) -> RecognitionOptimisation:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        if bool(self.drops or self.drop_steps) != (self.schedule == "drops"):
            raise ValueError("drops belong to schedule = \"drops\", which needs them (drops or drop_steps)")
        if self.drops and self.drop_steps:
            raise ValueError("give either drops (epochs) or drop_steps")
        late = [step for step in self.drop_steps if self.steps is not None and step >= self.steps]
        if late:
            raise ValueError(f"drop_steps {late[0]} is not before the end, steps = {self.steps}")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Hashes of recipes name checkpoints and cells: a key that is not used leaves them what they were.
        said = dump(self)
        if not self.drop_steps:
            said.pop("drop_steps", None)
        return said


class RecognitionAugmentation(Section):
    """``randaugment``: ``operations`` of thirteen a picture, bins 1 to ``largest`` of 31; ``adaface``: crop, low
    resolution and light, each with probability 0.2."""

    policy: Literal["none", "randaugment", "adaface"] = "none"
    operations: PositiveInt = 4
    largest: int = Field(16, ge=1, le=30)


class RecognitionData(Section):
    """``memory``: GiB of decoded pictures to keep; a larger set is decoded anew each epoch by ``threads`` threads.
    ``broken_share``: share of unreadable pictures that is passed over. ``per_identity``: pictures of each person in a
    batch (triplets need 2 or more); none: pictures in random order."""

    memory: float = Field(4.0, ge=0.0)
    threads: PositiveInt = 2
    broken_share: float = Field(0.01, ge=0.0, lt=1.0)
    per_identity: PositiveInt | None = None


class RecognitionValidation(Section):
    """Accuracy on verification pairs every ``every`` epochs: which weights are kept, when the plateau schedule drops,
    when to stop (after ``stop_after`` validations without gain).

    ``selection``: ``development`` refuses test benchmarks, ``released`` takes their mean as the published code does.
    Either way the recogniser's declaration names the pairs, and ``negface verify`` refuses it on them.
    """

    selection: Literal["development", "released"] = "development"
    every: float = Field(1.0, gt=0.0)
    stop_after: PositiveInt | None = None


class RecognitionRecipe(Section):
    """``negface train recognition``: a backbone and a head on labelled faces."""

    model: RecognitionModel = RecognitionModel()
    head: RecognitionHead = RecognitionHead()
    train: RecognitionOptimisation
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = Field(0.9, ge=0.0, lt=1.0)
    flips: bool = True
    augmentation: RecognitionAugmentation = RecognitionAugmentation()
    data: RecognitionData = RecognitionData()
    validation: RecognitionValidation = RecognitionValidation()

    @model_validator(mode="after")
    def _fits_together(self) -> RecognitionRecipe:
        shared, batch = self.data.per_identity, self.train.batch
        if self.head.name == "triplet" and (shared or 0) < 2:
            raise ValueError("triplets need data.per_identity of 2 or more")
        if shared and batch % shared:
            raise ValueError(f"data.per_identity {shared} does not divide train.batch {batch}")
        if self.head.sample_rate < 1 and self.optimizer != "sgd":
            raise ValueError("a sampled classifier is moved by SGD: set optimizer = \"sgd\"")
        if self.head.sample_rate < 1 and self.head.name == "triplet":
            raise ValueError("triplets have no classes to sample: leave head.sample_rate at 1")
        return self


class AnalyserModel(Section):
    """Shape of an ``Analyser``."""

    image_size: PositiveInt = 64
    widths: tuple[PositiveInt, PositiveInt, PositiveInt] = (32, 64, 128)


class AnalyserRecipe(Section):
    """``negface train analyser``: pose, light, expression, age, skin tone, landmarks and parsing from renders."""

    model: AnalyserModel = AnalyserModel()
    train: Optimisation
    points_weight: float = Field(8.0, ge=0.0)
    parsing_weight: float = Field(0.3, ge=0.0)


def parse_recipe(model: type[R], table: dict[str, Any], where: object) -> R:
    """Validate a table; ``InputError`` names the key, what is wrong, and a close key for an unknown one."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        faults = error.errors()
        first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
        path = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UnknownNameError("recipe key", path, _keys_beside(model, first["loc"])) from error
        raise InputError(f"{path or 'recipe'}: {first['msg']} (got {first.get('input')!r})", where=where) from error


def read_toml(path: str | os.PathLike) -> dict[str, Any]:
    """A TOML file as a table; ``FormatError`` names the line of a fault."""
    path = existing_file(Path(path), "recipe")
    try:
        return tomllib.loads(path.read_text())
    except (ValueError, RecursionError) as error:  # faults of TOML and of its text are ValueErrors
        raise FormatError(f"not valid TOML ({error})", where=path) from error


def load_recipe(model: type[R], path: str | os.PathLike) -> R:
    """Read and validate a TOML recipe."""
    return parse_recipe(model, read_toml(path), path)


def _keys_beside(model: type[BaseModel], location: tuple) -> list[str]:
    current: Any = model
    for part in location[:-1]:
        if isinstance(part, str):  # a number is a place in a list of sections
            current = _section_in(current.model_fields[part].annotation)
    prefix = ".".join(str(part) for part in location[:-1])
    return [f"{prefix}.{name}" if prefix else name for name in current.model_fields]


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, be it alone, optional or in a list."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, getattr(annotation, "__args__", ()))), None)
