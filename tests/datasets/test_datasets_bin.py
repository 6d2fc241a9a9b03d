"""insightface's ``.bin``: what is read, what is written, and what is refused before it can run."""

from __future__ import annotations

import io
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negface.datasets import bin_pairs, read_bin, write_bin
from negface.foundation.errors import FormatError, InputError, MismatchError, UnsafePickleError

PICTURES = [b"\xff\xd8\xff" + bytes([k]) * (k * 100) for k in range(6)]
SAME = [True, False, True]


def contents(pairs):
    return list(pairs.images()), pairs.same.tolist()


def saved(path, value, protocol=3):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_every_pickle_protocol_is_read(tmp_path, protocol):
    path = saved(tmp_path / "a.bin", (PICTURES, SAME), protocol)
    assert contents(read_bin(path)) == (PICTURES, SAME)


@pytest.mark.parametrize("convert", [
    lambda data: np.frombuffer(data, np.uint8), lambda data: np.frombuffer(data, np.uint8)[:, None], bytearray,
    lambda data: data])
@pytest.mark.parametrize("flag", [bool, int, np.bool_])
def test_pictures_may_be_bytes_or_flat_arrays_and_flags_any_kind_of_bool(tmp_path, convert, flag):
    path = saved(tmp_path / "a.bin", ([convert(data) for data in PICTURES], [flag(value) for value in SAME]))
    assert contents(read_bin(path)) == (PICTURES, SAME)


def test_flags_may_be_an_array_and_the_pair_a_list(tmp_path):
    path = saved(tmp_path / "a.bin", [PICTURES, np.array(SAME)])
    assert contents(read_bin(path)) == (PICTURES, SAME)


def test_a_pickle_of_python_two_is_read(tmp_path):
    """Protocol 2 with ``str`` entries (BINSTRING, SHORT_BINSTRING), as python 2's cPickle wrote them."""
    long = b"\xff\xd8\xff" + b"z" * 300
    data = (b"\x80\x02]q\x01(T" + len(long).to_bytes(4, "little") + long + b"q\x02U\x04\xff\xd8\xff\x00q\x03e"
            b"]q\x04\x88a\x86q\x05.")
    (tmp_path / "a.bin").write_bytes(data)
    assert contents(read_bin(tmp_path / "a.bin")) == ([long, b"\xff\xd8\xff\x00"], [True])


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_a_picture_that_stands_twice_is_read_twice(tmp_path, protocol):
    pictures = [PICTURES[k] for k in (1, 2, 2, 1, 3, 2)]
    path = saved(tmp_path / "a.bin", (pictures, SAME), protocol)
    assert contents(read_bin(path)) == (pictures, SAME)
    if protocol > 2:  # python 3 spells bytes of older protocols as a call
        assert isinstance(bin_pairs._content(path)[0], bin_pairs._Spans)


def test_plain_files_are_read_picture_by_picture(tmp_path):
    path = saved(tmp_path / "a.bin", (PICTURES, SAME), 4)
    pictures, _ = bin_pairs._content(path)
    assert isinstance(pictures, bin_pairs._Spans)


@settings(deadline=None)
@given(pictures=st.lists(st.binary(max_size=40), min_size=1, max_size=9), flags=st.lists(st.booleans(), min_size=9))
def test_pickle_reads_what_we_write_and_we_read_what_pickle_writes(tmp_path_factory, pictures, flags):
    pictures, flags = pictures * 2, flags[: len(pictures)]
    folder = tmp_path_factory.mktemp("bin")
    write_bin(folder / "ours.bin", iter(pictures), np.array(flags))
    with open(folder / "ours.bin", "rb") as handle:
        assert pickle.load(handle, encoding="bytes") == (pictures, flags)
    assert contents(read_bin(folder / "ours.bin")) == (pictures, flags)
    assert contents(read_bin(saved(folder / "theirs.bin", (pictures, flags)))) == (pictures, flags)


