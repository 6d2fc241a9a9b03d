"""The page of a dataset: its people, what its filters rejected, its measures, the nearest training people."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from negface import datasets
from negface.datasets import write_rows
from negface.experiments.dataset_page import dataset_page
from negface.experiments.nearest import NamedPictures, nearest_pairs
from negface.foundation.errors import FormatError, MismatchError
from negface.sampling import guidance

PLAN = {"contexts": {"source": "uniform", "hash": "b" * 64, "describes_real_people": True}, "seed": 7,
        "identities": ["secret-list"], "versions": {"torch": "2.13.0"}}
GENERATED = {"plan": "f" * 64, "filters": [{"name": "face", "parameters": {"least": 0.6}, "files": {
    "detector": {"name": "yunet.onnx", "sha256": "a" * 64}}}], "counts": [
        {"step": "align", "seen": 14, "rejected": 1}, {"step": "face", "seen": 13, "rejected": 4}]}
CURATED = {"step": "curate", "filters": [{"name": "leakage", "parameters": {"most": 0.5}, "files": {}}],
           "counts": [{"step": "leakage", "seen": 12, "rejected": 3}, {"step": "too few left", "seen": 9,
                                                                       "rejected": 0}]}


def write_faces(root, face, people, rows=None):
    """Three people with three pictures each, and a manifest that says how they were made."""
    found = []
    for label, person in enumerate(people):
        for image in range(3):
            name = f"{label:06d}/{image:05d}.png"
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(face(person, image)).save(root / name)
            found.append({"label": label, "identity": str(person), "file": name, **(rows or {})})
    write_rows(root / "manifest.jsonl", found)
    return root


@pytest.fixture
def faces(tmp_path, face):
    rule = guidance.constant(0.5)
    root = write_faces(tmp_path / "faces", face, (1, 2, 3), {
        "guidance": rule.to_dict(), "mean_weight": 0.5, "negative": {"strategy": "far"}, "seed": 7,
        "variation": {"name": "angular", "lower": 0.6, "safe": False, "seed": 7}})
    (root / "plan.json").write_text(json.dumps(PLAN))
    (root / "curation.json").write_text(json.dumps(GENERATED))
    return root


@pytest.fixture
def measures(tmp_path):
    """As `negface evaluate separability --json` writes them."""
    value = {"n_images": 9, "fdr": 1.25, "fdr_low": 1.0, "fdr_high": 1.5, "diversity": 0.1, "adherence": None,
             "leakage_rate": 0.25, "leakage_rate_low": 0.1, "leakage_rate_high": 0.4, "leakage_chance_rate": 0.125,
             "judge_is_conditioner": True,
             "closest_pairs": [{"a_name": "000000/00000.png", "b_name": "000001/00001.png", "cosine": 0.61,
                                "a_identity": "1", "b_identity": "2"}],
             "leakage_closest": [{"image_name": "000002/00002.png", "training_image_name": "000000/00001.png",
                                  "cosine": 0.77, "identity": "3", "training_identity": "99"}]}
    path = tmp_path / "measures.json"
    path.write_text(json.dumps(value))
    return path


def text_of(page):
    import html
    import re

    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.read_text().split("</style>")[1])).split())


def test_the_page_counts_what_each_filter_rejected_and_that_it_was_replaced(faces, tmp_path):
    summary = dataset_page(faces, tmp_path / "page.html")
    said = text_of(tmp_path / "page.html")
    assert summary["verdict"].startswith("9 pictures of 3 people; 5 of 14 were rejected and replaced (35.7%).")
    for part in ("14 1 7.1 % five points of a face are found", "13 4 30.8 % a face is found with a score of at least "
                 "0.6 (yunet.onnx)", "5 of 14 pictures were rejected and replaced by others of the same people",
                 "Separability was not measured", "far + angular-0.6, w = 0.5", "describes", "2.13.0"):
        assert part in said, part
    assert summary["n_pictures"] == 9
    assert "secret-list" not in said


def test_a_curated_dataset_says_that_pictures_were_left_out(faces, tmp_path):
    (faces / "plan.json").unlink()
    (faces / "curation.json").write_text(json.dumps(CURATED))
    dataset_page(faces, tmp_path / "page.html")
    said = text_of(tmp_path / "page.html")
    assert "3 of 12 were rejected and left out (25.0%)" in said
    assert "its cosine to every training picture is at most 0.5" in said
    assert "replaced" not in said.partition("Words")[0].partition("Filters")[2]


def test_measures_and_nearest_training_people_stand_side_by_side(faces, measures, face, tmp_path):
    training = write_faces(tmp_path / "training", face, (99,))
    summary = dataset_page(faces, tmp_path / "page.html", measures=[measures], training=training)
    page, said = (tmp_path / "page.html").read_text(), text_of(tmp_path / "page.html")
    assert summary["n_pictures"] == 9 + 2 + 2
    part = page[page.index("Nearest training people"):]
    assert part.index('alt="generated, person 3"') < part.index('alt="training picture of 99"')
    assert "0.770 3 · 99" in said
    assert "25.0 % of its pictures match a training person; 12.5 % of training pictures match another one" in said
    assert "the judge is the conditioner" in said
    assert "reaches FDR 1.25 [1.00, 1.50]" in said
    assert str(tmp_path) not in page


def test_a_plain_folder_has_a_page_that_says_no_filter_was_applied(face, tmp_path):
    write_faces(tmp_path / "faces", face, (1, 2))
    summary = dataset_page(tmp_path / "faces", tmp_path / "page.html")
    assert "6 pictures of 2 people; no filter was applied." in summary["verdict"]
    assert "Filters" not in text_of(tmp_path / "page.html").partition("Words")[0]


def test_what_does_not_belong_to_the_dataset_is_refused_and_nothing_is_written(faces, measures, face, tmp_path):
    page = tmp_path / "page.html"
    write_faces(tmp_path / "other", face, (5,))
    write_rows(tmp_path / "other" / "manifest.jsonl", [{"label": 0, "identity": "5", "file": "000000/00000.png"}])
    with pytest.raises(MismatchError, match="has no picture '000000/00001.png'"):
        dataset_page(faces, page, measures=[measures], training=tmp_path / "other")
    measures.write_text(json.dumps({"n_images": 8}))
    with pytest.raises(MismatchError, match="measures 8 pictures, the dataset has 9"):
        dataset_page(faces, page, measures=[measures])
    (faces / "curation.json").write_text(json.dumps({"filters": [{}]}))
    with pytest.raises(FormatError, match="is no record of filters"):
        dataset_page(faces, page)
    assert not page.exists()


def test_pictures_in_shards_are_shown_too(face, tmp_path):
    from negface.datasets import sample_members, write_shard

    root = tmp_path / "shards"
    root.mkdir()
    source = datasets.open(write_faces(tmp_path / "faces", face, (1, 2)))
    write_shard(root / "000000.tar", (member for row in range(len(source)) for member in sample_members(
        int(source.labels[row]), f"{source.labels[row]:06d}/{row:05d}", ".png", source.read(row))))
    assert dataset_page(root, tmp_path / "page.html")["n_pictures"] == 6


def test_training_pictures_are_copied_once_and_a_set_without_them_has_no_pairs(faces, measures, face, tmp_path):
    training = NamedPictures(write_faces(tmp_path / "training", face, (99,)))
    closest = json.loads(measures.read_text())["leakage_closest"]
    for _ in range(2):
        (pair,) = nearest_pairs(tmp_path, "cells/far", "cells/far/dataset", closest, training)
    assert pair["a"] == "cells/far/dataset/000002/00002.png"
    (copy,) = (tmp_path / "cells" / "far" / "nearest").iterdir()
    assert pair["b"] == f"cells/far/nearest/{copy.name}"
    np.testing.assert_array_equal(np.asarray(Image.open(copy)), face(99, 1))
    assert nearest_pairs(tmp_path, "c", "c", closest, None) == []
    assert nearest_pairs(tmp_path, "c", "c", closest, NamedPictures(tmp_path / "moved away")) == []
    assert nearest_pairs(tmp_path, "c", "c", [{"image": 3, "cosine": 0.5}], training) == []


def test_the_page_of_a_run_shows_the_nearest_training_people(finished):
    out, _ = finished
    cells = json.loads((out / "results.json").read_text())["cells"]
    pairs = [pair for cell in cells for pair in cell["leakage_pairs"]]
    assert len(pairs) >= len(cells)
    assert all((out / pair[side]).is_file() for pair in pairs for side in ("a", "b"))
    assert all("/nearest/" in pair["b"] and pair["b"].startswith("cells/") for pair in pairs)
    assert "Nearest training people" in (out / "report.html").read_text()
