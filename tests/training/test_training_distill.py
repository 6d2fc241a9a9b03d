"""Distillation: guidance in one prediction, few steps that land where the teacher does, a decoder that imitates."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import DIM, TRAIN, UNET, VAE, accelerator, log_rows, toml, unit
from typer.testing import CliRunner

from negface import NegFaceDiffPipeline
from negface.cli.main import app
from negface.contexts import ContextBank, negatives
from negface.foundation.errors import InputError, MismatchError
from negface.models import FastDecoder, IDiffUNet, VQAutoencoder
from negface.sampling import guidance, schedulers
from negface.sampling.distilled import Distilled
from negface.sampling.schedule import NoiseSchedule
from negface.training import train_distill
from negface.training.distill_recipe import DistillRecipe
from negface.training.distill_student import StudentTask, make_student
from negface.training.distill_trajectories import (
    Conditions,
    Trajectories,
    choose_states,
    draw_conditions,
    implied_clean,
    make_trajectories,
)
from negface.training.recipe import load_recipe, parse_recipe

STEPS = 6
RUNS = {"count": 10, "held_out": 2, "steps": STEPS, "batch": 4, "part": 4, "precision": "fp32"}


def shaken(module, seed=0):
    """Away from the zero-initialised layers, where a denoiser predicts nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return module.eval()


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    unet = IDiffUNet(in_channels=3, sample_size=4, context_input=DIM, prediction_type="v_prediction",
                     condition_type="CA+AdaGN", learned_null=True, **UNET)
    return NegFaceDiffPipeline(shaken(unet), shaken(VQAutoencoder(**{**VAE, "scaling_factor": 0.5})))


@pytest.fixture(scope="module")
def bank():
    return ContextBank.from_vectors(unit(5), provenance={"source": "uniform"})


@pytest.fixture(scope="module")
def data(teacher, bank, tmp_path_factory):
    return make_trajectories(teacher, "t", bank, recipe().trajectories, tmp_path_factory.mktemp("runs"))


def recipe(student=None, decoder=None, **trajectories):
    stages = [{"predictions": STEPS, "share": 1}, {"predictions": 2, "share": 2}]
    return DistillRecipe(
        trajectories={**RUNS, **trajectories},
        student={"stages": stages, "train": {**TRAIN, **(student or {})}},
        decoder={"model": {"widths": (16, 8), "blocks": (1, 1)}, "train": {**TRAIN, **(decoder or {})}})


def task(teacher, data, **options):
    return StudentTask(recipe(options).student, data, teacher, {"weights": [0.0, 1.0], "teacher_scheduler": "dpmpp"}, 2,
                       accelerator())


def test_the_teachers_runs_are_the_pipelines_guided_images(teacher, bank, data):
    run = 3
    weight = float(data.conditions.weights[run])
    image = teacher(bank.contexts[[run]], negatives.select(bank, "far").subset([run]), guidance.constant(weight),
                    num_inference_steps=STEPS, scheduler="dpmpp", latents=torch.from_numpy(data.states[[run], 0]),
                    output_type="latent")
    assert 0 < weight < 1
    np.testing.assert_allclose(image.images[0], data.states[run, -1], atol=2e-5)


def test_runs_interrupted_between_parts_are_finished_and_other_runs_are_not_reused(teacher, bank, data, tmp_path):
    first = make_trajectories(teacher, "t", bank, recipe(count=4).trajectories, tmp_path)
    made = (tmp_path / "00000.safetensors").stat().st_mtime_ns
    whole = make_trajectories(teacher, "t", bank, recipe().trajectories, tmp_path)
    assert (tmp_path / "00000.safetensors").stat().st_mtime_ns == made
    np.testing.assert_allclose(whole.states, data.states, atol=1e-4)
    np.testing.assert_array_equal(first.states, whole.states[:4])
    make_trajectories(teacher, "another teacher", bank, recipe(count=4).trajectories, tmp_path)
    assert (tmp_path / "00000.safetensors").stat().st_mtime_ns != made


def test_conditions_do_not_depend_on_how_many_runs_are_asked_for(bank):
    few, many = (draw_conditions(bank, recipe(count=count, negatives=("far", "random")).trajectories, True)
                 for count in (5, 9))
    np.testing.assert_array_equal(few.weights, many.weights[:5])
    np.testing.assert_array_equal(few.negatives, many.negatives[:5])


def test_a_run_without_negative_has_weight_zero_and_a_missing_null_is_refused(bank):
    assert not draw_conditions(bank, recipe(negatives=("none",)).trajectories, True).weights.any()
    with pytest.raises(InputError, match="no learned null"):
        draw_conditions(bank, recipe(negatives=("null-learned",)).trajectories, False)


