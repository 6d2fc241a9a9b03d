"""``negface generate``: a bank of identities in, a dataset of pictures out; resumable, reproducible, exact counts."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from negface.cli.common import JsonOption, emit

if TYPE_CHECKING:
    from negface.contexts import ContextBank
    from negface.generation import Inputs
    from negface.sampling.guidance import Guidance

app = typer.Typer()


class Format(StrEnum):
    """How pictures lie on disk."""

    folder = "folder"
    shards = "shards"


class Align(StrEnum):
    """How pictures come to the template."""

    none = "none"
    detect = "detect"
    template = "template"


class Scope(StrEnum):
    """What a negative is fixed for."""

    identity = "identity"
    image = "image"


class Dtype(StrEnum):
    """What the networks compute in."""

    fp32 = "fp32"
    bf16 = "bf16"


@app.command()
def generate(
    model: Annotated[Path, typer.Option("--model", help="Folder of a saved pipeline.")],
    contexts: Annotated[Path, typer.Option("--contexts", help="Bank of identity contexts.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the dataset; one begun with the same plan is resumed.")],
    negatives: Annotated[str, typer.Option("--negatives", help="Strategy, or a file of `negface negatives`.")] = "far",
    guidance: Annotated[str, typer.Option("--guidance", help="constant, rising, falling or none.")] = "constant",
    weight: Annotated[float, typer.Option("--weight", help="Guidance weight w.")] = 0.5,
    interval: Annotated[tuple[float, float] | None, typer.Option(
        "--interval", metavar="LOW HIGH", help="Guide only at these timesteps (0 to 1000, inclusive).")] = None,
    images: Annotated[int, typer.Option("--images", help="Pictures of each identity, exactly.")] = 50,
    identities: Annotated[int | None, typer.Option("--identities", help="Draw only the first N of the bank.")] = None,
    steps: Annotated[int, typer.Option("--steps", help="Steps of the scheduler.")] = 20,
    scheduler: Annotated[str, typer.Option("--scheduler", help="ddpm, ddim, dpmpp or unipc.")] = "dpmpp",
    seed: Annotated[int, typer.Option("--seed", help="Dataset seed: of all noise, and of random negatives.")] = 0,
    pool: Annotated[Path | None, typer.Option(
        "--pool", help="Bank the negatives come from (default: --contexts).")] = None,
    negative_scope: Annotated[Scope, typer.Option(
        "--negative-scope", help="One negative for each identity, or (random only) for each image.")] = Scope.identity,
    format: Annotated[Format, typer.Option("--format", help="Identity folders or webdataset tars.")] = Format.folder,
    size: Annotated[int | None, typer.Option(
        "--size", help="Side in pixels (default: 112; with --align none the model's own).")] = None,
    align: Annotated[Align, typer.Option(
        "--align", help="template: the model draws in the ArcFace template, resize; detect: find five points and warp "
                        "(needs --detector); none: as drawn.")] = Align.template,
    detector: Annotated[Path | None, typer.Option("--detector", help="YuNet file for --align detect.")] = None,
    codec: Annotated[str, typer.Option("--codec", help="jpeg, png or simplejpeg.")] = "jpeg",
    workers: Annotated[int, typer.Option("--workers", help="Processes; the bytes do not depend on it.")] = 1,
    threads: Annotated[int, typer.Option("--threads", help="Threads of a worker.")] = 1,
    batch: Annotated[int, typer.Option("--batch", help="Pictures in a batch.")] = 32,
    unit: Annotated[int | None, typer.Option(
        "--unit", help="About how many pictures are published at a time (default: 4 batches, 16 for shards).")] = None,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="fp32 or bf16.")] = Dtype.fp32,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    allow_conditioner_mismatch: Annotated[bool, typer.Option(
        "--allow-conditioner-mismatch", help="Take contexts of another recogniser than the model's.")] = False,
    compat: Annotated[list[str] | None, typer.Option(
        "--compat", help="Do as the released code: reference, or quirks by name (negface compat list).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, from ten seconds of it.")] = False,
    json: JsonOption = None,
) -> None:
    """Generate pictures of a bank's identities, each steered away from its negative.

    An interrupted run is resumed by the same command, without loss or repetition. Exit code 0 means that every picture
    asked for is there.

    Example: negface generate --model M --contexts bank.safetensors --negatives far --guidance constant --weight 0.5
    --images 50 --steps 20 --scheduler dpmpp --seed 0 --out faces --format shards
    """
    from negface.contexts import ContextBank
    from negface.foundation.errors import InputError
    from negface.generation import Tools, estimate, make_plan
    from negface.generation import generate as carry_out
    from negface.generation.finishing import yunet_aligner
    from negface.sampling.compat import resolve

    if align is Align.detect and detector is None:
        raise InputError("--align detect needs --detector", fix="name a YuNet file, or use --align template")
    choice = resolve(compat or ())
    (scheduler, steps), negatives = choice.scheduler(scheduler, steps), choice.negatives(negatives)
    bank = ContextBank.load(contexts)
    inputs = _inputs(bank, negatives, pool, negative_scope.value, seed)
    plan = make_plan(
        model, inputs, guidance=_rule(guidance, weight, interval), identities=identities, images=images, steps=steps,
        scheduler=scheduler, seed=seed, batch=batch, threads=threads, dtype=dtype.value, device=device, size=size,
        align=align.value, detector=detector, codec_name=codec, format=format.value, unit_images=unit,
        allow_conditioner_mismatch=allow_conditioner_mismatch)
    tools = Tools(str(model), aligner=yunet_aligner if align is Align.detect else None,
                  aligner_arguments=(str(detector), plan.size) if align is Align.detect else ())
    if dry_run:
        result = estimate(plan, inputs, tools, workers=workers)
        emit({**result, "dry_run": True, "plan": plan.hash}, json=json, text=_forecast(result))
        return
    typer.echo(f"{plan.total_images:,} pictures of {len(plan.identities):,} identities; "
               f"mean guidance weight of the run: {plan.mean_weight:.4f}", err=True)
    result = carry_out(plan, inputs, out, tools, workers=workers)
    emit(result, json=json, text=_summary(result))


def _rule(name: str, weight: float, interval: tuple[float, float] | None) -> Guidance:
    from negface.sampling import guidance

    rule = guidance.make(name, None if name == "none" else weight)
    return rule if interval is None else rule.on(*interval)


def _inputs(bank: ContextBank, negatives: str, pool: Path | None, scope: str, seed: int) -> Inputs:
    """Negatives by strategy, or from a file where one of that name exists or the name looks like a path."""
    from negface.contexts import ContextBank, Selection
    from negface.foundation.errors import InputError
    from negface.generation import Inputs, make_inputs

    path = Path(negatives)
    if path.suffix == ".safetensors" or len(path.parts) > 1:
        if pool is not None or scope == "image":
            raise InputError("a file of negatives fixes them: --pool and --negative-scope image do not go with it",
                             where="--negatives")
        selection = Selection.load(path)
        return Inputs(bank, selection, selection.strategy or "given")
    return make_inputs(bank, negatives, pool=None if pool is None else ContextBank.load(pool), seed=seed, scope=scope)


def _forecast(result: dict[str, Any]) -> str:
    from negface.foundation.progress import format_seconds

    return (f"{result['images']:,} pictures, {result['predictions']:,} predictions "
            f"({result['gflop_per_prediction']:.3g} GFLOP each), {result['tflop']:.4g} TFLOP in all\n"
            f"disk about {result['disk_bytes'] / 1e6:,.1f} MB\n"
            f"time about {format_seconds(result['seconds'])} with {result['workers']} worker(s): "
            f"{result['images_per_second']:.3g} images/s (calibrated in {result['calibration_seconds']:.1f} s)\n"
            f"mean guidance weight of the run: {result['mean_weight']:.4f}\nnothing was written")


def _summary(result: dict[str, Any]) -> str:
    rate = f"{result['images_per_second']:.3g} images/s" if result["images_per_second"] else "nothing left to make"
    kept = f", {result['images_kept']:,} were there" if result["images_kept"] else ""
    lost = result["faces_not_found"]
    replaced = f"\n{lost:,} pictures without a face were replaced" if lost else ""
    return (f"{result['images']:,} pictures of {result['identities']:,} identities in {result['out']} "
            f"({result['images_made']:,} made{kept}; {rate}){replaced}")
