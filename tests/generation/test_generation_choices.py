"""What else a plan may choose: a variation of the context from picture to picture, and another decoder."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from negface.contexts.variation import safe_lower_bounds, variation_of
from negface.datasets import read_rows
from negface.foundation.errors import FormatError, InputError, MismatchError, UnknownNameError
from negface.generation import Tools, generate, make_inputs, remake, verify

VARIED = {"name": "angular", "lower": 0.6, "safe": False, "seed": 0}


@pytest.fixture
def varied(planned, bank):
    """``plan, inputs = varied(name, **options)``."""
    def make(name: str = "angular-0.6", seed: int = 0, **options):
        return planned(inputs=make_inputs(bank(4), "far", variation=variation_of(name, seed)), **options)

    return make


@pytest.fixture(scope="session")
def decoders(model, tmp_path_factory):
    """Folders of untrained fast decoders: ``own`` imitates the model's autoencoder, the others cannot."""
    import torch

    from negface.models import FastDecoder
    from negface.pipelines.fast_decoder import weights_hash

    root, teacher = tmp_path_factory.mktemp("decoders"), weights_hash(model / "vae")
    shapes = {"own": (2, (8,), (1,), 2, teacher), "stranger": (2, (8,), (1,), 2, "f" * 64),
              "channels": (4, (8,), (1,), 2, teacher), "side": (2, (8,), (1,), 4, teacher)}
    for number, (name, arguments) in enumerate(shapes.items()):
        torch.manual_seed(number)
        FastDecoder(*arguments).save_pretrained(root / name)
    return root


def test_a_variation_gives_every_picture_its_own_context_within_the_bound(varied, bank):
    _, inputs = varied()
    contexts = inputs.contexts([0, 0, 0, 1], [0, 1, 2, 0]).astype(np.float64)
    cosines = np.einsum("nd,nd->n", contexts, bank(4).contexts[[0, 0, 0, 1]].astype(np.float64))
    assert ((cosines > 0.6 - 1e-6) & (cosines < 1 - 1e-6)).all()
    assert len(np.unique(cosines.round(6))) == 4
    np.testing.assert_array_equal(inputs.contexts([0], [2])[0], inputs.contexts([0, 0, 0, 1], [0, 1, 2, 0])[2])


def test_the_safe_variation_leaves_nobody_nearer_to_another_identity(varied, bank):
    _, inputs = varied("angular-0-safe")
    labels, images = np.repeat(np.arange(4), 50), np.tile(np.arange(50), 4)
    cosines = inputs.contexts(labels, images).astype(np.float64) @ bank(4).contexts.T.astype(np.float64)
    assert (cosines.argmax(1) == labels).all()
    own = cosines[np.arange(len(labels)), labels].reshape(4, 50)
    assert (own >= safe_lower_bounds(bank(4), 0.0)[:, None] - 1e-6).all()
    _, free = varied("angular-0")
    assert ((free.contexts(labels, images) @ bank(4).contexts.T).argmax(1) != labels).any()


def test_varied_pictures_are_the_same_bytes_however_the_work_is_cut(varied, model, digests, tmp_path):
    plan, inputs = varied(unit_images=3)
    whole = generate(plan, inputs, tmp_path / "whole", Tools(model=str(model)))
    for part in (2, 1):
        generate(plan, inputs, tmp_path / "parts", Tools(model=str(model)), shard=(part, 2))
    assert whole["complete"]
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")
    row = next(iter(read_rows(tmp_path / "whole" / "manifest.jsonl")))
    assert row["variation"] == VARIED
    assert "IDperturb" in (tmp_path / "whole" / "README.md").read_text()
    assert verify(tmp_path / "whole")["sound"]
    assert remake(tmp_path / "whole", plan.identities[2], 1, inputs, Tools(model=str(model))).identical


def test_a_variation_changes_the_plan_and_the_pictures(varied, planned, model, tmp_path):
    plans = [planned(), varied(), varied("angular-0.7"), varied("angular-0.6-safe"), varied(seed=1)]
    assert len({plan.hash for plan, _ in plans}) == len(plans)
    rows = []
    for number, (plan, inputs) in enumerate(plans[:2]):
        generate(plan, inputs, tmp_path / str(number), Tools(model=str(model)))
        rows.append([row["sha256"] for row in read_rows(tmp_path / str(number) / "manifest.jsonl")])
    assert sum(plain != turned for plain, turned in zip(*rows, strict=True)) > 6  # tiny latents snap to few codes


def test_contexts_that_vary_otherwise_than_the_plan_says_are_refused(varied, planned, model, tmp_path):
    plan, inputs = varied()
    with pytest.raises(InputError, match="vary otherwise"):
        generate(plan, planned()[1], tmp_path / "set", Tools(model=str(model)))
    generate(plan, inputs, tmp_path / "set", Tools(model=str(model)))
    with pytest.raises(MismatchError, match="vary otherwise"):
        remake(tmp_path / "set", plan.identities[0], 0, planned()[1], Tools(model=str(model)))


def test_unknown_variations_are_refused_with_those_there_are():
    for name in ("angular", "angular-1.2", "angular--0.5", "angular-0.6-sure"):
        with pytest.raises(UnknownNameError, match=r"angular-0\.6-safe"):
            variation_of(name, 0)


