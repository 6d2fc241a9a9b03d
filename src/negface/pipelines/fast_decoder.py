"""A fast decoder in a folder of its own (``negface train distill``): found, loaded, and held against the autoencoder
it is to stand in for: the latents of another mean other pictures, and nothing would say so.
"""

from __future__ import annotations

import os
from pathlib import Path

from negface.foundation.errors import FormatError, InputError, MismatchError
from negface.foundation.files import existing_folder, read_json
from negface.foundation.hashing import sha256_file, sha256_json
from negface.models import FastDecoder

from .loading import load_component, weight_files


def decoder_folder(path: str | os.PathLike) -> Path:
    """The folder of a ``FastDecoder``: ``path`` itself, or the one in a pipeline or in a distillation's output.

    Raises:
        InputError: no such folder, or one without a fast decoder. FormatError: it holds something else.
    """
    given = existing_folder(path, "decoder folder")
    for folder in (given, given / "fast_decoder", given / "model" / "fast_decoder", given / "model"):
        if (folder / "config.json").is_file():
            kind = read_json(folder / "config.json").get("_class_name")
            if kind != FastDecoder.__name__:
                raise FormatError(f"holds a {kind}, not a {FastDecoder.__name__}", where=folder,
                                  fix="name the decoder that negface train distill made")
            return folder
    raise InputError("has no fast decoder", where=given, fix="distil one: negface train distill, with [decoder]")


def open_decoder(path: str | os.PathLike, *, latent_channels: int, downsample: int,
                 weights: str | None = None) -> FastDecoder:
    """Load a fast decoder for an autoencoder of ``latent_channels`` whose pictures are ``downsample`` times larger.

    Args:
        weights: ``weights_hash`` of the autoencoder; ``None`` where it is not known (its shapes are checked all the
            same).

    Raises:
        InputError, FormatError: as ``decoder_folder``. MismatchError: it imitates another autoencoder.
    """
    folder = decoder_folder(path)
    decoder = load_component(folder, FastDecoder)
    check_decoder(decoder, latent_channels=latent_channels, downsample=downsample, weights=weights, where=folder)
    return decoder


def check_decoder(decoder: FastDecoder, *, latent_channels: int, downsample: int, weights: str | None = None,
                  where: object = "fast_decoder") -> None:
    """``MismatchError`` unless the decoder can stand in for such an autoencoder, as far as is known."""
    fix = "distil one from this model: negface train distill"
    if decoder.config.latent_channels != latent_channels:
        raise MismatchError(f"decodes latents of {decoder.config.latent_channels} channels, the autoencoder's have "
                            f"{latent_channels}", where=where, fix=fix)
    if decoder.upsample != downsample:
        raise MismatchError(f"enlarges latents {decoder.upsample} times, the autoencoder {downsample} times",
                            where=where, fix=fix)
    teacher = decoder.config.teacher
    if teacher and weights and teacher != weights:
        raise MismatchError(f"imitates another autoencoder (weights {teacher[:12]}; the model's are {weights[:12]})",
                            where=where, fix=fix)


def weights_hash(folder: str | os.PathLike) -> str:
    """SHA-256 of a saved network's weights: of the one file, or over the parts with their names."""
    folder = Path(folder)
    names = weight_files(folder)
    hashes = {name: sha256_file(folder / name) for name in names}
    return hashes[names[0]] if len(names) == 1 else sha256_json(hashes)
