"""An experiment over a Ray cluster: nodes take whole cells; one that cannot says why, the rest goes on without it."""

from __future__ import annotations

import pickle
import types
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_experiment import TABLE, write_model

from negface.experiments import cluster, conduct
from negface.experiments.conduct import ExperimentSetup, experiment
from negface.experiments.grid import ExperimentRecipe, check_experiment
from negface.experiments.materials import Given
from negface.foundation.errors import InputError
from negface.training.recipe import parse_recipe


class NodeError(Exception):
    """What Ray raises of a node that died."""


class FakeRay:
    """The part of Ray that is used; a task travels as bytes, runs at once and ends before ``remote`` returns."""

    exceptions = types.SimpleNamespace(RayError=NodeError)

    def __init__(self, nodes: int = 1, dies: bool = False):
        self.count, self.dies = nodes, dies
        self.joined, self.tasks, self.ended, self.cancelled = [], [], 0, []

    def is_initialized(self) -> bool:
        return False

    def init(self, **options) -> None:
        self.joined.append(options)

    def shutdown(self) -> None:
        self.ended += 1

    def nodes(self) -> list[dict]:
        return [{"NodeID": str(node), "Alive": True, "Resources": {"CPU": 1.0}} for node in range(self.count)]

    def remote(self, function):
        def run(*arguments):
            if self.dies:
                self.tasks.append(NodeError("the node was killed"))
            else:
                work, given = pickle.loads(pickle.dumps((function, arguments)))
                self.tasks.append(work(*given))
            return len(self.tasks) - 1

        def options(**asked):
            self.asked = asked
            return types.SimpleNamespace(remote=run)

        return types.SimpleNamespace(options=options)

    def wait(self, references, num_returns, timeout):
        return list(references), []

    def get(self, reference):
        if isinstance(self.tasks[reference], Exception):
            raise self.tasks[reference]
        return self.tasks[reference]

    def cancel(self, reference, force):
        self.cancelled.append(reference)


@pytest.fixture
def ray(monkeypatch):
    """``ray(nodes=…)``: the fake in place of the package."""
    def make(**options):
        fake = FakeRay(**options)
        for module in (cluster, conduct):
            monkeypatch.setattr(module, "import_ray", lambda: fake)
        return fake

    return make


@pytest.fixture(scope="module")
def given(world, tmp_path_factory):
    return Given(model=write_model(tmp_path_factory.mktemp("given") / "model", 24), **world, threads=1)


@pytest.fixture
def conducted(given, tmp_path):
    """``summary, said = conducted(**options)``: two cells without students."""
    recipe = check_experiment(parse_recipe(ExperimentRecipe, {**TABLE, "references": [], "grid": [
        {**TABLE["grid"][0], "strategies": {"baseline": [0.0], "far": [0.5]}}]}, "test"))

    def make(**options):
        said = []
        setup = ExperimentSetup(tmp_path / "run", given, students=False, say=said.append, **options)
        return experiment(recipe, setup), said

    return make


def test_nodes_make_the_cells_and_this_process_the_table(ray, conducted, tmp_path):
    fake = ray(nodes=3)
    summary, said = conducted(engine="ray", address="auto")
    assert fake.joined[0]["address"] == "auto"
    assert fake.asked["num_cpus"] == 1
    assert fake.tasks == [None] * 3
    assert summary["n_cells"] == summary["n_wanted"] == 2
    assert not any("/pictures" in line for line in said), "the nodes had made all pictures"
    assert fake.ended == 1
    alone, _ = conducted()
    assert alone["steps_made"] == 0, "the same cells, wherever they were made"


def test_a_node_that_cannot_work_says_why_and_the_rest_goes_on(ray, conducted, monkeypatch):
    fake = ray(nodes=5)
    versions = iter(({"torch": "2"}, {"torch": "1"}))
    monkeypatch.setattr(cluster, "versions", lambda: next(versions))
    summary, said = conducted(engine="ray", workers=1)
    assert len(fake.tasks) == 1
    assert any("takes no cells: it has torch 1 for 2" in line for line in said)
    assert summary["n_cells"] == 2


def test_a_node_that_does_not_see_the_folder_makes_nothing(tmp_path):
    wanted = {**cluster.versions(), "processor": cluster.processor("cpu")}
    said = cluster.take_cells(lambda: pytest.fail("it took cells"), str(tmp_path / "elsewhere"), wanted, "cpu")
    assert "does not see" in said


def test_a_node_that_dies_is_told_and_its_cells_are_made_here(ray, conducted):
    ray(dies=True)
    summary, said = conducted(engine="ray")
    assert any("a node was lost: the node was killed" in line for line in said)
    assert summary["n_cells"] == 2


def test_wrong_ways_to_distribute_are_refused_before_anything_is_made(conducted, tmp_path, monkeypatch):
    for options, said in (({"engine": "dask"}, "unknown engine"), ({"address": "auto"}, "engine 'ray'"),
                          ({"workers": 0}, "at least 1")):
        with pytest.raises(InputError, match=said):
            conducted(**options)
    with monkeypatch.context() as patch:
        patch.setattr(conduct, "import_ray", lambda: None)
        with pytest.raises(InputError, match="no Ray cluster answers there"):
            conducted(engine="ray", address="localhost:1")
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match=r"negface\[ray\]"):
        conducted(engine="ray")
    assert not (tmp_path / "run").exists()


def test_paths_reach_a_node_absolute(given, monkeypatch):
    monkeypatch.chdir(given.model.parent)
    found = replace(given, model=Path("model"), benchmarks={"drawn": Path("pairs.csv")}).resolved()
    assert found.model == given.model.resolve()
    assert found.benchmarks["drawn"] == given.model.parent.resolve() / "pairs.csv"
    assert (found.threads, found.people) == (1, None)
