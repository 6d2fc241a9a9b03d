"""The rasteriser against a slow twin that asks every pixel about every triangle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from negface.population.raster import rasterize, weights_at


def slow_rasterize(screen, depth, faces, double, size):
    """Nearest triangle at each pixel's centre, in float64, one pixel and one triangle at a time."""
    height, width = size
    found, gap = np.full((height, width), -1), np.full((height, width), np.inf)
    nearest = np.full((height, width), np.inf)
    for number, (face, both) in enumerate(zip(faces, double)):
        (x0, y0), (x1, y1), (x2, y2) = screen[face]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if not (area < 0 or (both and area > 0)):
            continue
        for row in range(height):
            for column in range(width):
                x, y = column + 0.5, row + 0.5
                w1 = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) / area
                w2 = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) / area
                edge = min(w1, w2, 1 - w1 - w2)
                gap[row, column] = min(gap[row, column], abs(edge))
                z = depth[face] @ [1 - w1 - w2, w1, w2]
                if edge >= 0 and z < nearest[row, column]:
                    nearest[row, column], found[row, column] = z, number
    return found, gap


def random_scene(seed, count=14, size=(18, 23)):
    rng = np.random.default_rng(seed)
    screen = rng.uniform(-6, 30, (3 * count, 2)).astype(np.float32)
    depth = rng.uniform(1, 40, 3 * count).astype(np.float32)
    return screen, depth, np.arange(3 * count).reshape(-1, 3), rng.random(count) < 0.5, size


@pytest.mark.parametrize("seed", range(4))
def test_the_nearest_triangle_is_the_one_a_slow_search_finds(seed):
    screen, depth, faces, double, size = random_scene(seed)
    expected, gap = slow_rasterize(screen.astype(np.float64), depth.astype(np.float64), faces, double, size)
    found = rasterize(torch.tensor(screen)[None], torch.tensor(depth)[None], torch.tensor(faces), torch.tensor(double),
                      size)[0].view(size).numpy()
    clear = gap > 1e-4  # a pixel exactly on an edge may go either way
    assert (expected >= 0).any()
    np.testing.assert_array_equal(found[clear], expected[clear])


def test_pictures_of_a_batch_do_not_touch_each_other():
    scenes = [random_scene(seed) for seed in (1, 2)]
    faces, double, size = torch.tensor(scenes[0][2]), torch.ones(14, dtype=torch.bool), scenes[0][4]
    together = rasterize(torch.tensor(np.stack([scene[0] for scene in scenes])),
                         torch.tensor(np.stack([scene[1] for scene in scenes])), faces, double, size)
    for i, scene in enumerate(scenes):
        alone = rasterize(torch.tensor(scene[0])[None], torch.tensor(scene[1])[None], faces, double, size)
        assert torch.equal(together[i], alone[0])


def test_a_vertex_that_is_not_a_number_takes_its_triangle_away():
    screen = torch.tensor([[[0.0, 0.0], [0.0, 8.0], [8.0, 0.0]]])
    arguments = torch.ones(1, 3), torch.tensor([[0, 1, 2]]), torch.tensor([False]), (8, 8)
    assert (rasterize(screen, *arguments) == 0).sum() == 28 + 8
    screen[0, 2, 0] = torch.nan
    assert (rasterize(screen, *arguments) == -1).all()


def test_weights_bring_back_the_place():
    screen = torch.tensor([[1.0, 2.0], [3.0, 9.0], [8.0, 1.0]])
    places = torch.tensor([[3.5, 3.5], [4.5, 2.5]])
    weights = weights_at(screen, torch.tensor([[0, 1, 2], [0, 1, 2]]), places)
    torch.testing.assert_close(weights @ screen, places)
