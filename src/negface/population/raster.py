"""Triangles to pixels, batched, in plain torch: which triangle is nearest at each pixel, and where in it.

Every triangle is unrolled into the rows of pixels it crosses and every row into the pixels inside it; each pixel keeps
the smallest 64-bit key of depth and triangle number, so the result does not depend on any order.
"""

from __future__ import annotations

import torch

_FAR = torch.iinfo(torch.int64).max
_DEPTH_STEPS = float(1 << 22)
_NONE = 1e6


def _unroll(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For counts ``[m]``: the owner of each of ``sum(counts)`` items, and the item's place within its owner."""
    owner = torch.repeat_interleave(counts)
    start = torch.cumsum(counts, 0) - counts
    return owner, torch.arange(len(owner), device=counts.device) - start.index_select(0, owner)


def _triangles(screen: torch.Tensor, faces: torch.Tensor, double: torch.Tensor, size: tuple[int, int]) -> tuple:
    """Triangles that are seen: picture, face, (corners' x and y, twice the area), first row of pixels, rows."""
    height, width = size
    (x0, y0), (x1, y1), (x2, y2) = (screen.index_select(1, faces[:, i]).unbind(-1) for i in range(3))
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    seen = (area < -1e-9) | ((area > 1e-9) & double)
    first = torch.ceil(torch.minimum(torch.minimum(y0, y1), y2) - 0.5).clamp(min=0)
    last = torch.floor(torch.maximum(torch.maximum(y0, y1), y2) - 0.5).clamp(max=height - 1)
    seen &= (last >= first) & (torch.maximum(torch.maximum(x0, x1), x2) >= 0)
    seen &= torch.minimum(torch.minimum(x0, x1), x2) <= width
    flat = seen.flatten().nonzero()[:, 0]
    picture = torch.div(flat, len(faces), rounding_mode="floor")
    *corners, first, last = (value.flatten().index_select(0, flat)
                             for value in (x0, y0, x1, y1, x2, y2, area, first, last))
    return picture, flat - picture * len(faces), corners, first, (last - first).long() + 1


def _span(at: torch.Tensor, slope: torch.Tensor, low: torch.Tensor,
          high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Narrow ``low..high`` to where ``at + slope * x >= 0``."""
    cut = -at / torch.where(slope == 0, torch.ones_like(slope), slope)
    low = torch.where(slope > 0, torch.maximum(low, cut), low)
    high = torch.where(slope < 0, torch.minimum(high, cut), high)
    return torch.where((slope == 0) & (at < 0), _NONE, low), high


def rasterize(screen: torch.Tensor, depth: torch.Tensor, faces: torch.Tensor, double: torch.Tensor,
              size: tuple[int, int]) -> torch.Tensor:
    """The nearest triangle at every pixel's centre.

    Args:
        screen: x right and y down in pixels, float32 ``[n, v, 2]``; a pixel's centre is a whole number plus 0.5. A
            vertex that is NaN takes its triangles away.
        depth: distance from the camera, 0 to 500, smaller is nearer, float32 ``[n, v]``.
        faces: vertex numbers, int64 ``[m, 3]``; seen from outside they turn anticlockwise on the screen.
        double: bool ``[m]``, whether a triangle is seen from behind as well.
        size: height and width.

    Returns:
        int64 ``[n, height * width]``: number of the triangle, -1 where there is none.
    """
    n, (height, width) = len(screen), size
    picture, face, (x0, y0, x1, y1, x2, y2, area), first, rows = _triangles(screen, faces, double, size)
    vertex = faces.index_select(0, face) + (picture * depth.shape[1])[:, None]
    z0, z1, z2 = (depth.flatten().index_select(0, vertex[:, i]) for i in range(3))
    # Barycentric weights of a row of pixels are linear in x; x counts from the triangle's first corner.
    row_of, down = _unroll(rows)
    facts = (x1 - x0, y1 - y0, x2 - x0, y2 - y0, 1 / area, x0, first + 0.5 - y0, z0, z1 - z0, z2 - z0)
    ax, ay, bx, by, inverse, left, up, z, dz1, dz2 = (fact.index_select(0, row_of) for fact in facts)
    y = up + down
    w1, s1 = -bx * y * inverse, by * inverse
    w2, s2 = ax * y * inverse, -ay * inverse
    low, high = _span(w1, s1, torch.full_like(y, -_NONE), torch.full_like(y, _NONE))
    low, high = _span(w2, s2, low, high)
    low, high = _span(1 - w1 - w2, -s1 - s2, low, high)
    start = torch.ceil(low + left - 0.5).clamp(min=0, max=_NONE)
    stop = torch.floor(high + left - 0.5).clamp(min=-1, max=width - 1)
    line = (picture * (height * width) + first.long() * width).index_select(0, row_of) + down * width
    pixel_of, across = _unroll((stop - start + 1).clamp(min=0).long())
    # depth along the row is linear as well
    at_start = z + dz1 * w1 + dz2 * w2 + (start + 0.5 - left) * (dz1 * s1 + dz2 * s2)
    near = at_start.index_select(0, pixel_of) + (dz1 * s1 + dz2 * s2).index_select(0, pixel_of) * across
    step = (near.clamp(0, 500) * _DEPTH_STEPS).long()
    pixel = (line + start.long()).index_select(0, pixel_of) + across
    owner = face.index_select(0, row_of).index_select(0, pixel_of)
    nearest = torch.full((n * height * width,), _FAR, dtype=torch.int64, device=screen.device)
    nearest.scatter_reduce_(0, pixel, (step << 32) | owner, "amin")
    return torch.where(nearest == _FAR, -1, nearest & 0xFFFFFFFF).view(n, height * width)


def weights_at(screen: torch.Tensor, corners: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Barycentric weights ``[k, 3]`` of ``places`` ``[k, 2]`` in triangles of vertices ``corners`` ``[k, 3]``.

    ``screen`` ``[v, 2]`` holds the vertices of one picture.
    """
    (x0, y0), (x1, y1), (x2, y2) = (screen.index_select(0, corners[:, i]).unbind(-1) for i in range(3))
    x, y = places.unbind(-1)
    inverse = 1 / ((x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0))
    w1 = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) * inverse
    w2 = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) * inverse
    return torch.stack([1 - w1 - w2, w1, w2], -1)