@pytest.mark.parametrize(("i", "j"), [(0, 1), (0, STEPS), (2, 5), (STEPS - 1, STEPS)])
def test_a_ddim_step_with_the_implied_clean_latent_lands_on_the_later_state(data, i, j):
    clean = implied_clean(data, data.states[:, i], data.states[:, j], i, j)
    before, (signal, sigma) = torch.from_numpy(data.states[:, i]), data.levels(i)
    visits = (data.timesteps[i], *data.timesteps[j:j + 1])
    noise = (before - signal * torch.from_numpy(clean)) / sigma
    landed = Distilled(visits).start(len(visits)).step(0, noise, before, None)
    np.testing.assert_allclose(landed, data.states[:, j], atol=1e-4)


def test_chosen_states_are_those_of_the_cheapest_path():
    """Against the same by trying all paths; runs that turn sharply at states 2 and 5 must be cut there."""
    timesteps = schedulers.make("ddim").timesteps(8)
    generator, schedule = np.random.default_rng(0), NoiseSchedule()
    clean = [generator.standard_normal((6, 1, 2, 2)).astype(np.float32) for _ in range(3)]
    states = [generator.standard_normal((6, 1, 2, 2)).astype(np.float32)]
    data = Trajectories(np.zeros((6, 9, 1, 2, 2), np.float32), timesteps, Conditions(*(np.zeros(0),) * 4), schedule, "")
    for i in range(8):
        wanted = clean[(i >= 2) + (i >= 5)]
        (signal, sigma), (after_signal, after_sigma) = data.levels(i), data.levels(i + 1)
        states.append(after_signal * wanted + after_sigma / sigma * (states[-1] - signal * wanted))
    data = replace(data, states=np.stack(states, axis=1).astype(np.float32))
    assert choose_states(data, 3) == (0, 2, 5)
    assert choose_states(data, 8) == tuple(range(8))


def test_an_untrained_student_of_weight_zero_is_the_teacher(teacher):
    student, x = make_student(teacher.unet, {}).eval(), torch.randn(2, 3, 4, 4)
    shaken(student.guidance_emb)
    vectors = torch.from_numpy(unit(4))
    with torch.no_grad():
        embedding = student.guided_embedding(vectors[:2], vectors[2:], torch.tensor([False, True]), torch.zeros(2))
        told = student(x, 400, student.prepare_embedding(embedding))
        steered = student.guided_embedding(vectors[:2], vectors[2:], torch.tensor([False, True]), torch.ones(2))
        torch.testing.assert_close(told, teacher.unet(x, 400, vectors[:2]))
    assert (steered - embedding).abs().amax(dim=1).min() > 1e-3


def test_a_student_of_the_velocities_it_was_taught_lands_on_the_teachers_latents(teacher, data):
    """The oracle: with the taught velocity for a prediction, the few steps end exactly where the teacher's many do."""
    student = task(teacher, data)
    student.step(5, np.arange(4), 0.0)
    rows, path = np.arange(4), student.paths[-1]
    latents = torch.from_numpy(data.states[rows, 0])
    solver = Distilled(student.visits(-1)).start(2)
    for index, (i, j) in enumerate(zip(path, (*path[1:], STEPS), strict=True)):
        clean = torch.from_numpy(implied_clean(data, data.states[rows, i], data.states[rows, j], i, j))
        signal, sigma = data.levels(i)
        latents = solver.step(index, (latents - signal * clean) / sigma, latents, None)
    np.testing.assert_allclose(latents, data.states[rows, -1], atol=1e-4)


def test_batches_hold_states_of_the_stages_path_and_the_velocity_that_lands(teacher, data):
    student = task(teacher, data)
    latents, target, timesteps, *_ = student._batch(5, np.arange(4))
    for row, t in enumerate(timesteps.tolist()):
        i = data.timesteps.index(t)
        j = (*student.paths[-1], STEPS)[student.paths[-1].index(i) + 1]
        (signal, sigma), (after_signal, after_sigma) = data.levels(i), data.levels(j)
        clean = signal * latents[row] - sigma * target[row]
        noise = sigma * latents[row] + signal * target[row]
        np.testing.assert_allclose(after_signal * clean + after_sigma * noise, data.states[row, j], atol=1e-4)
    assert set(timesteps.tolist()) == set(student.visits(-1))


def test_stages_follow_each_other_by_their_shares(teacher, data):
    student = task(teacher, data)
    assert [student.stage_at(step) for step in range(6)] == [0, 0, 1, 1, 1, 1]


