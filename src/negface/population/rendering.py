"""People and shots to pictures with their truth: shape, rasterise at twice the size, shade every sample, develop.

Pictures are rendered a few at a time, so memory does not grow with their number, and a picture's bytes do not depend
on what is rendered beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from types import SimpleNamespace

import numpy as np
import torch

from ..foundation.errors import InputError
from . import hair, light, mesh, photo, skin, worn
from .camera import View, look
from .eyes import RADIUS, eyeballs, iris_colour
from .features import measure
from .landmarks import BRIDGE, CHIN, EAR_BASES, FOREHEAD, PUPILS, chart_points, five_points
from .raster import rasterize, weights_at
from .shots import NUISANCE_NAMES, Shots
from .surface import NECK, head_point
from .traits import GAINS, TRAIT_NAMES, People
from .values import Columns, edge, ramp

RENDERER = 1
"""Raised whenever the same numbers give another picture; stands in every card."""

OVERSAMPLED = 2
SMALLEST, LARGEST = 32, 512
_AT_ONCE = 8
FARTHEST = 45.0
"""Depth is counted in decimetres from here to the camera."""


@dataclass(frozen=True)
class Rendered:
    """Pictures and their truth; pixel coordinates count from 0 at the first pixel's centre, x right, y down.

    Attributes:
        images: uint8 ``[n, size, size, 3]`` RGB.
        points5: float32 ``[n, 5, 2]``: eye on the left of the picture, other eye, nose, mouth corner on the left,
            the other.
        points68: float32 ``[n, 68, 2]``, iBUG order. They may lie outside the picture.
        visible68: bool ``[n, 68]``: inside the picture and not behind anything.
        parsing: uint8 ``[n, size, size]``, index into ``CLASSES``.
        boxes: float32 ``[n, 4]``: left, top, width, height of forehead to chin.
        pose: float32 ``[n, 3]``: yaw, pitch, roll in degrees as they are in the picture (after alignment).
    """

    images: np.ndarray
    points5: np.ndarray
    points68: np.ndarray
    visible68: np.ndarray
    parsing: np.ndarray
    boxes: np.ndarray
    pose: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def join(parts: list[Rendered]) -> Rendered:
    """Several as one, in order."""
    return Rendered(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Rendered)))


def cut(rendered: Rendered, rows: Sequence[int]) -> Rendered:
    """Some of the pictures with their truth, in that order."""
    rows = list(rows)
    return Rendered(*(getattr(rendered, item.name)[rows] for item in fields(Rendered)))


def check_size(size: int) -> None:
    """``InputError`` unless pictures of that side can be rendered."""
    if not SMALLEST <= size <= LARGEST:
        raise InputError(f"size is {size}", where="render", fix=f"choose {SMALLEST} to {LARGEST} pixels")


def render(people: People, shots: Shots, size: int = 112, *, frame: str = "aligned", template: str = "arcface",
           device: str = "cpu") -> Rendered:
    """Photograph person ``i`` as shot ``i`` says.

    Args:
        people, shots: of equal length.
        size: side of the pictures, 32 to 512 pixels.
        frame: ``aligned`` to the five-point ``template``, or ``portrait`` (the whole head, roll kept).
        device: where shapes and shading are computed.

    Raises:
        InputError: unequal lengths, or a size out of range.
    """
    if len(people) != len(shots):
        raise InputError(f"{len(people)} people and {len(shots)} shots", where="render", fix="give one shot a person")
    check_size(size)
    parts = []
    with torch.inference_mode():
        for first in range(0, len(people), _AT_ONCE):
            rows = list(range(first, min(first + _AT_ONCE, len(people))))
            parts.append(_render(people.take(rows), shots.take(rows), size, frame, template, torch.device(device)))
    return join(parts)


def _mask_cover(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """1 where a surgical mask lies on the head."""
    upper = edge(-0.30 - 0.12 * ramp(s.abs() / 0.5) - t, 0.03)
    sides = edge(0.98 - s.abs() - 0.25 * ramp((-0.8 - t) / 0.4), 0.03)
    return upper * sides * (t > NECK + 0.18)


def _hat_cover(e: Columns, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """1 where a hat lies on the head."""
    brim = 0.52 - 0.10 * (e.hat > 1.5) - 0.16 * ramp((s.abs() - 0.8) / 1.2)
    return edge(t - brim, 0.03) * (e.hat > 0.5)


def _shape(p: Columns, e: Columns, f: SimpleNamespace, grid: mesh.Mesh,
           hairline: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All vertices ``[n, v, 3]`` and the landmarks with their further points ``[n, 77, 3]``."""
    hat, mask = _hat_cover(e, grid.s, grid.t), _mask_cover(grid.s, grid.t) * (e.mask > 0.5)
    hairs = hair.stand_off(p, f, hair.above_line(hairline, grid.s, grid.t), grid.s, grid.t)
    hairs = hairs * (1 - 0.5 * (e.hat > 0.5) * edge(grid.t - 0.2, 0.3))
    lift = torch.maximum(hairs, (0.13 + 0.04 * (e.hat > 1.5)) * hat) + 0.03 * mask
    head = head_point(p, e, f, grid.s, grid.t, lift=lift, smooth=mask)
    at = chart_points(p, f)
    marks = head_point(p, e, f, at[..., 0], at[..., 1])
    ears = marks[:, EAR_BASES]
    tops = ears + torch.tensor([[-0.02, 0.14, 0.0], [0.02, 0.14, 0.0]], device=ears.device)
    root = torch.linspace(-1.0, 1.0, mesh.PEAK_GRID[1], device=ears.device)[None] * 0.80
    front = head_point(p, e, f, root, 0.54 + 0 * root, lift=(0.15 + 0 * f.eye_x) * torch.ones_like(root))
    parts = [head, worn.ear(p, f, ears[:, 0], -1), worn.ear(p, f, ears[:, 1], 1), worn.locks(p, e, f),
             worn.peak(e, front), *worn.glasses(e, marks[:, BRIDGE], tops), *worn.hand(e, marks[:, CHIN])]
    return torch.cat(parts, 1), marks


