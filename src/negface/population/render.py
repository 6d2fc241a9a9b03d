"""People and shots to pictures with their truth: shape, rasterise at twice the size, shade every sample, develop.

Pictures are rendered a few at a time, so memory does not grow with their number, and a picture's bytes do not depend
on what is rendered beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from types import SimpleNamespace

import numpy as np
import torch

from ..foundation.errors import InputError
from . import hair, light, mesh, photo, skin, worn
from .camera import View, look
from .eyes import RADIUS, eyeballs
from .features import measure
from .landmarks import BRIDGE, CHIN, EAR_BASES, FOREHEAD, PUPILS, chart_points, five_points
from .raster import rasterize, weights_at
from .shots import NUISANCE_NAMES, Shots
from .surface import CROWN, NECK, head_point
from .traits import TRAIT_NAMES, People
from .values import Columns, edge, ramp

OVERSAMPLED = 2
SMALLEST, LARGEST = 32, 512
_AT_ONCE = 4


@dataclass(frozen=True)
class Rendered:
    """Pictures and their truth; pixel coordinates count from 0 at the first pixel's centre, x right, y down.

    Attributes:
        images: uint8 ``[n, size, size, 3]`` RGB.
        points5: float32 ``[n, 5, 2]``: eye on the left of the picture, other eye, nose, mouth corner on the left, other.
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
    if not SMALLEST <= size <= LARGEST:
        raise InputError(f"size is {size}", where="render", fix=f"choose {SMALLEST} to {LARGEST} pixels")
    parts = []
    with torch.inference_mode():
        for first in range(0, len(people), _AT_ONCE):
            rows = list(range(first, min(first + _AT_ONCE, len(people))))
            parts.append(_render(people.take(rows), shots.take(rows), size, frame, template, torch.device(device)))
    return join(parts)


