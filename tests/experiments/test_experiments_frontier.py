"""The frontier and the quirks' effects: costs, the choice of the preset, paired effects, resuming."""

import json
import shutil

import numpy as np
import pytest
import torch

from negface.contexts import ContextBank
from negface.datasets import read_rows
from negface.experiments import compat_effects, frontier, sampled_sets
from negface.experiments.frontier_page import write_page
from negface.foundation.errors import InputError
from negface.models import FastDecoder, IDiffUNet, VQAutoencoder
from negface.pipelines import NegFaceDiffPipeline, SchedulerChoice
from negface.pipelines.fast_decoder import weights_hash
from negface.sampling import compat, guidance


def row(setting, predictions, fdr, eer=(0.1, 0.2), diversity=(0.1, 0.12)):
    spans = {"fdr": fdr, "eer": eer, "diversity": diversity, "adherence": (0.4, 0.5)}
    values = {f"{name}{end}": value for name, (low, high) in spans.items()
              for end, value in (("", (low + high) / 2), ("_low", low), ("_high", high))}
    return {"setting": setting, "scheduler": setting.split("-")[0], "decoder": "full", "predictions": predictions,
            "seeds": "0", **values}


def test_grid_covers_what_was_asked_and_counts_predictions():
    costs = {item.name: item.predictions for item in frontier.settings()}
    assert (costs["ddpm-1000"], costs["ddim-200"], costs["dpmpp-20"], costs["unipc-8"]) == (2000, 400, 40, 16)
    assert (costs["dpmpp-20-interval"], costs["dpmpp-20-reuse2"], costs["dpmpp-20-reuse3"]) == (30, 30, 27)
    assert len(costs) == 2 + 4 * 9
    seeds = {item.name: item.seeds for item in frontier.settings()}
    assert seeds["ddpm-1000"] == seeds["ddim-200"] == (0,)
    assert seeds["dpmpp-20"] == (0, 1, 2)


def test_default_preset_is_the_cheapest_whose_three_intervals_overlap_the_references():
    table = frontier.mark([
        row("unipc-8", 16, (1.0, 1.9)), row("dpmpp-10", 20, (2.1, 3.0), diversity=(0.13, 0.15)),
        row("dpmpp-15", 30, (2.1, 3.0), eer=(0.19, 0.3)), row("dpmpp-20", 40, (2.0, 3.0)),
        row("ddpm-1000", 2000, (2.0, 3.0))])
    assert [item["overlaps_reference"] for item in table] == [False, False, True, True, True]
    assert [item["setting"] for item in table if item["default_preset"]] == ["dpmpp-15"]
    assert "dpmpp-15 (30 predictions" in frontier.verdict(table)


def test_neither_a_student_nor_a_fast_decoder_is_a_preset_of_its_teacher():
    student = row("student-4", 4, (2.0, 3.0)) | {"scheduler": "distilled"}
    fast = row("unipc-8-fast-decoder", 11, (2.0, 3.0)) | {"decoder": "fast"}
    table = frontier.mark([student, fast, row("unipc-8", 16, (2.0, 3.0)), row("ddpm-1000", 2000, (2.0, 3.0))])
    assert [item["setting"] for item in table if item["default_preset"]] == ["unipc-8"]
    assert "cheapest of 2 settings" in frontier.verdict(table)
    assert "student-4, distilled, overlaps too" in frontier.verdict(table)


def test_without_the_reference_no_preset_is_chosen():
    table = frontier.mark([row("unipc-8", 16, (1.0, 2.0))])
    assert "default_preset" not in table[0]
    assert "not measured" in frontier.verdict(table)


def test_page_shows_the_table_and_its_curve(tmp_path):
    table = frontier.mark([row("unipc-8", 16, (1.0, 2.5)), row("ddpm-1000", 2000, (2.0, 3.0))])
    write_page(tmp_path / "frontier.md", table, frontier.verdict(table), ["negface frontier", "model m", "said"])
    text = (tmp_path / "frontier.md").read_text()
    assert "| unipc-8 **(default)** | 16 |" in text
    assert "(frontier.svg)" in text
    assert (tmp_path / "frontier.svg").read_text().count("<svg") == 1


