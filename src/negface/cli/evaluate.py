"""``negface evaluate``: measure a dataset. Separability is never printed without its company."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negface.cli.common import JsonOption, emit
from negface.cli.evaluate_sets import COMMANDS

app = typer.Typer()


@app.callback()
def evaluate() -> None:
    """Measure a dataset, with intervals over identities.

    Example: negface evaluate separability embeddings.npz --json separability.json
    """


@app.command()
def separability(
    embeddings: Annotated[Path, typer.Argument(metavar="EMBEDDINGS", help="Embeddings by the judge: .npz or "
                                               ".safetensors with embeddings [n, d] and labels [n].")],
    contexts: Annotated[Path | None, typer.Option("--contexts", metavar="BANK", help="The bank the images were made "
                                                  "from: adherence, and the check that the judge is another.")] = None,
    conditioner_embeddings: Annotated[Path | None, typer.Option(
        "--conditioner-embeddings", metavar="FILE", help="The same images by the conditioner: adherence.")] = None,
    pose: Annotated[Path | None, typer.Option("--pose", metavar="NPZ", help="pose [n, 3]: yaw, pitch, roll in "
                                              "degrees, in the order of the embeddings: pose spread.")] = None,
    features: Annotated[Path | None, typer.Option("--features", metavar="FILE", help="The same images by any other "
                                                  "network: mean pairwise feature distance.")] = None,
    train_embeddings: Annotated[Path | None, typer.Option("--train-embeddings", metavar="FILE", help="Training people "
                                                          "by the judge: leakage.")] = None,
    calibration: Annotated[Path | None, typer.Option(
        "--calibration-embeddings", metavar="FILE", help="Real people by the judge, for the leakage threshold at FMR "
        "0.1 %.  [default: the training people]", show_default=False)] = None,
    conditioner: Annotated[str | None, typer.Option("--conditioner", metavar="SHA256", help="Hash of the conditioner, "
                                                    "where the bank does not say.")] = None,
    bootstrap: Annotated[int, typer.Option("--bootstrap", min=0, help="Replicates over identities; 0 for none.")] =
    1000, seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")] = 0,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Numbers do not depend on it.  [default: all "
                                                "processors]", show_default=False)] = None,
    precision: Annotated[str, typer.Option("--precision", metavar="NAME", help="float32, or int8: large sets in a "
                                           "fraction of the time, float32 around the operating points.")] = "float32",
    force: Annotated[bool, typer.Option("--force", help="Accept a judge that is the conditioner; the result says "
                                        "so.")] = False,
    json: JsonOption = None,
) -> None:
    """Genuine against impostor scores over all pairs, with adherence, diversity and leakage beside them.

    Example: negface evaluate separability judge.npz --contexts bank.safetensors --conditioner-embeddings cond.npz
    --json separability.json
    """
    from negface.contexts import ContextBank
    from negface.evaluation.company import measure, table
    from negface.evaluation.inputs import read_pose
    from negface.perception import read_embeddings

    def optional(path: Path | None):
        return read_embeddings(path) if path is not None else None

    poses, pose_model = read_pose(pose) if pose is not None else (None, "")
    result = measure(
        read_embeddings(embeddings), contexts=ContextBank.load(contexts) if contexts is not None else None,
        conditioned=optional(conditioner_embeddings), pose=poses, pose_model=pose_model, features=optional(features),
        training=optional(train_embeddings), calibration=optional(calibration), conditioner=conditioner,
        bootstrap=bootstrap, seed=seed, threads=threads, force=force, precision=precision)
    emit(result, json=json, text=table(result))


for _command in COMMANDS:
    app.command()(_command)
