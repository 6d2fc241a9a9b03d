"""IJB meta files."""

from __future__ import annotations

import numpy as np
import pytest

from negface.datasets import read_ijb
from negface.foundation.errors import FormatError, InputError

MEMBERS = "1.jpg 10 100\n2.jpg 10 101\n3.jpg 20 102\n"
POINTS = "".join(f"{k}.jpg {' '.join(str(k * 10 + j) for j in range(10))} 0.9{k}\n" for k in (1, 2, 3))
PAIRS = "10 20 0\n20 20 1\n10 10 1\n"


def meta(tmp_path, members=MEMBERS, points=POINTS, pairs=PAIRS, name="ijbc"):
    (tmp_path / "meta").mkdir(exist_ok=True)
    for end, text in (("face_tid_mid", members), ("name_5pts_score", points), ("template_pair_label", pairs)):
        (tmp_path / "meta" / f"{name}_{end}.txt").write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", ["ijbc", "ijbb"])
def test_meta_files_are_read(tmp_path, name):
    found = read_ijb(meta(tmp_path, name=name))
    assert found.names == ("1.jpg", "2.jpg", "3.jpg")
    assert (found.templates.tolist(), found.media.tolist()) == ([10, 10, 20], [100, 101, 102])
    assert found.landmarks[1].tolist() == [[20, 21], [22, 23], [24, 25], [26, 27], [28, 29]]
    assert found.scores.tolist() == pytest.approx([0.91, 0.92, 0.93])
    assert (found.pairs.tolist(), found.same.tolist()) == ([[10, 20], [20, 20], [10, 10]], [False, True, True])
    assert found.path(2) == tmp_path / "loose_crop" / "3.jpg"
    assert read_ijb(tmp_path / "meta").images == found.images


def test_pairs_are_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("negface.datasets.ijb._BLOCK", 2)
    found = read_ijb(meta(tmp_path, pairs=PAIRS * 5))
    assert found.same.tolist() == [False, True, True] * 5
    assert found.pairs.dtype == np.int32


@pytest.mark.parametrize(("files", "said"), [
    ({"members": "1.jpg 10\n"}, "line 1 has 2 columns, 3"), ({"members": "1.jpg a b\n"}, "line 1: could not"),
    ({"members": "1.jpg 1.5 2\n"}, "template and media of 1.jpg"), ({"members": ""}, "is empty"),
    ({"members": "1.jpg 1 99999999999\n"}, "template and media of 1.jpg"),
    ({"points": POINTS.replace("2.jpg", "9.jpg")}, "other pictures than face_tid_mid from row 2"),
    ({"points": POINTS[:-2]}, "12|3.jpg|row"), ({"points": POINTS.replace("0.92", "nan")}, "2.jpg are not finite"),
    ({"pairs": "10 20 0\n10 30 1\n"}, "template 30, which has no pictures"), ({"pairs": ""}, "is empty"),
    ({"pairs": "10 20 2\n"}, "0|1"), ({"pairs": "10 20\n"}, "0|1"), ({"pairs": "10 x 1\n"}, "whole numbers")])
def test_damaged_meta_files_are_named(tmp_path, files, said):
    if files.get("points") == POINTS[:-2]:
        files = {"points": POINTS.rsplit(" ", 1)[0] + "\n"}
    with pytest.raises(InputError, match=said) as error:
        read_ijb(meta(tmp_path, **files))
    assert "ijbc_" in str(error.value)


def test_a_folder_without_meta_files_says_what_was_expected(tmp_path):
    with pytest.raises(InputError, match=r"ijbc_face_tid_mid\.txt"):
        read_ijb(tmp_path)
    meta(tmp_path)
    (tmp_path / "meta" / "ijbc_template_pair_label.txt").unlink()
    with pytest.raises(InputError, match="no such"):
        read_ijb(tmp_path)
    meta(tmp_path, name="ijbb")
    with pytest.raises(InputError, match="two sets"):
        read_ijb(tmp_path)
    assert issubclass(FormatError, InputError)
