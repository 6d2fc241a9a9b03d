"""The frontier: separability, diversity and adherence against the predictions an image costs.

Schedulers and steps (DDPM, DDIM, DPM-Solver++ 2M, UniPC) times guidance everywhere, on an interval (arXiv 2404.07724)
and with the negative's direction reused. The cheapest setting that cannot be told from DDPM-1000 is the default preset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from negface.foundation.errors import InputError
from negface.generation.planning import model_facts
from negface.perception import read_embeddings
from negface.pipelines.distilled import FAST, FULL
from negface.sampling import guidance
from negface.sampling.distilled import Distilled
from negface.sampling.schedule import DEFAULT

from .paired import ratio, replicates
from .sampled_sets import JUDGED, MEASURED, MEASURES, Setting, Studio, draw, measure

REFERENCE = "ddpm-1000"
INTERVAL = (200, 700)
SCHEDULERS = (("dpmpp", (20, 10, 15, 25)), ("unipc", (10, 8, 15)), ("ddim", (25, 50)))
DEAR = (("ddpm", 1000), ("ddim", 200))
COLUMNS = ("setting", "scheduler", "steps", "guidance", "decoder", "predictions", "seeds", *MEASURED, "fdr_ratio",
           "fdr_ratio_low", "fdr_ratio_high", "mean_weight", "overlaps_reference", "default_preset")
DECIDING = ("fdr", "eer", "diversity")


def settings(weight: float = 0.5, seeds: tuple[int, ...] = (0, 1, 2)) -> list[Setting]:
    """The grid, in the order in which it is worth having: plain few-step rows, the dear references, the rest.

    The references (DDPM-1000, DDIM-200) have the first seed only.
    """
    rule = guidance.constant(weight)
    kinds = {"": rule, "-interval": rule.on(*INTERVAL), "-reuse2": rule.reusing(2), "-reuse3": rule.reusing(3)}

    def row(name: str, steps: int, kind: str, drawn: tuple[int, ...]) -> Setting:
        return Setting(f"{name}-{steps}{kind}", kinds[kind], name, steps, seeds=drawn)

    few = [(name, steps) for name, counts in SCHEDULERS for steps in counts]
    plain = [row(name, steps, "", seeds) for name, steps in few]
    dear = [row(name, steps, "", seeds[:1]) for name, steps in DEAR]
    saving = [row(name, steps, kind, seeds) for name, steps in few for kind in kinds if kind]
    return [*plain, *dear, *saving]


def students(model: Path, weight: float = 0.5, seeds: tuple[int, ...] = (0, 1, 2)) -> list[Setting]:
    """The rows of a distilled model, at its own steps; ``InputError`` for a model that is not distilled.

    Where it has a fast decoder, student and decoder also stand alone: the student with the full decoder, and the
    default preset of its teacher with the fast one.
    """
    facts = model_facts(model)
    chosen = facts["schedulers"].build()
    if not isinstance(chosen, Distilled):
        raise InputError("is not distilled", where=model, fix="give what `negface train distill` wrote")
    steps = len(chosen.visits)
    row = Setting(f"student-{steps}", guidance.constant(weight), chosen.to_dict(), steps, seeds=seeds, model=model)
    if not facts["fast_decoder"]:
        return [row]
    name, few, reuse = DEFAULT
    return [row, replace(row, name=f"{row.name}-full-decoder", decoder=FULL),
            Setting(f"{name}-{few}-reuse{reuse}-fast-decoder", guidance.constant(weight).reusing(reuse), name, few,
                    seeds=seeds, decoder=model)]


def rows(studio: Studio, grid: Sequence[Setting]) -> list[dict[str, Any]]:
    """Draw and measure a grid; a row for each setting, in the order of cost, with the default preset marked."""
    table = []
    for item in grid:
        found = measure(studio, item)
        table.append({"setting": item.name, "scheduler": item.scheduler_name, "steps": item.steps,
                      "guidance": str(item.rule), "decoder": studio.decoder(item), "predictions": item.predictions,
                      "seeds": " ".join(map(str, item.seeds)), **{key: found[key] for key in MEASURED},
                      "mean_weight": found["mean_weight"], "by_seed": found["by_seed"]})
    reference = next((item for item in grid if item.name == REFERENCE), None)
    if reference is not None:
        for row, item in zip(table, grid, strict=True):
            row |= _paired(studio, item, reference)
    return mark(sorted(table, key=lambda row: row["predictions"]))


def _paired(studio: Studio, item: Setting, reference: Setting) -> dict[str, Any]:
    """FDR over the reference's, on the seed they share: same people, same starting noise, same bootstrap."""
    if item.name == reference.name:
        return {}
    mine, theirs = (replicates(seen.embeddings, seen.labels, bootstrap=studio.bootstrap, seed=0).fdr
                    for seen in (read_embeddings(draw(studio, each, reference.seeds[0])[0] / JUDGED)
                                 for each in (item, reference)))
    return dict(zip(("fdr_ratio", "fdr_ratio_low", "fdr_ratio_high"), ratio(mine, theirs), strict=True))


