"""``generate --compat``: the released behaviour, on request, and what was done stands in the manifest."""

import json

from negface.sampling import schedulers


def generate(negface, model, bank, out, *arguments):
    bank(6).save(out.parent / "bank.safetensors")
    return negface("generate", "--model", model, "--contexts", out.parent / "bank.safetensors", "--images", 1,
                   "--size", 16, "--batch", 4, "--out", out, *arguments)


def first_row(out):
    return json.loads((out / "manifest.jsonl").read_text().splitlines()[0])


def test_reference_draws_with_the_released_scheduler_and_negatives(negface, model, bank, tmp_path):
    code, _, err = generate(negface, model, bank, tmp_path / "out", "--compat", "reference", "--scheduler", "ddim",
                            "--steps", 3, "--negatives", "mid")
    assert code == 0, err
    row = first_row(tmp_path / "out")
    assert schedulers.from_dict(row["scheduler"]) == schedulers.released("ddim")
    assert row["negative"]["strategy"] == "mid-with-self"


def test_one_quirk_is_one_quirk(negface, model, bank, tmp_path):
    code, _, err = generate(negface, model, bank, tmp_path / "out", "--compat", "random-is-previous", "--steps", 2,
                            "--negatives", "random")
    assert code == 0, err
    row = first_row(tmp_path / "out")
    assert row["negative"]["strategy"] == "previous"
    assert row["scheduler"]["name"] == "unipc"


def test_unknown_quirk_and_foreign_scheduler_are_refused_before_anything_is_made(negface, model, bank, tmp_path):
    for arguments, word in ((("--compat", "refrence"), "did you mean 'reference'"),
                            (("--compat", "reference"), "--scheduler ddim")):
        code, _, err = generate(negface, model, bank, tmp_path / "out", *arguments)
        assert (code, word in err) == (2, True), err
        assert not (tmp_path / "out").exists()
