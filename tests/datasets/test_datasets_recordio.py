"""RecordIO: the record layer against a slow twin, both forms of training set, and every way to be damaged."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from negface import datasets
from negface.datasets import Record, RecordWriter, codec, read_record, read_record_set, scan_records
from negface.datasets.record_sets import read_list
from negface.datasets.recordio import MAGIC, frame, pack_record, read_payload, unpack_record
from negface.foundation.errors import FormatError, InputError, MismatchError

MAGIC_BYTES = struct.pack("<I", MAGIC)
WORDS = st.lists(st.one_of(st.just(MAGIC_BYTES), st.binary(max_size=7)), max_size=12).map(b"".join)


def picture(value: int, tail: bytes = b"") -> bytes:
    return codec("png").encode(np.full((8, 8, 3), value, np.uint8)) + tail


def write_set(folder, records, *, stem="train", index=True):
    """``records``: (key, Record) in order."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{stem}.rec", "wb") as rec, open(folder / f"{stem}.idx", "wb") as idx:
        writer = RecordWriter(rec, idx)
        for key, record in records:
            writer.write(key, record)
    if not index:
        (folder / f"{stem}.idx").unlink()
    return folder / f"{stem}.rec"


def with_record_zero(labels, extra=()):
    n = len(labels)
    people = max(labels) + 1
    images = [(k, Record((float(label), *extra), k, picture(k))) for k, label in enumerate(labels, 1)]
    return [(0, Record((n + 1.0, n + 1.0 + people), 0, b"")), *images,
            *[(n + 1 + p, Record((1.0, 2.0), p, b"")) for p in range(people)]]


