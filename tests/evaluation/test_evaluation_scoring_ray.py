"""The pass over all pairs on a real Ray of this machine: the numbers and the nearest rows are those of one process."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_twin import people

from negface.evaluation import separability
from negface.evaluation.ray_blocks import over_ray
from negface.generation.ray_engine import capacity, connect


@pytest.fixture(scope="module")
def ray():
    """Ray, connected to a cluster of two processors that this machine starts."""
    package = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("raylet_start_wait_time_s", 300), ("worker_register_timeout_seconds", 600)):
            patch.setenv(f"RAY_{name}", str(value))  # a busy machine is no failure
        connect(package, None, cpus=2)
        yield package
        package.shutdown()


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_real_cluster_gives_exactly_the_numbers_and_the_nearest_rows_of_one_process(ray, precision):
    images, labels = people(1000, 5, 64, 0.3, seed=7)
    mixed = np.random.default_rng(0).permutation(len(labels))
    training, _ = people(300, 5, 64, 0.3, seed=8)
    asked = {"bootstrap": 1, "at_scale": True, "precision": precision, "block": 1024, "threads": 1,
             "training": training}
    rooms = []

    def room():
        rooms.append(capacity(ray, "cpu", 1))
        return rooms[-1]

    far = separability(images[mixed], labels[mixed], map_blocks=over_ray(ray, room), **asked)
    here = separability(images[mixed], labels[mixed], **asked)
    assert rooms
    assert set(rooms) == {2}
    assert far.to_dict() == here.to_dict()
    for ours, theirs in zip(far.nearest, here.nearest, strict=True):
        np.testing.assert_array_equal(ours, theirs)
