"""Conversion between folders, RecordIO and shards: nothing is lost, nothing moves, nothing half-done appears."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negface import datasets
from negface.datasets import codec, convert, convert_dataset, read_record, read_record_set
from negface.datasets.copying import Digest
from negface.datasets.record_sets import read_index
from negface.datasets.recordio import MAGIC
from negface.foundation.errors import FormatError, IncompleteError, InputError, NegFaceError, OutputError

MAGIC_BYTES = struct.pack("<I", MAGIC)
NAMES = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/\\."), min_size=1, max_size=8)
TAILS = st.lists(st.one_of(st.just(MAGIC_BYTES), st.binary(max_size=5)), max_size=4).map(b"".join)


def jpeg(value: int, tail: bytes = b"") -> bytes:
    return codec("jpeg").encode(np.full((8, 8, 3), value % 256, np.uint8)) + tail


def folder_of(root, people: dict[str, int]):
    for position, (name, count) in enumerate(people.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number}.jpg").write_bytes(jpeg(40 * position + number, bytes(number)))
    return root


def content(path):
    faces = datasets.open(path)
    return [faces.read(i) for i in range(len(faces))], faces.labels.tolist(), faces.identities


@settings(max_examples=20, deadline=None)
@given(people=st.dictionaries(NAMES, st.lists(TAILS, min_size=1, max_size=3), min_size=1, max_size=5),
       size=st.integers(1, 4), layout=st.sampled_from(convert.LAYOUTS))
def test_round_trip_keeps_every_byte_label_name_and_the_order(tmp_path_factory, people, size, layout):
    root = tmp_path_factory.mktemp("trip")
    for person, (name, tails) in enumerate(people.items()):
        (root / "faces" / name).mkdir(parents=True)
        for number, tail in enumerate(tails):
            (root / "faces" / name / f"{number}.jpg").write_bytes(jpeg(person * 10 + number, tail))
    start = content(root / "faces")
    one = convert_dataset(root / "faces", root / "rec", "rec", layout=layout)
    two = convert_dataset(root / "rec", root / "shards", "shards", shard_size=size)
    three = convert_dataset(root / "shards", root / "back", "folder")
    assert content(root / "rec") == content(root / "shards") == content(root / "back") == start
    assert one["content_sha256"] == two["content_sha256"] == three["content_sha256"]
    original = datasets.open(root / "faces").manifest
    assert [row["name"] for row in datasets.open(root / "back").manifest] == [row["file"] for row in original]


def test_padded_folders_sort_as_text_in_the_order_of_labels(tmp_path):
    folder_of(tmp_path / "faces", {str(k): 1 for k in range(12)})
    convert_dataset(tmp_path / "faces", tmp_path / "out", "folder")
    folders = sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir())
    assert folders == [f"{k:06d}" for k in range(12)]
    (tmp_path / "out" / "manifest.jsonl").unlink()
    assert content(tmp_path / "out")[:2] == content(tmp_path / "faces")[:2]


def test_original_names_come_back_where_they_sort(tmp_path):
    folder_of(tmp_path / "faces", {"anna": 2, "bo": 1})
    convert_dataset(tmp_path / "faces", tmp_path / "rec", "rec")
    convert_dataset(tmp_path / "rec", tmp_path / "back", "folder", names="original")
    assert {p.relative_to(tmp_path / "back"): p.read_bytes() for p in (tmp_path / "back").rglob("*.jpg")} == {
        p.relative_to(tmp_path / "faces"): p.read_bytes() for p in (tmp_path / "faces").rglob("*.jpg")}
    folder_of(tmp_path / "numbers", {"2": 1, "10": 1})
    with pytest.raises(InputError, match="do not sort"):
        convert_dataset(tmp_path / "numbers", tmp_path / "out", "folder", names="original")
    with pytest.raises(InputError, match="for folders"):
        convert_dataset(tmp_path / "numbers", tmp_path / "out", "shards", names="original")


@pytest.mark.parametrize("name", ["../x.jpg", "/x/x.jpg", "a/../../x.jpg", "x.jpg"])
def test_original_names_never_lead_out_of_the_folder(tmp_path, name):
    folder_of(tmp_path / "faces", {"anna": 1})
    convert_dataset(tmp_path / "faces", tmp_path / "shards", "shards")
    manifest = tmp_path / "shards" / "manifest.jsonl"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "name": name}) + "\n")
    with pytest.raises(InputError, match=r"leads out|no folder"):
        convert_dataset(tmp_path / "shards", tmp_path / "in" / "out", "folder", names="original")
    assert not (tmp_path / "x.jpg").exists()
    convert_dataset(tmp_path / "shards", tmp_path / "padded", "folder")


def test_a_record_set_is_what_insightface_expects(tmp_path):
    folder_of(tmp_path / "faces", {"a": 2, "b": 1, "c": 3})
    convert_dataset(tmp_path / "faces", tmp_path / "rec", "rec")
    rec = tmp_path / "rec" / "train.rec"
    keys, offsets = read_index(rec.with_suffix(".idx"), rec.stat().st_size)
    records = {int(key): read_record(rec, int(offset)) for key, offset in zip(keys, offsets)}
    assert records[0].labels == (7.0, 10.0)
    assert [records[key].labels for key in range(7, 10)] == [(1.0, 3.0), (3.0, 4.0), (4.0, 7.0)]
    assert [records[key].labels for key in range(1, 7)] == [(0.0,), (0.0,), (1.0,), (2.0,), (2.0,), (2.0,)]
    assert [records[key].id for key in range(1, 7)] == list(range(1, 7))
    assert (tmp_path / "rec" / "property").read_text() == "3,8,8\n"
    assert (tmp_path / "rec" / "train.lst").read_text().splitlines()[2] == "3\t1\t000001/00000.jpg"


def test_the_im2rec_layout_has_no_record_zero(tmp_path):
    folder_of(tmp_path / "faces", {"a": 1, "b": 1})
    convert_dataset(tmp_path / "faces", tmp_path / "rec", "rec", layout="im2rec")
    assert read_record_set(tmp_path / "rec" / "train.rec").keys.tolist() == [0, 1]
    assert read_record(tmp_path / "rec" / "train.rec", 0).data == jpeg(0)


def test_a_shuffled_set_keeps_its_order_and_gets_no_ranges(tmp_path):
    folder_of(tmp_path / "faces", {"a": 2, "b": 2})
    convert_dataset(tmp_path / "faces", tmp_path / "shuffled", "folder")
    manifest = tmp_path / "shuffled" / "manifest.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[i] for i in (2, 0, 3, 1)))
    convert_dataset(tmp_path / "shuffled", tmp_path / "rec", "rec")
    assert read_record(tmp_path / "rec" / "train.rec", 0).labels == (5.0, 5.0)
    convert_dataset(tmp_path / "rec", tmp_path / "shards", "shards", shard_size=3)
    convert_dataset(tmp_path / "shards", tmp_path / "back", "folder")
    assert content(tmp_path / "back") == content(tmp_path / "shuffled")
    assert content(tmp_path / "back")[1] == [1, 0, 1, 0]


def test_multi_label_headers_travel(tmp_path):
    from negface.datasets import Record, RecordWriter

    (tmp_path / "rec").mkdir()
    with open(tmp_path / "rec/train.rec", "wb") as rec, open(tmp_path / "rec/train.idx", "wb") as idx:
        writer = RecordWriter(rec, idx)
        writer.write(0, Record((0.0, 1.5, float("nan")), 0, jpeg(1)))
        writer.write(1, Record((1.0,), 1, jpeg(2)))
    convert_dataset(tmp_path / "rec", tmp_path / "shards", "shards")
    assert datasets.open(tmp_path / "shards").manifest[0]["record_labels"] == [1.5, None]
    convert_dataset(tmp_path / "shards", tmp_path / "again", "rec", layout="im2rec")
    first, second = read_record_set(tmp_path / "again/train.rec").offsets
    assert read_record(tmp_path / "again/train.rec", int(first)).labels[:2] == (0.0, 1.5)
    assert read_record(tmp_path / "again/train.rec", int(second)).labels == (1.0,)


def test_what_a_manifest_says_of_a_picture_travels(tmp_path):
    folder_of(tmp_path / "faces", {"a": 1})
    datasets.write_rows(tmp_path / "faces" / "manifest.jsonl",
                        [{"label": 0, "identity": "a", "file": "a/0.jpg", "seed": 7, "unit": 3}])
    convert_dataset(tmp_path / "faces", tmp_path / "rec", "rec")
    convert_dataset(tmp_path / "rec", tmp_path / "shards", "shards")
    row = datasets.open(tmp_path / "shards").manifest[0]
    assert (row["seed"], row["name"], "unit" in row, "key" in row) == (7, "a/0.jpg", False, False)


def test_webdataset_reads_converted_shards(tmp_path):
    import webdataset

    folder_of(tmp_path / "faces", {"a": 2, "b": 1})
    convert_dataset(tmp_path / "faces", tmp_path / "shards", "shards", shard_size=2)
    assert sorted(p.name for p in (tmp_path / "shards").glob("*.tar")) == ["000000.tar", "000001.tar"]
    reader = webdataset.WebDataset(str(tmp_path / "shards" / "000000.tar"), shardshuffle=False)
    assert [label for _, label in reader.to_tuple("jpg", "cls")] == [b"0", b"0"]


def test_an_ending_that_lies_is_put_right(tmp_path):
    (tmp_path / "faces" / "a").mkdir(parents=True)
    (tmp_path / "faces" / "a" / "0.png").write_bytes(jpeg(1))
    convert_dataset(tmp_path / "faces", tmp_path / "out", "folder")
    assert (tmp_path / "out" / "000000" / "00000.jpg").read_bytes() == jpeg(1)


def test_a_record_of_raw_pixels_is_refused_and_nothing_appears(tmp_path):
    from negface.datasets import Record, RecordWriter

    (tmp_path / "rec").mkdir()
    with open(tmp_path / "rec/train.rec", "wb") as rec, open(tmp_path / "rec/train.idx", "wb") as idx:
        RecordWriter(rec, idx).write(0, Record((0.0,), 0, bytes(300)))
    with pytest.raises(FormatError, match="picture"):
        convert_dataset(tmp_path / "rec", tmp_path / "out", "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["rec"]


def louder(sample):
    return replace(sample, data=sample.data + b"!")


def renamed(sample):
    return replace(sample, row={**sample.row, "identity": "somebody else"})


@pytest.mark.parametrize("to", convert.FORMS)
@pytest.mark.parametrize(("change", "said"), [(louder, "pictures do not"), (renamed, "identities do not")])
def test_what_changes_on_the_way_is_noticed_and_nothing_appears(tmp_path, monkeypatch, to, change, said):
    folder_of(tmp_path / "faces", {"a": 2})
    real = convert._samples
    monkeypatch.setattr(convert, "_samples", lambda *arguments: map(change, real(*arguments)))
    with pytest.raises(IncompleteError, match=said):
        convert_dataset(tmp_path / "faces", tmp_path / "out", to)
    assert [p.name for p in tmp_path.iterdir()] == ["faces"]


def test_the_digest_tells_labels_order_and_bytes_apart():
    def digest(*pictures):
        found = Digest()
        for label, data in pictures:
            found.add(label, data)
        return found.hex()

    one = digest((0, b"ab"), (1, b"c"))
    others = [digest((0, b"a"), (1, b"bc")), digest((1, b"c"), (0, b"ab")), digest((0, b"ab"), (0, b"c")),
              digest((0, b"ab"))]
    assert len({one, *others}) == 5


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    folder_of(tmp_path / "faces", {"a": 2})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("negface.datasets.recordio.RecordWriter.write", full)
    with pytest.raises(OutputError, match="no space left"):
        convert_dataset(tmp_path / "faces", tmp_path / "out", "rec")
    assert [p.name for p in tmp_path.iterdir()] == ["faces"]


def test_wrong_use_is_named(tmp_path):
    folder_of(tmp_path / "faces", {"a": 1})
    for arguments, said in ((("folders",), "did you mean 'folder'"), (("rec", "mxnet"), "unknown layout")):
        with pytest.raises(InputError, match=said):
            convert_dataset(tmp_path / "faces", tmp_path / "out", arguments[0],
                            layout=arguments[1] if arguments[1:] else "insightface")
    with pytest.raises(OutputError, match="exists already"):
        convert_dataset(tmp_path / "faces", tmp_path / "faces", "rec")
    with pytest.raises(InputError, match="at least one picture"):
        convert_dataset(tmp_path / "faces", tmp_path / "out", "shards", shard_size=0)


def command(*arguments) -> None:
    from negface.cli.main import load_verb

    load_verb("convert").main([str(item) for item in arguments], standalone_mode=False)


def test_the_commands_convert_and_say_what_they_wrote(tmp_path, capsys):
    folder_of(tmp_path / "faces", {"a": 2, "b": 1})
    command("dataset", tmp_path / "faces", "--out", tmp_path / "rec", "--to", "rec", "--json", tmp_path / "r.json")
    assert "3 pictures of 2 identities" in capsys.readouterr().out
    result = json.loads((tmp_path / "r.json").read_text())
    assert (result["n_images"], result["form"], len(result["content_sha256"])) == (3, "rec", 64)
    (tmp_path / "pairs.txt").write_text("a/0.jpg a/1.jpg 1\na/0.jpg b/0.jpg 0\n")
    command("pairs", tmp_path / "pairs.txt", "--images", tmp_path / "faces", "--out", tmp_path / "x.bin", "--json", "-")
    printed = capsys.readouterr()
    assert json.loads(printed.out)["n_genuine"] == 1
    assert "2 pairs (1 of one person)" in printed.err
    with pytest.raises(NegFaceError, match="no such"):
        command("pairs", tmp_path / "nowhere.bin", "--out", tmp_path / "y")


@pytest.mark.parametrize("place", [
    '"label":4000000000', '"label":-1', '"label":Infinity', '"label":1,"file":7',
    '"label":1,"shard":"x.tar","offset":99999999999999999999,"length":3'])
def test_absurd_numbers_of_a_manifest_are_refused_at_once(tmp_path, place):
    """Found by the fuzzer: a label of billions once made a set of as many numbers."""
    (tmp_path / "manifest.jsonl").write_text('{"label":0,"identity":"a","file":"a.png"}\n'
                                             f'{{"file":"b.png","identity":"b",{place}}}\n')
    with pytest.raises(FormatError, match=r"manifest\.jsonl: (line 2|no rows of label 1)"):
        convert_dataset(tmp_path, tmp_path / "out", "rec")
