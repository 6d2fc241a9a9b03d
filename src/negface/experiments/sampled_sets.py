"""Sets drawn with one setting each, of the same people from the same noise, and measured alike.

Shared by the frontier (schedulers, steps, guidance) and by the effects of the released code's quirks. A set belongs to
its plan: one that two comparisons need is drawn once where they share a folder; an interrupted one goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from negface import datasets
from negface.contexts import ContextBank
from negface.evaluation import company
from negface.foundation.errors import InputError
from negface.generation import Inputs, Plan, Tools, estimate, generate, make_inputs, make_plan
from negface.generation.planning import model_facts
from negface.perception import Embeddings, read_embeddings
from negface.pipelines.distilled import FAST, FULL
from negface.sampling import schedulers
from negface.sampling.distilled import Distilled
from negface.sampling.guidance import Guidance

from .eyes import Eyes, write_seen
from .steps import Journal

JUDGED, CONDITIONED, DATASET = "judge.npz", "conditioner.npz", "dataset"
MEASURES = ("fdr", "eer", "diversity", "adherence")
MEASURED = (*(f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")), "n_identities", "n_images")


@dataclass(frozen=True)
class Setting:
    """How a set is drawn: the scheduler (a name or a description), its steps, the rule, the negatives, the seeds.

    ``model``: folder of another pipeline than the studio's, such as a student. ``decoder``: folder of a fast decoder,
    or ``"full"``; None: the model's own.
    """

    name: str
    rule: Guidance
    scheduler: str | dict[str, Any] = "dpmpp"
    steps: int = 20
    negatives: str = "far"
    seeds: tuple[int, ...] = (0, 1, 2)
    model: Path | None = None
    decoder: Path | str | None = None

    @property
    def scheduler_name(self) -> str:
        """The scheduler's name."""
        return self.scheduler if isinstance(self.scheduler, str) else self.scheduler["name"]

    @property
    def predictions(self) -> int:
        """Predictions of the network an image costs; a distilled model's guided prediction is one."""
        if self.scheduler_name == Distilled.name:
            return self.steps
        described = {"name": self.scheduler} if isinstance(self.scheduler, str) else self.scheduler
        timesteps = schedulers.from_dict(described).timesteps(self.steps)
        return sum(map(len, self.rule.predicted(timesteps)))


@dataclass(frozen=True)
class Studio:
    """What all sets share.

    Attributes:
        journal: where sets and records lie.
        model: folder of the pipeline. bank: whom to draw; seed s draws the s-th ``identities`` of it, so that sets of
            different seeds are of different people and can be pooled.
        eyes: conditioner and judge. images: of each person.
    """

    journal: Journal
    model: Path
    bank: ContextBank
    eyes: Eyes
    identities: int = 16
    images: int = 20
    batch: int = 32
    dtype: str = "bf16"
    threads: int = 1
    bootstrap: int = 1000
    workers: int = 1

    @cached_property
    def size(self) -> int:
        """Side of the pictures: what the judge takes."""
        return self.eyes.judge_declaration.size[0]

    def inputs(self, setting: Setting, seed: int) -> Inputs:
        """The bank turned so that the seed's people come first, with their negatives."""
        if (seed + 1) * self.identities > len(self.bank):
            raise InputError(f"seed {seed} needs {(seed + 1) * self.identities} identities, the bank has "
                             f"{len(self.bank)}", where="contexts", fix="make a larger bank, or draw fewer a seed")
        turned = self.bank.subset(np.roll(np.arange(len(self.bank)), -seed * self.identities))
        return make_inputs(turned, setting.negatives, seed=seed)

    def plan(self, setting: Setting, inputs: Inputs, seed: int) -> Plan:
        """The plan of a set."""
        return make_plan(
            setting.model or self.model, inputs, guidance=setting.rule, identities=self.identities, images=self.images,
            steps=setting.steps, scheduler=setting.scheduler, seed=seed, batch=self.batch, threads=self.threads,
            dtype=self.dtype, size=self.size, decoder=setting.decoder)

    def tools(self, setting: Setting) -> Tools:
        """What workers need to draw a setting."""
        return Tools(model=str(setting.model or self.model), decoder=str(setting.decoder) if setting.decoder else None)

    def decoder(self, setting: Setting) -> str:
        """The decoder a setting is drawn with, ``full`` or ``fast``."""
        if setting.decoder is not None:
            return FULL if setting.decoder == FULL else FAST
        return FAST if model_facts(setting.model or self.model)["fast_decoder"] else FULL


def seconds_per_prediction(studio: Studio, setting: Setting) -> float:
    """Seconds a prediction takes here, with its share of decoding and writing, from some seconds of it."""
    inputs = studio.inputs(setting, setting.seeds[0])
    found = estimate(studio.plan(setting, inputs, setting.seeds[0]), inputs, studio.tools(setting),
                     workers=studio.workers, seconds=4.0)
    return found["seconds"] / found["predictions"]


