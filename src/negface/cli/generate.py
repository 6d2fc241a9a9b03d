"""``negface generate``: a bank of identities in, a dataset of pictures out; resumable, reproducible, exact counts."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from negface.cli.common import Engine, JsonOption, emit
from negface.cli.generate_again import again, check, open_tools, read_inputs, required

if TYPE_CHECKING:
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
    model: Annotated[Path | None, typer.Option(
        "--model", help="Folder of a saved pipeline.  [required]", show_default=False)] = None,
    contexts: Annotated[Path | None, typer.Option(
        "--contexts", help="Bank of identity contexts.  [required]", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(
        "--out", help="Folder of the dataset; one begun with the same plan is resumed.  [required]",
        show_default=False)] = None,
    negatives: Annotated[str, typer.Option("--negatives", help="Strategy, or a file of `negface negatives`.")] = "far",
    guidance: Annotated[str, typer.Option("--guidance", help="constant, rising, falling or none.")] = "constant",
    weight: Annotated[float, typer.Option("--weight", help="Guidance weight w.")] = 0.5,
    interval: Annotated[tuple[float, float] | None, typer.Option(
        "--interval", metavar="LOW HIGH", help="Guide only at these timesteps (0 to 1000, inclusive).")] = None,
    reuse: Annotated[int | None, typer.Option(
        "--reuse", metavar="K", help="Predict the negative at every K-th guided step only; its direction stays.  "
        "[default: 3 where scheduler and steps are the default ones, else 1]", show_default=False)] = None,
    variation: Annotated[str, typer.Option(
        "--variation", metavar="none|angular-LOWER[-safe]", help="Turn the context at random from picture to picture, "
        "to a cosine of LOWER to 1 with the person's own (IDperturb; angular-0.6); -safe: never past half way to the "
        "nearest other person.")] = "none",
    images: Annotated[int, typer.Option("--images", help="Pictures of each identity, exactly.")] = 50,
    identities: Annotated[int | None, typer.Option("--identities", help="Draw only the first N of the bank.")] = None,
    steps: Annotated[int | None, typer.Option(
        "--steps", help="Steps of the scheduler (default: 8 of unipc, 20 of others, of a distilled model those it was "
                        "made for).")] = None,
    scheduler: Annotated[str | None, typer.Option(
        "--scheduler",
        help="ddpm, ddim, dpmpp or unipc (default: the model's own, unipc where it names none).")] = None,
    decoder: Annotated[str | None, typer.Option(
        "--decoder", metavar="FOLDER|full", help="A small decoder of `negface train distill`, of this model's "
        "autoencoder; full: the autoencoder's own.  [default: the model's small one, if it has one]",
        show_default=False)] = None,
    seed: Annotated[int, typer.Option(
        "--seed", help="Dataset seed: of all noise, of random negatives and of the variation.")] = 0,
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
    filters: Annotated[list[str] | None, typer.Option(
        "--filter", metavar="NAME,KEY=VALUE,...", help="What a picture must pass, or it is replaced (repeatable): "
        "adherence,least=0.3,recognizer=FILE | face,least=0.6,detector=FILE | quality,least=0.4,model=FILE | "
        "leakage,most=0.5,recognizer=FILE,training=EMBEDDINGS | duplicates,bits=2[,recognizer=FILE].")] = None,
    tries: Annotated[int, typer.Option(
        "--tries", min=1, help="Make at most so many times the pictures asked for of a person, to replace what is "
                               "rejected.")] = 3,
    workers: Annotated[int | None, typer.Option(
        "--workers", help="Processes, or tasks of a cluster; the bytes do not depend on it.  [default: 1; of a cluster "
                          "as many as it has room for]", show_default=False)] = None,
    engine: Annotated[Engine, typer.Option(
        "--engine", help="local: this machine; ray: a Ray cluster (extra negface[ray]).")] = Engine.local,
    address: Annotated[str | None, typer.Option(
        "--address", metavar="auto|HOST[:PORT]", help="A running Ray cluster; without it one is started here.",
        show_default=False)] = None,
    shard: Annotated[str | None, typer.Option(
        "--shard", metavar="I/N", help="Make the I-th of N parts (1/N to N/N), all in one --out, for arrays of a batch "
                                       "scheduler; the last to end finishes the dataset.", show_default=False)] = None,
    threads: Annotated[int, typer.Option("--threads", help="Threads of a worker.")] = 1,
    batch: Annotated[int, typer.Option("--batch", help="Pictures in a batch.")] = 32,
    unit: Annotated[int | None, typer.Option(
        "--unit", help="About how many pictures are published at a time (default: 4 batches, 16 for shards).")] = None,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="fp32 or bf16.")] = Dtype.fp32,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
    compiled: Annotated[bool, typer.Option(
        "--compile", help="Compile the denoiser (torch.compile): minutes once, then faster on a GPU.")] = False,
    allow_conditioner_mismatch: Annotated[bool, typer.Option(
        "--allow-conditioner-mismatch", help="Take contexts of another recogniser than the model's.")] = False,
    compat: Annotated[list[str] | None, typer.Option(
        "--compat", help="Do as the released code: reference, or quirks by name (negface compat list).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, from ten seconds of it.")] = False,
    verify: Annotated[Path | None, typer.Option(
        "--verify", metavar="DIR", help="Check a finished dataset against its manifest and do nothing else; exit code "
                                        "1 if a file is missing, changed or extra.", show_default=False)] = None,
    remake: Annotated[str | None, typer.Option(
        "--remake", metavar="ID/IMAGE", help="Make one picture of the dataset in --out again from its row; exit code 1 "
                                             "if its bytes differ.", show_default=False)] = None,
    to: Annotated[Path | None, typer.Option(
        "--to", metavar="FILE", help="Where --remake writes the picture.", show_default=False)] = None,
    json: JsonOption = None,
) -> None:
    """Generate pictures of a bank's identities, each steered away from its negative.

    An interrupted run is resumed by the same command, without loss or repetition. Exit code 0 means that every picture
    asked for is there (of a --shard: of that part). status.json in the folder says how far it is.

    Example: negface generate --model M --contexts bank.safetensors --negatives far --guidance constant --weight 0.5
    --images 50 --steps 20 --scheduler dpmpp --seed 0 --out faces --format shards
    """
    from negface.contexts import ContextBank
    from negface.contexts.variation import variation_of
    from negface.curation import parse_step
    from negface.foundation.errors import InputError
    from negface.generation import estimate, make_plan, parse_shard
    from negface.generation import generate as carry_out
    from negface.sampling.compat import resolve

    if verify is not None:
        check(verify, json)
        return
    model, contexts, out = required(model, "--model"), required(contexts, "--contexts"), required(out, "--out")
    if remake is not None:
        again(remake, out, model, contexts, negatives, pool, detector, decoder, to, json)
        return
    if align is Align.detect and detector is None:
        raise InputError("--align detect needs --detector", fix="name a YuNet file, or use --align template")
    choice = resolve(compat or ())
    (scheduler, steps), negatives = choice.scheduler(scheduler, steps), choice.negatives(negatives)
    bank = ContextBank.load(contexts)
    inputs = read_inputs(bank, negatives, pool, negative_scope.value, seed, variation_of(variation, seed))
    steps_of_curation = tuple(parse_step(text) for text in filters or ())
    part = None if shard is None else parse_shard(shard)
    plan = make_plan(
        model, inputs, guidance=_rule(guidance, weight, interval), reuse=reuse, identities=identities, images=images,
        steps=steps, scheduler=scheduler, seed=seed, batch=batch, threads=threads, dtype=dtype.value, device=device,
        size=size, align=align.value, detector=detector, codec_name=codec, format=format.value, unit_images=unit,
        tries=tries, filters=steps_of_curation, decoder=decoder, compiled=compiled,
        allow_conditioner_mismatch=allow_conditioner_mismatch)
    tools = open_tools(model, plan, detector, steps_of_curation, decoder)
    if dry_run:
        result = estimate(plan, inputs, tools, workers=workers or 1)
        emit({**result, "dry_run": True, "plan": plan.hash}, json=json, text=_forecast(result))
        return
    typer.echo(f"{plan.total_images:,} pictures of {len(plan.identities):,} identities; "
               f"mean guidance weight of the run: {plan.mean_weight:.4f}", err=True)
    result = carry_out(plan, inputs, out, tools, workers=workers, engine=engine.value, address=address, shard=part)
    emit(result, json=json, text=_summary(result))


def _rule(name: str, weight: float, interval: tuple[float, float] | None) -> Guidance:
    from negface.sampling import guidance

    rule = guidance.make(name, None if name == "none" else weight)
    return rule if interval is None else rule.on(*interval)


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
    lines = [f"{result['images']:,} pictures of {result['identities']:,} identities in {result['out']} "
             f"({result['images_made']:,} made{kept}; {rate})"]
    lines += [f"  {item['step']}: {item['rejected']:,} of {item['seen']:,} rejected and replaced"
              for item in result["rejected"]]
    if not result["complete"]:
        lines.append("this part is done; the dataset is finished with the last of the others")
    return "\n".join(lines)
