"""From cells to one honest sentence: seeds are put together, the declared strategy is set against the baseline.

The headline strategy is fixed beforehand (far at w = 0.5, the published setting), never picked for being the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

BASELINE = "baseline"
HEADLINE = (("far", 0.5),)
REFERENCES = ("floor", "ceiling")
"""What is no strategy: shuffled names, and pictures of people who were never generated."""
ORDER = ("floor", BASELINE, "null-zero", "null-learned", "close", "mid", "random", "previous", "far", "adaptive-far",
         "antipodal", "random-per-image", "ceiling")


@dataclass(frozen=True)
class Row:
    """One setting: a kind of contexts, a strategy and a weight, over all its seeds.

    ``metrics`` holds means over seeds; an interval is the hull of the seeds' intervals. ``cells`` are the seeds'.
    """

    contexts: str
    strategy: str
    weight: float
    metrics: dict[str, float]
    cells: tuple[dict[str, Any], ...] = field(repr=False)

    @property
    def n_seeds(self) -> int:
        """How many seeds it is over."""
        return len(self.cells)

    @property
    def cell(self) -> dict[str, Any]:
        """The first seed's: its pictures and histograms are shown."""
        return self.cells[0]

    @property
    def label(self) -> str:
        """``far, w = 0.5``; the baseline has no weight, varied or not, and what is not steered has none either."""
        plain = self.strategy.partition(" + ")[0] in (BASELINE, *REFERENCES) or not self.weight
        return self.strategy if plain else f"{self.strategy}, w = {self.weight:g}"

    @property
    def phrase(self) -> str:
        """The label as the subject of a sentence: ``the far negative at w = 0.5``."""
        return "the baseline" if self.strategy == BASELINE else f"the {self.strategy} negative at w = {self.weight:g}"

    def interval(self, name: str) -> tuple[float, float] | None:
        """The 95 % interval of a metric, if there is one."""
        low, high = self.metrics.get(f"{name}_low"), self.metrics.get(f"{name}_high")
        return None if low is None or high is None else (low, high)


def _combine(cells: list[dict[str, Any]]) -> dict[str, float]:
    combined = {}
    for key in dict.fromkeys(key for cell in cells for key in cell["metrics"]):
        values = [cell["metrics"][key] for cell in cells if cell["metrics"].get(key) is not None]
        if len(values) == len(cells):
            combine = min if key.endswith("_low") else max if key.endswith("_high") else lambda v: sum(v) / len(v)
            combined[key] = combine(values)
    return combined


