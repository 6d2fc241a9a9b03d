"""`make bench` names benchmarks that run as they are; tables say what made them; pyeer may be absent."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from negface.models import IDiffUNet
from negface.sampling import guidance, schedulers
from negface.sampling.loop import sample

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))


def listed() -> list[str]:
    """What `make bench` runs, in order."""
    found = re.search(r"^BENCHMARKS := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return found[1].replace("\\\n", " ").split()


@pytest.fixture
def benchmark(monkeypatch):
    """``benchmark(name)``: the script as a module; nothing of benchmarks/ stays importable after the test."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    own = {path.stem for path in SCRIPTS} | {"golden_networks"}
    for name in (set(sys.modules) - before) & own:
        del sys.modules[name]


class Parsed(Exception):
    """The arguments were understood."""


def test_make_bench_begins_with_the_released_recipe_and_lists_each_benchmark_once():
    assert listed()[0] == "released_recipe"
    assert len(listed()) == len(set(listed()))
    assert set(listed()) <= {path.stem for path in SCRIPTS}


def test_a_benchmark_that_make_bench_leaves_out_says_why():
    silent = [path.name for path in SCRIPTS
              if path.stem not in listed() and "Not in `make bench`: " not in path.read_text().split('"""')[1]]
    assert silent == []


@pytest.mark.parametrize("name", listed())
def test_a_listed_benchmark_needs_no_arguments(benchmark, monkeypatch, name):
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, *arguments, **keywords):
        parse(self, *arguments, **keywords)
        raise Parsed

    module = benchmark(name)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    with pytest.raises(Parsed):
        module.main()


def test_files_that_benchmarks_read_by_default_exist(benchmark):
    for name in ("training", "recognition_training", "decoders"):
        assert benchmark(name).RECIPE.is_file(), name


def test_the_table_times_the_scorer_and_pyeer_on_the_same_pairs(benchmark):
    pytest.importorskip("pyeer")
    ours, intervals, theirs = benchmark("separability").scorer_rows(6, 4, 16)
    assert ours["pairs"] == intervals["pairs"] == theirs["pairs"] == 24 * 23 // 2
    for row in (ours, intervals, theirs):
        assert row["times_pyeer"] == pytest.approx(theirs["seconds_all_pairs"] / row["seconds_all_pairs"])


