"""The loop: order, learning rate, log, checkpoints, refusals and the guard, on a line fitted to points."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny_training import TRAIN, accelerator, log_rows
from torch import nn

from negface.foundation.errors import FormatError, MismatchError, TrainingError
from negface.training.loop import KeyedOrder, learning_rate, run
from negface.training.recipe import Optimisation

RECIPE = Optimisation(**{**TRAIN, "steps": 8, "checkpoint_every": 3})


class Line:
    """A real task: fit a line by AdamW."""

    name = "line"

    def __init__(self, stop_at=None, n_items=10):
        torch.manual_seed(0)
        self.model, self.n_items, self.stop_at, self.seen = nn.Linear(1, 1), n_items, stop_at, []
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.x = torch.linspace(-1, 1, n_items)[:, None]

    def modules(self):
        return {"weights": self.model}

    def optimizers(self):
        return {"weights": self.optimizer}

    def step(self, step, rows, rate):
        if step == self.stop_at:
            raise KeyboardInterrupt
        self.seen.append(rows)
        self.optimizer.param_groups[0]["lr"] = rate * 100
        loss = (self.model(self.x[rows]) - 3 * self.x[rows] + 1).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": float(loss.detach())}

    def sample_sheet(self, path, step):
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(step))

    def save(self, folder):
        folder.mkdir(exist_ok=True)
        torch.save(self.model.state_dict(), folder / "line.pt")


def fit(out, task=None, recipe=RECIPE, **identity):
    said = []
    task = task or Line()
    result = run(task, recipe, out, accelerator(), identity={"data": 1, **identity}, say=said.append)
    return result, task, said


def interrupted(out, stop_at=5):
    with pytest.raises(KeyboardInterrupt):
        fit(out, Line(stop_at))


def test_learning_rate_warms_up_and_ends_at_its_final_share():
    recipe = Optimisation(steps=100, warmup=10, learning_rate=2.0, final_share=0.1)
    rates = [learning_rate(recipe, step) for step in range(101)]
    assert rates[:10] == pytest.approx([2 * (step + 1) / 10 for step in range(10)])
    assert rates[55] == pytest.approx(2 * (0.1 + 0.9 * 0.5))
    assert rates[100] == pytest.approx(0.2)
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize("warmup", [0, 4, 9])
def test_learning_rate_is_never_zero_nor_above_its_peak(warmup):
    recipe = Optimisation(steps=4, warmup=warmup, learning_rate=0.5)
    assert all(0 < learning_rate(recipe, step) <= 0.5 for step in range(4))


@pytest.mark.parametrize(("n_items", "batch"), [(10, 4), (7, 7), (3, 8), (12, 5)])
def test_every_epoch_visits_each_item_once(n_items, batch):
    order = KeyedOrder(n_items, batch, seed=3)
    seen = np.concatenate([order.rows(step) for step in range(4 * n_items)])
    epochs = seen.reshape(-1, n_items)
    assert all(sorted(epoch) == list(range(n_items)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) > 1


def test_order_does_not_depend_on_where_it_was_entered():
    order, other = KeyedOrder(10, 4, 0), KeyedOrder(10, 4, 0)
    forward = [order.rows(step) for step in range(8)]
    assert all(np.array_equal(other.rows(step), forward[step]) for step in reversed(range(8)))
    assert not np.array_equal(KeyedOrder(10, 4, 1).rows(0), forward[0])


def test_processes_share_each_batch_without_loss_or_repetition():
    class Share:
        num_processes, process_index, is_main_process = 3, 0, False

        def wait_for_everyone(self):
            pass

        def reduce(self, tensor, how):
            return tensor

    seen = {}
    for Share.process_index in range(3):
        Share.device = torch.device("cpu")
        task = Line()
        run(task, RECIPE.model_copy(update={"batch": 6}), "unused", Share(), identity={}, say=print)
        seen[Share.process_index] = task.seen
    whole = KeyedOrder(10, 6, RECIPE.seed)
    for step in range(RECIPE.steps):
        assert sorted(np.concatenate([seen[rank][step] for rank in range(3)])) == sorted(whole.rows(step))


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_log_has_a_row_per_interval_and_the_last_step(tmp_path):
    fit(tmp_path / "a", recipe=RECIPE.model_copy(update={"log_every": 3}))
    assert [row["step"] for row in log_rows(tmp_path / "a")] == ["3", "6", "8"]


def test_resumed_run_repeats_the_uninterrupted_one_bit_for_bit(tmp_path):
    fit(tmp_path / "whole")
    interrupted(tmp_path / "cut")
    assert [row["step"] for row in log_rows(tmp_path / "cut")] == ["1", "2", "3", "4", "5"]
    result, _, said = fit(tmp_path / "cut")
    assert result["resumed_at"] == 3
    assert "resuming at step 3 of 8" in said[0]
    assert log_rows(tmp_path / "cut") == log_rows(tmp_path / "whole")
    for name in ("weights.safetensors", "weights.optimizer.safetensors"):
        assert (tmp_path / "cut/checkpoint" / name).read_bytes() == (tmp_path / "whole/checkpoint" / name).read_bytes()


def test_time_goes_on_where_it_stopped(tmp_path):
    interrupted(tmp_path / "cut")
    fit(tmp_path / "cut")
    seconds = [float(row["seconds"]) for row in log_rows(tmp_path / "cut", timed=True)]
    assert seconds == sorted(seconds)


def test_finished_training_is_not_done_again(tmp_path):
    fit(tmp_path / "a")
    before = log_rows(tmp_path / "a", timed=True)
    result, task, _ = fit(tmp_path / "a")
    assert (result["resumed_at"], task.seen) == (8, [])
    assert log_rows(tmp_path / "a", timed=True) == before
    assert result["loss"] == pytest.approx(float(before[-1]["loss"]), rel=1e-5)


def test_checkpoint_of_other_data_is_refused_and_left_alone(tmp_path):
    interrupted(tmp_path / "a")
    before = log_rows(tmp_path / "a", timed=True)
    with pytest.raises(MismatchError, match="another recipe or other data"):
        fit(tmp_path / "a", data=2)
    assert log_rows(tmp_path / "a", timed=True) == before


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["truncated", "gone"])
def test_damaged_checkpoint_is_named(tmp_path, name, damage):
    interrupted(tmp_path / "a")
    path = tmp_path / "a/checkpoint" / name
    path.write_bytes(path.read_bytes()[:40]) if damage == "truncated" else path.unlink()
    with pytest.raises(FormatError, match="checkpoint"):
        fit(tmp_path / "a")


@pytest.mark.parametrize("change", [{"step": None}, {"step": float("inf")}, {"seconds": "x"}, None])
def test_checkpoint_whose_state_is_no_state_is_named(tmp_path, change):
    interrupted(tmp_path / "a")
    path = tmp_path / "a/checkpoint/state.json"
    path.write_text(json.dumps(change and {**json.loads(path.read_text()), **change}))
    with pytest.raises(FormatError, match="checkpoint"):
        fit(tmp_path / "a")


def test_checkpoint_of_another_network_is_named(tmp_path):
    interrupted(tmp_path / "a")
    task = Line()
    task.model = nn.Linear(2, 1)
    with pytest.raises(FormatError, match="checkpoint cannot be read"):
        fit(tmp_path / "a", task)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_guard_stops_with_the_batch_saved_and_the_last_good_checkpoint_kept(tmp_path, value):
    task = Line()
    task.x[2] = value
    order = KeyedOrder(10, RECIPE.batch, RECIPE.seed)
    first = next(step for step in range(8) if 2 in order.rows(step))
    with pytest.raises(TrainingError, match=rf"loss is not finite at step {first + 1}"):
        fit(tmp_path / "a", task)
    with np.load(tmp_path / "a/bad-batch.npz") as saved:
        assert np.array_equal(saved["rows"], order.rows(first))
        assert saved["step"] == first
    assert not (tmp_path / "a/model").exists()


def test_sheets_and_checkpoints_come_at_their_intervals(tmp_path):
    _, _, said = fit(tmp_path / "a", recipe=RECIPE.model_copy(update={"sample_every": 4}))
    sheets = sorted(path.name for path in (tmp_path / "a/samples").iterdir())
    assert sheets == ["0000004.png", "0000008.png", "final.png"]
    assert [line.split(",")[0] for line in said] == ["line: step 3/8", "line: step 6/8"]
    assert "left" in said[0]


def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    fit(tmp_path / "a")
    shutil.copytree(tmp_path / "a/checkpoint", tmp_path / "a/.tmp-0123-checkpoint")
    fit(tmp_path / "a")
    assert not list((tmp_path / "a").glob(".tmp-*"))


def test_checkpoint_that_was_just_being_replaced_is_found_again(tmp_path):
    interrupted(tmp_path / "a")
    (tmp_path / "a/checkpoint").rename(tmp_path / "a/.tmp-0123-old-checkpoint")
    assert fit(tmp_path / "a")[0]["resumed_at"] == 3
