"""``negface convert idiff-face | backbone | contexts``: the published system's models and context files, in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from negface.cli.common import JsonOption, emit


def register(app: typer.Typer) -> None:
    """Add the commands of this file to ``negface convert``."""
    app.command("idiff-face")(idiff_face)
    app.command()(backbone)
    app.command()(contexts)


def idiff_face(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Released model folder: .hydra/config.yaml and "
                                           "checkpoints/.")],
    out: Annotated[Path, typer.Option("--out", metavar="MODEL", help="Folder of the pipeline to write.")],
    checkpoint: Annotated[Path | None, typer.Option(
        "--checkpoint", help="Denoiser's weights (default: checkpoints/ema_averaged_model.ckpt, else model.ckpt)."
    )] = None,
    config: Annotated[Path | None, typer.Option(
        "--config", help="Training configuration, or its model part (default: .hydra/config.yaml).")] = None,
    first_stage: Annotated[Path | None, typer.Option(
        "--first-stage", help="Folder of first_stage_encoder/decoder_state_dict.pt, or LDM's model.ckpt (default: "
                              "looked for in DIR and in models/autoencoder).")] = None,
    conditioner: Annotated[Path | None, typer.Option(
        "--conditioner", help="File of the recogniser that made the contexts: the one you embed with.")] = None,
    requantize: Annotated[bool, typer.Option(
        "--requantize/--no-requantize", help="Snap latents to the codebook before decoding, as released.")] = True,
    json: JsonOption = None,
) -> None:
    """An IDiff-Face, NegFaceDiff or UIFace model as a pipeline: the same function, in safetensors.

    Cross-attention and AdaGN models, with or without a learned empty context. Checkpoints are read without running
    anything they ask for.

    Example: negface convert idiff-face trained_models/unet-cond-ca-bs512-150K-cpd25 --out idiff-cpd25
    """
    from negface.pipelines.convert import convert_idiff_face, save_converted
    from negface.pipelines.loading import check_target

    check_target(out)
    pipeline, description = convert_idiff_face(
        folder, checkpoint=checkpoint, config=config, first_stage=first_stage, conditioner=_recogniser(conditioner),
        requantize=requantize)
    save_converted(pipeline, description, out)
    shape = " x ".join(map(str, description["latent_shape"]))
    emit({"out": out, **description}, json=json,
         text=f"wrote {out}: {description['parameters']['unet']:,} parameters, {description['condition_type']}, "
              f"{'with' if description['learned_null'] else 'without'} learned empty context, latents {shape}"
              + ("" if conditioner else "\nno conditioner recorded: contexts of any recogniser will be accepted"))


def backbone(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="iResNet state dict (.pth, .safetensors), or .onnx.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write; FILE.json gets its declaration.")],
    name: Annotated[str | None, typer.Option("--name", help="Name in reports (default: the file's).")] = None,
    channels: Annotated[str | None, typer.Option("--channels", help="RGB (default) or BGR.")] = None,
    mean: Annotated[float | None, typer.Option("--mean", help="Subtracted from 0..255 values (default 127.5).")] = None,
    std: Annotated[float | None, typer.Option("--std", help="Then divided by (default 127.5).")] = None,
    dim: Annotated[int | None, typer.Option("--dim", help="Of .onnx: length of an embedding (default 512).")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Of .onnx: the batch size it is fixed to.")] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="Terms of the weights.")] = None,
    trained_on: Annotated[str | None, typer.Option("--trained-on", help="What it was trained on.")] = None,
    json: JsonOption = None,
) -> None:
    """An ElasticFace or insightface recogniser with its declaration, ready for `negface embed` and as a judge.

    The depth (18, 34, 50, 100) is read from the file; an .onnx file is checked and copied.

    Example: negface convert backbone Elastic_R100_295672backbone.pth --out elasticface-arc.safetensors
    """
    from negface.perception.conversion import convert_backbone

    facts: dict[str, Any] = {"name": name, "channels": channels, "mean": mean, "std": std, "dim": dim, "batch": batch,
                             "licence": licence, "trained_on": trained_on}
    declared = convert_backbone(file, out, facts=facts)
    what = declared.architecture or declared.kind
    emit({"out": out, "declaration": declared.to_dict()}, json=json,
         text=f"wrote {out} ({what}, {declared.dim} numbers a picture) and its declaration {out}.json: "
              f"{declared.channels}, mean {declared.mean[0]:g}, std {declared.std[0]:g}; check these with its authors")


def contexts(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Released context file, or a bank to write back.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Bank (.safetensors), or a released file (.npy).")],
    layout: Annotated[str, typer.Option(
        "--layout", help="Of a released file: dict (IDiff-Face, NegFaceDiff) or array (UIFace).")] = "dict",
    conditioner: Annotated[Path | None, typer.Option(
        "--conditioner", help="File of the recogniser whose embeddings these are.")] = None,
    synthetic: Annotated[bool, typer.Option(
        "--synthetic", help="They describe nobody who exists (random_synthetic_*); else they count as real people."
    )] = False,
    json: JsonOption = None,
) -> None:
    """A released context file as a bank, or a bank as the released code reads it, by the ending of --out.

    Example: negface convert contexts random_synthetic_uniform_15000.npy --synthetic --out bank.safetensors
    """
    from negface.contexts import ContextBank
    from negface.contexts.released import read_released, write_released

    if out.suffix == ".safetensors":
        bank = read_released(file, conditioner=_recogniser(conditioner), real_people=not synthetic)
        bank.save(out)
    else:
        bank = ContextBank.load(file)
        write_released(bank, out, layout)
    note = f"\n{bank.release_note}" if bank.release_note else ""
    emit({"out": out, "contexts": len(bank), "dim": bank.dim, "bank": bank.hash, "provenance": dict(bank.provenance)},
         json=json, text=f"wrote {out}: {len(bank):,} contexts of length {bank.dim}{note}")


def _recogniser(path: Path | None) -> dict[str, str] | None:
    """Name (of its declaration, if it has one) and hash of a recogniser's file."""
    if path is None:
        return None
    from negface.foundation.errors import InputError
    from negface.perception import resolve_declaration

    try:
        return resolve_declaration(path).identity
    except InputError:
        from negface.foundation.files import existing_file
        from negface.foundation.hashing import sha256_file

        return {"name": existing_file(path, "recogniser").stem, "hash": sha256_file(path)}
