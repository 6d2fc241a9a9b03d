"""Damaged files: some bytes of a good file replaced by others, for ``NEGFACE_FUZZ_SECONDS`` (default 5) a reader."""

from __future__ import annotations

import contextlib
import os
import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from negface.foundation.errors import NegFaceError

SECONDS = float(os.environ.get("NEGFACE_FUZZ_SECONDS", "5"))
SLOWEST = 5.0
MAGIC = b"\x0a\x23\xd7\xce"
PIECES = st.one_of(st.binary(max_size=9), st.sampled_from(
    [MAGIC, b"\0" * 8, b"\xff" * 8, b"\t", b"\n", b"0", b"-1", b"nan", b"9" * 20, b"(", b"]", b"e", b".", b"\x86",
     b"\x8e" + b"\xff" * 8, b"h\0", b"cos\nsystem\n", b"../", b"{}", b'"', b",", b"\0" * 512, b"null", b"*a", b"[",
     b"2020-99-99"]))
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), PIECES), max_size=6)


def damaged(data: bytes, edits) -> bytes:
    """Each edit replaces some bytes at a relative place by others; longer and shorter both happen."""
    for place, drop, piece in edits:
        at = int(place * len(data))
        data = data[:at] + piece + data[at + drop :]
    return data


def check_reader(files, read) -> None:
    """``read()`` succeeds on the good ``files``; on damaged ones it succeeds or raises ``NegFaceError``, soon."""
    read()
    whole = {path: path.read_bytes() for path in files}

    @settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(number=st.integers(0, len(files) - 1), edits=EDITS)
    def survives(number, edits):
        path = files[number]
        path.write_bytes(damaged(whole[path], edits))
        try:
            soon(read)
        finally:
            path.write_bytes(whole[path])

    again_and_again(survives)


def soon(read) -> None:
    """``read()`` succeeds or raises ``NegFaceError``, within ``SLOWEST`` seconds of the processor."""
    began = time.process_time()  # a crowded machine is not a slow reader
    with contextlib.suppress(NegFaceError):
        read()
    assert time.process_time() - began < SLOWEST


def again_and_again(survives) -> None:
    """A hypothesis test once, and on until the time is over."""
    end = time.monotonic() + SECONDS
    while True:
        survives()
        if time.monotonic() > end:
            break
