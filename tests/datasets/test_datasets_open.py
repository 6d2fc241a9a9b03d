"""Faces on disk: identity folders, shards, manifests, and ``open``."""

from __future__ import annotations

import hashlib
import pickle
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from negface import datasets
from negface.datasets import codec, natural_key, sample_members, scan_shard, write_rows, write_shard
from negface.foundation.errors import FormatError, InputError, OutputError


def picture(value: int) -> bytes:
    return codec("png").encode(np.full((8, 8, 3), value, np.uint8))


def folder_of(root, identities: dict[str, int]):
    """Each identity with so many pictures; pixel value = 10 * position of the identity + picture number."""
    for position, (name, count) in enumerate(identities.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number}.png").write_bytes(picture(10 * position + number))
    return root


def members(labels=(0, 0, 1)):
    return [member for i, label in enumerate(labels)
            for member in sample_members(label, f"{label:06d}/{i:05d}", ".png", picture(i))]


def test_identity_folders_open_as_images_and_labels(tmp_path):
    faces = datasets.open(folder_of(tmp_path, {"anna": 2, "bo": 3}))
    assert (len(faces), faces.identities, faces.labels.tolist()) == (5, ("anna", "bo"), [0, 0, 1, 1, 1])
    image, label = faces[3]
    assert (image.dtype, image.shape, label) == (np.uint8, (8, 8, 3), 1)
    assert image[0, 0, 0] == 11
    assert faces[-1][0][0, 0, 0] == 12
    assert faces.manifest[3] == {"label": 1, "identity": "bo", "file": "bo/1.png"}
    assert faces.indices_of(1).tolist() == [2, 3, 4]


def test_unpadded_numbers_are_labelled_in_numeric_order(tmp_path):
    faces = datasets.open(folder_of(tmp_path, {"10": 1, "9": 1, "1": 1}))
    assert faces.identities == ("1", "9", "10")


@given(numbers=st.lists(st.integers(0, 10**6), unique=True, max_size=20))
def test_natural_order_of_numbers_does_not_depend_on_padding(numbers):
    bare = sorted(map(str, numbers), key=natural_key)
    padded = sorted((f"{n:09d}" for n in numbers), key=natural_key)
    assert [int(n) for n in bare] == [int(n) for n in padded] == sorted(numbers)


@given(names=st.lists(st.text(max_size=6), unique=True, max_size=12))
def test_natural_order_is_total(names):
    assert sorted(names, key=natural_key) == sorted(sorted(names), key=natural_key)


def test_empty_and_flat_folders_say_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="empty"):
        datasets.open(tmp_path)
    (tmp_path / "a.png").write_bytes(picture(1))
    with pytest.raises(InputError, match="not a folder for each identity"):
        datasets.open(tmp_path)
    with pytest.raises(InputError, match="no such"):
        datasets.open(tmp_path / "nowhere")
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / "notes.txt").write_text("no picture")
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match="no pictures"):
        datasets.open(tmp_path)


def test_a_non_image_is_named_when_it_is_read(tmp_path):
    folder_of(tmp_path, {"anna": 1})
    (tmp_path / "anna" / "1.jpg").write_bytes(b"hello")
    faces = datasets.open(tmp_path)
    assert faces[0][1] == 0
    with pytest.raises(FormatError, match=r"1\.jpg"):
        faces[1]


def test_dataset_survives_pickling(tmp_path):
    faces = datasets.open(folder_of(tmp_path, {"anna": 2, "bo": 1}))
    again = pickle.loads(pickle.dumps(faces))
    assert np.array_equal(again[2][0], faces[2][0])


def test_torch_loader_reads_a_dataset(tmp_path):
    from torch.utils.data import DataLoader

    faces = datasets.open(folder_of(tmp_path, {"anna": 2, "bo": 2}))
    images, labels = next(iter(DataLoader(faces, batch_size=4)))
    assert list(images.shape) == [4, 8, 8, 3]
    assert labels.tolist() == [0, 0, 1, 1]