def rows(cells: list[dict[str, Any]]) -> list[Row]:
    """Cells put together over their seeds; contexts in order of appearance, within them strategies in house order."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["contexts"], cell["strategy"], cell["weight"]), []).append(cell)
    contexts = list(dict.fromkeys(cell["contexts"] for cell in cells))
    made = [Row(*key, _combine(group), tuple(group)) for key, group in groups.items()]
    rank = {name: place for place, name in enumerate(ORDER)}
    return sorted(made, key=lambda row: (contexts.index(row.contexts), rank.get(row.strategy, len(ORDER)),
                                         row.strategy, row.weight))


def comparable(found: Sequence[Row], names: Sequence[str]) -> tuple[list[Row], list[Any]]:
    """The settings that have these metrics, over the seeds that all of them share, and those seeds.

    Seeds can differ by more than settings do, so what is drawn on one plot, or ranked, must be over the same ones.
    Floor and ceiling are left out. No rows where no seed is shared.
    """
    cells = [[cell for cell in row.cells if None not in [cell["metrics"].get(name) for name in names]]
             for row in found if row.strategy not in REFERENCES]
    seeds = [{cell["seed"] for cell in each} for each in cells if each]
    common = set.intersection(*seeds) if seeds else set()
    return rows([cell for each in cells for cell in each if cell["seed"] in common]), sorted(common, key=str)


def headline_pair(found: list[Row]) -> tuple[Row | None, Row | None]:
    """The baseline and the declared strategy of the first kind of contexts, over the seeds both have."""
    first = [row for row in found if row.contexts == found[0].contexts]
    baseline = next((row for row in first if row.strategy == BASELINE), None)
    others = [row for row in first if row.strategy not in (BASELINE, *REFERENCES)]
    declared = [row for row in others if (row.strategy, row.weight) in HEADLINE]
    same = [row for row in others if row.strategy in {name for name, _ in HEADLINE}]
    other = next(iter(declared + same + others), None)
    if baseline is None or other is None:
        return baseline, other
    seeds = [{cell["seed"] for cell in row.cells} for row in (baseline, other)]
    shared = seeds[0] & seeds[1]
    if not shared:
        return baseline, other
    return tuple(next(iter(rows([cell for cell in row.cells if cell["seed"] in shared]))) for row in (baseline, other))


def _bracket(row: Row, name: str) -> str:
    interval = row.interval(name)
    text = number(row.metrics.get(name))
    return text if interval is None else f"{text} [{number(interval[0])}, {number(interval[1])}]"


def number(value: float | None, digits: int = 3) -> str:
    """Three significant figures at most, never an exponent; a dash where nothing was measured."""
    if value is None:
        return "–"
    if value and abs(value) < 10 ** -digits:
        return f"{value:.{digits + 1}f}"
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else digits}f}"


def compare(baseline: Row, other: Row, name: str) -> str:
    """``"up"``, ``"down"`` where the intervals lie apart, else ``"unclear"``; ``"missing"`` where a value is."""
    a, b = baseline.interval(name), other.interval(name)
    if baseline.metrics.get(name) is None or other.metrics.get(name) is None:
        return "missing"
    if a is None or b is None:
        return "unclear"
    return "up" if b[0] > a[1] else "down" if b[1] < a[0] else "unclear"


def _separability(baseline: Row, other: Row) -> str:
    change = compare(baseline, other, "fdr")
    if change == "missing":
        return f"FDR was not measured for both {baseline.phrase} and {other.phrase}."
    before, after = baseline.metrics["fdr"], other.metrics["fdr"]
    figures = f"FDR {_bracket(other, 'fdr')} against {_bracket(baseline, 'fdr')}"
    fold = f"{after / before:.2f}-fold" if before > 0 else "from nothing"
    if change == "unclear":
        known = None not in (baseline.interval("fdr"), other.interval("fdr"))
        reason = "the intervals overlap" if known else "there are no intervals"
        tendency = f"{after / before:.2f}× the baseline" if before > 0 else "no baseline to divide by"
        return f"No sure effect of {other.phrase} on separability: {figures}, {tendency}, but {reason}."
    if change == "up":
        return f"{other.phrase} raises separability {fold}: {figures}, the intervals lie apart."
    return f"{other.phrase} lowers separability {after / before:.2f}-fold: {figures}, the intervals lie apart."


def _company(baseline: Row, other: Row, name: str, what: str) -> str:
    before, after = baseline.metrics.get(name), other.metrics.get(name)
    if before is None or after is None:
        return f"{what} was not measured"
    share = f", {100 * (after / before - 1):+.0f}\u00a0%".replace("-", "−") if before > 0 else ""
    sure = {"up": "rises", "down": "falls", "unclear": "does not surely change"}[compare(baseline, other, name)]
    return f"{what} {sure} ({number(before)} → {number(after)}{share})"


def verdict(found: list[Row]) -> dict[str, str]:
    """The verdict: ``sentence`` (separability), ``price`` (diversity, adherence), ``beyond`` (the best after the fact).

    Separability is never said without its company; what was not measured is said to be missing.
    """
    baseline, other = headline_pair(found)
    if other is None or baseline is None:
        row = other or baseline
        if row.metrics.get("fdr") is None:
            return {"sentence": "Separability was not measured.", "price": _alone(row), "beyond": ""}
        reach = f"{row.phrase} reaches FDR {_bracket(row, 'fdr')}; there is nothing to compare it with."
        return {"sentence": _capital(reach), "price": _alone(row), "beyond": ""}
    price = "; ".join([_company(baseline, other, "diversity", "diversity of a person's own images"),
                       _company(baseline, other, "adherence", "adherence to the wanted identity")])
    return {"sentence": _capital(_separability(baseline, other)), "price": f"The price: {price}.",
            "beyond": _beyond(found, other)}


def _alone(row: Row) -> str:
    parts = [f"{name} {_bracket(row, name)}" if row.metrics.get(name) is not None else f"{name} was not measured"
             for name in ("diversity", "adherence")]
    return _capital("; ".join(parts) + ".")


def _beyond(found: list[Row], headline: Row) -> str:
    rivals, seeds = comparable([row for row in found if row.contexts == headline.contexts], ("fdr",))
    best = max(rivals, key=lambda row: row.metrics["fdr"], default=headline)
    if best.label == headline.label:
        return ""
    fewer = len(seeds) < max(row.n_seeds for row in found if row.contexts == headline.contexts)
    over = f" over the seeds that all have ({', '.join(map(str, seeds))})" if fewer else ""
    return (f"The highest FDR on this page{over} is {best.label} with {_bracket(best, 'fdr')}, diversity "
            f"{number(best.metrics.get('diversity'))} and adherence {number(best.metrics.get('adherence'))}; "
            "picked after the fact, so read it with care.")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
