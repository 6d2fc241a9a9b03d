"""Pair lists in their three forms, and conversion to ``.bin`` and back."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from negface.datasets import convert_pairs, listed_images, open_pairs, read_pairs, write_pairs
from negface.foundation.errors import FormatError, IncompleteError, InputError, OutputError

JPEG = b"\xff\xd8\xff\xe0"


def a_list(tmp_path, text, name="pairs.txt"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def test_the_list_of_lfw_is_read_with_its_counts(tmp_path):
    found = read_pairs(a_list(tmp_path, "1\t2\nAnna\t1\t20\nBo\t2\t3\nAnna\t1\tBo\t4\nCy\t1\tAnna\t2\n"))
    assert found.names[:4] == ("Anna/Anna_0001.jpg", "Anna/Anna_0020.jpg", "Bo/Bo_0002.jpg", "Bo/Bo_0003.jpg")
    assert found.names[4:6] == ("Anna/Anna_0001.jpg", "Bo/Bo_0004.jpg")
    assert found.same.tolist() == [True, True, False, False]


def test_a_list_shorter_than_announced_is_refused(tmp_path):
    with pytest.raises(FormatError, match="announces 6000 pairs, holds 1"):
        read_pairs(a_list(tmp_path, "10\t300\nAnna\t1\t2\n"))
    assert len(read_pairs(a_list(tmp_path, "1\nAnna 1 2\nAnna 1 Bo 2\n"))) == 2


def test_csv_and_plain_lines_are_read(tmp_path):
    csv_form = read_pairs(a_list(tmp_path, '﻿image_a,image_b,same\n"a, b.jpg",c.jpg,1\nd.jpg,e.jpg,False\n'))
    assert csv_form.names == ("a, b.jpg", "c.jpg", "d.jpg", "e.jpg")
    assert csv_form.same.tolist() == [True, False]
    plain = read_pairs(a_list(tmp_path, "x/1.jpg y/2.jpg 0\nx/1.jpg x/2.jpg 1\n"))
    assert (plain.names[:2], plain.same.tolist()) == (("x/1.jpg", "y/2.jpg"), [False, True])


@pytest.mark.parametrize(("text", "said"), [
    ("", "empty"), ("image_a,image_b,same\n", "empty"), ("image_a,image_b\na,b\n", "no column 'same'"),
    ("image_a,image_b,same\na,b,maybe\n", "line 2: 'maybe'"), ("image_a,image_b,same\na,,1\n", "line 2 does not name"),
    ("a b 1\na b c d e\n", "line 2 is neither"), ("a b 7\n", "line 1: '7'"), ("image_a,image_b,same\n\"a,b,1", "CSV")])
def test_damaged_lists_name_the_line(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        read_pairs(a_list(tmp_path, text))


def test_a_list_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "pairs.txt").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(FormatError, match="not text"):
        read_pairs(tmp_path / "pairs.txt")


@settings(max_examples=50, deadline=None)
@given(names=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=2, max_size=8),
       flags=st.lists(st.booleans(), min_size=4))
@example(names=["a\u2028b", 'c"\n,d', "\r", "\x1c\x85"], flags=[True, False])
def test_written_lists_read_back(tmp_path_factory, names, flags):
    names = names[: len(names) // 2 * 2]
    path = tmp_path_factory.mktemp("list") / "pairs.csv"
    write_pairs(path, names, np.array(flags[: len(names) // 2]))
    found = read_pairs(path)
    assert (list(found.names), found.same.tolist()) == (names, flags[: len(names) // 2])


def test_missing_pictures_are_counted_and_named_before_anything_is_written(tmp_path):
    (tmp_path / "x.jpg").write_bytes(JPEG)
    path = a_list(tmp_path, "x.jpg y.jpg 0\nx.jpg z.jpg 0\n")
    with pytest.raises(InputError, match=r"2 of 3 listed pictures are not there, first 'y\.jpg'"):
        convert_pairs(path, tmp_path / "a.bin")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pairs.txt", "x.jpg"]


def test_pictures_are_found_with_another_ending(tmp_path):
    (tmp_path / "A").mkdir()
    for number in (1, 2):
        (tmp_path / f"A/A_000{number}.png").write_bytes(b"%d" % number)
    pairs = listed_images(read_pairs(a_list(tmp_path, "A 1 2\n")), tmp_path)
    assert (list(pairs.images()), pairs.names) == ([b"1", b"2"], ("A/A_0001.png", "A/A_0002.png"))


@settings(max_examples=12, deadline=None)
@given(contents=st.lists(st.binary(max_size=20), min_size=1, max_size=5), data=st.data())
def test_list_to_bin_to_list_keeps_every_byte_flag_name_and_the_order(tmp_path_factory, contents, data):
    root = tmp_path_factory.mktemp("pairs")
    names = [f"p{k % 2}/{k}.jpg" for k in range(len(contents))]
    for name, tail in zip(names, contents):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(JPEG + tail)
    n = data.draw(st.integers(1, 6))
    picked = data.draw(st.lists(st.sampled_from(names), min_size=2 * n, max_size=2 * n))
    same = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    write_pairs(root / "pairs.csv", picked, same)
    one = convert_pairs(root / "pairs.csv", root / "x.bin")
    two = convert_pairs(root / "x.bin", root / "back")
    three = convert_pairs(root / "back" / "pairs.csv", root / "again.bin")
    assert (root / "back" / "pairs.csv").read_bytes() == (root / "pairs.csv").read_bytes()
    assert all((root / "back" / name).read_bytes() == (root / name).read_bytes() for name in picked)
    assert (root / "again.bin").read_bytes() == (root / "x.bin").read_bytes()
    assert one["content_sha256"] == two["content_sha256"] == three["content_sha256"]


def test_a_bin_without_names_gives_numbered_pictures(tmp_path):
    from negface.datasets import write_bin

    write_bin(tmp_path / "a.bin", [JPEG + bytes([k]) for k in range(4)], np.array([True, False]))
    done = convert_pairs(tmp_path / "a.bin", tmp_path / "out")
    assert (done["n_pairs"], done["n_genuine"]) == (2, 1)
    assert read_pairs(tmp_path / "out/pairs.csv").names == (
        "images/000/000000a.jpg", "images/000/000000b.jpg", "images/000/000001a.jpg", "images/000/000001b.jpg")
    assert list(open_pairs(tmp_path / "out/pairs.csv").images()) == [JPEG + bytes([k]) for k in range(4)]


@pytest.mark.parametrize("name", ["../x.jpg", "/x.jpg", "a/../../x.jpg", "pairs.csv"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    from negface.datasets import write_bin

    write_bin(tmp_path / "a.bin", [JPEG, JPEG], np.array([True]), [name, "ok.jpg"])
    with pytest.raises(FormatError, match=r"leads out|two pictures"):
        convert_pairs(tmp_path / "a.bin", tmp_path / "in" / "out")
    assert not (tmp_path / "x.jpg").exists()
    assert not (tmp_path / "in" / "out").exists()


@pytest.mark.parametrize("out", ["x.bin", "x"])
def test_pictures_that_change_on_the_way_are_noticed_and_nothing_appears(tmp_path, monkeypatch, out):
    module = sys.modules["negface.datasets.convert_pairs"]  # its function of the same name hides it
    (tmp_path / "a.jpg").write_bytes(JPEG)
    path, real = a_list(tmp_path, "a.jpg a.jpg 1\n"), module._hashed
    monkeypatch.setattr(module, "_hashed", lambda *arguments: (data + b"!" for data in real(*arguments)))
    with pytest.raises(IncompleteError, match="do not read back"):
        convert_pairs(path, tmp_path / out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jpg", "pairs.txt"]


def test_a_list_becomes_csv_without_pictures(tmp_path):
    done = convert_pairs(a_list(tmp_path, "1 1\nA 1 2\nA 1 B 2\n"), tmp_path / "lfw.csv")
    assert done["form"] == "list"
    assert (tmp_path / "lfw.csv").read_text().splitlines()[1] == "A/A_0001.jpg,A/A_0002.jpg,1"


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        convert_pairs(a_list(tmp_path, "a b 1\n"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == b"mine"