def _render(people: People, shots: Shots, size: int, frame: str, template: str, device: torch.device) -> Rendered:
    p = Columns(torch.from_numpy(people.values * GAINS).to(device), TRAIT_NAMES)
    e = Columns(torch.from_numpy(shots.values).to(device), NUISANCE_NAMES)
    f = measure(p, e)
    grid = mesh.build(mesh.step_for(size), str(device))
    hairline = hair.hairline_table(p, f)
    points, marks = _shape(p, e, f, grid, hairline)
    view = look(points, marks, e, size, frame=frame, template_name=template)
    fine = size * OVERSAMPLED
    screen, depth = (view.screen + 0.5) * OVERSAMPLED, FARTHEST - view.space[..., 2]
    triangle = rasterize(screen, depth, grid.faces, grid.double, (fine, fine))
    towards = light.direction(e)
    facts = _facts(grid, view, depth, towards, e)
    colours = {name: value.to(device) for name, value in photo.wardrobe(shots).items()}
    colours |= {"skin": skin.skin_colour(p), "hair": hair.colour(p, e), "iris": iris_colour(p)}
    eye_centres = _eye_centres(view)
    colour = photo.backgrounds(shots, fine).to(device).flatten(2)
    label = torch.full_like(triangle, skin.BACKGROUND)
    far = torch.full_like(colour[:, 0], 2 * FARTHEST)
    for i in range(len(people)):
        index = (triangle[i] >= 0).nonzero()[:, 0]
        if not len(index):
            continue
        at = _samples(grid, screen[i], facts[i], triangle[i].index_select(0, index), index, fine)
        person, shot = p.row(i), e.row(i)
        own = SimpleNamespace(**{name: float(value[i]) for name, value in vars(f).items()})
        bare, hairs = colours["skin"][i:i + 1], colours["hair"][i:i + 1]
        seen = skin.face(person, shot, own, bare, hairs, hairline[i:i + 1], at.s, at.t)
        seen.lids &= at.part == mesh.HEAD
        eyeballs(shot, own, colours["iris"][i:i + 1], seen, at.normal, at.places, eye_centres[i],
                 RADIUS * OVERSAMPLED * view.scale[i], view.rotation[i])
        _dress(shot, seen, at, {name: value[i].tolist() for name, value in colours.items()})
        shaded = light.shade(seen.albedo, seen.gloss, at.normal[None], at.key_seen, at.sky_seen, seen.translucent, shot,
                             towards[i].tolist())
        skin.put(colour[i:i + 1], index, shaded)
        label[i].index_copy_(0, index, seen.label[0])
        far[i].index_copy_(0, index, at.depth)
    small = torch.nn.functional.avg_pool2d(colour.view(-1, 3, fine, fine), OVERSAMPLED)
    shown = photo.develop(small, colours["skin"], e.exposure, e.contrast)
    return _truth(photo.expose(shown.cpu(), shots), label.view(-1, fine, fine), far, view, e, size)


