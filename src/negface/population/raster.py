"""Triangles to pixels, batched, in plain torch: which triangle is nearest at each pixel, and where in it.

Every triangle's bounding box is unrolled into (triangle, pixel) pairs; pairs inside write a 64-bit key of depth and
triangle number into the pixel with a minimum, so the result does not depend on any order.
"""

from __future__ import annotations

import torch

_FAR = torch.iinfo(torch.int64).max
_DEPTH_STEPS = float(1 << 28)


def _unroll(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For counts ``[m]``: the owner of each of ``sum(counts)`` items, and the item's place within its owner."""
    owner = torch.repeat_interleave(counts)
    start = torch.cumsum(counts, 0) - counts
    return owner, torch.arange(len(owner), device=counts.device) - start[owner]


def rasterize(screen: torch.Tensor, depth: torch.Tensor, faces: torch.Tensor, double: torch.Tensor,
              size: tuple[int, int]) -> torch.Tensor:
    """The nearest triangle at every pixel's centre.

    Args:
        screen: x right and y down in pixels, float32 ``[n, v, 2]``; a pixel's centre is a whole number plus 0.5. A
            vertex that is NaN takes its triangles away.
        depth: distance from the camera, smaller is nearer, float32 ``[n, v]``.
        faces: vertex numbers, int64 ``[m, 3]``; seen from outside they turn anticlockwise on the screen.
        double: bool ``[m]``, whether a triangle is seen from behind as well.
        size: height and width.

    Returns:
        int64 ``[n, height * width]``: number of the triangle, -1 where there is none.
    """
    n, (height, width) = len(screen), size
    corners = [screen[:, faces[:, i]] for i in range(3)]
    (x0, y0), (x1, y1), (x2, y2) = (corner.unbind(-1) for corner in corners)
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    left = torch.minimum(torch.minimum(x0, x1), x2)
    right = torch.maximum(torch.maximum(x0, x1), x2)
    top = torch.minimum(torch.minimum(y0, y1), y2)
    bottom = torch.maximum(torch.maximum(y0, y1), y2)
    first_x, last_x = torch.ceil(left - 0.5).clamp(min=0), torch.floor(right - 0.5).clamp(max=width - 1)
    first_y, last_y = torch.ceil(top - 0.5).clamp(min=0), torch.floor(bottom - 0.5).clamp(max=height - 1)
    seen = (area < -1e-9) | ((area > 1e-9) & double)
    seen &= (last_x >= first_x) & (last_y >= first_y)
    image, face = seen.nonzero(as_tuple=True)

    def kept(values: torch.Tensor) -> torch.Tensor:
        return values[image, face]

    columns = (kept(last_x) - kept(first_x)).long() + 1
    rows = (kept(last_y) - kept(first_y)).long() + 1
    owner, place = _unroll(columns * rows)
    down = torch.div(place, columns[owner], rounding_mode="floor")
    # One row of numbers for each kept triangle, so that a pair gathers once.
    inverse = 1 / kept(area)
    z0, z1, z2 = (depth[image, faces[face, i]] for i in range(3))
    kx0, ky0, kx1, ky1, kx2, ky2 = (kept(v) for v in (x0, y0, x1, y1, x2, y2))
    fx, fy = kept(first_x), kept(first_y)
    # barycentric weights are linear in the pixel: value at the box's first pixel, steps to the right and down
    w1 = ((fx + 0.5 - kx0) * (ky2 - ky0) - (kx2 - kx0) * (fy + 0.5 - ky0)) * inverse
    w2 = ((kx1 - kx0) * (fy + 0.5 - ky0) - (fx + 0.5 - kx0) * (ky1 - ky0)) * inverse
    rows_of = torch.stack([w1, (ky2 - ky0) * inverse, -(kx2 - kx0) * inverse,
                           w2, -(ky1 - ky0) * inverse, (kx1 - kx0) * inverse,
                           z0, z1 - z0, z2 - z0], 1)
    base = image * (height * width) + fy.long() * width + fx.long()
    across = place - down * columns[owner]
    r = rows_of[owner].unbind(1)
    across_f, down_f = across.float(), down.float()
    b1 = r[0] + r[1] * across_f + r[2] * down_f
    b2 = r[3] + r[4] * across_f + r[5] * down_f
    inside = ((b1 >= 0) & (b2 >= 0) & (b1 + b2 <= 1)).nonzero()[:, 0]
    b1, b2, owner = b1[inside], b2[inside], owner[inside]
    z = r[6][inside] + r[7][inside] * b1 + r[8][inside] * b2
    pixel = base[owner] + down[inside] * width + across[inside]
    near, far = depth.nan_to_num(0).min(), depth.nan_to_num(0).max()
    del near, far
    step = (z.clamp(0, 64) * (_DEPTH_STEPS / 64)).long()
    key = (step << 32) | face[owner]
    nearest = torch.full((n * height * width,), _FAR, dtype=torch.int64, device=screen.device)
    nearest.scatter_reduce_(0, pixel, key, "amin")
    found = torch.where(nearest == _FAR, -1, nearest & 0xFFFFFFFF)
    return found.view(n, height * width)


def weights_at(screen: torch.Tensor, vertices: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Barycentric weights of each pixel's centre in its triangle.

    Args:
        screen: as in ``rasterize``.
        vertices: int64 ``[n, height * width, 3]``, the vertex numbers of each pixel's triangle.

    Returns:
        float32 ``[n, height * width, 3]``, summing to 1.
    """
    height, width = size
    n, pixels = vertices.shape[:2]
    corner = torch.gather(screen, 1, vertices.view(n, pixels * 3, 1).expand(-1, -1, 2)).view(n, pixels, 3, 2)
    y, x = torch.meshgrid(torch.arange(height, device=screen.device), torch.arange(width, device=screen.device),
                          indexing="ij")
    x, y = x.reshape(1, -1) + 0.5, y.reshape(1, -1) + 0.5
    (x0, y0), (x1, y1), (x2, y2) = (corner[:, :, i].unbind(-1) for i in range(3))
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    area = torch.where(area.abs() < 1e-12, torch.ones_like(area), area)
    w1 = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) / area
    w2 = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) / area
    return torch.stack([1 - w1 - w2, w1, w2], -1)
