"""``demo --from-scratch``: draw simple people, train two recognisers and a generator, and give all of it to ``run``.

The faces are drawn ellipses of 32 px: it shows every training at work within minutes, and proves nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from negface.foundation.files import atomic_folder

from .demo_eyes import write_recognizer
from .demo_faces import write_faces
from .recipe import RunRecipe, load_run_recipe
from .runner import Setup, run, say_aloud
from .steps import Journal

PEOPLE, PICTURES, EYE_STEPS, EYE_PEOPLE = 240, 12, 500, 250
FACES, CONDITIONER, JUDGE = range(3)  # populations: no person is in two


def scratch_recipe() -> RunRecipe:
    """The recipe that ships with the package."""
    with as_file(files(__package__) / "demo-from-scratch.toml") as path:
        return load_run_recipe(path)


def demo_from_scratch(out: Path, *, workers: int = 1, recipe: RunRecipe | None = None, people: int = PEOPLE,
         eye_steps: int = EYE_STEPS, eye_people: int = EYE_PEOPLE,
         say: Callable[[str], None] = say_aloud) -> dict[str, Any]:
    """Run the demo into ``out``; resumable like every run. Returns the summary of ``run`` with the whole ``seconds``.

    Args:
        out: folder; faces and recognisers go to ``out/material``.
        workers: processes of generation.
        recipe: default: the demo's own. people: how many are drawn. eye_steps, eye_people: what
            the recognisers are trained on.
    """
    started = time.monotonic()
    journal = Journal(Path(out), say)
    material = journal.root / "material"
    faces = material / "faces"

    def draw() -> dict[str, Any]:
        with atomic_folder(faces) as folder:
            write_faces(folder, range(people), PICTURES, seed=FACES)
        return {"people": people, "pictures": PICTURES}

    journal.step("material/faces", {"people": people, "pictures": PICTURES, "seed": FACES}, draw, [faces])
    eyes = {}
    for name, architecture, population in (("conditioner", "demo-recognizer", CONDITIONER),
                                           ("judge", "demo-judge", JUDGE)):
        path = eyes[name] = material / f"{name}.safetensors"
        wanted = {"architecture": architecture, "population": population, "steps": eye_steps, "people": eye_people}
        journal.step(f"material/{name}", wanted,
                     lambda path=path, wanted=wanted: {"file": write_recognizer(path, **wanted).name}, [path])
    summary = run(recipe or scratch_recipe(), Setup(
        faces=faces, conditioner=eyes["conditioner"], judge=eyes["judge"], out=journal.root, workers=workers,
        command="negface demo --from-scratch", say=say, notes=(
            "drawn faces, not photographs: the numbers show the path and say nothing about real faces",)))
    return {**summary, "seconds": round(time.monotonic() - started, 1)}
