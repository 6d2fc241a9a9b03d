"""``negface evaluate``: measure a dataset. Separability is never printed without its company."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from negface.cli.common import Engine, JsonOption, emit
from negface.cli.evaluate_sets import (
    COMMANDS,
    Calibration,
    Conditioned,
    Contexts,
    Replicates,
    Seed,
    Threads,
    Training,
    bank_at,
    embeddings_at,
)

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
    contexts: Contexts = None, conditioner_embeddings: Conditioned = None,
    pose: Annotated[Path | None, typer.Option("--pose", metavar="NPZ", help="pose [n, 3]: yaw, pitch, roll in "
                                              "degrees, in the order of the embeddings: pose spread.")] = None,
    features: Annotated[Path | None, typer.Option("--features", metavar="FILE", help="The same images by any other "
                                                  "network: mean pairwise feature distance.")] = None,
    train_embeddings: Training = None, calibration: Calibration = None,
    conditioner: Annotated[str | None, typer.Option("--conditioner", metavar="SHA256", help="Hash of the conditioner, "
                                                    "where the bank does not say.")] = None,
    bootstrap: Replicates = 1000, seed: Seed = 0, threads: Threads = None,
    precision: Annotated[str, typer.Option("--precision", metavar="NAME", help="float32, or int8: large sets in a "
                                           "fraction of the time, float32 around the operating points.")] = "float32",
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="cpu, cuda or cuda:N: what multiplies. A GPU "
                                        "measures in the way of large sets.")] = "cpu",
    engine: Annotated[Engine, typer.Option("--engine", help="local: this machine; ray: a Ray cluster (extra "
                                           "negface[ray]), in the way of large sets.")] = Engine.local,
    address: Annotated[str | None, typer.Option("--address", metavar="auto|HOST[:PORT]", help="A running Ray cluster; "
                                                "without it one is started here.", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Accept a judge that is the conditioner or was trained on "
                                        "these people; the result says so.")] = False,
    json: JsonOption = None,
) -> None:
    """Genuine against impostor scores over all pairs, with adherence, diversity and leakage beside them.

    Example: negface evaluate separability judge.npz --contexts bank.safetensors --conditioner-embeddings cond.npz
    --json separability.json
    """
    from negface.evaluation.company import measure, table
    from negface.evaluation.inputs import read_pose
    from negface.evaluation.provenance import check_embedded, warning
    from negface.foundation.devices import check_device
    from negface.perception import read_embeddings

    check_device(device)
    poses, pose_model = read_pose(pose) if pose is not None else (None, "")
    judged, bank = read_embeddings(embeddings), bank_at(contexts)
    known = check_embedded(judged, force=force)
    with _spread(engine, address, threads, device) as map_blocks:
        result = measure(
            judged, contexts=bank, conditioned=embeddings_at(conditioner_embeddings), pose=poses, pose_model=pose_model,
            features=embeddings_at(features), training=embeddings_at(train_embeddings),
            calibration=embeddings_at(calibration), conditioner=conditioner, bootstrap=bootstrap, seed=seed,
            threads=threads, force=force, precision=precision, device=device, map_blocks=map_blocks)
    emit(result | known, json=json, text="\n".join([table(result), *warning(known)]))


@contextlib.contextmanager
def _spread(engine: Engine, address: str | None, threads: int | None, device: str) -> Iterator[Any]:
    """How the pass is spread: None for this process; a cluster that was started here ends with it."""
    from negface.generation.run import check_engine

    check_engine(engine, address)
    if engine is Engine.local:
        yield None
        return
    import os

    from negface.foundation.errors import InputError

    if device != "cpu":
        raise InputError("tasks of a cluster multiply on processors", where="device",
                         fix=f"--device cpu, or --engine local --device {device}")
    from negface.evaluation.ray_blocks import over_ray
    from negface.generation.ray_engine import capacity, connect, import_ray

    ray = import_ray()
    mine = not ray.is_initialized()
    if mine:
        connect(ray, address, cpus=threads or len(os.sched_getaffinity(0)))
    try:
        yield over_ray(ray, lambda: capacity(ray, "cpu", 1))
    finally:
        if mine:
            ray.shutdown()


for _command in COMMANDS:
    app.command()(_command)
