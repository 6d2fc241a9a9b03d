"""``generate --reuse``: the rule stands in plan and manifest, and costs what it says."""

import json

from negface.sampling import guidance


def test_reuse_stands_in_the_manifest_and_saves_predictions(negface, model, bank, tmp_path):
    bank(6).save(tmp_path / "bank.safetensors")
    options = ["generate", "--model", model, "--contexts", tmp_path / "bank.safetensors", "--images", 1, "--size", 16,
               "--batch", 6, "--steps", 4, "--reuse", 2, "--interval", 0, 1000]
    code, _, err = negface(*options, "--out", tmp_path / "out")
    assert code == 0, err
    row = json.loads((tmp_path / "out" / "manifest.jsonl").read_text().splitlines()[0])
    assert guidance.from_dict(row["guidance"]) == guidance.constant(0.5).on(0, 1000).reusing(2)
    code, out, _ = negface(*options, "--out", tmp_path / "none", "--dry-run", "--json", "-")
    assert code == 0
    assert json.loads(out)["predictions"] == 6 * (4 + 2)


def test_impossible_reuse_is_refused(negface, model, bank, tmp_path):
    bank(6).save(tmp_path / "bank.safetensors")
    code, _, err = negface("generate", "--model", model, "--contexts", tmp_path / "bank.safetensors", "--reuse", 0,
                           "--out", tmp_path / "out")
    assert (code, "whole number" in err) == (2, True)