def _mask_cover(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """1 where a surgical mask lies on the head."""
    return edge(-0.30 - 0.12 * ramp(s.abs() / 0.5) - t, 0.03) * edge(0.98 - s.abs() - 0.25 * ramp((-0.8 - t) / 0.4), 0.03) \
        * (t > NECK + 0.18)


def _hat_cover(e: Columns, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """1 where a hat lies on the head."""
    brim = 0.52 - 0.10 * (e.hat > 1.5) - 0.16 * ramp((s.abs() - 0.8) / 1.2)
    return edge(t - brim, 0.03) * (e.hat > 0.5)


def _shape(p: Columns, e: Columns, f: SimpleNamespace, grid: mesh.Mesh, hairline: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All vertices ``[n, v, 3]`` and the landmarks with their further points ``[n, 77, 3]``."""
    hat, mask = _hat_cover(e, grid.s, grid.t), _mask_cover(grid.s, grid.t) * (e.mask > 0.5)
    hairs = hair.stand_off(p, f, hair.above_line(hairline, p, grid.s, grid.t), grid.s, grid.t)
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
    p = Columns(torch.from_numpy(people.values).to(device), TRAIT_NAMES)
    e = Columns(torch.from_numpy(shots.values).to(device), NUISANCE_NAMES)
    f = measure(p, e)
    grid = mesh.build(0.025 if size <= 160 else 0.0175, str(device))
    hairline = hair.hairline_table(p, f)
    points, marks = _shape(p, e, f, grid, hairline)
    view = look(points, marks, e, size, frame=frame, template_name=template)
    fine = size * OVERSAMPLED
    screen = (view.screen + 0.5) * OVERSAMPLED
    depth = 45.0 - view.space[..., 2]
    triangle = rasterize(screen, depth, grid.faces, grid.double, (fine, fine))
    sample = _samples(grid, view, screen, depth, triangle, fine, e)
    colour = _shade(p, e, f, hairline, view, sample, shots, fine)
    there = (triangle >= 0)[:, None]
    behind = photo.backgrounds(shots, fine).to(device).flatten(2)
    colour = torch.where(there, colour, behind).view(len(people), 3, fine, fine)
    small = torch.nn.functional.avg_pool2d(colour, OVERSAMPLED)
    shown = photo.develop(small, skin.skin_colour(p), e.exposure, e.contrast)
    label = torch.where(there[:, 0], sample.label, skin.BACKGROUND).view(-1, fine, fine)
    return _truth(photo.expose(shown.cpu(), shots), label, sample, view, e, size)


def _samples(grid: mesh.Mesh, view: View, screen: torch.Tensor, depth: torch.Tensor, triangle: torch.Tensor, fine: int,
             e: Columns) -> SimpleNamespace:
    """What the rasteriser found at each sample: part, chart, normal, shadows, depth."""
    n, pixels = triangle.shape
    safe = triangle.clamp(min=0)
    corners = grid.faces[safe]
    weights = weights_at(screen, corners, (fine, fine))
    weights = torch.where((triangle >= 0)[..., None], weights, torch.tensor([1.0, 0, 0], device=weights.device))
    towards = light.direction(e)
    seen = light.visibility(view.space, towards, 0.5 + 1.6 * e.shadow_softness)
    sky = torch.tensor([[0.0, 0.90, 0.436]], device=depth.device).expand(n, -1)
    sky_seen = light.visibility(view.space, sky, torch.full_like(e.yaw, 2.5))
    normal = mesh.normals(grid, view.space)
    chart = torch.zeros(n, grid.n_vertices, 2, device=depth.device)
    chart[:, :grid.s.shape[1], 0], chart[:, :grid.s.shape[1], 1] = grid.s, grid.t
    facts = torch.nan_to_num(torch.cat([chart, normal, seen[..., None], sky_seen[..., None], depth[..., None]], -1))
    offset = torch.arange(n, device=depth.device)[:, None] * grid.n_vertices
    facts = facts.flatten(0, 1)
    mixed = sum(facts[(corners[..., i] + offset).view(-1)].view(n, pixels, -1) * weights[..., i:i + 1] for i in range(3))
    normal = mixed[..., 2:5] / mixed[..., 2:5].norm(dim=-1, keepdim=True).clamp(min=1e-6)
    away = (normal[..., 2] < 0) & grid.double[safe]
    normal = torch.where(away[..., None], -normal, normal)
    return SimpleNamespace(part=grid.part[safe], s=mixed[..., 0].contiguous(), t=mixed[..., 1].contiguous(),
                           normal=normal, key_seen=mixed[..., 5], sky_seen=mixed[..., 6], depth=mixed[..., 7],
                           there=triangle >= 0, towards=towards)


def _pixel_places(fine: int, device: torch.device) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(fine, device=device), torch.arange(fine, device=device), indexing="ij")
    return torch.stack([x, y], -1).reshape(1, -1, 2) + 0.5


def _eye_centres(view: View) -> torch.Tensor:
    """Middles of the eyeballs on the fine screen, ``[n, 2, 2]``."""
    inwards = -0.88 * RADIUS * view.rotation[:, :2, 2] * torch.tensor([1.0, -1.0], device=view.rotation.device)
    pupils = view.landmarks[:, PUPILS] + (inwards * view.scale[:, None])[:, None]
    return (pupils + 0.5) * OVERSAMPLED


def _shade(p: Columns, e: Columns, f: SimpleNamespace, hairline: torch.Tensor, view: View, at: SimpleNamespace,
           shots: Shots, fine: int) -> torch.Tensor:
    """Linear colours ``[n, 3, k]``; puts ``label`` into ``at``."""
    seen = skin.face(p, e, f, hairline, at.s, at.t)
    head = at.part == mesh.HEAD
    seen.lids = seen.lids & head
    device = at.s.device
    normal = eyeballs(p, e, f, seen, at.normal, _pixel_places(fine, device), _eye_centres(view),
                      view.scale * OVERSAMPLED, view.rotation, at.s > 0)
    colours = {name: value.to(device) for name, value in photo.wardrobe(shots).items()}
    _dress(p, e, seen, at, colours)
    at.label = seen.label
    return light.shade(seen.albedo, seen.gloss, normal, at.key_seen, at.sky_seen, seen.translucent, e, at.towards)


def _dress(p: Columns, e: Columns, seen: SimpleNamespace, at: SimpleNamespace, colours: dict[str, torch.Tensor]) -> None:
    """Give the other parts, and what is worn on the head, their colours and labels."""
    head, bare, hairs = at.part == mesh.HEAD, skin.skin_colour(p), hair.colour(p, e)
    flesh = bare * torch.tensor([[1.02, 0.88, 0.85]], device=bare.device)
    covers = [(head & (at.t < NECK - 0.22), colours["clothes"], skin.CLOTHES, 0.0),
              (head & (_mask_cover(at.s, at.t) > 0.5) & (e.mask > 0.5), colours["mask"], skin.OCCLUDER, 0.0),
              (head & (_hat_cover(e, at.s, at.t) > 0.5), colours["hat"], skin.OCCLUDER, 0.0),
              (at.part == mesh.EAR, flesh, skin.EARS, 0.8), (at.part == mesh.LOCKS, hairs, skin.HAIR, 0.0),
              (at.part == mesh.GLASSES, colours["frames"], skin.FRAMES, 0.0),
              (at.part == mesh.PEAK, colours["hat"], skin.OCCLUDER, 0.0), (at.part == mesh.HAND, flesh, skin.OCCLUDER, 0.8)]
    for where, colour, name, translucent in covers:
        seen.albedo = torch.where(where[:, None], colour[..., None], seen.albedo)
        seen.label = torch.where(where, name, seen.label)
        seen.gloss = torch.where(where, 0.02 + 0.1 * (name == skin.FRAMES), seen.gloss)
        seen.translucent = torch.where(where, translucent, seen.translucent)


def _most(label: torch.Tensor) -> np.ndarray:
    """The commonest of each pixel's samples (the first of equals), uint8 ``[n, size, size]``."""
    n, fine, _ = label.shape
    samples = label.to(torch.uint8).view(n, fine // OVERSAMPLED, OVERSAMPLED, fine // OVERSAMPLED, OVERSAMPLED)
    samples = samples.permute(0, 1, 3, 2, 4).flatten(3)
    votes = (samples[..., :, None] == samples[..., None, :]).sum(-1)
    best = votes.argmax(-1, keepdim=True)
    return samples.gather(-1, best)[..., 0].cpu().numpy()


def _visible(view: View, at: SimpleNamespace, fine: int, size: int) -> np.ndarray:
    """Whether each of the 68 lies in the picture and nothing stands before it (compared in a 3 x 3 window)."""
    marks = view.landmarks[:, :68]
    own = 45.0 - view.landmarks_space[:, :68, 2]
    depth = torch.where(at.there, at.depth, 99.0).view(-1, 1, fine, fine)
    depth = torch.nn.functional.max_pool2d(depth, 3, 1, 1).flatten(1)
    place = torch.round((marks + 0.5) * OVERSAMPLED - 0.5).long()
    inside = ((marks > -0.5) & (marks < size - 0.5)).all(-1)
    index = (place[..., 1].clamp(0, fine - 1) * fine + place[..., 0].clamp(0, fine - 1))
    return (inside & (own < depth.gather(1, index) + 0.06)).cpu().numpy()


def _truth(images: np.ndarray, label: torch.Tensor, at: SimpleNamespace, view: View, e: Columns, size: int) -> Rendered:
    marks = view.landmarks[:, :68]
    outline = torch.cat([marks, view.landmarks[:, FOREHEAD]], 1)
    low, high = outline.amin(1), outline.amax(1)
    pose = torch.cat([e.yaw, e.pitch, view.roll[:, None]], 1)
    five = five_points(marks)
    return Rendered(images, five.cpu().numpy(), marks.cpu().numpy(), _visible(view, at, label.shape[-1], size),
                    _most(label), torch.cat([low, high - low], 1).cpu().numpy(), pose.cpu().numpy())


__all__ = ["CROWN", "Rendered", "join", "render"]