def _facts(grid: mesh.Mesh, view: View, depth: torch.Tensor, towards: torch.Tensor, e: Columns) -> torch.Tensor:
    """What each vertex knows, ``[n, v, 8]``: chart, normal, how much of key light and sky reaches it, depth."""
    n = len(depth)
    seen = light.visibility(view.space, towards, 0.5 + 1.6 * e.shadow_softness)
    sky = torch.tensor([[0.0, 0.90, 0.436]], device=depth.device).expand(n, -1)
    sky_seen = light.visibility(view.space, sky, torch.full_like(e.yaw, 2.5))
    chart = torch.zeros(n, grid.n_vertices, 2, device=depth.device)
    chart[:, :grid.s.shape[1], 0], chart[:, :grid.s.shape[1], 1] = grid.s, grid.t
    whole = torch.cat([chart, mesh.normals(grid, view.space), torch.stack([seen, sky_seen, depth], -1)], -1)
    return torch.nan_to_num(whole)


def _samples(grid: mesh.Mesh, screen: torch.Tensor, facts: torch.Tensor, triangle: torch.Tensor, index: torch.Tensor,
             fine: int) -> SimpleNamespace:
    """The covered samples of one picture: part, chart, normal, shadows, depth and place, interpolated."""
    down = torch.div(index, fine, rounding_mode="floor")
    places = torch.stack([index - down * fine, down], -1) + 0.5
    corners = grid.faces.index_select(0, triangle)
    weights = weights_at(screen, corners, places)
    mixed = sum(facts.index_select(0, corners[:, i]) * weights[:, i:i + 1] for i in range(3))
    s, t, x, y, z, key_seen, sky_seen, depth = mixed.T.contiguous().unbind(0)
    length = torch.sqrt(x * x + y * y + z * z).clamp(min=1e-6)
    length = torch.where((z < 0) & grid.double.index_select(0, triangle), -length, length)
    return SimpleNamespace(part=grid.part.index_select(0, triangle)[None], s=s[None], t=t[None], places=places,
                           depth=depth, normal=torch.stack([x, y, z], -1) / length[:, None], key_seen=key_seen[None],
                           sky_seen=sky_seen[None])


def _eye_centres(view: View) -> torch.Tensor:
    """Middles of the eyeballs on the fine screen, ``[n, 2, 2]``."""
    inwards = -0.88 * RADIUS * view.rotation[:, :2, 2] * torch.tensor([1.0, -1.0], device=view.rotation.device)
    pupils = view.landmarks[:, PUPILS] + (inwards * view.scale[:, None])[:, None]
    return (pupils + 0.5) * OVERSAMPLED