@pytest.fixture
def studio(world, tmp_path):
    """A studio of a tiny model: two people, two pictures each."""
    torch.manual_seed(0)
    unet = IDiffUNet(in_channels=2, sample_size=8, initial_channels=32, channel_multipliers=(1, 1),
                     is_attention=(False, True), blocks_per_resolution=1, context_input=24, context_channels=32)
    torch.nn.init.normal_(unet.final.weight, std=0.1)
    vae = VQAutoencoder(image_size=16, latent_channels=2, channels=32, multipliers=(1, 2), blocks=1, codebook_size=16)
    NegFaceDiffPipeline(unet, vae).save_pretrained(tmp_path / "model")
    bank = ContextBank.from_vectors(np.random.default_rng(0).normal(size=(6, 24)), normalise=True)
    bank.save(tmp_path / "bank.safetensors")

    def make():
        said = []
        return said, sampled_sets.open_studio(
            tmp_path / "out", model=tmp_path / "model", contexts=tmp_path / "bank.safetensors", judge=world["judge"],
            conditioner=world["conditioner"], say=said.append, identities=2, images=2, batch=4, dtype="fp32",
            bootstrap=20)

    return make


def test_seeds_draw_different_people_and_a_set_is_drawn_once(studio):
    said, first = studio()
    setting = sampled_sets.Setting("a", guidance.constant(0.5).reusing(2), steps=2, seeds=(0, 1))
    found = sampled_sets.measure(first, setting)
    assert (found["n_identities"], found["n_images"]) == (4, 8)
    assert [item["seed"] for item in found["by_seed"]] == [0, 1]
    assert any("sets/" in line for line in said)
    said, again = studio()
    assert sampled_sets.measure(again, setting) == found
    assert said == []


def test_seed_beyond_the_bank_is_refused(studio):
    _, small = studio()
    with pytest.raises(InputError, match="seed 3 needs 8 identities"):
        small.inputs(sampled_sets.Setting("a", guidance.none()), 3)


def test_effects_are_paired_with_the_corrected_rule_and_reach_the_list(studio, tmp_path, monkeypatch):
    _, place = studio()
    chosen = compat_effects.comparisons(place, ddim_steps=3, ddpm_steps=3, seeds=(0,), only="*d*")
    names = [item.name for item in chosen]
    assert "null-is-zero-input" not in names  # the model has no learned null
    assert {"ddim-shifted-alpha-bar", "mid-counts-self", "reference-ddim", "reference-ddpm"} <= set(names)
    few = [item for item in chosen if item.name in ("ddim-leading-spacing", "random-is-previous")]
    found = compat_effects.measure_effects(place, few, command="negface compat measure")
    effect = found["effects"]["ddim-leading-spacing"]
    assert effect["setting"] == "ddim, 3 steps, far"
    assert len(effect["fdr_ratio"]) == len(effect["adherence_difference"]) == 3
    assert effect["fdr_ratio"][0] != 1
    monkeypatch.setattr(compat, "measured_effects", lambda: json.loads(json.dumps(found)))
    told = {quirk.name: quirk.effect for quirk in compat.QUIRKS}
    assert told["ddim-leading-spacing"].startswith("FDR x ")
    assert told["ddpm-beta-variance"] == compat.NOT_MEASURED
    assert told["unclipped-x0"] == compat.NO_CHANGE


def test_step_count_is_measured_where_the_released_stride_runs_more_steps(studio):
    _, place = studio()
    (counted,) = compat_effects.comparisons(place, only="ddim-step-count")
    assert (counted.without.steps, counted.having.steps) == (30, 31)