def test_the_table_says_so_where_pyeer_is_not_installed(benchmark, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyeer", None)
    monkeypatch.setitem(sys.modules, "pyeer.eer_info", None)
    ours, _, theirs = benchmark("separability").scorer_rows(6, 4, 16)
    assert ours["seconds_all_pairs"] > 0
    assert [ours["times_pyeer"], theirs["seconds_all_pairs"]] == ["not installed", "not installed"]


def test_a_table_begins_with_its_command_and_its_machine(benchmark, monkeypatch, tmp_path):
    measuring, path = benchmark("measuring"), tmp_path / "table.csv"
    monkeypatch.setattr(sys, "argv", ["here/scoring.py", "--share", "0.05", "--csv", str(path), "--json=other"])
    measuring.write_csv(path, [{"what": "a", "seconds": 1.5}, {"what": "b", "pairs": 3}], "a machine", "a remark")
    command, machine, *table = path.read_text().splitlines()
    assert command == "# python benchmarks/scoring.py --share 0.05"
    assert machine.startswith(f"# a machine, numpy {np.__version__}, Python 3.")
    assert machine.endswith("; a remark")
    assert list(csv.reader(table)) == [["what", "seconds", "pairs"], ["a", "1.5", ""], ["b", "", "3"]]


def test_scoring_writes_every_row_as_a_table(benchmark, monkeypatch, tmp_path):
    path = tmp_path / "scoring.csv"
    module = benchmark("scoring")
    monkeypatch.setattr(module, "peak_rate", lambda: 1e9)
    monkeypatch.setattr(module, "int8_peak", lambda: 1e9)
    monkeypatch.setattr(sys, "argv", ["scoring.py", "--identities", "30", "--images", "4", "--dim", "32", "--threads",
                                      "3", "--skip-pass", "--csv", str(path)])
    module.main()
    lines = path.read_text().splitlines()
    assert lines[0] == "# python benchmarks/scoring.py --identities 30 --images 4 --dim 32 --threads 3 --skip-pass"
    assert ", 3 threads, " in lines[1]
    rows = list(csv.DictReader(lines[2:]))
    assert [row["what"] for row in rows] == [
        "brought to unit length", "found of unit length", "moments", "moments, jackknife"]
    assert {row["images"] for row in rows} == {"120"}
    assert [bool(row["share_of_peak"]) for row in rows] == [False, False, True, True]


@pytest.fixture
def guided(benchmark):
    """The benchmark of reuse, and predictions of a tiny denoiser with a count of what was asked for."""
    module, asked = benchmark("reuse"), []
    torch.manual_seed(0)
    unet = IDiffUNet(in_channels=2, sample_size=8, initial_channels=32, channel_multipliers=(1, 1),
                     is_attention=(False, True), context_input=8, context_channels=32).eval()
    for value in unet.parameters():
        if value.ndim > 1 and not value.any():  # layers that start at zero would hide guidance
            torch.nn.init.normal_(value, std=value[0].numel() ** -0.5)
    contexts = torch.nn.functional.normalize(torch.randn(2, 3, 8), dim=2).numpy()
    with torch.inference_mode():
        inner = module.predictor(unet, *contexts)

        def predict(latents, t, branches):
            asked.append(len(branches))
            return inner(latents, t, branches)

        yield module, predict, asked


def test_the_bare_negative_kept_for_one_step_is_the_full_rule(guided):
    module, predict, _ = guided
    rule, latents = guidance.constant(0.5), torch.randn(3, 2, 8, 8)
    for name in ("dpmpp", "unipc"):
        full = sample(predict, schedulers.make(name), rule, latents, 6)
        kept = module.negative_kept(predict, schedulers.make(name), rule, 1, latents, 6)
        assert (kept - full).abs().max() < 1e-4 * full.abs().max()


def test_both_ways_of_reuse_ask_for_the_same_predictions_and_differ(guided):
    module, predict, asked = guided
    rule, latents = guidance.constant(0.5), torch.randn(3, 2, 8, 8)
    direction = sample(predict, schedulers.make("dpmpp"), rule.reusing(3), latents, 7)
    ours = asked.copy()
    asked.clear()
    negative = module.negative_kept(predict, schedulers.make("dpmpp"), rule, 3, latents, 7)
    assert asked == ours == [2, 1, 1, 2, 1, 1, 2]
    assert (direction - negative).abs().max() > 1e-2 * direction.abs().max()


def test_the_bare_negative_kept_is_the_full_rule_with_old_negatives(guided):
    module, predict, _ = guided
    rule, latents, steps = guidance.constant(0.5), torch.randn(3, 2, 8, 8), []

    def with_old_negatives(latents, t, branches):
        found = predict(latents, t, branches)
        steps.append(found["negative"] if len(steps) % 3 == 0 else steps[-1])
        return {**found, "negative": steps[-1]}

    slow = sample(with_old_negatives, schedulers.make("dpmpp"), rule, latents, 7)
    fast = module.negative_kept(predict, schedulers.make("dpmpp"), rule, 3, latents, 7)
    assert (fast - slow).abs().max() < 1e-4 * slow.abs().max()


def test_the_error_of_reuse_is_its_distance_over_the_distance_guidance_makes(guided):
    module, predict, _ = guided
    rule, latents = guidance.constant(0.5), torch.randn(3, 2, 8, 8)
    rows = module.compare(predict, schedulers.make("dpmpp"), rule, latents, 6, kept_for=(1, 2))
    ends = [sample(predict, schedulers.make("dpmpp"), each, latents, 6)
            for each in (rule, guidance.none(), rule.reusing(2))]
    full, plain, reused = (end.flatten(1) for end in ends)
    expected = (reused - full).norm(dim=1).mean() / (plain - full).norm(dim=1).mean()
    by_kind = {(row["kept"], row["k"]): row for row in rows}
    assert by_kind["direction", 1]["error"] == pytest.approx(0, abs=1e-5)
    assert by_kind["direction", 2]["error"] == pytest.approx(float(expected), rel=1e-4)
    assert by_kind["direction", 2]["low"] <= by_kind["direction", 2]["error"] <= by_kind["direction", 2]["high"]