def overlaps(row: dict[str, Any], reference: dict[str, Any]) -> bool:
    """Whether FDR, EER and diversity intervals all overlap the reference's."""
    return all(row[f"{name}_low"] <= reference[f"{name}_high"] and reference[f"{name}_low"] <= row[f"{name}_high"]
               for name in DECIDING)


def mark(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Say of each row whether it overlaps the reference, and mark the cheapest that does; of equals the nearer in FDR.

    A distilled student and a fast decoder are other networks, so they are no preset. Without the reference nothing is
    said.
    """
    reference = next((row for row in table if row["setting"] == REFERENCE), None)
    if reference is None:
        return table
    for row in table:
        row["overlaps_reference"] = overlaps(row, reference)
    good = [row for row in table if row["overlaps_reference"] and not _distilled(row)]
    chosen = min(good, key=lambda row: (row["predictions"], abs(row["fdr"] - reference["fdr"])))
    for row in table:
        row["default_preset"] = row is chosen
    return table


def _distilled(row: dict[str, Any]) -> bool:
    return row["scheduler"] == Distilled.name or row["decoder"] == FAST


def verdict(table: Sequence[dict[str, Any]]) -> str:
    """One sentence about the default preset, from the figures."""
    chosen = next((row for row in table if row.get("default_preset")), None)
    if chosen is None:
        return f"{REFERENCE} was not measured, so no default preset was chosen."
    reference = next(row for row in table if row["setting"] == REFERENCE)
    others = [row for row in table if _distilled(row)]
    also = "".join(f" {row['setting']}, distilled, {'overlaps too' if row['overlaps_reference'] else 'does not'} "
                   f"(FDR {_bracket(row, 'fdr')})." for row in others)
    return (f"Default preset: {chosen['setting']} ({chosen['predictions']} predictions an image, "
            f"{reference['predictions'] / chosen['predictions']:.0f} times fewer than {REFERENCE}): the cheapest of "
            f"{len(table) - len(others)} settings whose FDR, EER and diversity intervals all overlap those of "
            f"{REFERENCE} (FDR {_bracket(chosen, 'fdr')} against {_bracket(reference, 'fdr')}; paired, on the seed "
            f"both have, {_bracket(chosen, 'fdr_ratio')} of it).{also}")


def markdown(table: Sequence[dict[str, Any]]) -> str:
    """The table for a page: every measure with its interval."""
    head = ("| setting | predictions | seeds | FDR | EER | diversity | adherence | FDR / DDPM-1000 | overlaps |",
            "|---|---|---|---|---|---|---|---|---|")
    lines = [f"| {row['setting']}{' **(default)**' if row.get('default_preset') else ''} | {row['predictions']} | "
             f"{len(row['seeds'].split())} | {' | '.join(_bracket(row, name) for name in MEASURES)} | "
             f"{_bracket(row, 'fdr_ratio')} | {_yes(row.get('overlaps_reference'))} |" for row in table]
    return "\n".join([*head, *lines])


def _yes(value: bool | None) -> str:
    return "–" if value is None else "yes" if value else "no"


def _bracket(row: dict[str, Any], name: str) -> str:
    value, low, high = (row.get(f"{name}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return "–"
    scale, form = (100, "{:.1f}") if name == "eer" else (1, "{:.3f}")
    text = form.format(scale * value)
    text += f" [{form.format(scale * low)}, {form.format(scale * high)}]" if low is not None else ""
    return text + (" %" if name == "eer" else "")
