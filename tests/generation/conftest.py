"""A tiny real pipeline, saved once, and plans over it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

DIM = 16


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A saved pipeline of a few thousand weights: 8-pixel latents of 2 channels, 16-pixel pictures."""
    import torch

    from negface.models import IDiffUNet, VQAutoencoder
    from negface.pipelines import NegFaceDiffPipeline

    torch.manual_seed(0)
    unet = IDiffUNet(in_channels=2, sample_size=8, initial_channels=32, channel_multipliers=(1, 1),
                     is_attention=(False, True), context_input=DIM, context_channels=32, learned_null=True,
                     conditioner={"name": "tiny", "hash": "c0"})
    vae = VQAutoencoder(image_size=16, latent_channels=2, channels=32, multipliers=(1, 1), blocks=1, codebook_size=64,
                        template="arcface")
    with torch.no_grad():  # zero-initialised layers would hide the context, and an untrained decoder is grey
        for parameter in [*unet.parameters(), *vae.parameters()]:
            if not parameter.any():
                parameter.normal_(0, 0.2)
        vae.quantize.embedding.weight.normal_(0, 1)
        vae.decoder.conv_out.weight.mul_(4)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    NegFaceDiffPipeline(unet.eval(), vae.eval()).save_pretrained(folder)
    return folder


@pytest.fixture
def bank():
    """``bank(n)``: uniform contexts; row i does not depend on n."""
    from negface.contexts import ContextBank

    def make(n: int = 4, **provenance) -> ContextBank:
        vectors = np.random.default_rng(0).standard_normal((64, DIM))[:n]
        return ContextBank.from_vectors(vectors, normalise=True, **{"source": "uniform", **provenance})

    return make


@pytest.fixture
def planned(model, bank):
    """``plan, inputs = planned(**options)``: 4 identities, 3 pictures each, 2 steps, batches of 4."""
    from negface.generation import make_inputs, make_plan

    def make(n: int = 4, strategy: str = "far", scope: str = "identity", inputs=None, **options):
        inputs = inputs or make_inputs(bank(n), strategy, scope=scope)
        return make_plan(model, inputs, **{"images": 3, "steps": 2, "batch": 4, "scheduler": "ddim", "unit_images": 6,
                                           "size": 16, **options}), inputs

    return make


@pytest.fixture
def made(model, planned, tmp_path):
    """``result, folder = made("name", **options)``: a dataset generated in this process.

    ``run`` holds options of ``generate``, the others are of the plan.
    """
    from negface.generation import Tools, generate

    def make(name: str = "set", tools=None, run=None, **options):
        plan, inputs = planned(**options)
        folder = tmp_path / name
        tools = tools or Tools(model=str(model), filters=tuple(options.get("filters", ())))
        return generate(plan, inputs, folder, tools, **(run or {})), folder

    return make


@pytest.fixture
def digests():
    """``digests(folder)``: SHA-256 of every file below it, by relative path."""
    def make(folder: Path) -> dict[str, str]:
        return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(folder.rglob("*")) if path.is_file()}

    return make
