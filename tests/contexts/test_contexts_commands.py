"""``negface contexts`` and ``negface negatives``, run in this process."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from negface.contexts import ContextBank, Selection, sources
from negface.perception.embeddings import write_embeddings


@pytest.fixture
def embeddings_file(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 4)
    vectors = rng.standard_normal((6, 16))[labels] + 0.2 * rng.standard_normal((24, 16))
    path = tmp_path / "embeddings.npz"
    write_embeddings(path, vectors, labels, identities=[f"person{k}" for k in range(6)],
                     provenance={"recognizer": {"name": "edge", "hash": "abc"}})
    return path


def test_uniform_then_far_writes_what_the_library_gives(negface, tmp_path):
    bank, out = tmp_path / "bank.safetensors", tmp_path / "negatives.safetensors"
    code, text, _ = negface("contexts", "uniform", "--n", 30, "--dim", 24, "--seed", 3, "--out", bank)
    assert code == 0
    assert "30 contexts of length 24" in text
    assert ContextBank.load(bank).hash == sources.uniform(30, 24, seed=3).hash
    code, text, _ = negface("negatives", bank, "--strategy", "far", "--out", out, "--json", "-")
    result = json.loads(text)
    assert code == 0
    assert result["strategy"] == "far"
    assert result["cosine_max"] < 0
    assert len(Selection.load(out)) == 30


def test_authentic_and_pca_and_two_stage_read_embeddings(negface, tmp_path, embeddings_file):
    real, drawn, staged = (tmp_path / f"{name}.safetensors" for name in ("real", "drawn", "staged"))
    code, text, _ = negface("contexts", "authentic", embeddings_file, "--out", real)
    assert code == 0
    assert "not for release as anonymous" in text
    assert ContextBank.load(real).ids[2] == "person2"
    for source in (real, embeddings_file):
        assert negface("contexts", "pca", source, "--n", 9, "--seed", 1, "--out", drawn)[0] == 0
    made = ContextBank.load(drawn)
    assert made.conditioner == {"name": "edge", "hash": "abc"}
    assert made.provenance["derived_from_real_people"]
    assert negface("contexts", "two-stage", embeddings_file, "--max-cosine", 0.5, "--out", staged)[0] == 0
    assert 0 < len(ContextBank.load(staged)) <= 6
    out = tmp_path / "negatives.safetensors"
    assert negface("negatives", drawn, "--strategy", "close", "--pool", real, "--out", out)[0] == 0
    assert Selection.load(out).provenance["describes_real_people"]


def test_authentic_contexts_of_one_part_of_the_people(negface, tmp_path, embeddings_file):
    people, all_of_them, out = tmp_path / "people.csv", tmp_path / "all.safetensors", tmp_path / "part.safetensors"
    people.write_text("person,split\n" + "".join(f"person{k},{'train' if k % 2 else 'test'}\n" for k in range(6)))
    assert negface("contexts", "authentic", embeddings_file, "--out", all_of_them)[0] == 0
    for split, rows in (("test", [0, 2, 4]), ("train", [1, 3, 5])):
        assert negface("contexts", "authentic", embeddings_file, "--people", people, "--split", split, "--out",
                       out)[0] == 0
        whole, part = ContextBank.load(all_of_them), ContextBank.load(out)
        assert part.ids == tuple(whole.ids[row] for row in rows)
        assert np.array_equal(part.contexts, whole.contexts[rows])
        out.unlink()
    code, _, said = negface("contexts", "authentic", embeddings_file, "--people", people, "--split", "new",
                            "--out", out)
    assert code == 2
    assert "must be test or train" in said


def test_info_says_how_alike_the_identities_are(negface, tmp_path):
    bank = tmp_path / "bank.safetensors"
    sources.uniform(50, 32).save(bank)
    code, text, _ = negface("contexts", "info", bank, "--json", "-")
    cosines = json.loads(text)["cosines"]
    assert code == 0
    assert cosines["farthest_mean"] < 0 < cosines["nearest_mean"] <= cosines["nearest_max"]


def test_the_search_says_beforehand_what_fits(negface, tmp_path):
    code, _, err = negface("contexts", "uniform", "--n", 20, "--dim", 16, "--max-cosine", 0.6, "--out",
                           tmp_path / "bank.safetensors")
    assert code == 0
    assert "identities fit within 1000 proposals" in err
    code, _, err = negface("contexts", "uniform", "--n", 60, "--dim", 6, "--max-cosine", 0.3, "--max-proposals", 500,
                           "--out", tmp_path / "other.safetensors")
    assert code == 1
    assert re.search(r"of 60 identities found within 500 proposals", err)
    assert not (tmp_path / "other.safetensors").exists()


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (("contexts", "uniform", "--n", 0, "--out", "{0}/b.safetensors"), 2, "at least 1"),
    (("contexts", "uniform", "--n", 4, "--out", "{0}/b.npy"), 2, "safetensors"),
    (("contexts", "uniform", "--n", 4, "--out", "{0}/bank.safetensors/b.safetensors"), 2, "cannot write|not a folder"),
    (("contexts", "info", "{0}/missing.safetensors"), 2, "no such"),
    (("contexts", "info", "{0}/short.safetensors"), 2, "not a complete"),
    (("contexts", "pca", "{0}/missing.npz", "--n", 3, "--out", "{0}/b.safetensors"), 2, "no such"),
    (("negatives", "{0}/bank.safetensors", "--strategy", "fra", "--out", "{0}/n.safetensors"), 2, "did you mean 'far'"),
    (("negatives", "{0}/one.safetensors", "--strategy", "close", "--out", "{0}/n.safetensors"), 2, "nobody but"),
    (("negatives", "{0}/bank.safetensors", "--pool", "{0}/wide.safetensors", "--out", "{0}/n.safetensors"), 2,
     "length 9, the bank 8"),
])
def test_bad_input_ends_in_one_line_and_writes_nothing(negface, tmp_path, arguments, code, message):
    sources.uniform(5, 8).save(tmp_path / "bank.safetensors")
    sources.uniform(1, 8).save(tmp_path / "one.safetensors")
    sources.uniform(5, 9).save(tmp_path / "wide.safetensors")
    (tmp_path / "short.safetensors").write_bytes((tmp_path / "bank.safetensors").read_bytes()[:90])
    before = sorted(tmp_path.iterdir())
    found, _, err = negface(*[str(item).format(tmp_path) for item in arguments])
    assert found == code
    assert len(err.strip().splitlines()) == 1
    assert re.search(message, err)
    assert sorted(tmp_path.iterdir()) == before