def slow_frame(payload: bytes) -> bytes:
    """Word by word, as the format is told."""
    out, start = b"", 0
    for at in range(0, len(payload) // 4 * 4, 4):
        if payload[at : at + 4] == MAGIC_BYTES:
            out += MAGIC_BYTES + struct.pack("<I", (1 if start == 0 else 2) << 29 | at - start) + payload[start:at]
            start = at + 4
    out += MAGIC_BYTES + struct.pack("<I", (3 if start else 0) << 29 | len(payload) - start) + payload[start:]
    return out + b"\0" * (-len(out) % 4)


@settings(deadline=None)
@given(payload=WORDS)
@example(payload=MAGIC_BYTES)
@example(payload=b"x" + MAGIC_BYTES)
@example(payload=MAGIC_BYTES * 3 + b"\x0a\x23")
def test_payloads_with_the_magic_word_inside_survive(tmp_path_factory, payload):
    data = frame(payload)
    assert data == slow_frame(payload)
    assert len(data) % 4 == 0
    path = tmp_path_factory.mktemp("frame") / "x"
    path.write_bytes(data + frame(b"next"))
    with open(path, "rb") as handle:
        assert read_payload(handle, 0, path) == (payload, len(data))
        assert read_payload(handle, len(data), path)[0] == b"next"


@settings(deadline=None)
@given(label=st.integers(0, 2**24), more=st.lists(st.floats(width=32, allow_nan=False), max_size=4),
       data=st.binary(max_size=30))
def test_several_labels_survive(label, more, data):
    record = Record((float(label), *more), 2**40, data)
    assert unpack_record(pack_record(record), "here") == record


def test_a_record_set_with_record_zero_leaves_out_what_is_no_picture(tmp_path):
    path = write_set(tmp_path, with_record_zero([0, 0, 1, 2]))
    faces = datasets.open(tmp_path)
    assert (len(faces), faces.labels.tolist(), faces.identities) == (4, [0, 0, 1, 2], ("0", "1", "2"))
    assert [int(image[0, 0, 0]) for image, _ in faces] == [1, 2, 3, 4]
    assert faces.manifest[2] == {"label": 1, "identity": "1", "key": 3, "file": "1/00000003"}
    assert datasets.open(path).labels.tolist() == faces.labels.tolist()
    assert "train.rec@" in faces.name(0)
    assert faces.path(0) is None


@pytest.mark.parametrize("index", [True, False])
def test_a_record_set_without_record_zero_is_all_pictures(tmp_path, index):
    write_set(tmp_path, [(k, Record((float(k // 2),), k, picture(k))) for k in range(5)], index=index)
    faces = datasets.open(tmp_path)
    assert faces.labels.tolist() == [0, 0, 1, 1, 2]
    assert faces[4][0][0, 0, 0] == 4


def test_without_an_index_record_zero_is_found_too(tmp_path):
    write_set(tmp_path, with_record_zero([0, 1]), index=False)
    assert datasets.open(tmp_path).labels.tolist() == [0, 1]


def test_classes_with_gaps_get_consecutive_labels_and_keep_their_number_as_name(tmp_path):
    write_set(tmp_path, [(k, Record((float(c),), k, picture(k))) for k, c in enumerate([12, 7, 12])])
    faces = datasets.open(tmp_path)
    assert (faces.labels.tolist(), faces.identities) == ([1, 0, 1], ("7", "12"))


def test_multi_label_headers_give_the_first_label_and_keep_the_rest(tmp_path):
    write_set(tmp_path, with_record_zero([0, 1], extra=(1.0, -0.5)))
    faces = datasets.open(tmp_path)
    assert faces.labels.tolist() == [0, 1]
    assert faces.manifest[1]["record_labels"] == [1.0, -0.5]
    assert faces[1][0][0, 0, 0] == 2


def test_a_picture_that_holds_the_magic_word_is_joined_again(tmp_path):
    tail = b"\0" * (-len(picture(0)) % 4) + MAGIC_BYTES * 2 + b"z"
    records = [(k, Record((0.0,), k, picture(k, tail))) for k in range(3)]
    path = write_set(tmp_path, records)
    assert path.read_bytes().count(MAGIC_BYTES) == 9
    faces = datasets.open(tmp_path)
    assert [faces.read(k) for k in range(3)] == [record.data for _, record in records]


def test_a_header_that_holds_the_magic_word_is_joined_again(tmp_path):
    label = struct.unpack("<f", MAGIC_BYTES)[0]
    records = [(0, Record((0.0, label), 0, picture(3))), (1, Record((1.0,), MAGIC, picture(4)))]
    write_set(tmp_path, records)
    faces = datasets.open(tmp_path)
    assert faces.labels.tolist() == [0, 1]
    assert [int(image[0, 0, 0]) for image, _ in faces] == [3, 4]
    assert faces.manifest[0]["record_labels"] == [label]


def test_labels_read_at_once_equal_labels_read_one_by_one(tmp_path):
    rng = np.random.default_rng(0)
    records = [(k, Record((float(rng.integers(0, 9)), *rng.random(rng.integers(0, 3)).astype(np.float32).tolist()), k,
                          MAGIC_BYTES * int(rng.integers(0, 3)) + b"ab")) for k in range(60)]
    path = write_set(tmp_path, records)
    found = read_record_set(path)
    one_by_one = [int(record.labels[0]) for _, record in scan_records(path)]
    assert [int(found.identities[label]) for label in found.labels] == one_by_one
    assert [offset for offset, _ in scan_records(path)] == found.offsets.tolist()


def test_a_shuffled_file_is_read_in_the_order_of_its_keys(tmp_path):
    records = with_record_zero([0, 0, 1])
    write_set(tmp_path, [records[i] for i in (3, 0, 4, 1, 5, 2)])
    assert [int(image[0, 0, 0]) for image, _ in datasets.open(tmp_path)] == [1, 2, 3]


def test_lists_name_the_pictures_in_both_forms(tmp_path):
    write_set(tmp_path, with_record_zero([0, 0, 1]))
    (tmp_path / "train.lst").write_text("1\tms1m/anna/a.jpg\t0\n1\tms1m/anna/b.jpg\t0\n1\tms1m/bo/c.jpg\t1\n")
    faces = datasets.open(tmp_path)
    assert (faces.identities, faces.manifest[2]["file"]) == (("anna", "bo"), "ms1m/bo/c.jpg")
    (tmp_path / "train.lst").write_text("3\t1.0\tbo/c.jpg\n1\t0.0\tanna/a.jpg\n2\t0\tanna/b.jpg\n")
    assert datasets.open(tmp_path).manifest[0]["file"] == "anna/a.jpg"
    (tmp_path / "train.lst").write_text("1\t0\n")
    with pytest.raises(FormatError, match="line 1 is neither"):
        read_list(tmp_path / "train.lst")


def test_a_sidecar_of_other_pictures_is_refused(tmp_path):
    path = write_set(tmp_path, with_record_zero([0, 1]))
    sidecar = path.with_suffix(".jsonl")
    for text, said in (('{"key":1,"identity":"a"}\n', "names 1 pictures"),
                       ('{"key":1,"identity":"a"}\n{"key":9,"identity":"b"}\n', "line 2 names key 9"),
                       ('{"key":1,"identity":"a"}\n{"key":2,"identity":"a"}\n', "same name")):
        sidecar.write_text(text)
        with pytest.raises(MismatchError, match=said):
            datasets.open(path)


def test_several_record_files_must_be_named(tmp_path):
    write_set(tmp_path, with_record_zero([0]), stem="a")
    write_set(tmp_path, with_record_zero([0]), stem="b")
    with pytest.raises(InputError, match="name the .rec file"):
        datasets.open(tmp_path)
    assert len(datasets.open(tmp_path / "b.rec")) == 1


def damage(path, offset: int, data: bytes):
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(bytes(content))


def test_a_bad_magic_names_file_key_byte_and_what_was_expected(tmp_path):
    path = write_set(tmp_path, [(k, Record((0.0,), k, picture(k))) for k in range(3)])
    offset = int(read_record_set(path).offsets[1])
    damage(path, offset, b"\1\2\3\4")
    with pytest.raises(FormatError, match=rf"train\.rec, key 1: bad magic 0x04030201 at byte {offset}, 0xced7230a"):
        datasets.open(path)


@pytest.mark.parametrize("keep", [4, 20, 60, -4, -40, 3, 0])
def test_a_truncated_record_file_is_refused(tmp_path, keep):
    path = write_set(tmp_path, [(k, Record((0.0,), k, picture(k))) for k in range(3)])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FormatError, match=r"train\."):
        datasets.open(path)
    path.with_suffix(".idx").unlink()
    with pytest.raises(FormatError, match=r"train\.rec"):
        datasets.open(path)


def test_record_flags_out_of_order_are_refused(tmp_path):
    path = write_set(tmp_path, [(1, Record((0.0,), 0, picture(0)))])
    damage(path, 4, struct.pack("<I", 2 << 29 | 60))
    with pytest.raises(FormatError, match="part flag 2 at byte 0"):
        datasets.open(path)


@pytest.mark.parametrize(("header", "said"), [
    (struct.pack("<IfQQ", 0, float("nan"), 0, 0), "label of key 0 is nan"),
    (struct.pack("<IfQQ", 0, -1.0, 0, 0), "label of key 0 is -1"),
    (struct.pack("<IfQQ", 0, 1.5, 0, 0), "label of key 0 is 1.5"),
    (struct.pack("<IfQQ", 2**31, 0, 0, 0), "announces 2147483648 labels")])
def test_labels_that_are_no_classes_are_refused(tmp_path, header, said):
    path = write_set(tmp_path, [(0, Record((0.0,), 0, picture(0)))])
    damage(path, 8, header)
    with pytest.raises(FormatError, match=said):
        datasets.open(path)


@pytest.mark.parametrize(("text", "said"), [
    ("0\tx\n", "line 1 is not a key"), ("0\t0\n0\t0\n", "key 0 stands there twice"), ("", "no keys"),
    ("0\t4000000\n", "offset 4000000 of key 0"), ("0\t2\n", "offset 2 of key 0"), ("0\n", "line 1"),
    ("0\t99999999999999999999999\n", "line 1")])
def test_a_damaged_index_is_refused(tmp_path, text, said):
    path = write_set(tmp_path, [(0, Record((0.0,), 0, picture(0)))])
    path.with_suffix(".idx").write_text(text)
    with pytest.raises(FormatError, match=said):
        datasets.open(path)


def test_an_index_without_all_keys_of_record_zero_is_refused(tmp_path):
    path = write_set(tmp_path, with_record_zero([0, 0, 1]))
    lines = path.with_suffix(".idx").read_text().splitlines(keepends=True)
    path.with_suffix(".idx").write_text("".join(lines[:2] + lines[3:]))
    with pytest.raises(FormatError, match="announces 3 pictures, the index has keys of 2"):
        datasets.open(path)


def test_labels_beyond_float32_are_not_written():
    with pytest.raises(InputError, match="float32"):
        pack_record(Record((float(2**24 + 2),), 0, b"x"))


def test_a_record_is_read_by_its_offset(tmp_path):
    path = write_set(tmp_path, [(0, Record((3.0,), 5, picture(1)))])
    assert read_record(path, 0) == Record((3.0,), 5, picture(1))