def test_frontier_command_writes_table_page_and_forecast(studio, world, tmp_path, negface):
    studio()
    options = ["frontier", "--model", tmp_path / "model", "--contexts", tmp_path / "bank.safetensors", "--judge",
               world["judge"], "--conditioner", world["conditioner"], "--out", tmp_path / "out", "--identities", 2,
               "--images", 2, "--seeds", 1, "--only", "unipc-8-reuse3"]
    code, out, err = negface(*options, "--page", tmp_path / "page.md", "--json", tmp_path / "rows.json")
    assert code == 0, err
    assert "unipc-8-reuse3 | 11 |" in out
    assert (tmp_path / "out" / "frontier.csv").read_text().count("\nunipc-8-reuse3,unipc,8,") == 1
    assert json.loads((tmp_path / "rows.json").read_text())["rows"][0]["by_seed"][0]["seed"] == 0
    assert negface(*options[:-1], "nothing*")[0] == 2


def test_several_patterns_choose_settings_in_the_grids_order():
    grid = frontier.settings()
    assert [item.name for item in sampled_sets.only(grid, ["ddpm-*", "unipc-8"])] == ["unipc-8", "ddpm-1000"]
    with pytest.raises(InputError, match="'nothing' fits none"):
        sampled_sets.only(grid, ["ddpm-*", "nothing"])


@pytest.fixture
def student(studio, tmp_path):
    """A student of the studio's model with a fast decoder of its autoencoder."""
    studio()
    unet = IDiffUNet(in_channels=2, sample_size=8, initial_channels=32, channel_multipliers=(1, 1),
                     is_attention=(False, True), blocks_per_resolution=1, context_input=24, context_channels=32,
                     guidance_input=True)
    teacher = NegFaceDiffPipeline.from_pretrained(tmp_path / "model")
    fast = FastDecoder(2, (8,), (1,), teacher=weights_hash(tmp_path / "model" / "vae"))
    choice = SchedulerChoice("distilled", {"visits": [999, 499]})
    NegFaceDiffPipeline(unet, teacher.vae, choice, fast_decoder=fast).save_pretrained(tmp_path / "student")
    return tmp_path / "student"


def test_student_is_a_row_at_its_own_steps_with_one_prediction_each(studio, student, tmp_path):
    place = studio()[1]
    shutil.rmtree(student / "fast_decoder")
    index = json.loads((student / "model_index.json").read_text())
    (student / "model_index.json").write_text(json.dumps({**index, "fast_decoder": [None, None]}))
    (setting,) = frontier.students(student, seeds=(0,))
    assert (setting.name, setting.scheduler_name, setting.predictions) == ("student-2", "distilled", 2)
    assert sampled_sets.measure(place, setting)["n_images"] == 4
    with pytest.raises(InputError, match="is not distilled"):
        frontier.students(tmp_path / "model")


def test_student_and_fast_decoder_also_stand_alone_on_the_frontier(studio, student):
    place = studio()[1]
    grid = frontier.students(student, seeds=(0,))
    table = {row["setting"]: row for row in frontier.rows(place, grid)}
    assert {name: (row["decoder"], row["predictions"]) for name, row in table.items()} == {
        "student-2": ("fast", 2), "student-2-full-decoder": ("full", 2), "unipc-8-reuse3-fast-decoder": ("fast", 11)}
    pictures = {item.name: [row["sha256"] for row in read_rows(sampled_sets.draw(place, item, 0)[0] / "dataset" /
                                                               "manifest.jsonl")] for item in grid}
    assert len({digest for digests in pictures.values() for digest in digests}) == 3 * 4


def test_the_default_preset_is_the_one_that_the_committed_frontier_names():
    import csv
    from pathlib import Path

    from negface.sampling.schedule import DEFAULT

    text = Path(__file__).parents[2].joinpath("results/frontier.csv").read_text()
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    [chosen] = [row["setting"] for row in rows if row["default_preset"] in ("1", "True", "true")]
    kept = f"-reuse{DEFAULT.reuse}" if DEFAULT.reuse > 1 else ""
    assert chosen == f"{DEFAULT.scheduler}-{DEFAULT.steps}{kept}"