@pytest.mark.parametrize("count", [998, 1000, 1002, 2000])
def test_batches_of_the_writer_meet_without_a_gap(tmp_path, count):
    pictures = [b"%d" % k for k in range(count)]
    write_bin(tmp_path / "a.bin", pictures, np.ones(count // 2, bool))
    assert pickle.loads((tmp_path / "a.bin").read_bytes()) == (pictures, [True] * (count // 2))


def test_names_travel_beside_the_bin(tmp_path):
    names = [f"p{k}/é,{k}.jpg" for k in range(6)]
    write_bin(tmp_path / "a.bin", PICTURES, np.array(SAME), names)
    assert read_bin(tmp_path / "a.bin").names == tuple(names)
    write_bin(tmp_path / "b.bin", PICTURES, ~np.array(SAME))
    os.replace(tmp_path / "b.bin", tmp_path / "a.bin")
    with pytest.raises(MismatchError, match="not the 3"):
        read_bin(tmp_path / "a.bin")


@pytest.mark.parametrize(("value", "said"), [
    ((PICTURES[:5], SAME), "5 pictures for 3 pairs; 6 were expected"), ((PICTURES, SAME[:2]), "6 pictures for 2 pairs"),
    (([], []), "no pairs"), ({"a": 1}, "holds a dict"), ((PICTURES, SAME, 1), "holds a tuple"),
    ((PICTURES, [True, 2, False]), "flag 1 is 2"), ((PICTURES, [True, None, False]), "flag 1 is None"),
    ((PICTURES[:5] + ["text"], SAME), "picture 5 is str"),
    ((PICTURES[:5] + [np.zeros((4, 4, 3), np.uint8)], SAME), r"picture 5 is uint8 \[4, 4, 3\]"),
    ((3, SAME), "pictures are a int"), ((PICTURES, 3), "flags are a int")])
def test_wrong_contents_are_named(tmp_path, value, said):
    path = saved(tmp_path / "a.bin", value)
    with pytest.raises(InputError, match=said) as error:
        read_bin(path)
    assert "a.bin" in str(error.value)


@pytest.mark.parametrize("keep", [0, 1, 5, 20, -1, -5])
def test_a_truncated_bin_is_refused(tmp_path, keep):
    write_bin(tmp_path / "a.bin", PICTURES, np.array(SAME))
    (tmp_path / "a.bin").write_bytes((tmp_path / "a.bin").read_bytes()[:keep])
    with pytest.raises(FormatError, match=r"a\.bin: not a readable pickle"):
        read_bin(tmp_path / "a.bin")


def test_a_stream_of_the_wrong_length_writes_nothing(tmp_path):
    with pytest.raises(InputError, match="5 pictures for 3 pairs"):
        write_bin(tmp_path / "a.bin", PICTURES[:5], np.array(SAME))
    assert list(tmp_path.iterdir()) == []


class Attack:
    """Pickles into a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def nested(marker) -> object:
    """A call hidden in the arguments of an allowed one."""
    return Attack(bytearray, Attack(os.system, f"touch {marker}"))


@pytest.mark.parametrize(("attack", "named"), [
    (lambda marker: Attack(os.system, f"touch {marker}"), "posix.system"),
    (lambda marker: Attack(eval, f"open({str(marker)!r}, 'w')"), "builtins.eval"), (nested, "posix.system"),
    (lambda marker: Attack(getattr, Attack(__import__, "os"), "system"), "builtins.getattr")])
@pytest.mark.parametrize("place", ["picture", "flag", "whole"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_attacks_are_refused_by_name_and_nothing_runs(tmp_path, attack, named, place, protocol):
    marker = tmp_path / "ran"
    bad = attack(marker)
    value = {"picture": (PICTURES[:5] + [bad], SAME), "flag": (PICTURES, [*SAME[:2], bad]), "whole": bad}[place]
    buffer = io.BytesIO()
    pickle.Pickler(buffer, protocol, fix_imports=False).dump(value)
    (tmp_path / "a.bin").write_bytes(buffer.getvalue())
    with pytest.raises(UnsafePickleError, match=named):
        read_bin(tmp_path / "a.bin")
    assert not marker.exists()
