"""``negface evaluate separability``: files in, figures with their company out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from evaluation_twin import people

from negface.cli.main import main
from negface.contexts import ContextBank
from negface.evaluation import separability
from negface.perception import write_embeddings

JUDGE, CONDITIONER = {"name": "judge", "hash": "aa" * 32}, {"name": "conditioner", "hash": "bb" * 32}
KEYS = ("fdr", "eer", "fmr100", "fmr1000", "genuine_mean", "genuine_std", "impostor_mean", "impostor_std")


@pytest.fixture
def files(tmp_path):
    """A judged set with everything that can stand beside it."""
    images, labels = people(8, 4, 16, 0.1)
    contexts, _ = people(8, 1, 16, 0.0)
    names = tuple(f"p{index}" for index in range(8))
    pictures = [f"{names[label]}/{row}.jpg" for row, label in enumerate(labels)]
    shared = {"identities": names, "images": pictures}
    write_embeddings(tmp_path / "judge.npz", images, labels, provenance={"recognizer": JUDGE}, **shared)
    write_embeddings(tmp_path / "cond.safetensors", images, labels, provenance={"recognizer": CONDITIONER}, **shared)
    training, people_of = people(60, 4, 16, 0.1, seed=9)
    write_embeddings(tmp_path / "train.npz", training, people_of, provenance={"recognizer": JUDGE})
    reverse = tuple(reversed(names))
    ContextBank(contexts[::-1].copy(), reverse, {"conditioner": CONDITIONER}).save(tmp_path / "bank.safetensors")
    np.savez(tmp_path / "pose.npz", pose=np.random.default_rng(0).normal(0, 9, (32, 3)), pose_model="drawn")
    return tmp_path, images, labels


def run(folder, *arguments):
    return main(["evaluate", "separability", str(folder / "judge.npz"), "--bootstrap", "20", *map(str, arguments)])


def test_json_holds_measures_with_intervals_as_fractions(files):
    folder, images, labels = files
    assert run(folder, "--json", folder / "out.json") == 0
    found = json.loads((folder / "out.json").read_text())
    expected = separability(images, labels, bootstrap=20)
    for key in KEYS:
        assert found[key] == getattr(expected, key)
        assert (found[f"{key}_low"], found[f"{key}_high"]) == expected.intervals[key]
    assert (found["n_genuine"], found["n_impostor"]) == (48, 448)


def test_separability_is_never_printed_alone(files, capsys):
    assert run(files[0]) == 0
    text = capsys.readouterr().out
    assert "diversity: genuine std" in text
    for label in ("adherence", "diversity: pose", "diversity: features", "leakage"):
        assert next(line for line in text.splitlines() if label in line).endswith("not measured")


def test_all_company_is_measured_where_it_is_given(files, capsys):
    folder, _, _ = files
    assert run(folder, "--contexts", folder / "bank.safetensors", "--conditioner-embeddings", folder /
    "cond.safetensors",
               "--pose", folder / "pose.npz", "--features", folder / "cond.safetensors",
               "--train-embeddings", folder / "train.npz", "--json", folder / "out.json") == 0
    assert "not measured" not in capsys.readouterr().out
    found = json.loads((folder / "out.json").read_text())
    # The bank is in reverse order: identities are matched by name, not by row.
    assert found["adherence_rank1"] == 1
    assert found["judge_is_conditioner"] is False
    assert found["pose_model"] == "drawn"
    assert found["feature_network"] == "conditioner"
    assert found["leakage_rate_low"] <= found["leakage_rate"] <= found["leakage_rate_high"]
    assert found["closest_pairs"][0]["a_name"].startswith(found["closest_pairs"][0]["a_identity"] + "/")
    assert found["diversity"] == found["genuine_std"]


def test_judge_that_is_the_conditioner_is_refused_in_one_line(files, capsys):
    folder, _, _ = files
    assert run(folder, "--conditioner", "AA" * 32, "--json", folder / "out.json") == 2
    assert not (folder / "out.json").exists()
    assert capsys.readouterr().err.count("\n") == 1
    assert run(folder, "--conditioner", "AA" * 32, "--force") == 0
    assert "WARNING: the judge is the conditioner" in capsys.readouterr().out


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda path: path.write_bytes(path.read_bytes()[:200]), "not a complete .npz"),
    (lambda path: path.unlink(), "no such embeddings file"),
    (lambda path: np.savez(path, vectors=np.eye(3)), "has no embeddings, labels"),
    (lambda path: np.savez(path, embeddings=np.full((4, 3), np.nan), labels=np.array([0, 0, 1, 1])), "NaN"),
])
def test_bad_files_are_one_line_and_leave_nothing(files, capsys, spoil, message):
    folder, _, _ = files
    spoil(folder / "judge.npz")
    assert run(folder, "--json", folder / "out.json") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (folder / "out.json").exists()


def test_an_identity_that_is_not_in_the_bank_is_named(files, capsys):
    folder, _, _ = files
    contexts, _ = people(3, 1, 16, 0.0)
    ContextBank(contexts, ("p0", "p1", "q"), {"conditioner": CONDITIONER}).save(folder / "other.safetensors")
    assert run(folder, "--contexts", folder / "other.safetensors", "--conditioner-embeddings",
               folder / "cond.safetensors") == 2
    assert "identity 'p2' is not in the bank" in capsys.readouterr().err
