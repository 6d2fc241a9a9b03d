"""One tile's counts against a loop over its pairs, the sample beforehand, the nearest training row, and a cluster."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
from evaluation_twin import people
from typer.testing import CliRunner

from negface.cli import evaluate as command
from negface.evaluation import separability
from negface.evaluation._leakage import leakage
from negface.evaluation.at_scale import measure_at_scale
from negface.evaluation.inputs import gallery
from negface.evaluation.int8_scores import rescored, to_int8
from negface.evaluation.lookout import Sample, sample_tiles
from negface.evaluation.ray_blocks import over_ray
from negface.evaluation.scoring import LATTICE, Tiles
from negface.evaluation.tile_counts import CELLS, OFFSET, Desk
from negface.foundation.errors import InputError


@pytest.fixture(scope="module")
def faces():
    """Unequal people, in no order, over several tiles with padding at both edges."""
    random = np.random.default_rng(7)
    labels = np.repeat(np.arange(60), random.integers(1, 9, 60))
    centres, _ = people(60, 1, 24, 0.0, seed=7)
    images = (centres[labels] + 0.2 * random.standard_normal((len(labels), 24))).astype(np.float32)
    mixed = random.permutation(len(labels))
    return images[mixed], labels[mixed]


@pytest.fixture(scope="module")
def training():
    """Other people, in no order either."""
    images, labels = people(50, 5, 24, 0.3, seed=8)
    mixed = np.random.default_rng(1).permutation(len(labels))
    return images[mixed], labels[mixed]


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_desk_counts_each_pair_of_different_people_once(faces, precision):
    people_ = gallery(*faces)
    int8 = to_int8(people_, seed=0) if precision == "int8" else None
    tiles, marks = Tiles(people_, shape=(64, 96)), (0.1, 0.35)
    desk, lattice = Desk(tiles, int8), np.zeros(CELLS, np.int64)
    marked, found = np.zeros((3, tiles.n), np.int64), []
    for strip in range(tiles.n_strips):
        for column in tiles.columns(strip):
            desk.score(strip, column)
            desk.count_marked(marks, marked)
            flat = desk.between(0.1, 0.35)
            found += list(zip(*desk.rows_of(flat), desk.values(flat), strict=True))
            desk.count_lattice(lattice)
    unit = people_.embeddings if int8 is None else int8.codes.numpy() * int8.scales.numpy()[:, None]
    scores = (unit.astype(np.float64) @ unit.T).clip(-1, 1)
    others = people_.codes[:, None] < people_.codes[None]
    np.testing.assert_array_equal(marked[0], (people_.codes[:, None] != people_.codes[None]).sum(axis=1))
    for counts, mark in zip(marked[1:], marks, strict=True):
        reaching = others & (scores >= mark)
        np.testing.assert_array_equal(counts, reaching.sum(axis=0) + reaching.sum(axis=1))
    assert lattice[1:].sum() == people_.n_impostor
    expected = np.bincount(np.floor(scores[others] * LATTICE).astype(int) + OFFSET, minlength=CELLS)
    assert np.abs(lattice[1:] - expected[1:]).sum() < people_.n_impostor / 200, "rounding at cell edges only"
    inside = others & (scores >= 0.1) & (scores < 0.35)
    assert {(row, column) for row, column, _ in found} == set(zip(*(at.tolist() for at in np.nonzero(inside)),
                                                                  strict=True))
    np.testing.assert_allclose([value for *_, value in found], [scores[row, column] for row, column, _ in found],
                               atol=1e-6)


def test_pairs_scored_again_are_entries_of_the_product():
    random = np.random.default_rng(0)
    rows, columns = (torch.from_numpy(random.standard_normal((size, 33)).astype(np.float32)) for size in (40, 70))
    # Some rows asked for often, some never, the last among them.
    first = np.sort(random.integers(0, 9, 50) * 4)
    second = random.integers(0, 70, 50)
    np.testing.assert_allclose(rescored(rows, columns, first, second), (rows @ columns.T).numpy()[first, second],
                               atol=1e-5)


def test_the_sample_knows_by_how_much_its_pairs_depend_on_each_other():
    apart = gallery(*people(400, 2, 64, 0.2, seed=1))
    images, labels = people(400, 2, 64, 0.2, seed=1)
    # Some people resemble everybody.
    alike = gallery(images + 0.05 * np.random.default_rng(0).gamma(1, 1, 400)[labels][:, None], labels)
    ratios = []
    for people_ in (apart, alike):
        samples = [sample_tiles(people_, 1 << 15, seed) for seed in range(40)]
        threshold = float(np.quantile(samples[0].scores, 0.99))
        rates = [(sample.scores >= threshold).mean() for sample in samples]
        independent = np.sqrt(np.mean(rates) * (1 - np.mean(rates)) / len(samples[0].scores))
        ratios.append(np.std(rates) / independent)
        assert np.mean([sample.widen(threshold) for sample in samples]) == pytest.approx(ratios[-1], rel=0.35)
    assert ratios[0] < 1.4 < 2 < ratios[1]


def test_the_sample_holds_pairs_of_different_people_with_their_cosines(faces):
    people_ = gallery(*faces)
    sample = sample_tiles(people_, 1 << 12, 3)
    assert (people_.codes[sample.first] != people_.codes[sample.second]).all()
    np.testing.assert_allclose(sample.scores, np.einsum("nd,nd->n", people_.embeddings[sample.first],
                                                        people_.embeddings[sample.second]), atol=1e-6)
    assert Sample(np.ones(1, np.float32), *np.zeros((3, 1), np.int64)).widen(0.0) == 1


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("block", [1, 10_000])
def test_the_nearest_training_row_comes_out_of_the_same_pass(faces, training, precision, block, monkeypatch):
    monkeypatch.setattr("negface.evaluation.tails.TILE_SHAPES", {"cpu": (64, 96)})
    cosine, row = separability(*faces, bootstrap=0, at_scale=True, precision=precision, block=block,
                               training=training[0]).nearest
    unit = faces[0] / np.linalg.norm(faces[0], axis=1, keepdims=True)
    scores = unit @ training[0].T
    np.testing.assert_array_equal(row, scores.argmax(axis=1))
    np.testing.assert_allclose(cosine, scores.max(axis=1), atol=1e-6)


def test_leakage_is_the_same_with_the_nearest_from_the_pass(faces, training):
    found = separability(*faces, bootstrap=0, at_scale=True, training=training[0])
    given = leakage(*faces, *training, nearest=found.nearest)
    alone = leakage(*faces, *training)
    assert given.rate == alone.rate > 0
    assert [(item["image"], item["training_image"]) for item in given.closest] == \
        [(item["image"], item["training_image"]) for item in alone.closest]
    np.testing.assert_array_equal(given.nearest_image, alone.nearest_image)


def test_training_embeddings_of_another_length_are_refused_before_the_pass(faces):
    with pytest.raises(InputError, match="24 dimensions, training embeddings 8"):
        separability(*faces, at_scale=True, training=np.ones((3, 8)))


class FakeRay:
    """What of Ray is used, in this process: parts come back last first; ``lost`` of them never do."""

    exceptions = types.SimpleNamespace(RayError=type("RayError", (Exception,), {}))

    def __init__(self, lost=0):
        self.lost, self.most = lost, 0

    def put(self, value):
        return value

    def remote(self, function):
        return types.SimpleNamespace(options=lambda **_: types.SimpleNamespace(
            remote=lambda *arguments: (function, arguments)))

    def wait(self, waiting, num_returns):
        self.most = max(self.most, len(waiting))
        return waiting[-num_returns:], waiting[:-num_returns]

    def get(self, task):
        if self.lost:
            raise self.exceptions.RayError("stack\nthe node died")
        return task[0](*task[1])


def test_a_cluster_changes_nothing_and_is_not_flooded(faces, training, monkeypatch):
    monkeypatch.setattr("negface.evaluation.tails.TILE_SHAPES", {"cpu": (64, 64)})
    ray = FakeRay()
    asked = {"bootstrap": 1, "precision": "int8", "block": 64, "training": training[0]}
    far = separability(*faces, map_blocks=over_ray(ray, lambda: 1), **asked)
    here = separability(*faces, **asked)
    assert far.to_dict() == here.to_dict()
    np.testing.assert_array_equal(far.nearest, here.nearest)
    assert ray.most == 3 < len(faces[0]) // 64


def test_a_part_lost_on_a_cluster_ends_the_pass(faces):
    with pytest.raises(InputError, match="the node died"):
        measure_at_scale(gallery(*faces), map_blocks=over_ray(FakeRay(lost=1), lambda: 2))


def test_the_command_takes_a_cluster(faces, monkeypatch, tmp_path):
    np.savez(tmp_path / "judge.npz", embeddings=faces[0], labels=faces[1])
    arguments = ["separability", str(tmp_path / "judge.npz"), "--json", str(tmp_path / "out.json")]
    refused = CliRunner().invoke(command.app, [*arguments, "--address", "auto"])
    assert "add --engine ray" in str(refused.exception)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    missing = CliRunner().invoke(command.app, [*arguments, "--engine", "ray"])
    assert "negface[ray]" in str(missing.exception)
    ray = FakeRay()
    ray.is_initialized = lambda: True
    ray.nodes = lambda: [{"NodeID": "a", "Alive": True, "Resources": {"CPU": 2.0}}]
    monkeypatch.setitem(__import__("sys").modules, "ray", ray)
    assert CliRunner().invoke(command.app, [*arguments, "--engine", "ray"]).exit_code == 0
    assert "jackknife" in (tmp_path / "out.json").read_text()
    assert ray.most > 0
