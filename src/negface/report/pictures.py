"""Pictures for the page: read, checked, made small if they are large, and written into the page as data URIs."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from pathlib import Path

from negface.foundation.errors import FormatError
from negface.foundation.files import existing_file

LARGEST_SIDE = 160
LARGEST_BYTES = 24_000
MIME = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


def data_uri(path: Path) -> str:
    """A picture as a ``data:`` URI: its own bytes if small, else a JPEG (q 88, side at most 160 px).

    Errors: ``InputError`` where the file is missing, ``FormatError`` where it is not a picture.
    """
    path = existing_file(path, "picture")
    return _data_uri(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4096)
def _data_uri(path: Path, _changed: int) -> str:
    from PIL import Image, UnidentifiedImageError

    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as picture:
            kind, size = picture.format, picture.size
            picture.load()
            if kind not in MIME or max(size) > LARGEST_SIDE or len(data) > LARGEST_BYTES:
                small = picture.convert("RGB")
                small.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
                buffer = io.BytesIO()
                small.save(buffer, "JPEG", quality=88)
                kind, data = "JPEG", buffer.getvalue()
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise FormatError(f"not a readable picture ({error})", where=path, fix="remove it from the results") from error
    return f"data:{MIME[kind]};base64,{base64.b64encode(data).decode()}"
