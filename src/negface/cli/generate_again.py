"""What ``negface generate`` does with a finished dataset: check it (``--verify``), make a picture again (``--remake``).

Also what both it and a new run need: the inputs, the tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negface.cli.common import emit
from negface.foundation.errors import IncompleteError, InputError

if TYPE_CHECKING:
    from negface.contexts import ContextBank
    from negface.curation import Step
    from negface.generation import Inputs, Plan, Tools


def required(value: Path | None, option: str) -> Path:
    """The value of an option that only ``--verify`` does without."""
    if value is None:
        raise InputError(f"{option} is missing", where="generate", fix="see `negface generate --help`")
    return value


def read_inputs(bank: ContextBank, negatives: str, pool: Path | None, scope: str, seed: int,
                variation: Mapping[str, Any] | None = None) -> Inputs:
    """Negatives by strategy, or from a file where one of that name exists or the name looks like a path."""
    from negface.contexts import ContextBank, Selection
    from negface.generation import Inputs, make_inputs

    path = Path(negatives)
    if path.suffix == ".safetensors" or len(path.parts) > 1:
        if pool is not None or scope == "image":
            raise InputError("a file of negatives fixes them: --pool and --negative-scope image do not go with it",
                             where="--negatives")
        selection = Selection.load(path)
        return Inputs(bank, selection, selection.strategy or "given", variation=variation)
    return make_inputs(bank, negatives, pool=None if pool is None else ContextBank.load(pool), seed=seed, scope=scope,
                       variation=variation)


def open_tools(model: Path, plan: Plan, detector: Path | None, filters: tuple[Step, ...] = (),
               decoder: str | None = None) -> Tools:
    """The model, the aligner that the plan asks for, the files of its filters, and its decoder."""
    from negface.generation import Tools
    from negface.generation.finishing import yunet_aligner
    from negface.generation.planning import model_facts

    conditioner = model_facts(model)["conditioner"] if filters else None
    shared = {"model": str(model), "filters": filters, "conditioner": conditioner, "decoder": decoder}
    if plan.align["mode"] != "detect":
        return Tools(**shared)
    return Tools(**shared, aligner=yunet_aligner, aligner_arguments=(str(detector), plan.size))


def check(dataset: Path, json: Path | None) -> None:
    """``--verify``: report, then ``IncompleteError`` if the dataset is not what its manifest says."""
    from negface.generation import verify
    from negface.generation.verifying import FAULTS

    found = verify(dataset)
    lines = [f"{fault}: {name}" for fault in FAULTS for name in found[fault][:20]]
    lines += [f"{fault}: and {len(found[fault]) - 20} more" for fault in FAULTS if len(found[fault]) > 20]
    said = f"{found['images']:,} pictures are what the manifest says; nothing is missing, changed or extra"
    emit(found, json=json, text=said if found["sound"] else "\n".join(lines))
    if not found["sound"]:
        counts = ", ".join(f"{len(found[fault])} {fault}" for fault in FAULTS if found[fault])
        raise IncompleteError(f"is not what its manifest says ({counts})", where=dataset,
                              fix="the `negface generate` command that made it makes again what is missing or changed")


def again(picture: str, dataset: Path, model: Path, contexts: Path, negatives: str, pool: Path | None,
          detector: Path | None, decoder: str | None, to: Path | None, json: Path | None) -> None:
    """``--remake``: make a picture again, write it, and say whether its bytes are those of its row."""
    from negface.contexts import ContextBank
    from negface.foundation.files import write_bytes
    from negface.generation import remake
    from negface.generation.remaking import find_row

    identity, _, image = picture.rpartition("/")
    if not identity or not image.isdigit():
        raise InputError(f"{picture!r} names no picture", where="--remake", fix="give ID/IMAGE, for example 17/3")
    plan, *_ = find_row(dataset, identity, int(image))
    said, bank = plan.negatives, ContextBank.load(contexts)
    given = negatives if said["strategy"] == "given" or Path(negatives).suffix == ".safetensors" else said["strategy"]
    seed = plan.seed if said["seed"] is None else said["seed"]
    inputs = read_inputs(bank, given, pool, said["scope"], seed, plan.contexts.get("variation"))
    made = remake(dataset, identity, int(image), inputs, open_tools(model, plan, detector, decoder=decoder))
    if to is not None:
        write_bytes(to, made.data)
    result = {"identity": identity, "image": int(image), "identical": made.identical, "sha256": made.row["sha256"],
              "differs": made.differs, "to": None if to is None else str(to)}
    emit(result, json=json, text=f"{picture}: {'the same bytes' if made.identical else 'other bytes'} as in the dataset"
                                 f"{'' if to is None else f', written to {to}'}")
    if not made.identical:
        raise IncompleteError("its bytes are not those of the dataset", where=picture, fix="; ".join(made.differs) or
                              "the same versions on the same kind of processor gave other bytes: this is a bug")