def test_a_decoder_is_part_of_the_plan_and_draws_the_pictures(planned, model, decoders, tmp_path):
    plain, inputs = planned()
    plan, _ = planned(decoder=decoders / "own")
    assert (plan.decoder["name"], len(plan.decoder["hash"]), plain.decoder) == ("fast", 64, None)
    assert plan.hash != plain.hash
    assert "decoder" not in plain.to_dict()
    assert type(plan).from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    tools = Tools(model=str(model), decoder=str(decoders / "own"))
    generate(plan, inputs, tmp_path / "fast", tools)
    generate(plain, inputs, tmp_path / "full", Tools(model=str(model)))
    fast, full = (list(read_rows(tmp_path / name / "manifest.jsonl")) for name in ("fast", "full"))
    assert fast[0]["decoder"] == plan.decoder
    assert "decoder" not in full[0]
    assert not {row["sha256"] for row in fast} & {row["sha256"] for row in full}
    assert verify(tmp_path / "fast")["sound"]
    assert remake(tmp_path / "fast", plan.identities[1], 2, inputs, tools).identical


def test_the_full_decoder_undoes_the_models_own_fast_one(planned, model, decoders, tmp_path):
    from negface.generation import make_plan
    from negface.pipelines import NegFaceDiffPipeline

    both = tmp_path / "both"
    NegFaceDiffPipeline.from_pretrained(model, fast_decoder=decoders / "own").save_pretrained(both)
    plain, inputs = planned()
    assert planned(decoder="full")[0] == plain  # the model has no other
    options = {"images": 3, "steps": 2, "batch": 4, "scheduler": "ddim", "size": 16}
    hashes = {}
    for name, decoder, folder in (("full", "full", both), ("own", None, both), ("plain", None, model)):
        plan = make_plan(folder, inputs, decoder=decoder, **options)
        generate(plan, inputs, tmp_path / name, Tools(model=str(folder)))
        hashes[name] = [row["sha256"] for row in read_rows(tmp_path / name / "manifest.jsonl")]
    assert hashes["full"] == hashes["plain"] != hashes["own"]


@pytest.mark.parametrize(("name", "said"), [("stranger", "imitates another autoencoder"),
                                            ("channels", "4 channels"), ("side", "enlarges latents 4 times")])
def test_a_decoder_of_another_autoencoder_is_refused_by_plan_and_pipeline(planned, model, decoders, name, said):
    from negface.models import FastDecoder
    from negface.pipelines import NegFaceDiffPipeline

    with pytest.raises(MismatchError, match=said):
        planned(decoder=decoders / name)
    for given in (decoders / name, FastDecoder.from_pretrained(decoders / name)):
        with pytest.raises(MismatchError, match=said):
            NegFaceDiffPipeline.from_pretrained(model, fast_decoder=given)


def test_what_is_no_decoder_is_refused_by_name(planned, model, tmp_path):
    with pytest.raises(FormatError, match="holds a VQAutoencoder"):
        planned(decoder=model / "vae")
    with pytest.raises(InputError, match="has no fast decoder"):
        planned(decoder=model)
    with pytest.raises(InputError, match="no such decoder folder"):
        planned(decoder=tmp_path / "nowhere")


def test_a_run_refuses_a_decoder_that_is_not_the_plans(planned, model, decoders, tmp_path):
    plan, inputs = planned(decoder=decoders / "own")
    shutil.copytree(decoders / "own", tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "teacher": None}))
    for given, said in ((None, "none was given"), (tmp_path / "other", "not the decoder of the plan")):
        with pytest.raises(InputError, match=said):
            generate(plan, inputs, tmp_path / "set", Tools(model=str(model), decoder=given and str(given)))
        assert not (tmp_path / "set").exists()


def test_the_command_varies_and_decodes_as_told_and_remakes_a_picture(negface, model, bank, decoders, tmp_path):
    bank(4).save(tmp_path / "bank.safetensors")
    common = ["generate", "--model", model, "--contexts", tmp_path / "bank.safetensors", "--out", tmp_path / "set"]
    made = [*common, "--images", 2, "--steps", 2, "--size", 16, "--batch", 4]
    code, _, err = negface(*made, "--variation", "angular-0.6-safe", "--decoder", decoders / "own", "--seed", 3)
    assert code == 0, err
    plan = json.loads((tmp_path / "set" / "plan.json").read_text())
    assert plan["contexts"]["variation"] == {**VARIED, "safe": True, "seed": 3}
    assert plan["decoder"]["name"] == "fast"
    code, out, err = negface(*common, "--remake", "2/1", "--decoder", decoders / "own")
    assert (code, "the same bytes" in out) == (0, True), err
    for options, said in ((["--decoder", decoders / "stranger"], "imitates another autoencoder"),
                          (["--variation", "angular-7"], "angular-0.6-safe"), ([], "variation")):
        code, _, err = negface(*made, *options)
        assert (code, said in err, err.count("\n") <= 2) == (2, True, True), err


def test_a_file_of_negatives_goes_with_a_variation(negface, model, bank, tmp_path):
    from negface.contexts import negatives

    bank(4).save(tmp_path / "bank.safetensors")
    negatives.select(bank(4), "far").save(tmp_path / "far.safetensors")
    code, _, err = negface(
        "generate", "--model", model, "--contexts", tmp_path / "bank.safetensors", "--negatives",
        tmp_path / "far.safetensors", "--variation", "angular-0.6", "--images", 1, "--steps", 2, "--size", 16,
        "--out", tmp_path / "set")
    assert code == 0, err
    assert next(iter(read_rows(tmp_path / "set" / "manifest.jsonl")))["variation"] == VARIED