def draw(studio: Studio, setting: Setting, seed: int) -> tuple[Path, dict[str, Any]]:
    """Draw one set and look at it; what is there is kept. Returns its folder and its record."""
    inputs = studio.inputs(setting, seed)
    plan = studio.plan(setting, inputs, seed)
    folder = studio.journal.root / "sets" / plan.hash[:16]

    def make() -> dict[str, Any]:
        made = generate(plan, inputs, folder / DATASET, studio.tools(setting), workers=studio.workers)
        faces = datasets.open(folder / DATASET)
        write_seen(folder / JUDGED, faces, studio.eyes.judge, resize=studio.eyes.resize)
        write_seen(folder / CONDITIONED, faces, studio.eyes.conditioner, resize=studio.eyes.resize)
        return {"setting": setting.name, "seed": seed, "plan": plan.hash, "images": made["images"],
                "images_per_second": made["images_per_second"], "mean_weight": made["mean_weight"]}

    looked = {"plan": plan.hash, "eyes": studio.eyes.describe()}
    record = studio.journal.step(f"sets/{plan.hash[:16]}/record", looked, make, [folder / JUDGED, folder / CONDITIONED])
    return folder, record


def pooled(parts: Sequence[Embeddings]) -> Embeddings:
    """Several sets as one; people of different sets are different people."""
    starts = np.cumsum([0, *(len(part.identities) for part in parts)])
    return Embeddings(
        np.concatenate([part.embeddings for part in parts]),
        np.concatenate([part.labels + start for part, start in zip(parts, starts)]),
        tuple(name for part in parts for name in part.identities), (), parts[0].provenance)


def seen(folders: Sequence[Path]) -> tuple[Embeddings, Embeddings]:
    """What judge and conditioner saw of some sets, pooled."""
    judged, conditioned = (pooled([read_embeddings(folder / name) for folder in folders])
                           for name in (JUDGED, CONDITIONED))
    return judged, conditioned


def measure(studio: Studio, setting: Setting) -> dict[str, Any]:
    """Draw a setting's sets and measure them pooled, with intervals over people, and seed by seed."""
    drawn = [draw(studio, setting, seed) for seed in setting.seeds]
    folders, records = [folder for folder, _ in drawn], [record for _, record in drawn]

    def make() -> dict[str, Any]:
        total = _measured(studio, folders, studio.bootstrap)
        single = [{"seed": seed, **{key: _measured(studio, [folder], 0)[key] for key in MEASURES}}
                  for seed, folder in zip(setting.seeds, folders, strict=True)]
        rates = [record["images_per_second"] for record in records if record["images_per_second"]]
        return {**{key: total[key] for key in MEASURED}, "by_seed": single, "mean_weight": records[0]["mean_weight"],
                "images_per_second": sum(rates) / len(rates) if rates else None}

    inputs = {"plans": [record["plan"] for record in records], "eyes": studio.eyes.describe(),
              "bootstrap": studio.bootstrap}
    return studio.journal.step(f"measured/{setting.name}", inputs, make)


def _measured(studio: Studio, folders: Sequence[Path], bootstrap: int) -> dict[str, Any]:
    judged, conditioned = seen(folders)
    return company.measure(judged, contexts=studio.bank, conditioned=conditioned, bootstrap=bootstrap,
                           threads=studio.threads, force=bool(studio.eyes.same))


def open_studio(out: Path, *, model: Path | None, contexts: Path, conditioner: Path | None, judge: Path | None,
                say: Any, force: bool = False, **options: Any) -> Studio:
    """A studio in a folder; models that are not given are those that ship.

    Errors: ``InputError`` where one is not given and does not ship; ``MismatchError`` for a judge that is the
    conditioner, unless ``force``.
    """
    from .assets import load

    eyes = Eyes(conditioner or load("conditioner"), judge or load("judge"), (), threads=options.get("threads", 1),
                force=force, resize=True)
    pipeline, bank = model or load("generator"), ContextBank.load(contexts)
    return Studio(Journal(out, say), pipeline, bank, eyes, **options)


def facts(studio: Studio) -> dict[str, Any]:
    """What a table says of where its figures come from."""
    inputs = studio.inputs(Setting("", Guidance()), 0)
    plan = studio.plan(Setting("", Guidance()), inputs, 0)
    return {"model": plan.model, "bank": studio.bank.hash, "judge": studio.eyes.judge_declaration.identity,
            "conditioner": studio.eyes.conditioner_declaration.identity, "identities_of_a_seed": studio.identities,
            "images_of_a_person": studio.images, "dtype": studio.dtype, "processor": plan.processor,
            "versions": plan.versions}


def only(settings: Sequence[Setting], patterns: Sequence[str]) -> list[Setting]:
    """The settings whose name fits a shell pattern, in their order; ``InputError`` names a pattern that fits none."""
    from fnmatch import fnmatch

    for pattern in patterns:
        if not any(fnmatch(item.name, pattern) for item in settings):
            raise InputError(f"{pattern!r} fits none of {', '.join(item.name for item in settings)}", where="--only")
    return [item for item in settings if any(fnmatch(item.name, pattern) for pattern in patterns)]
