"""``negface negatives``: choose for each identity of a bank whom it must not look like."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from negface.cli.common import JsonOption, emit
from negface.foundation.errors import InputError

if TYPE_CHECKING:
    from negface.contexts import ContextBank, Selection

app = typer.Typer()


@app.command()
def negatives(
    bank: Annotated[Path, typer.Argument(help="Bank of identity contexts.")],
    out: Annotated[Path, typer.Option("--out", help="Selection to write (safetensors).")],
    strategy: Annotated[str, typer.Option(
        "--strategy", help="none, close, mid, far, random, previous, null-zero, null-learned or antipodal.")] = "far",
    pool: Annotated[Path | None, typer.Option(
        "--pool", help="Bank that negatives are taken from; the bank itself by default.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the strategy 'random'.")] = 0,
    json: JsonOption = None,
) -> None:
    """Choose one negative context for each identity.

    Example: negface negatives bank.safetensors --strategy far --out negatives.safetensors
    """
    from negface.contexts import ContextBank
    from negface.contexts.negatives import select

    if out.suffix != ".safetensors":
        raise InputError("a selection is a .safetensors file", where=out, fix="change the file's ending")
    identities = ContextBank.load(bank)
    selection = select(identities, strategy, pool=None if pool is None else ContextBank.load(pool), seed=seed)
    selection.save(out)
    result = _description(identities, selection, out)
    emit(result, json=json, text=_text(result))


def _description(bank: ContextBank, selection: Selection, out: Path) -> dict[str, Any]:
    import numpy as np

    from negface.contexts.negatives import cosines
    from negface.contexts.selection import KIND_NAMES

    found = cosines(bank, selection)
    readable = np.isfinite(found)
    statistics = {} if not readable.any() else {
        "cosine_mean": float(found[readable].mean()), "cosine_min": float(found[readable].min()),
        "cosine_max": float(found[readable].max())}
    members = selection.indices[selection.indices >= 0]
    return {"path": str(out), "n": len(selection), "kind": KIND_NAMES[selection.kind[0]],
            "distinct": len(np.unique(members)), **statistics, **selection.provenance}


def _text(result: dict[str, Any]) -> str:
    lines = [f"{result['n']} negatives, strategy {result['strategy']} ({result['kind']})"]
    if "cosine_mean" in result:
        lines.append(f"cosine to the identity: {result['cosine_mean']:.3f} on average, {result['cosine_min']:.3f} to "
                     f"{result['cosine_max']:.3f}; {result['distinct']} different pool members")
    return "\n".join([*lines, f"written to {result['path']}"])
