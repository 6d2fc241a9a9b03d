"""Recognition training: what it learns, resumes, validates, passes over and refuses."""

import json
import sys
import threading
import types

import numpy as np
import pytest
import torch
from tiny_recognition import encoded, fit, pairs_bin, recipe
from tiny_training import log_rows

from negface import datasets
from negface.datasets import convert_dataset, open_pairs
from negface.evaluation.verification import verify
from negface.foundation.errors import InputError, MismatchError, TrainingError
from negface.perception import load_recognizer
from negface.training.loop import KeyedOrder
from negface.training.recipe import RecognitionData
from negface.training.recognition import RecognitionTask
from negface.training.recognition_course import RecognitionCourse, Standing, resolved
from negface.training.recognition_data import IdentityOrder, Pictures
from negface.training.trainers import make_accelerator


@pytest.fixture
def faces(face_folder):
    return face_folder(6, 4)


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix == ".safetensors"}


def test_a_trained_recogniser_verifies_people_it_never_saw_and_shuffled_labels_teach_nothing(face_folder, tmp_path):
    train = {"steps": 40, "batch": 24, "learning_rate": 0.1, "warmup": 5, "checkpoint_every": 1000}
    made = fit(face_folder(24, 8), tmp_path / "out", train=train, head={"options": {"scale": 16.0, "margin": 0.1}})
    recognizer = load_recognizer(tmp_path / "out/model/recognizer.safetensors")
    assert (made["n_images"], made["n_identities"], made["validation"]) == (192, 24, None)
    assert recognizer.declaration.trained_on.startswith("24 identities [0000..0023], sha256 ")
    right = verify(recognizer, open_pairs(pairs_bin(tmp_path / "new.bin", range(100, 130))))
    floor = verify(recognizer, open_pairs(pairs_bin(tmp_path / "floor.bin", range(100, 130), shuffled=True)))
    assert right.accuracy > 0.85
    assert 0.3 < floor.accuracy < 0.7


def test_resumed_training_repeats_the_uninterrupted_one_bit_for_bit(faces, tmp_path, monkeypatch):
    options = {"head": {"name": "elastic-arc"}, "augmentation": {"policy": "randaugment"}, "train": {"ema": {}}}
    fit(faces, tmp_path / "whole", **options)
    real = Pictures.batch

    def cut(self, places):
        calls.append(1)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return real(self, places)

    calls = []
    monkeypatch.setattr(Pictures, "batch", cut)
    with pytest.raises(KeyboardInterrupt):
        fit(faces, tmp_path / "cut", **options)
    monkeypatch.undo()
    assert fit(faces, tmp_path / "cut", **options)["resumed_at"] == 3
    assert log_rows(tmp_path / "cut") == log_rows(tmp_path / "whole")
    assert files(tmp_path / "cut/checkpoint") == files(tmp_path / "whole/checkpoint")
    assert files(tmp_path / "cut/model") == files(tmp_path / "whole/model")


def test_pictures_kept_or_decoded_anew_and_folders_or_records_train_the_same(faces, tmp_path):
    convert_dataset(faces, tmp_path / "records", "rec")
    fit(faces, tmp_path / "kept")
    fit(faces, tmp_path / "anew", data={"memory": 0.0, "threads": 1})
    fit(tmp_path / "records", tmp_path / "recorded")
    one, other, third = (files(tmp_path / name / "model") for name in ("kept", "anew", "recorded"))
    assert one == other == third


def test_each_picture_of_a_batch_is_decoded_once(faces, tmp_path, monkeypatch):
    """Steps ask for the same batches ahead again and again."""
    read, real = [], Pictures._read
    monkeypatch.setattr(Pictures, "_read", lambda self, place: read.append(place) or real(self, place))
    monkeypatch.setattr(RecognitionTask, "sample_sheet", lambda self, path, step: None)
    fit(faces, tmp_path / "out", data={"memory": 0.0})
    order = KeyedOrder(24, 8, 0)
    assert sorted(read) == sorted(np.concatenate([order.rows(step) for step in range(6)]).tolist())


