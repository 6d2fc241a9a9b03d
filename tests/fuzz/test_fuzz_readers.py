"""Readers under damaged files: every byte string is either read or refused with a ``NegFaceError``, soon.

``NEGFACE_FUZZ_SECONDS`` (default 5) is the time each reader gets; ``make fuzz`` gives ten minutes.
"""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from damage import MAGIC, check_reader

from negface import datasets
from negface.datasets import Record, RecordWriter, codec, open_pairs, read_bin, read_ijb, read_pairs, write_bin

pytestmark = pytest.mark.slow
PICTURE = codec("png").encode(np.zeros((4, 4, 3), np.uint8))


def a_record_set(folder, extra=()):
    with open(folder / "train.rec", "wb") as rec, open(folder / "train.idx", "wb") as idx:
        writer = RecordWriter(rec, idx)
        writer.write(0, Record((4.0, 6.0), 0, b""))
        for key in range(1, 4):
            writer.write(key, Record((float(key // 2), *extra), key, PICTURE + MAGIC * 2))
        for key in (4, 5):
            writer.write(key, Record((1.0, 2.0), key, b""))
    (folder / "train.lst").write_text("".join(f"{k}\t{k // 2}\tp{k // 2}/{k}.png\n" for k in range(1, 4)))
    return [folder / f"train.{end}" for end in ("rec", "idx", "lst")]


def read_all(path) -> None:
    faces = datasets.open(path)
    for index in range(len(faces)):
        faces.manifest[index], faces.name(index), faces[index]


def recordio(folder):
    return a_record_set(folder, (1.0,)), lambda: read_all(folder)


def recordio_without_index(folder):
    rec, idx, _ = a_record_set(folder)
    idx.unlink()
    return [rec], lambda: read_all(folder)


def recordio_sidecar(folder):
    a_record_set(folder)
    datasets.write_rows(folder / "train.jsonl", [{"key": k, "identity": f"p{k // 2}"} for k in range(1, 4)])
    return [folder / "train.jsonl"], lambda: read_all(folder)


def shards(folder):
    members = [m for k in range(3) for m in datasets.sample_members(k, f"{k:03d}/{k}", ".png", PICTURE)]
    datasets.write_shard(folder / "0.tar", members)
    return [folder / "0.tar"], lambda: read_all(folder)


def manifest(folder):
    (folder / "a.png").write_bytes(PICTURE)
    datasets.write_rows(folder / "manifest.jsonl", [{"label": k, "identity": f"p{k}", "file": "a.png"} for k in (0, 1)])
    return [folder / "manifest.jsonl"], lambda: read_all(folder)


def manifest_of_shards(folder):
    written = datasets.write_shard(folder / "0.tar", [(f"{k}.png", PICTURE) for k in range(2)])
    datasets.write_rows(folder / "manifest.jsonl", [
        {"label": k, "identity": f"p{k}", "file": place.name, "shard": "0.tar", "offset": place.offset,
         "length": place.length} for k, place in enumerate(written)])
    return [folder / "manifest.jsonl"], lambda: read_all(folder)


def picture(folder):
    (folder / "p").mkdir()
    (folder / "p" / "a.png").write_bytes(PICTURE)
    return [folder / "p" / "a.png"], lambda: read_all(folder)


def plain_bin(folder):
    write_bin(folder / "a.bin", [PICTURE] * 4, np.array([True, False]), list("abcd"))
    return [folder / "a.bin", folder / "a.bin.csv"], lambda: list(read_bin(folder / "a.bin").images())


def array_bin(folder):
    pictures = [np.frombuffer(PICTURE, np.uint8) for _ in range(4)]
    (folder / "a.bin").write_bytes(pickle.dumps((pictures, [np.True_, np.False_]), protocol=4))
    return [folder / "a.bin"], lambda: list(read_bin(folder / "a.bin").images())


def lfw_list(folder):
    (folder / "pairs.txt").write_text("1\t2\nAnna\t1\t2\nBo\t1\t3\nAnna\t1\tBo\t2\nBo\t1\tAnna\t1\n")
    return [folder / "pairs.txt"], lambda: read_pairs(folder / "pairs.txt")


def csv_list(folder):
    (folder / "a.png").write_bytes(PICTURE)
    (folder / "pairs.csv").write_text("image_a,image_b,same\na.png,a.png,1\na.png,a.png,0\n")
    return [folder / "pairs.csv"], lambda: list(open_pairs(folder / "pairs.csv").images())


def ijb(folder):
    texts = {"face_tid_mid": "1.jpg 1 1\n2.jpg 2 2\n", "template_pair_label": "1 2 0\n1 1 1\n",
             "name_5pts_score": "".join(f"{k}.jpg {'1.5 ' * 10}0.9\n" for k in (1, 2))}
    for end, text in texts.items():
        (folder / f"ijbc_{end}.txt").write_text(text)
    return [folder / f"ijbc_{end}.txt" for end in texts], lambda: read_ijb(folder)


READERS = [recordio, recordio_without_index, recordio_sidecar, shards, manifest, manifest_of_shards, picture,
           plain_bin, array_bin, lfw_list, csv_list, ijb]


@pytest.mark.timeout(0)
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_a_damaged_file_is_read_or_refused_and_never_crashes_or_hangs(tmp_path, reader):
    check_reader(*reader(tmp_path))
