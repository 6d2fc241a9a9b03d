"""The page: self-contained, complete, readable without what was not measured, honest in its first sentence."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from negface.foundation.errors import FormatError, InputError
from negface.report import render, render_file, validate, verdict
from negface.report.figures import SERIES, VARIABLES, _thinned, curves, shown_range
from negface.report.verdict import comparable, headline_pair, number, rows

EDGES = np.linspace(-1, 1, 41).round(3).tolist()


def metrics(fdr, diversity=0.13, adherence=0.2, **more):
    values = {"fdr": fdr, "fdr_low": 0.9 * fdr, "fdr_high": 1.1 * fdr, "eer": 0.05, "genuine_mean": 0.4,
              "genuine_std": 0.1, "impostor_mean": 0.0, "impostor_std": 0.05}
    for name, value in (("diversity", diversity), ("adherence", adherence)):
        if value is not None:
            values |= {name: value, f"{name}_low": value - 0.01, f"{name}_high": value + 0.01}
    return {**values, **more}


def cell(strategy, weight, fdr, *, contexts="authentic", seed=0, **more):
    bell = np.exp(-((np.asarray(EDGES[:-1]) - 0.0) / 0.1) ** 2)
    return {"strategy": strategy, "weight": weight, "seed": seed, "contexts": contexts,
            "metrics": metrics(fdr, **more),
            "histogram": {"edges": EDGES, "genuine": np.roll(bell, 8).tolist(), "impostor": bell.tolist()},
            "det": {"fmr": [0.9, 0.1, 0.01], "fnmr": [0.001, 0.05, 0.4]}}


@pytest.fixture
def results():
    return {"title": "A <test> & more", "command": "negface run recipe.toml", "created": "2025-01-01",
            "versions": {"torch": "2.13.0"}, "warnings": ["the judge is the conditioner"],
            "provenance": {"judge": {"name": "MobileFaceNet", "sha256": "ab" * 32}, "seeds": [0, 1]},
            "cells": [cell("baseline", 0, 1.0), cell("far", 0.5, 2.4, diversity=0.10), cell("far", 1.0, 3.0),
                      cell("null-learned", 0.5, 2.0)]}


@pytest.fixture
def with_pictures(results, tmp_path, face):
    for index, item in enumerate(results["cells"]):
        item["images"] = []
        for person in range(3):
            names = [f"images/{index}-{person}-{shot}.png" for shot in range(2)]
            for shot, name in enumerate(names):
                path = tmp_path / "run" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(face(person, shot)).save(path)
            item["images"].append(names)
        item["closest_pairs"] = [{"a": item["images"][0][0], "b": item["images"][1][0], "cosine": 0.731,
                                  "a_identity": "0000", "b_identity": "0001"}]
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    return tmp_path / "run" / "results.json"


class Checker(HTMLParser):
    """Collects outside references and checks that elements nest."""

    VOID = frozenset({"meta", "img", "br", "path", "use", "rect", "circle", "line", "link", "input"})

    def __init__(self):
        super().__init__()
        self.open, self.outside, self.text, self.ids = [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(value)
            if (key in ("src", "href", "xlink:href", "srcset", "action")
                    and not value.startswith(("data:image/", "#"))):
                self.outside.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(page):
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker


def test_page_is_one_well_formed_file_without_a_single_request(with_pictures, tmp_path):
    summary = render_file(with_pictures, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    checker = parse(page)
    assert checker.outside == []
    assert "<script" not in page
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    anchors = [item for item in checker.ids if not re.match(r"(figure|axes|patch|line|text|xtick|ytick|matplotlib|"
                                                            r"LineCollection|StepPatch|Path)", item)]
    assert len(anchors) == len(set(anchors)), "two figures share an id, so one would borrow the other's clip path"
    assert summary["n_pictures"] == page.count("data:image/") == 4 * 3 * 2 + 4 * 2
    assert summary["bytes"] == (tmp_path / "report.html").stat().st_size


def test_page_shows_every_part(with_pictures, tmp_path):
    render_file(with_pictures, tmp_path / "report.html")
    text = " ".join(" ".join(parse((tmp_path / "report.html").read_text()).text).split())
    for part in ("The far negative at w = 0.5 raises separability 2.40-fold", "the judge is the conditioner", "People",
                 "Trade-off", "Scores", "Closest pairs", "0.731", "negface run recipe.toml", "ab" * 32,
                 "false non-match rate", "A <test> & more", "2.16 – 2.64"):
        assert part in text, part


def over_seeds(*seeds_of):
    """Rows of cells whose FDR and diversity rise by 1 with every seed."""
    cells = [cell(name, weight, 1.0 + seed + weight, seed=seed, diversity=0.1 + seed)
             for name, weight, seeds in seeds_of for seed in seeds]
    return rows(validate({"title": "Seeds", "cells": cells})["cells"])


def test_what_is_drawn_on_one_plot_is_over_the_seeds_that_all_points_share():
    found = over_seeds(("baseline", 0, (0, 1, 2)), ("far", 0.5, (0, 1, 2)), ("far", 1.0, (0,)))
    shared, seeds = comparable(found, ("diversity", "fdr"))
    assert seeds == [0]
    assert [(row.label, row.metrics["fdr"], row.n_seeds) for row in shared] == [
        ("baseline", 1.0, 1), ("far, w = 0.5", 1.5, 1), ("far, w = 1", 2.0, 1)]
    drawn = curves(found, "diversity", "fdr", ("diversity", "FDR"))
    alone = curves(shared, "diversity", "fdr", ("diversity", "FDR"))
    assert "seeds that all points share: 0" in drawn
    assert "seeds that" not in alone
    apart = over_seeds(("baseline", 0, (0,)), ("far", 0.5, (1,)))
    assert comparable(apart, ("fdr",)) == ([], [])
    assert curves(apart, "diversity", "fdr", ("diversity", "FDR")) is None


def test_the_highest_and_the_headline_are_over_shared_seeds():
    found = over_seeds(("baseline", 0, (0, 1, 2)), ("far", 0.5, (0, 1)), ("far", 2.0, (0,)), ("close", 0.5, (0, 1, 2)))
    assert [(row.n_seeds, row.metrics["fdr"]) for row in headline_pair(found)] == [(2, 1.5), (2, 2.0)]
    said = verdict(found)
    # Over all its seeds close would lead with 2.5; where all have been measured, far at w = 2 has 3.
    assert "over the seeds that all have (0) is far, w = 2 with 3.00" in said["beyond"]
    assert "FDR 2.00 [1.35, 2.75] against 1.50 [0.900, 2.20]" in said["sentence"]


def test_leakage_is_said_to_be_a_share_of_images(results, tmp_path):
    results["cells"][0]["metrics"]["leakage_rate"] = 0.02
    render(results, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "images that match a training person" in page
    assert "people who match" not in page
    assert "Share of generated people" not in page


def test_colours_and_typeface_come_from_the_page(results, tmp_path):
    render(results, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for placeholder in VARIABLES:
        assert placeholder not in page
    assert "DejaVu Sans'" not in page
    assert len(set(SERIES)) == len(SERIES)


def test_rendering_twice_gives_the_same_bytes(with_pictures, tmp_path):
    for name in ("a.html", "b.html"):
        render_file(with_pictures, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_single_bare_cell_still_makes_a_page_that_says_what_is_missing(tmp_path):
    bare = {"title": "bare", "cells": [{"strategy": "far", "weight": 0.5, "metrics": {"fdr": 1.5}}]}
    summary = render(bare, tmp_path / "report.html")
    text = " ".join(parse((tmp_path / "report.html").read_text()).text)
    assert "nothing to compare it with" in summary["verdict"]
    assert "Diversity was not measured; adherence was not measured." in summary["verdict"]
    assert text.count("not measured") >= 3


def test_text_from_results_cannot_become_markup(results, tmp_path):
    results["title"] = "<script>alert(1)</script>"
    results["cells"][1]["strategy"] = 'x"><b>'
    render(results, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    parse(page)


def said(results):
    return verdict(rows(validate(results)["cells"]))


def test_verdict_claims_nothing_where_intervals_overlap(results):
    results["cells"][1] = cell("far", 0.5, 1.15)
    assert "No sure effect of the far negative" in said(results)["sentence"]
    assert "intervals overlap" in said(results)["sentence"]


def test_verdict_says_when_separability_falls(results):
    results["cells"][1] = cell("far", 0.5, 0.5)
    assert "lowers separability 0.50-fold" in said(results)["sentence"]


def test_verdict_never_separates_from_its_company(results):
    price = said(results)["price"]
    assert "diversity of a person's own images falls (0.130 → 0.100, −23" in price
    assert "adherence to the wanted identity does not surely change" in price
    results["cells"][1] = cell("far", 0.5, 2.4, diversity=None)
    assert "diversity of a person's own images was not measured" in said(results)["price"]


def test_headline_is_the_declared_strategy_and_the_best_is_named_as_picked_afterwards(results):
    words = said(results)
    assert "far negative at w = 0.5" in words["sentence"]
    assert "far, w = 1 with 3.00" in words["beyond"]
    assert "after the fact" in words["beyond"]


def test_seeds_are_averaged_and_their_intervals_hulled():
    cells = [cell("baseline", 0, fdr, seed=seed) for seed, fdr in enumerate((1.0, 2.0))]
    (row,) = rows(validate({"title": "t", "cells": cells})["cells"])
    assert row.n_seeds == 2
    assert row.metrics["fdr"] == pytest.approx(1.5)
    assert row.interval("fdr") == pytest.approx((0.9, 2.2))


def test_a_metric_missing_for_one_seed_is_not_averaged_over_the_others():
    cells = [cell("baseline", 0, 1.0, seed=0), cell("baseline", 0, 1.0, seed=1)]
    cells[1]["metrics"]["diversity"] = None
    del cells[1]["metrics"]["diversity_low"], cells[1]["metrics"]["diversity_high"]
    (row,) = rows(validate({"title": "t", "cells": cells})["cells"])
    assert "diversity" not in row.metrics


FAULTS = {
    "no cells": (lambda r: r.update(cells=[]), "cells: is empty"),
    "unknown key": (lambda r: r.update(warning="x"), "did you mean 'warnings'"),
    "misspelt cell key": (lambda r: r["cells"][1].update(histogramm={}), r"cells\[1\]: unknown key 'histogramm'"),
    "per cent": (lambda r: r["cells"][0]["metrics"].update(eer=3.9), r"cells\[0\].metrics.eer: 3.9 is outside"),
    "NaN": (lambda r: r["cells"][0]["metrics"].update(fdr=float("nan")), "finite number, or null"),
    "text for a number": (lambda r: r["cells"][0]["metrics"].update(fdr="high"), "finite number"),
    "upside down": (lambda r: r["cells"][0]["metrics"].update(fdr_low=9.0), "upside down"),
    "interval alone": (lambda r: r["cells"][0]["metrics"].update(fdr=None), "interval but no value"),
    "bins": (lambda r: r["cells"][0]["histogram"]["genuine"].pop(), "39 counts for 40 bins"),
    "gap in a curve": (lambda r: r["cells"][0]["det"]["fmr"].insert(0, None), r"fmr\[0\]: must be a finite number"),
    "edges": (lambda r: r["cells"][0]["histogram"].update(edges=[1, 0]), "two or more rising numbers"),
    "det": (lambda r: r["cells"][0]["det"]["fmr"].pop(), "fmr has 2 points, fnmr 3"),
    "twice": (lambda r: r["cells"].append(copy.deepcopy(r["cells"][1])), r"cells\[4\]: is the same cell as cells\[1\]"),
    "absolute path": (lambda r: r["cells"][0].update(images=[["/etc/x.png"]]), "is absolute"),
    "fate": (lambda r: r["cells"][0].update(rejections={"fate": "lost", "steps": []}), "must be one of 'replaced'"),
    "more than seen": (lambda r: r["cells"][0].update(rejections={"fate": "replaced", "steps": [
        {"step": "face", "seen": 3, "rejected": 4}]}), r"cells\[0\].rejections.steps\[0\]: rejected 4 of 3 pictures"),
    "absolute training picture": (lambda r: r["cells"][0].update(leakage_pairs=[{"a": "x.png", "b": "/y.png"}]),
                                  r"leakage_pairs\[0\].b: the path '/y.png' is absolute"),
    "no title": (lambda r: r.pop("title"), "title: must be a non-empty string"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_results_are_refused_with_the_place_and_nothing_is_written(results, tmp_path, fault):
    change, message = FAULTS[fault]
    change(results)
    with pytest.raises(FormatError, match=message):
        render(results, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_missing_and_broken_pictures_are_named(with_pictures, tmp_path):
    picture = with_pictures.parent / "images" / "1-0-0.png"
    picture.write_bytes(picture.read_bytes()[:60])
    with pytest.raises(FormatError, match=r"1-0-0.png: not a readable picture"):
        render_file(with_pictures, tmp_path / "report.html")
    picture.unlink()
    with pytest.raises(InputError, match=r"1-0-0.png: no such picture"):
        render_file(with_pictures, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_large_pictures_become_small_ones(tmp_path, face):
    from negface.report.pictures import data_uri

    Image.fromarray(face(1, size=640)).save(tmp_path / "large.png")
    Image.fromarray(face(1, size=32)).save(tmp_path / "small.png")
    assert data_uri(tmp_path / "large.png").startswith("data:image/jpeg;base64,")
    assert len(data_uri(tmp_path / "large.png")) < 30_000
    assert data_uri(tmp_path / "small.png").startswith("data:image/png;base64,")


def test_histogram_range_holds_nearly_everything():
    counts = [0, 0, 1, 1000, 1, 0]
    low, high = shown_range([{"edges": [0, 1, 2, 3, 4, 5, 6], "genuine": counts, "impostor": counts}])
    assert low <= 3
    assert high >= 4
    assert (low, high) != (0, 6)


def test_a_long_det_curve_is_thinned_and_keeps_its_shape(results, tmp_path):
    render(results, tmp_path / "short.html")
    rates = np.linspace(0.999, 0.001, 20_000)
    for item in results["cells"]:
        item["det"] = {"fmr": rates.tolist(), "fnmr": (1 - rates).tolist(), "threshold": rates.tolist()}
    render(results, tmp_path / "long.html")
    assert (tmp_path / "long.html").stat().st_size < 1.5 * (tmp_path / "short.html").stat().st_size
    x, y = _thinned(rates, 1 - rates)
    assert (x[0], x[-1]) == (rates[0], rates[-1])
    assert np.abs(np.interp(0.5, x[::-1], y[::-1]) - 0.5) < 0.02


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (0.0, "0.000"), (0.12345, "0.123"), (0.00042, "0.0004"),
                                             (5.687, "5.69"), (33.301, "33.3"), (123.4, "123"), (-0.169, "-0.169")])
def test_numbers_keep_three_figures(value, text):
    assert number(value) == text


def test_command_writes_the_page_and_json(negface, with_pictures, tmp_path):
    code, out, err = negface("report", with_pictures, "--out", tmp_path / "page.html", "--json", "-")
    assert code == 0
    assert json.loads(out)["n_cells"] == 4
    assert "raises separability" in err
    assert (tmp_path / "page.html").is_file()
    code, out, err = negface("report", tmp_path / "nothing.json")
    assert code == 2
    assert "no such file" in err