def test_training_brings_the_student_to_the_teachers_latents(teacher, data):
    student = task(teacher, data, steps=24, batch=8, ema={"sigma_rel": 0.02})
    before = student.measure()["student"]
    for step in range(24):
        student.step(step, np.arange(8), 5e-3 * (1 - step / 24))
    after = np.square(student.draw(np.arange(8)).numpy() - data.states[:8, -1]).mean() / data.states[:8, -1].var()
    assert after < 0.5 * before


def test_a_teacher_that_predicts_noise_or_is_distilled_already_is_refused(teacher):
    with pytest.raises(InputError, match="predicts noise"):
        make_student(IDiffUNet(in_channels=3, sample_size=4, context_input=DIM, **UNET), {})
    with pytest.raises(InputError, match="distilled one already"):
        make_student(make_student(teacher.unet, {}), {})


@pytest.fixture(scope="module")
def folders(teacher, bank, tmp_path_factory):
    """A saved teacher and bank, and what one distillation made of them."""
    root = tmp_path_factory.mktemp("distilled")
    teacher.save_pretrained(root / "teacher")
    bank.save(root / "bank.safetensors")
    result = train_distill(recipe(), root / "teacher", root / "bank.safetensors", root / "out", say=lambda _: None)
    return root, result


def test_the_distilled_pipeline_makes_one_prediction_a_step_and_is_told_the_negative_and_its_weight(folders, bank):
    pipe = NegFaceDiffPipeline.from_pretrained(folders[0] / "out" / "model")
    shaken(pipe.unet.guidance_emb)
    chosen = negatives.select(bank, "far")

    def draw(negative, rule):
        return pipe(bank, negative, rule, output_type="latent", progress=False)

    weak, strong = draw(chosen, guidance.constant(0.1)), draw(chosen, guidance.constant(0.9))
    assert strong.predictions == 2 * len(bank)
    assert strong.mean_weight == pytest.approx(0.9)
    assert strong.scheduler["name"] == "distilled"
    assert len(strong.scheduler["visits"]) == 2
    assert (weak.images - strong.images).abs().max() > 1e-3
    other = draw(negatives.select(bank, "close"), guidance.constant(0.9))
    assert (other.images - strong.images).abs().max() > 1e-3
    torch.testing.assert_close(draw(None, guidance.constant(0.9)).images, draw(chosen, guidance.none()).images)


@pytest.mark.parametrize(("options", "message"), [
    ({"guidance": guidance.rising(1.0)}, "constant weight"),
    ({"guidance": guidance.constant(0.5).on(0, 500)}, "constant weight"),
    ({"guidance": guidance.constant(1.5)}, "weights 0 to 1"),
    ({"scheduler": "dpmpp"}, "its own timesteps"),
    ({"num_inference_steps": 20}, "distilled to 2 steps"),
    ({"decoder": "quick"}, "decoder"),
])
def test_a_distilled_pipeline_refuses_what_it_was_not_taught(folders, bank, options, message):
    pipe = NegFaceDiffPipeline.from_pretrained(folders[0] / "out" / "model")
    with pytest.raises(InputError, match=message):
        pipe(bank, negatives.select(bank, "far"), **{"guidance": guidance.constant(0.5), **options})


def test_the_fast_decoder_is_used_unless_the_full_one_is_asked_for(folders, teacher, bank):
    pipe = NegFaceDiffPipeline.from_pretrained(folders[0] / "out" / "model")
    latents = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(pipe.decode(latents), pipe.fast_decoder.decode(latents / 0.5))
    torch.testing.assert_close(pipe.decode(latents, "full"), pipe.vae.decode(latents / 0.5))
    with pytest.raises(InputError, match="no fast decoder"):
        teacher(bank, decoder="fast")


def test_the_distilled_model_says_what_it_was_distilled_from_and_for(folders, bank):
    said = NegFaceDiffPipeline.from_pretrained(folders[0] / "out" / "model").unet.config.distilled
    assert said["pool"] == bank.hash
    assert said["negatives"] == ["far"]
    assert said["weights"] == [0.0, 1.0]
    assert said["timesteps"] == folders[1]["student"]["timesteps"]
    assert len(said["teacher"]) == 64


