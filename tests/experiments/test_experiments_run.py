"""A run goes from faces to a verdict, keeps what is there, and keeps test people out of training."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
from tiny_run import TABLE, toml

from negface.experiments import run, tables
from negface.foundation.errors import InputError, MismatchError
from negface.foundation.files import read_json


def table(out):
    lines = (out / "results.csv").read_text().splitlines()
    return [line for line in lines if line.startswith("#")], list(csv.DictReader(
        line for line in lines if not line.startswith("#")))


def test_a_run_ends_in_a_verdict_with_all_its_files(finished):
    out, summary = finished
    for name in ("results.csv", "results.json", "report.html", "summary.json", "people.csv"):
        assert (out / name).is_file(), name
    assert summary["n_cells"] == 4
    assert read_json(out / "summary.json")["verdict"] == summary["verdict"]
    assert {row["strategy"] for row in summary["table"]} == {"baseline", "far"}


def test_the_table_has_the_columns_of_the_contract_and_opens_with_its_command(finished):
    remarks, rows = table(finished[0])
    head = list(rows[0])
    assert head[:8] == ["strategy", "weight", "seed", "contexts", "fdr", "fdr_low", "fdr_high", "eer"]
    assert head == list(tables.COLUMNS)
    assert {"adherence", "diversity", "seconds", "images_per_second", "fdr_ratio_low"} <= set(head)
    assert remarks[0] == "# negface run tiny.toml"
    assert any("torch" in line for line in remarks)
    assert any("parameters" in line for line in remarks)
    assert any("not for release as anonymous" in line for line in remarks)


def test_all_strategies_of_the_first_contexts_come_first(finished):
    assert [(row["contexts"], row["strategy"]) for row in table(finished[0])[1]] == [
        ("authentic", "baseline"), ("authentic", "far"), ("pca", "baseline"), ("pca", "far")]


def test_only_authentic_sets_are_marked_as_describing_real_people(finished):
    out, _ = finished
    mark = "not for release as anonymous"
    card = out / "cells/{}/seed-0/far-w0.5/dataset/README.md"
    assert mark in (out.parent / str(card).format("authentic")).read_text().lower()
    assert mark not in (out.parent / str(card).format("pca")).read_text().lower()
    warnings = read_json(out / "results.json")["warnings"]
    assert [text.split()[0] for text in warnings if mark in text] == ["authentic"]
    assert mark in (out / "report.html").read_text()


def test_test_people_are_in_no_training(finished):
    out, _ = finished
    people = {row["person"]: row["split"] for row in csv.DictReader((out / "people.csv").open())}
    records = list((out / "training").glob("*/training.json"))
    assert len(records) == 2
    for record in records:
        assert {people[name] for name in read_json(record)["identities"]} == {"train"}
    from negface.contexts import ContextBank

    drawn = ContextBank.load(out / "banks" / "authentic-0.safetensors").ids
    against = ContextBank.load(out / "banks" / "authentic-0-pool.safetensors").ids
    assert {people[name] for name in drawn} == {"test"}
    assert {people[name] for name in against} == {"train"}


def test_strategies_of_a_bank_share_their_noise(finished):
    out, _ = finished
    plans = [read_json(out / f"cells/pca/seed-0/{name}/dataset/plan.json") for name in ("baseline", "far-w0.5")]
    assert plans[0]["seed"] == plans[1]["seed"]
    assert plans[0]["identities"] == plans[1]["identities"]
    assert plans[0]["guidance"] != plans[1]["guidance"]


def test_a_second_run_makes_nothing(copied, recipe, setup):
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.is_file()}
    summary = run(recipe(), setup(out=copied))
    assert summary["steps_made"] == 0
    kept = {path for path, time in before.items() if path.stat().st_mtime_ns == time}
    assert {path.name for path in set(before) - kept} <= {"people.csv", "results.csv", "results.json", "report.html",
                                                          "summary.json"}


def test_a_deleted_cell_is_remade_alone_and_to_the_byte(copied, recipe, setup):
    cell = copied / "cells/pca/seed-0/far-w0.5"
    pictures = {path.name: path.read_bytes() for path in (cell / "dataset/images").rglob("*.png")}
    row = [row for row in table(copied)[1] if row["contexts"] == "pca"][1]
    shutil.rmtree(cell)
    assert run(recipe(), setup(out=copied))["steps_made"] == 2
    assert {path.name: path.read_bytes() for path in (cell / "dataset/images").rglob("*.png")} == pictures
    again = [row for row in table(copied)[1] if row["contexts"] == "pca"][1]
    for timing in ("seconds", "images_per_second"):
        again.pop(timing), row.pop(timing)
    assert again == row


def test_another_number_of_steps_redoes_the_cells_but_no_training(copied, recipe, setup):
    changed = recipe(sampling={**recipe().sampling.model_dump(), "steps": 1}, contexts={"pca": [0]})
    run(changed, setup(out=copied))
    assert len(list((copied / "training").glob("*.json"))) == 2
    assert read_json(copied / "cells/pca/seed-0/far-w0.5/dataset/plan.json")["steps"] == 1
    assert {row["contexts"] for row in table(copied)[1]} == {"pca"}


def test_a_restricted_grid_adds_to_the_table_what_it_measured(copied, recipe, setup):
    wider = recipe(strategies={"baseline": [0.0], "far": [0.5, 1.0]})
    summary = run(wider, setup(out=copied, contexts=("pca",), strategies=("far",)))
    assert summary["steps_made"] == 2
    assert [(row["contexts"], row["weight"]) for row in summary["table"] if row["strategy"] == "far"] == [
        ("authentic", 0.5), ("pca", 0.5), ("pca", 1.0)]


def test_a_given_model_is_not_trained_again(finished, recipe, setup):
    model = next((finished[0] / "training").glob("diffusion-*/model"))
    only = {"contexts": {"uniform": [0], "two-stage": [3]}, "strategies": {"baseline": [0.0], "null-learned": [0.5]}}
    summary = run(recipe(**only, autoencoder=None, diffusion=None), setup(model=model))
    assert not (setup().out / "training").exists()
    assert summary["warnings"] == []
    assert {row["contexts"] for row in summary["table"]} == {"uniform", "two-stage"}


def test_a_model_trained_on_test_people_is_refused(finished, recipe, setup, tmp_path):
    model = next((finished[0] / "training").glob("diffusion-*/model"))
    rows = list(csv.DictReader((finished[0] / "people.csv").open()))
    swapped = {"train": "test", "test": "train"}
    (tmp_path / "people.csv").write_text("person,split\n" + "".join(
        f"{row['person']},{swapped[row['split']]}\n" for row in rows))
    with pytest.raises(MismatchError, match="was trained on 7 of the test people, 'p"):
        run(recipe(), setup(model=model, people=tmp_path / "people.csv"))
    assert not setup().out.exists()


def test_a_judge_that_is_the_conditioner_is_refused_unless_forced(finished, world, recipe, setup):
    model = next((finished[0] / "training").glob("diffusion-*/model"))
    same = {"judge": world["conditioner"], "model": model}
    with pytest.raises(MismatchError, match="the judge is the conditioner"):
        run(recipe(), setup(**same))
    assert not setup().out.exists()
    summary = run(recipe(contexts={"uniform": [0]}, strategies={"baseline": [0.0]}), setup(**same, force=True))
    assert summary["warnings"] == ["the judge is the conditioner: it grades its own work"]


def test_a_recipe_without_training_sections_needs_a_model(recipe, setup):
    with pytest.raises(InputError, match="nothing to train from"):
        run(recipe(diffusion=None), setup())


def test_the_command_runs_a_recipe_and_hides_where_files_lay(copied, world, negface, monkeypatch):
    recipe = copied.parent / "tiny.toml"
    recipe.write_text(toml(TABLE))
    arguments = ["run", recipe, "--faces", world["faces"], "--conditioner", world["conditioner"], "--judge",
                 world["judge"], "--threads", 1, "--out", copied, "--json", "-"]
    monkeypatch.setattr("sys.argv", ["negface", *map(str, arguments)])
    code, out, err = negface(*arguments)
    assert code == 0, err
    assert json.loads(out)["steps_made"] == 0
    assert table(copied)[0][0] == ("# negface run tiny.toml --faces faces --conditioner conditioner.onnx --judge "
                                   "judge.onnx --threads 1 --out run --json -")
