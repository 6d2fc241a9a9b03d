"""``negface contexts``: make banks of identity contexts, and look into one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from negface.cli.common import JsonOption, emit
from negface.foundation.errors import InputError

if TYPE_CHECKING:
    from negface.contexts import ContextBank

app = typer.Typer(no_args_is_help=True, help="Make a bank of identity contexts: who the people are.")

OutOption = Annotated[Path, typer.Option("--out", help="Bank to write (safetensors).")]
SeedOption = Annotated[int, typer.Option("--seed", help="The same seed gives the same identities.")]
CosineOption = Annotated[float | None, typer.Option(
    "--max-cosine", help="Largest allowed cosine between two identities; a bounded search skips closer ones.")]
ProposalsOption = Annotated[int | None, typer.Option(
    "--max-proposals", min=1, help="Most proposals of that search; 50 per identity by default.")]


@app.command()
def uniform(
    out: OutOption,
    n: Annotated[int, typer.Option("--n", help="How many identities.")],
    dim: Annotated[int, typer.Option("--dim", help="Length of a context; 512 for the published models.")] = 512,
    seed: SeedOption = 0,
    max_cosine: CosineOption = None,
    max_proposals: ProposalsOption = None,
    json: JsonOption = None,
) -> None:
    """Directions drawn uniformly on the sphere. Row i does not depend on how many are drawn.

    Example: negface contexts uniform --n 10000 --dim 512 --seed 0 --out bank.safetensors
    """
    from negface.contexts import sources

    if max_cosine is not None and n >= 1 and dim >= 2:
        typer.echo(sources.uniform_capacity(n, dim, max_cosine, max_proposals).sentence(), err=True)
    _write(sources.uniform(n, dim, seed=seed, max_cosine=max_cosine, max_proposals=max_proposals), out, json)


@app.command()
def authentic(
    embeddings: Annotated[Path, typer.Argument(help="Embeddings with labels (.npz or .safetensors).")],
    out: OutOption,
    people: Annotated[Path | None, typer.Option(
        "--people", metavar="CSV", help="Only the people of --split in this list (person,split).")] = None,
    split: Annotated[str, typer.Option(
        "--split", help="test: whom the generator never saw; train: whom it did.")] = "test",
    json: JsonOption = None,
) -> None:
    """One context a person: the normalised mean of the person's embeddings.

    Such a bank describes real people, unless the embeddings are of procedural ones (`negface population make`).

    Example: negface contexts authentic embeddings.npz --out bank.safetensors
    """
    from negface.contexts import sources
    from negface.perception.embeddings import read_embeddings

    found = read_embeddings(embeddings)
    if people is not None:
        from negface.experiments.eyes import of_people
        from negface.experiments.people import read_split

        if split not in ("test", "train"):
            raise InputError(f"must be test or train, not {split!r}", where="--split")
        found = of_people(found, getattr(read_split(people, found.identities), split))
    _write(sources.authentic(found.embeddings, found.labels, conditioner=found.recognizer,
                             names=found.identities or None, real_people=found.describes_real_people), out, json)


@app.command()
def pca(
    source: Annotated[Path, typer.Argument(help="A bank, or embeddings with labels (their people's means are used).")],
    out: OutOption,
    n: Annotated[int, typer.Option("--n", help="How many identities.")],
    seed: SeedOption = 0,
    components: Annotated[int | None, typer.Option(
        "--components", help="Principal components kept; all by default.")] = None,
    max_cosine: CosineOption = None,
    max_proposals: ProposalsOption = None,
    json: JsonOption = None,
) -> None:
    """Draws from a Gaussian in the principal-component space of a bank or of embeddings (Vec2Face's source).

    Example: negface contexts pca authentic.safetensors --n 1000 --seed 0 --out bank.safetensors
    """
    from negface.contexts import sources

    parent = _bank_or_means(source)
    if max_cosine is not None and n >= 1:
        expected = sources.pca_capacity(parent, n, max_cosine, seed=seed, components=components,
                                        max_proposals=max_proposals)
        typer.echo(expected.sentence(), err=True)
    _write(sources.pca(parent, n, seed=seed, components=components, max_cosine=max_cosine,
                       max_proposals=max_proposals), out, json)


@app.command("two-stage")
def two_stage(
    embeddings: Annotated[Path, typer.Argument(help="Embeddings of pictures sampled with the learned null.")],
    out: OutOption,
    n: Annotated[int | None, typer.Option("--n", help="How many identities; all that pass by default.")] = None,
    max_cosine: CosineOption = None,
    json: JsonOption = None,
) -> None:
    """One context a picture: embeddings of faces that an unconditional generator made (IDiff-Face, two-stage).

    Example: negface contexts two-stage embeddings.npz --max-cosine 0.3 --out bank.safetensors
    """
    from negface.contexts import sources
    from negface.perception.embeddings import read_embeddings

    found = read_embeddings(embeddings)
    _write(sources.two_stage(found.embeddings, conditioner=found.recognizer, n=n, max_cosine=max_cosine), out, json)


@app.command()
def info(
    bank: Annotated[Path, typer.Argument(help="Bank to describe.")],
    json: JsonOption = None,
) -> None:
    """What a bank holds, where it came from, and how alike its identities are.

    Example: negface contexts info bank.safetensors
    """
    from negface.contexts import ContextBank

    loaded = ContextBank.load(bank)
    result = {**_description(loaded), "cosines": _cosines(loaded)}
    emit(result, json=json, text=_text(result))


def _bank_or_means(path: Path) -> ContextBank:
    """A bank as it is; embeddings as the bank of their people's means."""
    from negface.contexts import ContextBank, sources
    from negface.foundation.files import existing_file
    from negface.foundation.tensors import read_tensors
    from negface.perception.embeddings import read_embeddings

    path = existing_file(path, "bank or embeddings file")
    if path.suffix != ".npz" and "contexts" in read_tensors(path)[0]:
        return ContextBank.load(path)
    found = read_embeddings(path)
    return sources.authentic(found.embeddings, found.labels, conditioner=found.recognizer,
                             names=found.identities or None, real_people=found.describes_real_people)


def _write(bank: ContextBank, out: Path, json: Path | None) -> None:
    if out.suffix != ".safetensors":
        raise InputError("a bank is a .safetensors file", where=out, fix="change the file's ending")
    bank.save(out)
    result = {"path": str(out), **_description(bank)}
    emit(result, json=json, text=_text(result))


def _description(bank: ContextBank) -> dict[str, Any]:
    return {"n": len(bank), "dim": bank.dim, "hash": bank.hash, "first_id": bank.ids[0],
            "release_note": bank.release_note, **bank.provenance}


def _cosines(bank: ContextBank) -> dict[str, Any] | None:
    """Nearest and farthest other identity, for the first 2,000 over the whole bank; None for a bank of one."""
    from negface.contexts import negatives

    if len(bank) == 1:
        return None
    first = bank.subset(slice(0, 2000))
    near = negatives.cosines(first, negatives.select(first, "close", pool=bank))
    far = negatives.cosines(first, negatives.select(first, "far", pool=bank))
    return {"measured": len(first), "nearest_mean": float(near.mean()), "nearest_max": float(near.max()),
            "farthest_mean": float(far.mean()), "farthest_min": float(far.min())}


def _text(result: dict[str, Any]) -> str:
    conditioner = (result["conditioner"] or {}).get("name", "none")
    lines = [f"{result['n']} contexts of length {result['dim']}, source {result['source']}, seed {result['seed']}, "
             f"conditioner {conditioner}, hash {result['hash'][:16]}"]
    if result.get("cosines"):
        found = result["cosines"]
        lines.append(f"nearest other identity: cosine {found['nearest_mean']:.3f} on average, at most "
                     f"{found['nearest_max']:.3f}; farthest: {found['farthest_mean']:.3f}, at least "
                     f"{found['farthest_min']:.3f}")
    if result["release_note"]:
        lines.append(f"note: {result['release_note']}")
    return "\n".join([*lines, f"written to {result['path']}"] if "path" in result else lines)
