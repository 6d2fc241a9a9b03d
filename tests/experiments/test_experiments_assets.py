"""What ships: every step of the workshop on a handful of people, packing, hashes, and the demo on the result."""

from __future__ import annotations

import csv
import json

import pytest

from negface.experiments import assets
from negface.experiments.assets_make import make_assets
from negface.experiments.assets_making import Workshop
from negface.experiments.assets_packing import pack
from negface.experiments.assets_recipe import AssetsRecipe, assets_recipe
from negface.experiments.demo_run import demo, demo_recipe
from negface.foundation.errors import InputError, MismatchError, UnknownNameError
from negface.training.recipe import parse_recipe

SIDE = 32


def tiny_recipe():
    """The shipped recipe, cut down until it runs in seconds."""
    table = assets_recipe("cpu").model_dump(mode="json")
    groups = {name: {"start": 10 * place, "people": 5, "portrait": name in ("generator", "test")}
              for place, name in enumerate(table["people"]["groups"])}
    table["people"] |= {"size": SIDE, "images": 3, "groups": groups}
    for name in ("conditioner", "judge"):
        table[name]["model"] |= {"architecture": "tiny-recognizer", "dim": 32, "image_size": SIDE, "options": {}}
        table[name]["train"] |= {"steps": 2, "batch": 4}
    table["analyser"]["model"] = {"image_size": SIDE, "widths": (8, 8, 16)}
    table["analyser"]["train"] |= {"steps": 2, "batch": 4}
    table["autoencoder"]["model"] |= {"image_size": SIDE, "channels": 32, "codebook_size": 16}
    table["autoencoder"]["train"] |= {"steps": 2, "batch": 2}
    table["diffusion"]["model"] |= {"initial_channels": 32, "channel_multipliers": (1, 1),
                                    "is_attention": (False, False), "context_channels": 32}
    table["diffusion"]["train"] |= {"steps": 2, "batch": 4}
    return parse_recipe(AssetsRecipe, table, "tiny")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    shop = Workshop(tiny_recipe(), tmp_path_factory.mktemp("assets"), workers=1, say=lambda text: None)
    shop.make()
    pack(shop, shop.root / "packed", {"analyser_errors": {"yaw": 1.0}})
    return shop


def test_a_second_make_keeps_every_step(made):
    again = Workshop(tiny_recipe(), made.root, workers=1, say=lambda text: None)
    again.make()
    assert again.journal.made == []


def test_every_shipped_file_loads_and_is_hashed(made):
    packed = made.root / "packed"
    card = assets.check_all(packed)
    on_disk = {path.relative_to(packed).as_posix() for path in packed.rglob("*") if path.is_file()}
    assert on_disk == {*card["files"], assets.CARD}
    assert all(assets.load(job, packed).exists() for job in assets.PLACES)
    assert card["half_precision_cosine"]["conditioner"] > 0.999
    assert card["describes_real_people"] is False


def test_a_damaged_asset_is_named_with_the_command_that_remakes_it(made, tmp_path):
    import shutil

    copy = tmp_path / "packed"
    shutil.copytree(made.root / "packed", copy)
    damaged = copy / "judge.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(MismatchError, match=r"judge\.safetensors.*negface assets make"):
        assets.load("judge", copy)
    assert assets.load("conditioner", copy).is_file()
    (copy / "generator" / "model_index.json").unlink()
    with pytest.raises(MismatchError, match=r"model_index\.json"):
        assets.load("generator", copy)
    with pytest.raises(InputError, match="there is no judge"):
        assets.load("judge", tmp_path)
    with pytest.raises(UnknownNameError, match="judge"):
        assets.load("juge", copy)


def test_demo_reports_both_kinds_of_contexts_and_never_mixes_them(made, tmp_path):
    recipe = demo_recipe()
    sampling = recipe.sampling.model_copy(update={"bank": 5, "identities": 4, "images": 2, "steps": 2, "size": SIDE,
                                                  "batch": 8, "dtype": "fp32"})
    measuring = recipe.measuring.model_copy(update={"bootstrap": 20})
    result = demo(tmp_path / "demo", workers=1, models=made.root / "packed", say=lambda text: None,
                  recipe=recipe.model_copy(update={"sampling": sampling, "measuring": measuring}))
    written = json.loads((tmp_path / "demo" / "summary.json").read_text())
    for strategies in (written["strategies"], written["random_contexts"]):
        assert set(strategies) == {"baseline", "far"}
        for figures in strategies.values():
            assert {"fdr", "eer", "fmr100", "fmr1000", "genuine_mean", "genuine_std", "impostor_mean", "impostor_std",
                    "adherence", "diversity", "leakage", "n_identities", "n_images", "seconds", "images_per_second",
                    "fdr_low", "fdr_high"} <= set(figures)
            assert figures["n_images"] == 8
    assert written["strategies"]["baseline"]["fdr"] != written["random_contexts"]["baseline"]["fdr"]
    assert (tmp_path / "demo" / "report.html").is_file()
    assert result["n_cells"] == 4


def test_groups_that_share_people_are_refused():
    table = tiny_recipe().model_dump(mode="json")
    table["people"]["groups"]["judge"]["start"] = 2
    with pytest.raises(InputError, match="share people"):
        parse_recipe(AssetsRecipe, table, "tiny")


def test_an_unknown_stage_or_size_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(UnknownNameError, match="stage"):
        make_assets(tmp_path / "a", stages=("peple",))
    with pytest.raises(UnknownNameError, match="size"):
        make_assets(tmp_path / "a", size="tpu")
    assert not (tmp_path / "a").exists()


def test_committed_figures_are_of_the_shipped_files():
    """results/assets.csv is what ``negface assets make`` wrote for what is in the package."""
    from pathlib import Path

    card = assets.check_all()
    assert card["bytes"] <= 40e6
    table = Path(__file__).parents[2] / "results" / "assets.csv"
    lines = table.read_text().splitlines()
    assert card["recipe_hash"][:12] in lines[0]
    rows = {(row["asset"], row["figure"]): float(row["value"])
            for row in csv.DictReader(line for line in lines if not line.startswith("#"))}
    assert rows["analyser", "yaw mean absolute error"] == pytest.approx(card["figures"]["analyser_errors"]["yaw"],
                                                                        rel=1e-4)
    assert rows["negface-judge", "frontal eer"] <= 0.02
    assert rows["generator", "baseline w=0 adherence"] >= 0.5
    assert rows["generator", "far w=0.5 fdr"] >= 1.5 * rows["generator", "baseline w=0 fdr"]


def test_no_shipped_file_says_where_it_was_made(made):
    for folder in (made.root / "packed", assets.shipped_folder()):
        for path in folder.rglob("*.json"):
            assert "_name_or_path" not in path.read_text(), path
            assert str(made.root) not in path.read_text(), path