def test_a_stopped_distillation_goes_on_with_the_same_losses(folders, monkeypatch):
    root, out = folders[0], folders[0] / "stopped"
    real = StudentTask.step

    def step(self, number, rows, rate):
        if number == 4:
            raise KeyboardInterrupt
        return real(self, number, rows, rate)

    with monkeypatch.context() as patch:
        patch.setattr(StudentTask, "step", step)
        with pytest.raises(KeyboardInterrupt):
            train_distill(recipe(), root / "teacher", root / "bank.safetensors", out, say=lambda _: None)
    result = train_distill(recipe(), root / "teacher", root / "bank.safetensors", out, say=lambda _: None)
    assert result["student"]["resumed_at"] == 3
    assert log_rows(out / "student") == log_rows(root / "out" / "student")
    assert log_rows(out / "decoder") == log_rows(root / "out" / "decoder")
    with pytest.raises(MismatchError, match="another recipe"):
        train_distill(recipe({"learning_rate": 1e-4}), root / "teacher", root / "bank.safetensors", out)


def test_a_decoder_alone_leaves_the_teacher_as_it_is(folders, bank):
    root = folders[0]
    alone = DistillRecipe(trajectories=RUNS, decoder=recipe().decoder.model_dump())
    result = train_distill(alone, root / "teacher", root / "bank.safetensors", root / "alone", say=lambda _: None)
    pipe = NegFaceDiffPipeline.from_pretrained(root / "alone" / "model")
    assert "student" not in result
    assert not pipe.unet.config.guidance_input
    assert pipe.fast_decoder is not None
    pipe(bank, negatives.select(bank, "far"), num_inference_steps=2)


def test_the_fast_decoder_learns_the_full_decoders_pictures():
    torch.manual_seed(0)
    decoder, latents = FastDecoder(3, (16, 16), (1, 1), 2), torch.randn(8, 3, 4, 4)
    pictures = torch.tanh(torch.nn.functional.interpolate(latents, scale_factor=4))
    optimizer = torch.optim.Adam(decoder.parameters(), 1e-2)
    before = (decoder(latents) - pictures).abs().mean().item()
    for _ in range(60):
        optimizer.zero_grad()
        (decoder(latents) - pictures).abs().mean().backward()
        optimizer.step()
    assert decoder(latents).shape == pictures.shape
    assert (decoder(latents) - pictures).abs().mean().item() < 0.5 * before
    with pytest.raises(InputError, match="expected"):
        decoder.decode(latents[:, :2])


@pytest.mark.parametrize(("table", "message"), [
    ({}, "nothing to train"),
    ({"student": {"train": {"steps": 1}, "stages": [{"predictions": 99}]}}, "at least as many steps"),
    ({"trajectories": {"weights": [1.0, 0.5]}, "student": {"train": {"steps": 1}}}, "low, high"),
    ({"trajectories": {"count": 9, "held_out": 9}, "student": {"train": {"steps": 1}}}, "held_out"),
])
def test_recipes_that_cannot_be_carried_out_are_refused(table, message):
    with pytest.raises(InputError, match=message):
        parse_recipe(DistillRecipe, table, "recipe")


def test_a_dataset_is_generated_with_a_distilled_model_at_its_own_steps(folders, tmp_path):
    root = folders[0]
    (tmp_path / "r.toml").write_text(toml({"seed": 0}))
    arguments = ["generate", "--model", str(root / "out" / "model"), "--contexts", str(root / "bank.safetensors"),
                 "--images", "1", "--batch", "5", "--align", "none", "--codec", "png", "--out", str(tmp_path / "faces")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    rows = (tmp_path / "faces" / "manifest.jsonl").read_text()
    assert '"distilled"' in rows
    assert '"steps":2' in rows.replace(" ", "")


def test_the_recipe_in_the_repository_runs_in_a_smoke_form(folders, tmp_path):
    full = load_recipe(DistillRecipe, Path(__file__).parents[2] / "recipes" / "distill-64.toml")
    few = {"steps": 10, "batch": 4, "warmup": 1, "checkpoint_every": 4, "sample_every": 5}
    student, decoder = (part.model_copy(update={"train": part.train.model_copy(update=few)})
                        for part in (full.student, full.decoder))
    shape = decoder.model.model_copy(update={"widths": tuple(width // 8 for width in decoder.model.widths)})
    small = full.model_copy(update={
        "trajectories": full.trajectories.model_copy(update={"count": 6, "held_out": 2, "batch": 6}),
        "student": student, "decoder": decoder.model_copy(update={"model": shape})})
    root = folders[0]
    result = train_distill(small, root / "teacher", root / "bank.safetensors", tmp_path / "out", say=lambda _: None)
    assert (result["runs"], len(result["student"]["timesteps"])) == (6, full.student.stages[-1].predictions)
    for part in ("student", "decoder"):
        assert result[part]["steps"] == 10
        assert np.isfinite(result[part]["loss"])
    made = NegFaceDiffPipeline.from_pretrained(tmp_path / "out" / "model")
    assert made(ContextBank.load(root / "bank.safetensors"), progress=False).predictions == 5 * 4
