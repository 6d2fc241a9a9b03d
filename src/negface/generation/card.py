"""The card of a dataset: what it is, who is in it, how it was made, and what nobody has checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from negface.contexts.bank import REAL_PEOPLE_NOTE

from .plan import Plan


def dataset_card(plan: Plan, counts: Sequence[dict[str, Any]] = ()) -> str:
    """Markdown (with the YAML head that dataset hubs read) for ``README.md``; depends on the plan only.

    Args:
        counts: for each step that may reject a picture ``{"step", "seen", "rejected"}``.
    """
    lines = [*_head(plan), *_what(plan), *_people(plan), *_how(plan), *_filters(plan, counts), *_unknown(plan),
             *_use(plan)]
    return "\n".join(lines) + "\n"


def _head(plan: Plan) -> list[str]:
    return ["---", "tags: [face-recognition, synthetic, negface]", f"plan: {plan.hash}", "---", "",
            f"# {len(plan.identities):,} identities, {plan.images} images each", ""]


def _what(plan: Plan) -> list[str]:
    warning = [f"> **{REAL_PEOPLE_NOTE[0].upper()}{REAL_PEOPLE_NOTE[1:]}.** A leakage check that passes may lift this "
               "mark; none has been made.", ""] if plan.contexts["describes_real_people"] else []
    size = f"{plan.size} x {plan.size} pixels" if plan.size else "the model's own size"
    return [f"Faces drawn by a diffusion model, {plan.total_images:,} in all, {size}, "
            f"{plan.codec['name']} ({plan.codec['library']}).", "", *warning]


def _people(plan: Plan) -> list[str]:
    conditioner = plan.contexts["conditioner"]
    named = f"{conditioner.get('name', 'unnamed')} ({_short(conditioner.get('hash') or conditioner.get('sha256'))})" \
        if conditioner else "none recorded"
    negatives = plan.negatives
    return ["## Who is in it", "",
            f"- contexts: source `{plan.contexts['source']}`, {plan.contexts['dim']} numbers each, "
            f"bank `{_short(plan.contexts['hash'])}`",
            *_variation(plan), f"- conditioner: {named}",
            f"- negatives: `{negatives['strategy']}`, one for each {negatives['scope']}, "
            f"pool `{_short(negatives['pool'])}`", ""]


def _variation(plan: Plan) -> list[str]:
    varied = plan.contexts.get("variation")
    if varied is None:
        return []
    bound = ", and no further than half way to the nearest other identity" if varied["safe"] else ""
    return [f"- varied from picture to picture: each context turned at random, to a cosine of {varied['lower']:g} to 1 "
            f"with the person's own{bound} (IDperturb, arXiv 2602.18831), seed {varied['seed']}"]


def _decoder(plan: Plan) -> list[str]:
    if plan.decoder is None:
        return []
    return ["- decoder: the autoencoder's own" if plan.decoder["hash"] is None else
            f"- decoder: a small one that imitates the autoencoder's (`{_short(plan.decoder['hash'])}`)"]


def _how(plan: Plan) -> list[str]:
    align = {"none": "not aligned", "detect": f"aligned by a detector ({(plan.align['detector'] or {}).get('name')})",
             "template": "resized only: the model is trusted to draw faces in its template "
                         f"({plan.model['template'] or 'which it does not declare'})"}[plan.align["mode"]]
    replaced = (f"a rejected picture was replaced by the next of that person (at most {plan.tries} made for each "
                "asked); see below" if plan.replaces else "none: every picture was kept")
    made_by = ", ".join(f"{name} {version}" for name, version in plan.versions.items())
    return ["## How it was made", "",
            f"- model: `{plan.model['name']}` (`{_short(plan.model['hash'])}`), licence: {plan.model['licence']}",
            f"- guidance: `{plan.guidance['rule']}`, mean weight {plan.mean_weight:.4f} over the run",
            f"- scheduler: `{plan.scheduler['name']}`, {plan.steps} steps, seed {plan.seed}, {plan.dtype} on "
            f"{plan.device}", *_decoder(plan),
            f"- pictures: {align}", f"- filters: {replaced}", f"- versions: {made_by}; {plan.processor}", "",
            "`plan.json` holds everything, `manifest.jsonl` a row for each picture. The same plan on the same kind of "
            "processor and the same versions gives the same bytes.", ""]


def _filters(plan: Plan, counts: Sequence[dict[str, Any]]) -> list[str]:
    if not plan.replaces:
        return []
    declared = {item["name"]: _declared(item) for item in plan.filters}
    rows = [f"| {item['step']} | {declared.get(item['step'], 'a face to align')} | {item['seen']:,} | "
            f"{item['rejected']:,} |" for item in counts]
    head = ["| step | declared | pictures seen | rejected |", "|---|---|---|---|"]
    return ["## What was rejected", "", *head, *rows, "",
            "`rejected.jsonl` names every rejected picture with the value that decided.", ""]


def _declared(item: dict[str, Any]) -> str:
    numbers = [f"{key} {value:g}" for key, value in item["parameters"].items()]
    return ", ".join([*numbers, *(f"{role} `{_short(file['sha256'])}`" for role, file in item["files"].items())])


def _unknown(plan: Plan) -> list[str]:
    filtered = next((item for item in plan.filters if item["name"] == "leakage"), None)
    leakage = ("- leakage of people the model was trained on: not measured" if filtered is None else
               "- leakage: no picture is closer to a training picture than the filter allows; whether that is close is "
               "for its recogniser to say")
    return ["## What is not known", "", leakage,
            "- separability, adherence and diversity: not measured here (`negface evaluate separability`)",
            "- age, sex and skin tone of the people drawn: not measured",
            f"- the licence of the model's training pictures: see the model ({plan.model['licence']})", ""]


def _use(plan: Plan) -> list[str]:
    where = ("`shards/*.tar` are webdataset shards (members `.jpg`/`.png` and `.cls`)" if plan.format == "shards"
             else "`images/<label>/` are identity folders")
    return ["## Use", "", f"{where}.", "", "```python", "import negface.datasets", "",
            "faces = negface.datasets.open(\"this folder\")",
            "image, label = faces[0]   # uint8 [H, W, 3] RGB, int", "```"]


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"
