"""Noise keys, outputs, saving and loading, and everything a caller can get wrong."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_pipeline import CONDITIONER, DIM, pipeline, unet, unit, vae

from negface.contexts import ContextBank, Selection
from negface.foundation.errors import (
    FormatError,
    InputError,
    MismatchError,
    NegFaceError,
    OutputError,
    UnknownNameError,
)
from negface.foundation.noise import image_normal
from negface.pipelines import NegFaceDiffPipeline, SchedulerChoice
from negface.sampling import guidance, schedulers

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def pipe():
    return pipeline()


@pytest.fixture(scope="module")
def saved_once(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def saved(saved_once, tmp_path):
    return shutil.copytree(saved_once, tmp_path / "model")


def test_seed_is_the_documented_key_of_the_noise(pipe):
    one = pipe(unit(1), num_inference_steps=3, seeds=[7], scheduler="ddpm", output_type="latent").images
    prior = torch.from_numpy(image_normal((3, 8, 8), 7, "", 0, "prior"))[None]
    two = pipe(unit(1), num_inference_steps=3, latents=prior, scheduler="ddpm", output_type="latent",
               noise=lambda t: torch.from_numpy(image_normal((3, 8, 8), 7, "", 0, f"step/{t}"))[None]).images
    assert torch.equal(one, two)
    assert torch.equal(one, pipe(unit(1), num_inference_steps=3, seeds=[(7, "", 0)], scheduler="ddpm",
                                 output_type="latent").images)


def test_other_identity_or_image_gives_other_noise(pipe):
    keys = [(0, "a", 0), (0, "a", 1), (0, "b", 0), (1, "a", 0)]
    drawn = pipe(unit(1).expand(4, -1), num_inference_steps=1, seeds=keys, output_type="latent").images
    assert len({image.numpy().tobytes() for image in drawn}) == 4


def test_same_call_gives_the_same_bytes(pipe):
    first, second = (pipe(unit(2), unit(2, 1), num_inference_steps=3, output_type="uint8").images for _ in range(2))
    assert np.array_equal(first, second)


def test_output_types_agree_with_each_other(pipe):
    out = {kind: pipe(unit(2), num_inference_steps=2, output_type=kind).images for kind in ("pil", "np", "pt", "uint8")}
    assert out["uint8"].shape == (2, 16, 16, 3)
    assert out["uint8"].dtype == np.uint8
    assert np.array_equal(np.stack([np.asarray(picture) for picture in out["pil"]]), out["uint8"])
    assert np.array_equal(out["pt"].permute(0, 2, 3, 1).numpy(), out["np"])
    assert np.abs(out["np"] * 255 - out["uint8"]).max() <= 0.5 + 1e-4
    assert 0 <= out["np"].min() <= out["np"].max() <= 1


def test_images_are_the_decoded_unscaled_latents(pipe):
    latents = pipe(unit(2), num_inference_steps=2, output_type="latent").images
    with torch.no_grad():
        images = pipe.vae.decode(latents / pipe.vae.config.scaling_factor)
    expected = ((images.clamp(-1, 1) + 1) / 2).numpy()
    assert np.allclose(pipe(unit(2), num_inference_steps=2, output_type="pt").images.numpy(), expected, atol=1e-6)


def test_pipeline_of_pixels_needs_no_autoencoder():
    images = NegFaceDiffPipeline(unet())(unit(1), num_inference_steps=1, output_type="uint8").images
    assert images.shape == (1, 8, 8, 3)


def test_bfloat16_runs_the_networks_low_and_the_latents_full(pipe):
    full = pipe(unit(2), unit(2, 1), num_inference_steps=3, output_type="latent").images
    low = pipe(unit(2), unit(2, 1), num_inference_steps=3, output_type="latent", dtype=torch.bfloat16).images
    assert low.dtype == torch.float32
    assert not torch.equal(low, full)
    assert (low - full).abs().max() < 0.1 * full.abs().max()


def test_networks_are_evaluated_and_their_mode_is_left_as_it_was(monkeypatch):
    pipe, modes = NegFaceDiffPipeline(unet().train()), []
    forward = pipe.unet.forward
    monkeypatch.setattr(pipe.unet, "forward", lambda *a, **k: modes.append(pipe.unet.training) or forward(*a, **k))
    pipe(unit(2), num_inference_steps=2, output_type="latent")
    assert modes == [False, False]
    assert pipe.unet.training


def test_saved_pipeline_draws_the_same_and_keeps_its_scheduler(tmp_path):
    choice = SchedulerChoice("ddim", {"eta": 0.5}, beta_end=0.03)
    pipe = NegFaceDiffPipeline(unet(conditioner=CONDITIONER), vae(), choice)
    pipe.save_pretrained(tmp_path / "m")
    pipe.save_pretrained(tmp_path / "m")
    again = NegFaceDiffPipeline.from_pretrained(tmp_path / "m")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["m"]
    assert again.scheduler.build() == schedulers.DDIM(pipe.scheduler.schedule, eta=0.5)
    assert again.scheduler.build("dpmpp").schedule.beta_end == 0.03
    assert again.unet.config.conditioner == CONDITIONER
    draws = [p(unit(2), unit(2, 1), num_inference_steps=3, output_type="uint8").images for p in (pipe, again)]
    assert np.array_equal(*draws)


def test_pipeline_without_autoencoder_survives_saving(tmp_path):
    NegFaceDiffPipeline(unet()).save_pretrained(tmp_path / "m")
    assert NegFaceDiffPipeline.from_pretrained(tmp_path / "m").vae is None


def test_networks_load_in_the_dtype_asked_for(saved):
    pipe = NegFaceDiffPipeline.from_pretrained(saved, torch_dtype=torch.bfloat16)
    assert pipe.unet.dtype == torch.bfloat16
    assert pipe(unit(1), unit(1, 1), num_inference_steps=2, output_type="latent").images.dtype == torch.float32


def test_saving_over_something_else_is_refused(pipe, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.txt").write_text("x")
    with pytest.raises(OutputError, match="no saved pipeline"):
        pipe.save_pretrained(tmp_path / "m")
    with pytest.raises(OutputError, match="is a file"):
        pipe.save_pretrained(tmp_path / "m" / "thesis.txt")
    assert (tmp_path / "m" / "thesis.txt").read_text() == "x"


def shorten(folder):
    path = folder / "unet" / WEIGHTS
    path.write_bytes(path.read_bytes()[:5000])


def drop_key(folder):
    tensors = load_file(folder / "unet" / WEIGHTS)
    tensors.pop("final.weight")
    save_file(tensors, folder / "unet" / WEIGHTS)


def edit(file, **values):
    def change(folder):
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


@pytest.mark.parametrize(("damage", "message"), [
    (shorten, "unet.*not a complete safetensors file"),
    (drop_key, "lacks final.weight"),
    (lambda folder: (folder / "unet" / WEIGHTS).unlink(), f"{WEIGHTS}: no such file"),
    (lambda folder: (folder / "vae" / "config.json").unlink(), "config.json: no such file"),
    (lambda folder: (folder / "scheduler" / "scheduler_config.json").write_text("{"), "not valid JSON"),
    (lambda folder: (folder / "model_index.json").unlink(), "no saved pipeline"),
    (edit("unet/config.json", context_input=DIM + 1), "size mismatch for context_emb"),
    (edit("unet/config.json", learned_null=False), "unknown empty_context"),
    (edit("unet/config.json", initial_channels=3_200_000), "describes a network of .* numbers, the weights hold"),
    (edit("unet/config.json", blocks_per_resolution=10**9), "blocks_per_resolution is 1000000000, far beyond"),
    (edit("vae/config.json", codebook_size="many"), "vae/config.json: describes no network"),
    (edit("scheduler/scheduler_config.json", name="dimm"), "unknown scheduler"),
    (edit("scheduler/scheduler_config.json", num_train_timesteps=10**12), "needs 1 to 1,000,000 timesteps"),
    (edit("model_index.json", unet=["os", "system"]), "component 'unet' is"),
])
def test_damaged_folder_is_refused_by_name(saved, damage, message):
    damage(saved)
    with pytest.raises(InputError, match=message):
        NegFaceDiffPipeline.from_pretrained(saved)


def test_missing_folder_and_unknown_argument_are_refused(tmp_path, saved):
    with pytest.raises(InputError, match="no such model folder"):
        NegFaceDiffPipeline.from_pretrained(tmp_path / "nothing")
    with pytest.raises(InputError, match="unknown argument"):
        NegFaceDiffPipeline.from_pretrained(saved, revision="main")
    assert issubclass(FormatError, InputError)


def test_autoencoder_of_other_latents_is_refused():
    with pytest.raises(InputError, match="latent channels"):
        NegFaceDiffPipeline(unet(), vae(latent_channels=4))


def with_nan(vectors):
    vectors = vectors.clone()
    vectors[1, 3] = float("nan")
    return vectors


LEARNED = Selection(np.full(2, 3, np.uint8), np.full(2, -1), np.full((2, DIM), np.nan, np.float32))


@pytest.mark.parametrize(("arguments", "message"), [
    ({"context": unit(2, dim=DIM + 1)}, r"context: has shape \[2, 17\], the model takes \[n, 16\]"),
    ({"context": unit(2)[0]}, r"has shape \[16\]"),
    ({"context": unit(2)[:0]}, "has shape"),
    ({"context": with_nan(unit(2))}, "context, row 1: holds NaN"),
    ({"context": 1.1 * unit(2)}, "context, row 0: has length 1.1"),
    ({"negative_context": with_nan(unit(2))}, "negative_context, row 1: holds NaN"),
    ({"negative_context": 0.5 * unit(2)}, "negative_context, row 0: has length 0.5"),
    ({"negative_context": unit(3)}, "3 negatives for 2 contexts"),
    ({"negative_context": unit(2, dim=8)}, "negative_context: has shape"),
    ({"negative_context": "far"}, "is no negative context"),
    ({"negative_context": "null-learned"}, "no learned null"),
    ({"negative_context": LEARNED}, "no learned null"),
    ({"guidance": guidance.constant(1.0, branch="null")}, "learned null"),
    ({"seeds": [1]}, "seeds: 1 values for 2 contexts"),
    ({"seeds": [1, 0.5]}, r"seeds\[1\]"),
    ({"latents": torch.zeros(2, 3, 8, 9)}, "latents: have shape"),
    ({"latents": torch.full((2, 3, 8, 8), float("nan"))}, "latents: hold NaN"),
    ({"noise": lambda t: torch.zeros(1, 3, 8, 8), "scheduler": "ddpm"}, "noise"),
    ({"num_inference_steps": 0}, "num_inference_steps"),
    ({"guidance": 0.5}, "guidance: 0.5 is no guidance rule"),
    ({"scheduler": 3}, "scheduler: 3 is no scheduler"),
])
def test_bad_argument_is_refused_by_name(arguments, message):
    pipe = pipeline(learned_null=False)
    with pytest.raises(InputError, match=message):
        pipe(**{"context": unit(2), "num_inference_steps": 2, **arguments})


@pytest.mark.parametrize(("arguments", "message"), [({"scheduler": "dpm"}, "unknown scheduler 'dpm'"),
                                                    ({"output_type": "jpg"}, "unknown output type")])
def test_unknown_name_gets_a_suggestion(pipe, arguments, message):
    with pytest.raises(UnknownNameError, match=message):
        pipe(unit(1), **arguments)


def test_contexts_of_another_conditioner_are_refused_unless_allowed():
    pipe = pipeline(conditioner=CONDITIONER)
    bank = ContextBank.from_vectors(unit(1).numpy(), conditioner={"name": "recogniser-b", "hash": "b" * 64})
    with pytest.raises(MismatchError, match="recogniser-b"):
        pipe(bank, num_inference_steps=1)
    pipe(bank, num_inference_steps=1, allow_other_conditioner=True)
    pipe(ContextBank.from_vectors(unit(1).numpy(), conditioner=CONDITIONER), num_inference_steps=1)


def test_nan_from_the_network_is_an_error_not_a_picture():
    pipe = pipeline()
    with torch.no_grad():
        pipe.unet.final.bias.fill_(float("nan"))
    with pytest.raises(NegFaceError, match="NaN"):
        pipe(unit(1), num_inference_steps=1)