def _dress(e: SimpleNamespace, seen: SimpleNamespace, at: SimpleNamespace, colours: dict[str, list[float]]) -> None:
    """Give the other parts, and what is worn on the head, their colours and labels."""
    head = at.part == mesh.HEAD
    flesh = [value * gain for value, gain in zip(colours["skin"], (1.02, 0.88, 0.85))]
    covers = [(head & (at.t < NECK - 0.22), colours["clothes"], skin.CLOTHES, 0.0),
              (at.part == mesh.EAR, flesh, skin.EARS, 0.8), (at.part == mesh.LOCKS, colours["hair"], skin.HAIR, 0.0)]
    if e.mask > 0.5:
        covers.append((head & (_mask_cover(at.s, at.t) > 0.5), colours["mask"], skin.OCCLUDER, 0.0))
    if e.hat > 0.5:
        covers.append((head & (_hat_cover(e, at.s, at.t) > 0.5), colours["hat"], skin.OCCLUDER, 0.0))
        covers.append((at.part == mesh.PEAK, colours["hat"], skin.OCCLUDER, 0.0))
    if e.glasses >= 0.5:
        covers.append((at.part == mesh.GLASSES, colours["frames"], skin.FRAMES, 0.0))
    if e.hand > 0.5:
        covers.append((at.part == mesh.HAND, flesh, skin.OCCLUDER, 0.8))
    for where, colour, name, translucent in covers:
        index = where[0].nonzero()[:, 0]
        for plane, value in zip(seen.albedo[0], colour):
            plane.index_fill_(0, index, value)
        seen.label[0].index_fill_(0, index, name)
        seen.gloss[0].index_fill_(0, index, 0.12 if name == skin.FRAMES else 0.02)
        seen.translucent[0].index_fill_(0, index, translucent)


def _most(label: torch.Tensor) -> np.ndarray:
    """The commonest of each pixel's four samples (the first of equals), uint8 ``[n, size, size]``."""
    samples = [label[:, i::OVERSAMPLED, j::OVERSAMPLED].to(torch.uint8) for i in range(2) for j in range(2)]
    best, most = samples[0], torch.zeros_like(samples[0])
    for sample in samples:
        votes = sum((sample == other).to(torch.uint8) for other in samples)
        best, most = torch.where(votes > most, sample, best), torch.maximum(votes, most)
    return best.cpu().numpy()


def _visible(view: View, far: torch.Tensor, fine: int, size: int) -> np.ndarray:
    """Whether each of the 68 lies in the picture and nothing stands before it (compared in a 3 x 3 window)."""
    marks = view.landmarks[:, :68]
    own = FARTHEST - view.landmarks_space[:, :68, 2]
    x, y = torch.round((marks + 0.5) * OVERSAMPLED - 0.5).long().unbind(-1)
    around = [far.gather(1, (y + down).clamp(0, fine - 1) * fine + (x + across).clamp(0, fine - 1))
              for down in (-1, 0, 1) for across in (-1, 0, 1)]
    inside = ((marks > -0.5) & (marks < size - 0.5)).all(-1)
    return (inside & (own < torch.stack(around).amax(0) + 0.06)).cpu().numpy()


def _truth(images: np.ndarray, label: torch.Tensor, far: torch.Tensor, view: View, e: Columns, size: int) -> Rendered:
    marks = view.landmarks[:, :68]
    outline = torch.cat([marks, view.landmarks[:, FOREHEAD]], 1)
    low, high = outline.amin(1), outline.amax(1)
    pose = torch.cat([e.yaw, e.pitch, view.roll[:, None]], 1)
    return Rendered(images, five_points(marks).cpu().numpy(), marks.cpu().numpy(),
                    _visible(view, far, label.shape[-1], size), _most(label),
                    torch.cat([low, high - low], 1).cpu().numpy(), pose.cpu().numpy())
