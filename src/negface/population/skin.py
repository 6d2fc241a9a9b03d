"""What a point of the head looks like: skin, brows, lips, mouth, beard, hair, eyes, by its place on the chart.

Everything is computed at the pixel, from the chart coordinates the rasteriser interpolates; nothing is painted
beforehand. Skin runs evenly over the ten tones of the Monk scale (Monk 2019) in lightness, with colours of skin.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from ..foundation.noise import keyed_normal
from . import hair
from .features import brow_local, eye_local, gap_half_height, lid_heights, lip_edges, mouth_line
from .surface import JAW
from .values import Columns, bump, edge, limit, mix, ramp, table_at

CLASSES = ("background", "skin", "brows", "eyes", "nose", "lips", "mouth", "hair", "ears", "neck", "glasses",
           "clothes", "occluder")
BACKGROUND, SKIN, BROWS, EYES, NOSE, LIPS, MOUTH, HAIR, EARS, NECK_SKIN, FRAMES, CLOTHES, OCCLUDER = range(13)
_TONES = ((238, 200, 178), (233, 192, 166), (226, 183, 152), (219, 179, 147), (199, 155, 121), (166, 121, 88),
          (135, 93, 68), (103, 69, 51), (74, 50, 40), (54, 38, 32))
_TILE = 128


def linear(colour: torch.Tensor) -> torch.Tensor:
    """Linear light of sRGB values 0..255 (a plain power of 2.2)."""
    return (colour / 255).clamp(min=0) ** 2.2


def skin_colour(p: Columns) -> torch.Tensor:
    """Linear RGB of a person's skin, ``[n, 3]``."""
    tones = linear(torch.tensor(_TONES, dtype=torch.float32, device=p.skin_tone.device)).T
    planes = [table_at(p.skin_tone, plane[None], 0, 1) for plane in tones]
    warm, red = 0.035 * p.undertone, 0.02 * p.ruddiness
    gains = (1 + warm + red, 1 - 0.2 * warm - red, 1 - 1.6 * warm - red)
    return torch.cat([plane * gain for plane, gain in zip(planes, gains)], 1)


@lru_cache(maxsize=4)
def _tile(device: str) -> torch.Tensor:
    """Three periodic textures ``[1, 3, 129, 129]``, unit deviation: pores, blotches, spots."""
    planes = []
    for name, widths in (("pores", (0.8,)), ("blotches", (3.0, 7.0)), ("spots", (1.1,))):
        noise = torch.fft.fft2(torch.tensor(keyed_normal((_TILE, _TILE), "population", "tile", name)))
        frequency = torch.fft.fftfreq(_TILE)
        squared = frequency[:, None] ** 2 + frequency[None] ** 2
        plane = sum(torch.fft.ifft2(noise * torch.exp(-2 * (torch.pi * width) ** 2 * squared)).real * width
                    for width in widths)
        planes.append((plane - plane.mean()) / plane.std())
    tile = torch.stack(planes)[None]
    tile = torch.cat([tile, tile[..., :1]], -1)
    return torch.cat([tile, tile[..., :1, :]], -2).to(device)


