"""Pictures at the door, and codecs."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from negface.datasets import CODEC_NAMES, codec, codec_from_dict, load_rgb, resize_rgb
from negface.datasets import codecs as codecs_module
from negface.foundation.errors import FormatError, InputError, MismatchError, UnknownNameError


def drawn(height: int = 24, width: int = 20, seed: int = 0) -> np.ndarray:
    """A smooth colour picture."""
    y, x = np.mgrid[0:height, 0:width] / 12.0
    waves = [np.sin(x * a + y * b + seed) for a, b in ((1.0, 0.3), (0.4, 1.1), (0.7, 0.7))]
    return np.rint(127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def encoded(picture: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def test_rgb_png_comes_back_untouched_and_without_a_note():
    notes = Counter()
    assert np.array_equal(load_rgb(encoded(Image.fromarray(drawn())), notes=notes), drawn())
    assert not notes


def test_grey_picture_is_converted_with_a_note():
    notes, grey = Counter(), drawn()[..., 0]
    image = load_rgb(encoded(Image.fromarray(grey)), notes=notes)
    assert np.array_equal(image, np.repeat(grey[..., None], 3, axis=2))
    assert any("grey" in note for note in notes)


def test_16_bit_picture_is_converted_with_a_note():
    notes, deep = Counter(), drawn()[..., 0].astype(np.uint16) * 257
    image = load_rgb(encoded(Image.fromarray(deep)), notes=notes)
    assert np.array_equal(image[..., 1], drawn()[..., 0])
    assert any("16-bit" in note for note in notes)


def test_transparent_picture_is_laid_on_black():
    notes = Counter()
    rgba = np.dstack([np.full((4, 4, 3), 200, np.uint8), np.array([[0, 255, 255, 255]] * 4, np.uint8)])
    image = load_rgb(encoded(Image.fromarray(rgba)), notes=notes)
    assert image[0, 0].tolist() == [0, 0, 0]
    assert image[0, 1].tolist() == [200, 200, 200]
    assert any("transparent" in note for note in notes)


def test_exif_orientation_is_applied_with_a_note():
    exif = Image.Exif()
    exif[0x0112] = 6
    notes = Counter()
    image = load_rgb(encoded(Image.fromarray(drawn(24, 20)), "JPEG", exif=exif), notes=notes)
    assert image.shape == (20, 24, 3)
    assert any("EXIF" in note for note in notes)


@pytest.mark.parametrize(("data", "said"), [
    (b"no picture at all", "not a picture"), (b"", "not a picture"),
    (encoded(Image.fromarray(drawn(64, 64)))[:-900], "not a complete picture"),
    (encoded(Image.fromarray(drawn(64, 64)), "JPEG")[:-300], "not a complete picture")])
def test_what_is_no_complete_picture_is_refused_by_name(tmp_path, data, said):
    path = tmp_path / "face.jpg"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=said) as caught:
        load_rgb(path)
    assert "face.jpg" in str(caught.value)


def test_missing_picture_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such picture"):
        load_rgb(tmp_path / "nobody.png")


@given(data=st.binary(max_size=200),
       head=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM", b"P6 "]))
@settings(max_examples=80, deadline=None)
def test_any_bytes_give_a_picture_or_a_format_error(data, head):
    try:
        image = load_rgb(head + data)
    except FormatError:
        return
    assert image.dtype == np.uint8
    assert image.shape[2] == 3


@pytest.mark.parametrize("name", CODEC_NAMES)
def test_codec_gives_equal_bytes_for_equal_pixels_and_nearly_the_pixels_back(name):
    chosen = codec(name)
    data = chosen.encode(drawn(112, 112))
    assert data == codec(name).encode(drawn(112, 112).copy())
    difference = np.abs(chosen.decode(data).astype(int) - drawn(112, 112))
    assert difference.max() == 0 if chosen.lossless else difference.max() <= 8
    assert any(part[0].isdigit() for part in chosen.library.split())


def test_default_codec_keeps_full_colour_resolution():
    with Image.open(io.BytesIO(codec().encode(drawn()))) as picture:
        assert picture.layer == [("\x01", 1, 1, 0), ("\x02", 1, 1, 1), ("\x03", 1, 1, 1)] or \
            {component[1:3] for component in picture.layer} == {(1, 1)}


def test_unknown_codec_gets_a_suggestion():
    with pytest.raises(UnknownNameError, match="did you mean 'jpeg'"):
        codec("jpg")


def test_missing_codec_is_an_error_and_no_fallback(monkeypatch):
    def missing(name):
        raise ImportError(name)
    monkeypatch.setattr(codecs_module.importlib, "import_module", missing)
    with pytest.raises(InputError, match="not installed"):
        codec("simplejpeg")


def test_codec_of_another_version_is_refused():
    recorded = {**codec().to_dict(), "library": "pillow 1.0"}
    with pytest.raises(MismatchError, match=r"pillow 1\.0"):
        codec_from_dict(recorded)
    assert codec_from_dict(codec().to_dict()) == codec()


@pytest.mark.parametrize("bad", [drawn().astype(np.float32), drawn()[..., :2], drawn()[:0]])
def test_codec_refuses_what_is_no_rgb_picture(bad):
    with pytest.raises(InputError):
        codec().encode(bad)


def test_resize_keeps_constant_colour_and_leaves_the_right_size_untouched():
    assert (resize_rgb(np.full((64, 64, 3), 77, np.uint8), 112) == 77).all()
    assert resize_rgb(drawn(20, 20), 20) is not None
    assert np.array_equal(resize_rgb(drawn(20, 20), 20), drawn(20, 20))
    assert resize_rgb(drawn(), 112).shape == (112, 112, 3)
