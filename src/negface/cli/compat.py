"""``negface compat``: the released code's deviations, each a named choice of ``negface generate --compat``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negface.cli.common import JsonOption, command_line, emit

app = typer.Typer(no_args_is_help=True, help="The released code's behaviour, deviation by deviation.")


@app.callback()
def compat() -> None:
    """The released code's behaviour, deviation by deviation.

    Example: negface compat list
    """


@app.command("list")
def list_quirks(
    acts_on: Annotated[str | None, typer.Option(
        "--acts-on", help="Only those of ddim, ddpm, negatives or decoding.")] = None,
    json: JsonOption = None,
) -> None:
    """What the released code does otherwise than it should, by name; each can be asked for alone, or all as reference.

    Example: negface compat list
    """
    from negface.foundation.errors import UnknownNameError
    from negface.sampling.compat import QUIRKS, measured_effects, told

    known = sorted({part for quirk in QUIRKS for part in quirk.acts_on.split()})
    if acts_on is not None and acts_on not in known:
        raise UnknownNameError("part", acts_on, known)
    chosen = [quirk for quirk in QUIRKS if acts_on is None or acts_on in quirk.acts_on.split()]
    lines = [f"{quirk.name} ({quirk.number}, {quirk.acts_on})\n  released:  {quirk.released}\n"
             f"  corrected: {quirk.corrected}\n  effect: {quirk.effect}" for quirk in chosen]
    found = {key: value for key, value in measured_effects().items() if key != "effects"}
    said = [f"effects measured {found['date']} on {found['model']['name']} ({found['model']['hash'][:12]}), judge "
            f"{found['judge']['name']}: FDR with the quirk over FDR without, same people, same noise"] if found else []
    together = [f"{name}: {told(effect)}" for name, effect in measured_effects().get("effects", {}).items()
                if name.startswith("reference")]
    emit({"quirks": [quirk.to_dict() for quirk in chosen], "measured": found}, json=json,
         text="\n".join([*lines, "reference: all of them", *together, *said]))


@app.command()
def measure(
    contexts: Annotated[Path, typer.Option("--contexts", help="Bank of identity contexts; each seed draws others.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the sets; one begun is resumed.")],
    model: Annotated[Path | None, typer.Option("--model", help="Folder of a pipeline (default: shipped).")] = None,
    conditioner: Annotated[Path | None, typer.Option(
        "--conditioner", help="Recogniser that made the contexts (default: shipped).")] = None,
    judge: Annotated[Path | None, typer.Option("--judge", help="Recogniser that measures (default: shipped).")] = None,
    identities: Annotated[int, typer.Option("--identities", min=2, help="People of a seed.")] = 16,
    images: Annotated[int, typer.Option("--images", min=2, help="Pictures of a person.")] = 20,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Seeds (DDPM: the first).")] = 3,
    ddim_steps: Annotated[int, typer.Option("--ddim-steps", min=2, help="Steps of the DDIM comparisons.")] = 50,
    ddpm_steps: Annotated[int, typer.Option("--ddpm-steps", min=2, help="Steps of the DDPM comparisons.")] = 1000,
    only: Annotated[str, typer.Option("--only", help="Only quirks of this name, * allowed.")] = "*",
    dtype: Annotated[str, typer.Option("--dtype", help="fp32 or bf16.")] = "bf16",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes of generation.")] = 1,
    effects: Annotated[Path | None, typer.Option(
        "--effects", help="Where to write them (default: OUT/compat_effects.json; the package reads its own).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Accept a judge that is the conditioner.")] = False,
    json: JsonOption = None,
) -> None:
    """Measure what each quirk does to FDR, diversity and adherence: alone against the corrected rule, and together.

    The same people from the same noise with and without, so the ratio is paired. Resumable set by set.

    Example: negface compat measure --contexts bank.safetensors --out runs/compat
    """
    from negface.experiments.compat_effects import comparisons, measure_effects, summary
    from negface.experiments.sampled_sets import open_studio
    from negface.foundation.files import write_json
    from negface.sampling.compat import EFFECTS

    studio = open_studio(out, model=model, contexts=contexts, conditioner=conditioner, judge=judge, force=force,
                         say=lambda text: typer.echo(text, err=True), identities=identities, images=images, dtype=dtype,
                         workers=workers)
    chosen = comparisons(studio, ddim_steps=ddim_steps, ddpm_steps=ddpm_steps, seeds=tuple(range(seeds)), only=only)
    found = measure_effects(studio, chosen, command=command_line())
    write_json(effects or out / EFFECTS, found)
    emit(found, json=json, text=summary(found))