def texture(p: SimpleNamespace, s: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """A person's own pores, blotches and spots at chart points, each ``[n, k]`` of unit deviation."""
    tile = _tile(str(s.device)).expand(len(s), -1, -1, -1)
    at = torch.stack([s / 2.2 + 7.3 * p.skin_pattern, t / 2.2 + 3.1 * p.skin_pattern], -1).remainder(1)
    found = F.grid_sample(tile, at[:, None] * 2 - 1, align_corners=True, padding_mode="border")
    return tuple(found[:, :, 0].unbind(1))


def _paint(look: SimpleNamespace, colour: torch.Tensor, share: torch.Tensor) -> None:
    """Lay a colour ``[1, 3]`` (or ``[1, 3, k]``) over what is there."""
    colour = colour[..., None] if colour.dim() == 2 else colour
    look.albedo = look.albedo + (colour - look.albedo) * share[:, None]


def _label(look: SimpleNamespace, name: int, where: torch.Tensor) -> None:
    look.label = torch.where(where, name, look.label)


def take(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """``values[..., index]`` of ``[1, k]`` or ``[1, 3, k]``, plane by plane (several times faster than indexing)."""
    if values.dim() == 3:
        return torch.stack([plane.index_select(0, index) for plane in values[0]])[None]
    return values[0].index_select(0, index)[None]


def put(values: torch.Tensor, index: torch.Tensor, new: torch.Tensor) -> None:
    """``values[..., index] = new``, plane by plane."""
    planes, new = (values[0], new[0]) if values.dim() == 3 else (values, new)
    for plane, line in zip(planes, new):
        plane.index_copy_(0, index, line)


def _only(look: SimpleNamespace, where: torch.Tensor, paint: Callable[[SimpleNamespace], None], *fields: str) -> None:
    """Paint only the points where ``where`` ``[1, k]`` holds, for most features are small.

    ``paint`` gets ``s``, ``t`` and ``albedo`` of those points, and the further ``fields`` it changes or reads.
    """
    index = where[0].nonzero()[:, 0]
    if not len(index):
        return
    names = ("albedo", *fields)
    part = SimpleNamespace(**{name: take(getattr(look, name), index) for name in ("s", "t", *names)})
    paint(part)
    for name in names:
        put(getattr(look, name), index, getattr(part, name))


def _complexion(p: SimpleNamespace, f: SimpleNamespace, skin: torch.Tensor, look: SimpleNamespace) -> None:
    s, t = look.s, look.t
    side = s.abs()
    pores, blotches, spots = texture(p, s, t)
    light = 1 + 0.025 * pores + (0.03 + 0.018 * p.complexion) * blotches
    cheeks = bump(side - 0.42, t + 0.38, 0.19, 0.17) + 0.8 * bump(s, t - f.nose_y, 0.12, 0.10)
    red = limit(0.07 + 0.045 * p.ruddiness, low=0.005) * cheeks * (1 + 0.3 * blotches)
    where = bump(side - 0.22, t + 0.28, 0.35, 0.30) + 0.2
    freckled = ramp((spots - 2.0 + 1.5 * p.freckles) / 0.8) * p.freckles * where
    aged = ramp((spots - 2.6 + 0.5 * f.old) / 0.8) * f.old * 0.5
    dark = (1 - 0.45 * (freckled + aged).clamp(max=1)) * light
    tint = torch.stack([1 + 0.3 * red, 1 - 1.6 * red, 1 - 1.3 * red], 1)
    look.albedo = skin[..., None] * dark[:, None] * tint


def _moles(p: SimpleNamespace, look: SimpleNamespace) -> None:
    for mole in "123":
        x, y = 1.3 * (getattr(p, f"mole_{mole}_x") - 0.5), 0.25 - 1.3 * getattr(p, f"mole_{mole}_y")
        size = getattr(p, f"mole_{mole}_size")
        if size < 0.02:
            continue
        reach = 0.012 + 0.022 * size

        def dark(part: SimpleNamespace, x=x, y=y, size=size, reach=reach) -> None:
            spot = 0.75 * ramp(size / 0.15) * bump(part.s - x, part.t - y, reach, reach)
            part.albedo = part.albedo * (1 - spot)[:, None]

        _only(look, ((look.s - x).abs() < 3.2 * reach) & ((look.t - y).abs() < 3.2 * reach), dark)


def _lines(f: SimpleNamespace, look: SimpleNamespace) -> None:
    side = look.s.abs()
    tired = 0.10 * bump(side - f.eye_x + 0.03, look.t - f.eye_y + 0.13, 0.13, 0.05) * (0.6 + f.old)
    fold_x = 0.17 + 0.17 * ((f.nose_y - look.t) / 0.30).clamp(-0.5, 1.2)
    laugh = torch.exp(-((side - fold_x) / 0.020) ** 2 - 0.5 * ((look.t + 0.58) / 0.11) ** 2)
    nose_side = bump(side - f.nose_w - 0.015, look.t - f.nose_y + 0.03, 0.016, 0.05)
    dark = (0.10 + 0.32 * f.old) * laugh + 0.13 * nose_side
    look.albedo = look.albedo * ((1 - dark) * (1 - tired))[:, None]


def _wrinkles(f: SimpleNamespace, look: SimpleNamespace) -> None:
    """Lines of age across the forehead and beside the eyes."""
    s, t, side = look.s, look.t, look.s.abs()
    forehead = ramp(torch.sin((t + 0.05 * torch.cos(5 * s)) * 62) - 0.35) * bump(s, t - 0.46, 0.36, 0.11)
    rays = ramp(torch.sin(torch.atan2(t - f.eye_y, side - f.eye_x) * 13) - 0.2)
    crow = rays * bump(side - f.eye_x - 0.23, t - f.eye_y, 0.05, 0.07)
    look.albedo = look.albedo * (1 - 0.32 * f.old * (0.7 * forehead + 0.8 * crow))[:, None]


def _beard(p: SimpleNamespace, e: SimpleNamespace, f: SimpleNamespace, s: torch.Tensor,
           t: torch.Tensor) -> torch.Tensor:
    male = ramp((0.5 - p.femininity) / 0.3)
    grown = male * (1 - 0.75 * e.shave)
    side = s.abs()
    border = -0.66 + 0.42 * ramp((side - 0.42) / 0.55) + 0.05 * torch.cos(6 * side)
    jaw = edge(border - t, 0.10) * edge(t - JAW + 0.25, 0.25) * edge(1.28 - side, 0.2)
    above_lip = bump(side, t - f.mouth_y - 0.115, 0.21, 0.04)
    goatee = bump(s, t - f.mouth_y + 0.24, 0.17, 0.12)
    full = ramp((p.beard - 0.45) / 0.4)
    return grown * (jaw * full + goatee * 0.9 * ramp((p.beard - 0.3) / 0.4)
                    + above_lip * max(ramp((p.moustache - 0.4) / 0.4), full)).clamp(0, 1)


def _brows(p: SimpleNamespace, f: SimpleNamespace, side: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    u, above = brow_local(f, side, t)
    height = f.brow_h * (1.05 - 0.75 * ramp((u - 0.35) / 0.7)) * ramp((u + 0.12) / 0.25)
    body = edge(height - above.abs(), 0.020) * edge(u + 0.02, 0.12) * edge(1.02 - u, 0.10)
    hairs = 0.92 + 0.08 * torch.sin(120 * side - 90 * above)
    return body * hairs * limit(0.84 + 0.08 * p.brow_density, 0.5, 0.98)


def _mouth(p: SimpleNamespace, e: SimpleNamespace, f: SimpleNamespace, skin: torch.Tensor,
           look: SimpleNamespace) -> None:
    s, t = look.s, look.t
    line, (top, bottom) = mouth_line(f, s), lip_edges(p, f, s)
    body = edge(top - t, 0.014) * edge(t - bottom, 0.016) * (s.abs() < f.mouth_w)
    red = torch.tensor([[0.92, 0.52, 0.50]], device=s.device) * (1 - 0.05 * p.lip_colour)
    lips = skin * red + torch.tensor([[0.030, 0.0, 0.004]], device=s.device)
    _paint(look, lips, 0.9 * body)
    _label(look, LIPS, body > 0.5)
    look.gloss = look.gloss + 0.05 * body
    half = gap_half_height(f, s)
    up = (t - line) / half.clamp(min=1e-4)
    inside = (up.abs() < 1) & (half > 1e-4)
    open_wide = e.mouth_open * 0.30
    depth = (1 - up) / 2 * open_wide
    gaps = 1 - 0.25 * torch.sin(s * 48).abs() ** 8
    teeth = edge(0.085 - depth, 0.02) * ramp((open_wide - 0.02) / 0.03 + 0.5) * gaps
    dark = torch.tensor([[0.045, 0.012, 0.012]], device=s.device).expand(len(s), -1)[..., None]
    tongue = torch.tensor([[0.28, 0.07, 0.06]], device=s.device)[..., None]
    colour = mix(dark, tongue, (0.6 * ramp((depth - 0.12) / 0.12))[:, None])
    colour = mix(colour, torch.tensor([[0.62, 0.56, 0.46]], device=s.device)[..., None], teeth[:, None])
    _paint(look, colour, inside.float())
    _label(look, MOUTH, inside & (e.mouth_open > 0.02))
    crease = torch.exp(-((t - line) / 0.011) ** 2) * (s.abs() < f.mouth_w * 1.04) * limit(1 - 4 * e.mouth_open, 0, 1)
    _paint(look, skin * 0.20, 0.75 * crease)


def _nostrils(f: SimpleNamespace, skin: torch.Tensor, look: SimpleNamespace) -> None:
    side, t = look.s.abs(), look.t
    hole = bump(side - 0.5 * f.nose_w, t - f.nose_y + 0.080, 0.022, 0.011)
    _paint(look, skin * 0.12, 0.8 * ramp(1.3 * hole))
    width = f.nose_w * (0.45 + 0.62 * ramp((f.eye_y + 0.02 - t) / 0.40))
    nose = (side < width) & (t < f.eye_y - 0.02) & (t > f.nose_y - 0.105)
    _label(look, NOSE, nose & (look.label == SKIN))


def _stubble(p: SimpleNamespace, e: SimpleNamespace, f: SimpleNamespace, hairs: torch.Tensor,
             look: SimpleNamespace) -> None:
    s, t = look.s, look.t
    grain = 0.75 + 0.25 * torch.sin(170 * s + 9 * torch.sin(60 * t)) * torch.sin(150 * t)
    bare = (look.label != MOUTH) * (1 - 0.85 * (look.label == LIPS).float())
    _paint(look, hairs * 1.1, 0.88 * _beard(p, e, f, s, t) * grain * bare)


def _scalp(p: SimpleNamespace, hairs: torch.Tensor, hairline: torch.Tensor, look: SimpleNamespace) -> None:
    s, t = look.s, look.t
    above = hair.above_line(hairline, s, t)
    fuzz = 0.05 * torch.sin(60 * s + 5 * torch.sin(23 * s)) * torch.sin(31 * t + 11 * s)
    grown = edge(above + fuzz * 0.6, 0.10) * ramp((hair.length(p) - 0.02) / 0.12)
    strands = 0.72 + 0.28 * torch.sin(70 * s + 5 * p.hair_wave * torch.sin(9 * t) + 3 * torch.sin(23 * s))
    _paint(look, hairs[..., None] * strands[:, None], 0.97 * grown)
    _label(look, HAIR, grown > 0.5)
    look.gloss = mix(look.gloss, 0.05 * strands, grown)
    look.translucent = look.translucent * (1 - grown)


def face(p: SimpleNamespace, e: SimpleNamespace, f: SimpleNamespace, skin: torch.Tensor, hairs: torch.Tensor,
         hairline: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> SimpleNamespace:
    """Appearance of one head at chart points ``s``, ``t`` ``[1, k]``, all but the eyeballs.

    Args:
        p, e, f: traits, shot and measures of the one person, as plain numbers.
        skin, hairs: linear colours of skin and hair, ``[1, 3]``.
        hairline: its table, ``[1, m]``.

    Returns:
        ``albedo`` linear ``[1, 3, k]``, ``gloss`` and ``translucent`` ``[1, k]``, ``label`` int64 ``[1, k]``, and of
        the eyes ``lids`` (bool, in the opening between the lids), ``below_lid`` and ``eye_corner``.
    """
    side = s.abs()
    look = SimpleNamespace(s=s, t=t, gloss=0.035 + 0.03 * bump(s, t, 0.25, 0.5), translucent=torch.ones_like(s),
                           label=torch.where(t < JAW, NECK_SKIN, SKIN), lids=torch.zeros_like(s, dtype=torch.bool),
                           below_lid=torch.ones_like(s), eye_corner=torch.zeros_like(s))
    _complexion(p, f, skin, look)
    _moles(p, look)
    front = side < 1.3
    _only(look, (side < 0.72) & (t > -0.9) & (t < 0.06), lambda part: _lines(f, part))
    if f.old > 0.02:
        _only(look, (side < 0.85) & (t > -0.2) & (t < 0.75), lambda part: _wrinkles(f, part))
    _only(look, (side < 0.3) & (t < 0.1) & (t > f.mouth_y), lambda part: _nostrils(f, skin, part), "label")
    _only(look, (side < 1.1 * f.mouth_w) & ((t - f.mouth_y).abs() < 0.24), lambda part: _mouth(p, e, f, skin, part),
          "label", "gloss")
    if p.femininity < 0.5 and e.shave < 1:
        _only(look, front & (t < 0) & (t > JAW - 0.3), lambda part: _stubble(p, e, f, hairs, part), "label")
    eyes = (side - f.eye_x).abs() < 1.2 * f.eye_w
    _only(look, eyes & ((t - f.eye_y).abs() < 0.17), lambda part: _eyelids(p, f, skin, part),
          "label", "lids", "below_lid", "eye_corner")
    brow = (side > f.brow_in - 0.05) & (side < f.brow_out + 0.05) & ((t - f.brow_y).abs() < 0.20)
    _only(look, brow, lambda part: _paint_brows(p, f, hairs, part), "label")
    hairy = t > -0.95 + 1.25 * ramp((1.0 - side) / 0.3)
    _only(look, hairy, lambda part: _scalp(p, hairs, hairline, part), "label", "gloss", "translucent")
    return look


def _paint_brows(p: SimpleNamespace, f: SimpleNamespace, hairs: torch.Tensor, look: SimpleNamespace) -> None:
    brows = _brows(p, f, look.s.abs(), look.t)
    _paint(look, hairs * 0.75, brows)
    _label(look, BROWS, brows > 0.4)


def _eyelids(p: SimpleNamespace, f: SimpleNamespace, skin: torch.Tensor, look: SimpleNamespace) -> None:
    a, above = eye_local(f, look.s.abs(), look.t)
    upper, lower = lid_heights(f, a)
    corner = (1.18 - a.abs()).clamp(0, 0.2) / 0.2
    crease = torch.exp(-((above - upper - 0.040 - 0.006 * p.lid_fold) / 0.012) ** 2) * corner
    crease = crease * ramp(0.6 + 0.3 * p.lid_fold)
    shadow = torch.exp(-((above - upper - 0.03) / 0.035) ** 2) * corner
    _paint(look, skin * 0.55, 0.30 * shadow + 0.35 * crease)
    lashes = torch.exp(-((above - upper - 0.006) / 0.013) ** 2) * (a.abs() < 1.08)
    lower_line = torch.exp(-((above - lower) / 0.010) ** 2) * (a.abs() < 1)
    _paint(look, torch.full_like(skin, 0.012), 0.85 * lashes)
    _paint(look, skin * 0.35, 0.5 * lower_line)
    look.lids = (above < upper) & (above > lower) & (a.abs() < 1) & (upper - lower > 0.012)
    _label(look, EYES, look.lids)
    look.below_lid = (upper - above).clamp(0, 0.06) / 0.06
    look.eye_corner = a