def test_the_threads_share_one_batch(faces, monkeypatch):
    """Each waits for the other three to come to a picture of the only batch there is."""
    together, real = threading.Barrier(4), Pictures._read
    monkeypatch.setattr(Pictures, "_read", lambda self, place: together.wait(20) >= 0 and real(self, place))
    pictures = Pictures(datasets.open(faces), np.arange(24), 32, RecognitionData(threads=4))
    images, labels = pictures.batch(np.array([20, 3, 11, 7]))
    assert labels.tolist() == [5, 0, 2, 1]
    for image, row in zip(images, (20, 3, 11, 7), strict=True):
        assert np.array_equal(image, datasets.open(faces)[row][0])
    pictures.close()


def test_a_batch_is_the_same_for_one_thread_and_for_eight(faces):
    (faces / "0002/01.png").write_bytes(b"no picture")
    places, found = np.array([9, 23, 9, 0, 4, 17, 10, 9, 2, 8, 8]), []
    for threads in (1, 8):
        pictures = Pictures(datasets.open(faces), np.arange(24), 32, RecognitionData(threads=threads, broken_share=0.1))
        pictures.ahead(places)
        pictures.ahead(places[:3])
        found.append([*pictures.batch(places), *pictures.batch(places[:3]), *pictures.batch(places[5:])])
        assert list(pictures.broken) == [9]
        pictures.close()
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)
    assert found[0][1].tolist() == [2, 5, 2, 0, 1, 4, 2, 2, 0, 2, 2]


def test_best_weights_of_validation_are_kept_and_a_standstill_stops(faces, tmp_path):
    pairs, said = pairs_bin(tmp_path / "dev.bin"), []
    still = {"train": {"epochs": 40, "schedule": "plateau", "patience": 0, "learning_rate": 1e-9},
             "validation": {"stop_after": 2}, "options": {"development": [pairs]}}
    made = fit(faces, tmp_path / "out", **still, say=said.append)
    assert made["steps"] < 40 * 3
    assert any(line.endswith("stop") for line in said)
    found = [float(line.split("accuracy ")[1].split(",")[0]) for line in said if "accuracy" in line]
    assert made["validation"] == pytest.approx(max(found), abs=1e-4)
    recognizer = load_recognizer(tmp_path / "out/model/recognizer.safetensors")
    assert verify(recognizer, open_pairs(pairs)).accuracy == pytest.approx(made["validation"], abs=1e-6)
    again = fit(faces, tmp_path / "out", **still)
    assert (again["steps"], again["resumed_at"]) == (made["steps"], made["steps"])


class Scalars:
    """What TensorBoard's writer would be told."""

    told, folders = [], []

    def __init__(self, folder):
        self.folders.append(folder)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def add_scalar(self, key, value, step):
        self.told.append((key, step, value))


def tracked(faces, out):
    """Six steps, an epoch of three steps: validation after the third and the sixth."""
    said = []
    fit(faces, out, say=said.append,
        options={"track": True, "development": [pairs_bin(out.parent / "dev.bin")]})
    expected = {(key, int(row["step"])): float(row[key])
                for row in log_rows(out) for key in ("loss", "right", "gradient_norm", "learning_rate")}
    accuracies = [float(line.split("accuracy ")[1].split(",")[0]) for line in said if "accuracy" in line]
    return expected | {("validation", step): value for step, value in zip((3, 6), accuracies, strict=True)}


def test_events_tell_every_logged_step_and_every_validation(faces, tmp_path, monkeypatch):
    events = types.ModuleType("torch.utils.tensorboard")
    events.SummaryWriter = Scalars
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", events)
    monkeypatch.setattr(Scalars, "told", [])
    monkeypatch.setattr(Scalars, "folders", [])
    expected = tracked(faces, tmp_path / "out")
    assert Scalars.folders == [str(tmp_path / "out/events")]
    found = {(key, step): value for key, step, value in Scalars.told}
    assert len(found) == len(Scalars.told) == 6 * 4 + 2
    assert found == pytest.approx(expected, rel=1e-4)


