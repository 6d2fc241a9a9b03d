"""The Markdown page: the results' own figures, plots beside it, and the author's reading kept."""

from __future__ import annotations

import json

import pytest

from negface.foundation.errors import InputError
from negface.report.markdown import READING, markdown


def measured(fdr, student):
    return {"fdr": fdr, "fdr_low": fdr - 0.1, "fdr_high": fdr + 0.1, "diversity": 0.13, "adherence": 0.4,
            "student_accuracy": student, "student_accuracy:frontal": student}


@pytest.fixture
def results(tmp_path):
    cells = [{"strategy": name, "weight": weight, "seed": seed, "contexts": "pca", "metrics": measured(fdr, student)}
             for name, weight, seed, fdr, student in (("baseline", 0, 0, 2.0, 0.86), ("baseline", 0, 1, 4.0, 0.88),
                                                      ("far", 0.5, 0, 6.0, 0.9), ("ceiling", 0, 0, 8.0, 0.97))]
    lead = {"sentence": "Nothing is sure.", "says": ["Student accuracy: baseline 0.870."],
            "plots": [{"x": "diversity", "y": "fdr", "labels": ["diversity", "FDR"]}],
            "tables": [{"title": "At equal w", "columns": ["strategy", "FDR ratio"], "rows": [["far", "2.00"]],
                        "say": "Paired."}]}
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"title": "A title", "command": "negface experiment x.toml", "cells": cells,
                                "lead": lead, "versions": {"torch": "2"}, "warnings": ["one is missing"]}))
    return path


def test_page_holds_the_answer_the_tables_and_means_over_seeds(results, tmp_path):
    made = markdown(results, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    for part in ("# A title\n\nNothing is sure.", "| far | 2.00 |", "Paired.", "- one is missing",
                 "`negface experiment x.toml`", "![page-fdr-diversity](page-fdr-diversity.svg)"):
        assert part in text
    # the mean of 2 and 4 in the hull [1.9, 4.1]; rates as percentages
    assert "| baseline | 2 | 3.00 [1.90, 4.10] | 0.130 | 0.400 | 87.0 | 87.0 |" in text
    assert made["plots"] == [str(tmp_path / "page-fdr-diversity.svg")]
    picture = (tmp_path / "page-fdr-diversity.svg").read_text()
    assert "seed 0;" in picture  # the one that baseline and far share
    assert "far" in picture
    assert "ceiling" not in picture


def test_command_writes_both_pages(results, tmp_path, negface):
    code, text, _ = negface("report", results, "--out", tmp_path / "page.html", "--markdown", tmp_path / "page.md")
    assert code == 0
    assert "page.md" in text
    assert (tmp_path / "page.md").read_text().startswith("# A title")


def test_what_the_author_read_out_of_it_survives_another_writing(results, tmp_path):
    page = tmp_path / "page.md"
    markdown(results, page)
    once = page.read_text()
    page.write_text(f"{once}\n{READING}\n\nThe far negative helps.\n")
    markdown(results, page)
    assert page.read_text() == f"{once}\n{READING}\n\nThe far negative helps.\n"


def test_page_of_another_kind_is_refused_and_nothing_is_written(results, tmp_path):
    with pytest.raises(InputError, match=r"page\.txt.*must end in \.md"):
        markdown(results, tmp_path / "page.txt")
    assert {path.name for path in tmp_path.iterdir()} == {"results.json"}