def test_shard_bytes_depend_on_the_members_only(tmp_path):
    write_shard(tmp_path / "a.tar", members())
    write_shard(tmp_path / "b.tar", members())
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in archive} == {(0, 0, 0, 0o644, "")}


def test_written_offsets_are_those_tarfile_finds(tmp_path):
    written = write_shard(tmp_path / "a.tar", members())
    assert written == list(scan_shard(tmp_path / "a.tar"))
    assert len(written) == 6


def test_webdataset_reads_our_shards(tmp_path):
    import webdataset

    write_shard(tmp_path / "a.tar", members())
    reader = webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False)
    samples = list(reader.decode("rgb8").to_tuple("png", "cls"))
    assert [label for _, label in samples] == [0, 0, 1]
    assert [int(image[0, 0, 0]) for image, _ in samples] == [0, 1, 2]


def test_foreign_shards_open_without_a_manifest(tmp_path):
    write_shard(tmp_path / "0.tar", members((7, 7)))
    write_shard(tmp_path / "1.tar", members((7, 12)))
    faces = datasets.open(tmp_path)
    assert (faces.identities, faces.labels.tolist()) == (("7", "12"), [0, 0, 0, 1])
    assert faces[3][0][0, 0, 0] == 1
    assert faces.path(3) is None
    assert len(datasets.open(tmp_path / "0.tar")) == 2


@pytest.mark.parametrize("keep", [100, 700, 1600])
def test_truncated_shard_is_a_format_error(tmp_path, keep):
    write_shard(tmp_path / "whole.tar", members())
    data = (tmp_path / "whole.tar").read_bytes()
    (tmp_path / "whole.tar").unlink()
    (tmp_path / "cut.tar").write_bytes(data[:keep])
    with pytest.raises((FormatError, InputError), match=r"cut\.tar|.cls"):
        datasets.open(tmp_path)


def test_shard_refuses_a_name_twice_and_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="twice"):
        write_shard(tmp_path / "a.tar", [("x.png", b"1"), ("x.png", b"2")])
    with pytest.raises(InputError, match="header"):
        write_shard(tmp_path / "a.tar", [("x" * 300, b"1")])
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_no_half_shard(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="no space left"):
        write_shard(tmp_path / "a.tar", members())
    assert list(tmp_path.iterdir()) == []


def manifest_of(tmp_path, rows):
    write_rows(tmp_path / "manifest.jsonl", rows)
    return tmp_path


def test_manifest_opens_shards_by_byte_range(tmp_path):
    written = write_shard(tmp_path / "s.tar", members())
    rows = [{"label": label, "identity": f"p{label}", "shard": "s.tar", "file": m.name, "offset": m.offset,
             "length": m.length, "note": i} for i, (label, m) in enumerate(zip((0, 0, 1), written[::2]))]
    faces = datasets.open(manifest_of(tmp_path, rows))
    assert faces.identities == ("p0", "p1")
    assert [int(image[0, 0, 0]) for image, _ in faces] == [0, 1, 2]
    assert faces.manifest[2]["note"] == 2
    assert faces.manifest[-1] == list(faces.manifest)[2]
    digest = hashlib.sha256(faces.read(1)).hexdigest()
    assert digest == hashlib.sha256(picture(1)).hexdigest()


@pytest.mark.parametrize(("text", "said"), [
    ('{"label":0,"identity":"a","file":"a.png"}\n{"lab', "line 2 is not JSON"), ("[1]\n", "not a JSON object"),
    ('{"label":0,"file":"a.png"}\n', "identity"), ('{"label":1,"identity":"a","file":"a.png"}\n', "no rows of label 0"),
    ("", "no rows")])
def test_damaged_manifest_names_the_line(tmp_path, text, said):
    (tmp_path / "manifest.jsonl").write_text(text)
    with pytest.raises(InputError, match=said):
        datasets.open(tmp_path)


def test_unfinished_generation_is_not_opened(tmp_path):
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(InputError, match="not finished"):
        datasets.open(tmp_path)