def test_tensorboard_reads_the_events(faces, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    expected = tracked(faces, tmp_path / "out")
    events = accumulator.EventAccumulator(str(tmp_path / "out/events"))
    events.Reload()
    found = {(key, event.step): event.value for key in events.Tags()["scalars"] for event in events.Scalars(key)}
    assert found == pytest.approx(expected, rel=1e-4)


def test_events_without_tensorboard_are_refused_before_the_first_step(faces, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="TensorBoard is not installed"):
        fit(faces, tmp_path / "out", options={"track": True})
    assert not (tmp_path / "out/log.csv").exists()


def course(schedule, n_items=80, **train):
    value = recipe(train={"epochs": 10, "batch": 8, "schedule": schedule, **train})
    accelerator = make_accelerator(value.train)
    return RecognitionCourse(value, resolved(value, n_items), n_items, Standing(), accelerator, say=lambda line: None)


def test_learning_rate_grows_with_the_batch_and_drops_at_its_epochs():
    found = course("drops", drops=[2, 5], learning_rate=0.1, reference_batch=32, warmup=4)
    assert found.train.steps == 100
    assert [round(found.rate(step), 6) for step in (0, 3, 4, 19, 20, 49, 50, 99)] == [
        0.00625, 0.025, 0.025, 0.025, 0.0025, 0.0025, 0.00025, 0.00025]


def test_drops_in_steps_fall_where_they_say_whatever_the_size_of_the_set():
    small, large = (course("drops", n_items, drop_steps=[20, 50], learning_rate=0.1) for n_items in (80, 4000))
    for found in (small, large):
        assert [round(found.rate(step), 6) for step in (0, 19, 20, 49, 50)] == [0.1, 0.1, 0.01, 0.01, 0.001]
    in_epochs = course("drops", drops=[2, 5], learning_rate=0.1)
    assert [small.rate(step) for step in range(100)] == [in_epochs.rate(step) for step in range(100)]


def test_a_recipe_that_has_no_drop_steps_is_the_recipe_it_was():
    """Checkpoints and cells are named by the hash of the recipe."""
    assert "drop_steps" not in recipe().model_dump(mode="json")["train"]
    stepped = recipe(train={"schedule": "drops", "drop_steps": [2, 4]}).model_dump(mode="json")["train"]
    assert stepped["drop_steps"] == [2, 4]


def test_plateau_drops_after_its_patience_as_torchs_does():
    found = course("plateau", learning_rate=0.1, patience=2)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", 0.1, patience=2, threshold=0)
    for epoch, score in enumerate([0.5, 0.6, 0.6, 0.55, 0.6, 0.58, 0.7, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6], 1):
        found.validate = lambda score=score: score
        found.after(10 * epoch, {})
        oracle.step(score)
        assert found.rate(10 * epoch) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_identity_order_gives_each_person_the_same_number_of_pictures():
    labels = np.repeat(np.arange(7), [2, 5, 3, 9, 4, 1, 6])
    order = IdentityOrder(labels, 12, 4, seed=1)
    seen = np.concatenate([order.rows(step) for step in range(7)])
    for step in range(7):
        people = labels[order.rows(step)].reshape(3, 4)
        assert (people == people[:, :1]).all()
    assert (np.bincount(labels[seen]) == 12).all()
    assert set(seen) == set(range(30))
    assert np.array_equal(order.rows(2), IdentityOrder(labels, 12, 4, seed=1).rows(2))


@pytest.mark.parametrize("sections", [
    {"head": {"name": "triplet"}, "data": {"per_identity": 2}},
    {"head": {"name": "cosface", "sample_rate": 0.5}},
    {"head": {"name": "adaface"}, "augmentation": {"policy": "adaface"}},
    {"head": {"name": "softmax"}, "optimizer": "adamw", "train": {"precision": "bf16"}},
], ids=["triplet", "sampled", "adaface", "softmax"])
def test_every_kind_of_head_trains_to_a_model_that_opens(sections, faces, tmp_path):
    made = fit(faces, tmp_path / "out", **sections)
    assert np.isfinite(made["loss"])
    picture = datasets.open(faces)[0][0][None]
    assert load_recognizer(tmp_path / "out/model/recognizer.safetensors").embed(picture).shape == (1, 16)


def test_sampled_classifier_of_rate_one_hundred_percent_is_the_whole_one(faces, tmp_path, monkeypatch):
    """The same losses as the classifier inside torch's optimiser, step for step."""
    fit(faces, tmp_path / "whole", train={"weight_decay": 5e-4, "clip": 1e9})
    monkeypatch.setattr("negface.training.sampled.sample_classes", lambda labels, n, rate, generator: np.arange(n))
    fit(faces, tmp_path / "sampled", head={"sample_rate": 0.5}, train={"weight_decay": 5e-4, "clip": 1e9})
    whole, sampled = ([float(row["loss"]) for row in log_rows(tmp_path / name)] for name in ("whole", "sampled"))
    np.testing.assert_allclose(sampled, whole, rtol=1e-4)


def test_a_few_unreadable_pictures_are_counted_and_passed_over_and_more_are_refused(face_folder, tmp_path):
    faces = face_folder(5, 8)
    for name in ("0001/00.png", "0003/05.png"):
        (faces / name).write_bytes(b"no picture")
    made = fit(faces, tmp_path / "out", data={"broken_share": 0.05})
    assert made["n_broken"] == 2
    told = json.loads((tmp_path / "out/training.json").read_text())["broken"]
    assert any("0003/05.png" in line for line in told)
    with pytest.raises(InputError, match=r"1 of 40 pictures cannot be read, more than data.broken_share 0.01"):
        fit(faces, tmp_path / "strict")


def test_an_unreadable_picture_is_replaced_by_the_next_readable_one_with_its_label(face_folder):
    faces = face_folder(3, 2)
    (faces / "0000/01.png").write_bytes(b"")
    pictures = Pictures(datasets.open(faces), np.arange(6), 32, RecognitionData(broken_share=0.5))
    images, labels = pictures.batch(np.array([1, 1, 0]))
    assert labels.tolist() == [1, 1, 0]
    assert np.array_equal(images[0], datasets.open(faces)[2][0])
    pictures.close()


def test_labels_with_gaps_and_chosen_people_are_numbered_anew(faces, tmp_path):
    made = fit(faces, tmp_path / "out", options={"identities": ["0001", "0003", "0005"]})
    assert (made["n_images"], made["n_identities"]) == (12, 3)
    assert json.loads((tmp_path / "out/training.json").read_text())["identities"] == ["0001", "0003", "0005"]


def test_one_identity_or_one_picture_of_each_is_refused(face_folder, tmp_path):
    with pytest.raises(InputError, match="one identity only"):
        fit(face_folder(1, 4, name="one"), tmp_path / "out")
    with pytest.raises(InputError, match="one picture of each of 5 identities"):
        fit(face_folder(5, 1, name="single"), tmp_path / "out")


def test_people_of_the_tests_are_refused_by_name(faces, tmp_path):
    with pytest.raises(MismatchError, match="2 of the 3 people of those held out"):
        fit(faces, tmp_path / "out", options={"held_out": ["0002", "0004", "0099"]})


def test_plateau_and_early_stop_need_pairs(faces, tmp_path):
    with pytest.raises(InputError, match=r"train\.schedule follows validation"):
        fit(faces, tmp_path / "out", train={"schedule": "plateau"})
    with pytest.raises(InputError, match=r"validation\.stop_after follows validation"):
        fit(faces, tmp_path / "out", validation={"stop_after": 2})


def test_a_loss_that_is_not_finite_stops_the_training_and_saves_the_batch(faces, tmp_path, monkeypatch):
    monkeypatch.setattr("negface.training.recognition.F.cross_entropy", lambda logits, labels: logits.sum() * np.nan)
    with pytest.raises(TrainingError, match="loss, gradient_norm is not finite at step 1"):
        fit(faces, tmp_path / "out")
    with np.load(tmp_path / "out/bad-batch.npz") as saved:
        assert np.array_equal(saved["rows"], KeyedOrder(24, 8, 0).rows(0))


@pytest.mark.parametrize(("sections", "message"), [
    ({"head": {"name": "triplet"}}, "triplets need data.per_identity"),
    ({"data": {"per_identity": 3}}, "3 does not divide train.batch 8"),
    ({"head": {"sample_rate": 0.5}, "optimizer": "adamw"}, "moved by SGD"),
    ({"train": {"drops": [3]}}, "drops belong to schedule"),
    ({"train": {"schedule": "drops", "drops": [3], "drop_steps": [3]}}, "either drops"),
    ({"train": {"schedule": "drops", "drop_steps": [2, 4]}}, "drop_steps 4 is not before the end"),
    ({"train": {"steps": 4, "epochs": 4}}, "give either steps or epochs"),
])
def test_recipes_that_contradict_themselves_are_refused(sections, message):
    from negface.training.recipe import RecognitionRecipe, parse_recipe

    train = {"steps": 4, "batch": 8, **sections.pop("train", {})}
    with pytest.raises(InputError, match=message):
        parse_recipe(RecognitionRecipe, {"train": train, **sections}, "recipe")


def test_pictures_of_drawn_people_are_encoded_as_drawn(face):
    from negface.datasets import load_rgb

    assert np.array_equal(load_rgb(encoded(3, 1)), face(3, 1))
