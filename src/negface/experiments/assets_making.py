"""``negface assets make``: draw the people, train what ships, measure it, pack it. Resumable, step by step.

Each step leaves a record; trainings go on from their checkpoints. Test people are in no training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from negface import datasets, population
from negface.foundation.files import read_json
from negface.foundation.hashing import sha256_file, sha256_json
from negface.generation import model_hash
from negface.perception import load_recognizer
from negface.training import train_autoencoder, train_diffusion
from negface.training.analyser import WEIGHTS_NAME as ANALYSER_NAME
from negface.training.analyser import train_analyser
from negface.training.recognition import WEIGHTS_NAME as RECOGNIZER_NAME
from negface.training.recognition import train_recognition

from .assets_recipe import AssetsRecipe
from .eyes import write_seen
from .runner import say_aloud
from .steps import Journal

STAGES = ("people", "conditioner", "judge", "analyser", "autoencoder", "embeddings", "generator")
EMBEDDED = (("generator", "conditioner", False), ("generator", "conditioner", True), ("generator", "judge", False),
            ("test", "conditioner", False), ("test", "judge", False))


class Workshop:
    """Where the assets are made: ``out/people``, ``out/training``, ``out/embeddings``, and a record for every step."""

    def __init__(self, recipe: AssetsRecipe, out: Path, *, workers: int | None = None,
                 say: Callable[[str], None] = say_aloud):
        self.recipe, self.workers, self.say = recipe, workers, say
        self.journal = Journal(Path(out), say)

    @property
    def root(self) -> Path:
        """The folder."""
        return self.journal.root

    def people(self, group: str) -> Path:
        """The pictures of a group."""
        return self.root / "people" / group

    def recognizer(self, name: str) -> Path:
        """File of the trained ``conditioner`` or ``judge``."""
        return self.root / "training" / name / "model" / RECOGNIZER_NAME

    @property
    def analyser(self) -> Path:
        """File of the trained analyser."""
        return self.root / "training" / "analyser" / "model" / ANALYSER_NAME

    @property
    def generator(self) -> Path:
        """Folder of the trained pipeline."""
        return self.root / "training" / "generator" / "model"

    def embeddings(self, group: str, eye: str, mirrored: bool = False) -> Path:
        """A group as the conditioner or the judge sees it."""
        return self.root / "embeddings" / f"{group}-{eye}{'-mirrored' if mirrored else ''}.safetensors"

    def draw(self, group: str) -> None:
        """Render a group."""
        whole, chosen, out = self.recipe.people, self.recipe.people.groups[group], self.people(group)
        wanted = {"people": chosen.people, "start": chosen.start, "seed": whole.seed, "images": whole.images,
                  "size": whole.size, "codec": whole.codec, "spreads": whole.portrait if chosen.portrait else {}}

        def make() -> dict[str, Any]:
            if not out.exists():
                population.make(out, people=chosen.people, images=whole.images, size=whole.size, seed=whole.seed,
                                start=chosen.start, codec=whole.codec, spreads=wanted["spreads"],
                                workers=self.workers)
            return {"labels": sha256_file(out / "labels.jsonl")}

        self.journal.step(f"people/{group}", wanted, make, [out])

    def _labels(self, group: str) -> str:
        return read_json(self.journal.path(f"people/{group}"))["result"]["labels"]

    def train_recognizer(self, name: str) -> None:
        """Train the ``conditioner`` or the ``judge`` on its own people."""
        recipe = getattr(self.recipe, name)
        wanted = {"recipe": recipe.model_dump(mode="json"), "people": self._labels(name)}
        self.journal.step(f"training/{name}", wanted, lambda: _plain(train_recognition(
            recipe, self.people(name), self.root / "training" / name, name=f"negface-{name}", say=self.say)),
            [self.recognizer(name)])

    def train_analyser(self) -> None:
        """Train the analyser on the conditioner's people: others than the judge's."""
        wanted = {"recipe": self.recipe.analyser.model_dump(mode="json"), "people": self._labels("conditioner")}
        self.journal.step("training/analyser", wanted, lambda: _plain(train_analyser(
            self.recipe.analyser, self.people("conditioner"), self.root / "training" / "analyser", say=self.say)),
            [self.analyser])

    def train_autoencoder(self) -> None:
        """Train the autoencoder on the generator's people."""
        wanted = {"recipe": self.recipe.autoencoder.model_dump(mode="json"), "people": self._labels("generator")}
        out = self.root / "training" / "autoencoder"
        self.journal.step("training/autoencoder", wanted, lambda: _plain(train_autoencoder(
            self.recipe.autoencoder, self.people("generator"), out, say=self.say)), [out / "model"])

    def embed(self, eyes: tuple[str, ...] = ("conditioner", "judge")) -> None:
        """The generator's people and the test people as conditioner and judge see them."""
        for group, eye, mirrored in (item for item in EMBEDDED if item[1] in eyes):
            path = self.embeddings(group, eye, mirrored)
            wanted = {"people": self._labels(group), "eye": sha256_file(self.recognizer(eye)), "mirrored": mirrored}
            self.journal.step(f"embeddings/{path.stem}", wanted, lambda p=path, g=group, e=eye, m=mirrored: write_seen(
                p, datasets.open(self.people(g)), load_recognizer(self.recognizer(e)), mirrored=m), [path])

    def train_generator(self) -> None:
        """Train the denoiser on cached latents of the generator's people."""
        autoencoder = self.root / "training" / "autoencoder" / "model"
        wanted = {"recipe": self.recipe.diffusion.model_dump(mode="json"), "people": self._labels("generator"),
                  "autoencoder": model_hash(autoencoder), "conditioner": sha256_file(self.recognizer("conditioner"))}
        self.journal.step("training/generator", wanted, lambda: _plain(train_diffusion(
            self.recipe.diffusion, self.people("generator"), self.embeddings("generator", "conditioner"),
            self.root / "training" / "generator", autoencoder=autoencoder,
            mirrored=self.embeddings("generator", "conditioner", True), say=self.say)), [self.generator])

    def make(self, stages: tuple[str, ...] = STAGES) -> None:
        """Carry out the stages, in order; what is there and unchanged is kept."""
        work: dict[str, Callable[[], None]] = {
            "people": lambda: [self.draw(group) for group in self.recipe.people.groups],
            "conditioner": lambda: self.train_recognizer("conditioner"),
            "judge": lambda: self.train_recognizer("judge"), "analyser": self.train_analyser,
            "autoencoder": self.train_autoencoder, "embeddings": self.embed, "generator": self.train_generator}
        for stage in stages:
            work[stage]()

    @property
    def recipe_hash(self) -> str:
        """SHA-256 of the recipe."""
        return sha256_json(self.recipe.model_dump(mode="json"))


def _plain(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key != "model"}
