"""Released model folders through ``negface convert``: the same function comes out, or a clear error and nothing."""

import json
import re
import shutil
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest
import released_folder as released
import torch
import yaml
from released_folder import distance

from negface.contexts import ContextBank
from negface.generation.plan import model_licence
from negface.pipelines import NegFaceDiffPipeline
from negface.sampling import guidance

TOLERANCE = 1e-4
LICENCE_WORD = "CC BY-NC"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The released cross-attention model, small; read only."""
    return released.write(tmp_path_factory.mktemp("released") / "model")


@pytest.fixture
def copy(folder, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(folder, tmp_path / "model")


def agrees(pipe, name):
    golden = released.tensors(name)
    with torch.no_grad():
        for context, expected in ((golden["context"], "eps"), (None, "eps_no_context")):
            assert distance(pipe.unet(golden["x"], golden["t"], context), golden[expected]) < TOLERANCE


def convert(negface, *arguments, expect=0):
    code, out, err = negface("convert", *arguments)
    assert code == expect, err
    return out if expect == 0 else err


@pytest.mark.parametrize(("name", "cpd"), [("unet_ca_small", 0.25), ("unet_adagn_small", 0.5)])
def test_released_folder_gives_the_published_noise(negface, tmp_path, name, cpd):
    source = released.write(tmp_path / "source", name, cpd=cpd)
    said = convert(negface, "idiff-face", source, "--out", tmp_path / "model", "--json", "-")
    pipe = NegFaceDiffPipeline.from_pretrained(tmp_path / "model")
    agrees(pipe, name)
    assert json.loads(said)["parameters"]["unet"] == released.described(name)["parameters"]
    assert pipe.unet.config.context_dropout_probability == cpd
    assert pipe.vae.config.scaling_factor == 1.0
    assert pipe.vae.latent_shape == (3, 8, 8)
    assert pipe.scheduler.schedule.beta_end == 0.02


def test_converted_first_stage_is_the_released_one(negface, folder, tmp_path):
    convert(negface, "idiff-face", folder, "--out", tmp_path / "model")
    vae = NegFaceDiffPipeline.from_pretrained(tmp_path / "model").vae
    encoder, decoder = released.first_stage()
    assert all(torch.equal(value, {**encoder, **decoder}[key]) for key, value in vae.state_dict().items())
    assert vae.config.requantize
    convert(negface, "idiff-face", folder, "--out", tmp_path / "bare", "--no-requantize")
    assert not NegFaceDiffPipeline.from_pretrained(tmp_path / "bare").vae.config.requantize


def test_learned_empty_context_is_kept_and_guides(negface, tmp_path):
    source = released.write(tmp_path / "source", learned_null=True)
    convert(negface, "idiff-face", source, "--out", tmp_path / "model")
    pipe = NegFaceDiffPipeline.from_pretrained(tmp_path / "model")
    assert torch.equal(pipe.unet.empty_context, torch.linspace(-1, 1, 64))
    context = torch.nn.functional.normalize(released.tensors("unet_ca_small")["context"], dim=1)
    drawn = [pipe(context, negative, guidance.constant(1.0), 2, output_type="latent").images
             for negative in ("null-learned", torch.zeros_like(context))]
    assert distance(*drawn) > 1e-3


def test_parallel_prefix_and_plain_weights_are_tolerated(negface, copy, tmp_path):
    path = copy / "checkpoints" / "ema_averaged_model.ckpt"
    state = torch.load(path, weights_only=True)
    torch.save({f"module.{key}": value for key, value in state.items()}, copy / "checkpoints" / "model.ckpt")
    path.unlink()
    convert(negface, "idiff-face", copy, "--out", tmp_path / "out")
    agrees(NegFaceDiffPipeline.from_pretrained(tmp_path / "out"), "unet_ca_small")


def test_checkpoint_and_configuration_may_be_given_apart(negface, copy, tmp_path):
    """UIFace publishes one file of weights, without the wrapper's buffers, and the model's configuration alone."""
    state = released.released_state("unet_ca_small", learned_null=True)
    torch.save({key: value for key, value in state.items() if key.startswith("eps_model.")}, tmp_path / "uiface.pt")
    config = {**released.model_settings("unet_ca_small", learned_null=True), "input_channels": 3,
              "n_context_classes": 0, "unconditioned_probability": 0.2}
    (tmp_path / "unet.yaml").write_text(yaml.safe_dump(config))
    convert(negface, "idiff-face", tmp_path, "--checkpoint", tmp_path / "uiface.pt", "--config", tmp_path / "unet.yaml",
            "--first-stage", copy, "--out", tmp_path / "out")
    pipe = NegFaceDiffPipeline.from_pretrained(tmp_path / "out")
    assert pipe.unet.has_learned_null
    agrees(pipe, "unet_ca_small")


class ModelCheckpoint:
    """Stands for the callback class that pytorch-lightning pickles by reference."""


def test_first_stage_of_a_lightning_checkpoint_needs_no_lightning(negface, copy, tmp_path, monkeypatch):
    module = types.ModuleType("pytorch_lightning.callbacks")
    monkeypatch.setattr(ModelCheckpoint, "__module__", "pytorch_lightning.callbacks")
    module.ModelCheckpoint = ModelCheckpoint
    encoder, decoder = released.first_stage()
    with monkeypatch.context() as present:
        for name in ("pytorch_lightning", "pytorch_lightning.callbacks"):
            present.setitem(sys.modules, name, module)
        torch.save({"epoch": 1, "callbacks": {ModelCheckpoint: {"best": ModelCheckpoint()}}, "state_dict": OrderedDict(
            {"loss.logvar": torch.zeros(()), **encoder, **decoder})}, tmp_path / "ldm.ckpt")
    assert "pytorch_lightning" not in sys.modules
    for half in copy.glob("first_stage_*"):
        half.unlink()
    convert(negface, "idiff-face", copy, "--first-stage", tmp_path / "ldm.ckpt", "--out", tmp_path / "out")
    vae = NegFaceDiffPipeline.from_pretrained(tmp_path / "out").vae
    assert all(torch.equal(value, {**encoder, **decoder}[key]) for key, value in vae.state_dict().items())


def test_released_tree_is_searched_for_the_first_stage(negface, copy, tmp_path):
    place = tmp_path / "repository" / "trained_models" / "model"
    place.parent.mkdir(parents=True)
    shutil.move(copy, place)
    (tmp_path / "repository" / "models" / "autoencoder").mkdir(parents=True)
    for half in place.glob("first_stage_*"):
        shutil.move(half, tmp_path / "repository" / "models" / "autoencoder")
    convert(negface, "idiff-face", place, "--out", tmp_path / "out")


def test_the_checkpoint_the_halves_come_from_is_found_in_their_place(negface, copy, tmp_path):
    encoder, decoder = released.first_stage()
    for half in copy.glob("first_stage_*"):
        half.unlink()
    (copy / "models" / "autoencoder").mkdir(parents=True)
    torch.save({"state_dict": {**encoder, **decoder, "loss.logvar": torch.zeros(())}},
               copy / "models" / "autoencoder" / "model.ckpt")
    convert(negface, "idiff-face", copy, "--out", tmp_path / "out")
    vae = NegFaceDiffPipeline.from_pretrained(tmp_path / "out").vae
    assert all(torch.equal(value, {**encoder, **decoder}[key]) for key, value in vae.state_dict().items())


def test_conditioner_and_licence_are_written_down(negface, folder, tmp_path):
    (tmp_path / "elastic.pth").write_bytes(b"weights")
    convert(negface, "idiff-face", folder, "--conditioner", tmp_path / "elastic.pth", "--out", tmp_path / "out")
    conditioner = NegFaceDiffPipeline.from_pretrained(tmp_path / "out").unet.config.conditioner
    assert conditioner["name"] == "elastic"
    assert len(conditioner["hash"]) == 64
    assert LICENCE_WORD in model_licence(tmp_path / "out")


def change(folder, edit):
    path = folder / "checkpoints" / "ema_averaged_model.ckpt"
    state = torch.load(path, weights_only=True)
    edit(state)
    torch.save(state, path)


def edit_config(folder, **values):
    path = folder / ".hydra" / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **values}))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


KEY = "eps_model.middle.res1.conv1.weight"
FAULTS = {
    "truncated": (lambda f: truncate(f / "checkpoints" / "ema_averaged_model.ckpt"),
                  r"ema_averaged_model\.ckpt: not a complete checkpoint"),
    "missing key": (lambda f: change(f, lambda s: s.pop(KEY)), r"ema_averaged.*lacks 1 of 258.*middle\.res1\.conv1"),
    "wrong shape": (lambda f: change(f, lambda s: s.update({KEY: torch.ones(3)})),
                    r"middle\.res1\.conv1\.weight.*\[3\].*expected float32 \[64, 64, 3, 3\]"),
    "wrong dtype": (lambda f: change(f, lambda s: s.update({KEY: s[KEY].double()})), "float64.*expected float32"),
    "mixed prefix": (lambda f: change(f, lambda s: s.update({"norm.weight": s.pop("eps_model.norm.weight")})),
                     "mixes keys with and without 'eps_model.'"),
    "other configuration": (lambda f: edit_config(f, model={**released.model_settings("unet_adagn_small")}),
                            r"lacks \d+ of 194 entries"),
    "no configuration": (lambda f: (f / ".hydra" / "config.yaml").unlink(), "has no .hydra/config.yaml.*--config"),
    "object in the configuration": (lambda f: (f / ".hydra" / "config.yaml").write_text(
        "model: !!python/object/apply:os.system ['true']"), r"config\.yaml: not a plain YAML file.*os\.system"),
    "a date that is none": (lambda f: (f / ".hydra" / "config.yaml").write_text("model: 2020-99-99"),
                            r"config\.yaml: not a plain YAML file"),
    "nested without end": (lambda f: (f / ".hydra" / "config.yaml").write_text("model: " + 4000 * "["),
                           r"config\.yaml: not a plain YAML file"),
    "aliases that multiply": (lambda f: (f / ".hydra" / "config.yaml").write_text(
        "a0: &a0 [1]\n" + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 12))
        + "model: *a11\n"), r"config\.yaml: its references grow too large"),
    "a list for a number": (lambda f: edit_config(f, model={**released.model_settings("unet_ca_small"),
                                                            "initial_channels": [96]}),
                            r"model\.initial_channels: is \[96\], a whole number"),
    "a number for a list": (lambda f: edit_config(f, model={**released.model_settings("unet_ca_small"),
                                                            "channel_multipliers": 2}),
                            r"model\.channel_multipliers: is 2, a list"),
    "too many blocks": (lambda f: edit_config(f, model={**released.model_settings("unet_ca_small"),
                                                        "n_blocks_per_resolution": 5000}),
                        r"n_blocks_per_resolution: is 5000, a whole number from 1 to 32"),
    "dropout": (lambda f: edit_config(f, model={**released.model_settings("unet_ca_small"),
                                                "context_dropout_probability": "25 %"}),
                r"context_dropout_probability: is '25 %', a probability"),
    "picture size": (lambda f: edit_config(f, constants={"image_size": 10**9}), r"image_size: is 1000000000, a number"),
    "schedule of NaN": (lambda f: change(f, lambda s: s.update(betas=torch.full((1000,), torch.nan))),
                        r"betas: its noise schedule is not linear"),
    "circle": (lambda f: edit_config(f, model="${diffusion.eps_model}"), r"config\.yaml.*circle"),
    "no checkpoint": (lambda f: (f / "checkpoints" / "ema_averaged_model.ckpt").unlink(), "--checkpoint"),
    "no first stage": (lambda f: [half.unlink() for half in f.glob("first_stage_*")], "--first-stage"),
    "half a first stage": (lambda f: (f / "first_stage_decoder_state_dict.pt").unlink(),
                           r"first_stage_decoder_state_dict\.pt: no such first stage"),
    "truncated first stage": (lambda f: truncate(f / "first_stage_encoder_state_dict.pt"),
                              r"first_stage_encoder_state_dict\.pt: not a complete checkpoint"),
    "swapped first stage": (lambda f: torch.save(released.released_state("unet_ca_small"),
                                                 f / "first_stage_encoder_state_dict.pt"), "unknown key"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_folder_is_a_clear_error_and_nothing_is_written(negface, copy, tmp_path, fault):
    spoil, words = FAULTS[fault]
    spoil(copy)
    error = convert(negface, "idiff-face", copy, "--out", tmp_path / "out", expect=2)
    assert re.search(words, error), error
    assert error.count("\n") == 1
    assert [item.name for item in tmp_path.iterdir()] == ["model"]


def test_contexts_go_there_and_back(negface, tmp_path):
    vectors = torch.nn.functional.normalize(torch.randn(7, 16), dim=1).numpy()
    torch.save({str(row): vector for row, vector in enumerate(vectors)}, tmp_path / "released.npy")
    convert(negface, "contexts", tmp_path / "released.npy", "--synthetic", "--out", tmp_path / "bank.safetensors")
    bank = ContextBank.load(tmp_path / "bank.safetensors")
    assert bank.contexts.tobytes() == vectors.tobytes()
    assert not bank.describes_real_people
    convert(negface, "contexts", tmp_path / "bank.safetensors", "--out", tmp_path / "back.npy")
    back = torch.load(tmp_path / "back.npy", weights_only=False)
    assert list(back) == list(bank.ids)
    assert np.array_equal(np.stack(list(back.values())), vectors)
    convert(negface, "contexts", tmp_path / "bank.safetensors", "--layout", "array", "--out", tmp_path / "array.npy")
    assert np.array_equal(np.load(tmp_path / "array.npy"), vectors)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet_ca_full", "unet_adagn_full"])
def test_full_size_files_are_converted_and_compute_what_the_published_ones_do(negface, tmp_path, name):
    halves = [released.weights(released.described(f"first_stage_{half}")["state_dict"])
              for half in ("encoder", "decoder")]
    source = released.write(tmp_path / "source", name, image_size=128, halves=halves)
    said = convert(negface, "idiff-face", source, "--out", tmp_path / "model", "--json", "-")
    shutil.rmtree(source)
    assert json.loads(said)["parameters"] == {"unet": released.described(name)["parameters"],
                                              "vae": 22_337_423 + 32_985_359}
    pipe = NegFaceDiffPipeline.from_pretrained(tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    agrees(pipe, name)
    golden = released.tensors("first_stage")
    with torch.no_grad():
        assert distance(pipe.vae.encode(golden["image"]), golden["encoded"]) < TOLERANCE
        assert distance(pipe.vae.decode(golden["latent"]), golden["decoded"]) < TOLERANCE
