"""The page in a real browser (headless Chromium): table readable, every picture loaded, nothing fetched, phone-wide."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import pytest
from PIL import Image

from negface.report import render_file

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
                None)
PROBE = r"""
<script>
addEventListener("load", () => {
  const told = document.createElement("pre");
  told.id = "probe";
  told.textContent = JSON.stringify({
    images: [...document.images].map(i => i.complete && i.naturalWidth > 0),
    rows: [...document.querySelectorAll("table")].map(t => t.innerText).join("\n"),
    fetched: performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:")),
    wide: document.documentElement.scrollWidth, window: innerWidth});
  document.body.append(told);
});
</script>
"""


def looked_at(page, tmp_path, width, height):
    """What the browser says of a page."""
    probed = tmp_path / f"probed-{width}.html"
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert policy in page.read_text()  # nothing from outside, no script; only the probe is let in
    probed.write_text(page.read_text().replace(policy, f"{policy}; script-src 'unsafe-inline'") + PROBE)
    for attempt in range(3):  # on a crowded machine Chromium may give up on itself before the page is there
        done = subprocess.run(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND",
             f"--user-data-dir={tmp_path / f'profile-{width}-{attempt}'}", f"--window-size={width},{height}",
             "--virtual-time-budget=20000", "--dump-dom", probed.as_uri()],
            capture_output=True, text=True, timeout=90, check=False, env={**os.environ, "HOME": str(tmp_path)})
        told = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
        if told:
            break
    assert told, f"the page told nothing: {done.stdout[-200:]} {done.stderr[-800:]}"
    return json.loads(told[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@pytest.fixture
def page(tmp_path, face):
    """A small report with pictures."""
    cells = []
    for index, (strategy, weight, fdr) in enumerate((("baseline", 0, 1.0), ("far", 0.5, 2.4))):
        names = [[f"{index}-{person}-{shot}.png" for shot in range(3)] for person in range(3)]
        for person, row in enumerate(names):
            for shot, name in enumerate(row):
                Image.fromarray(face(person, shot)).save(tmp_path / name)
        cells.append({"strategy": strategy, "weight": weight, "contexts": "authentic", "images": names,
                      "metrics": {"fdr": fdr, "fdr_low": 0.9 * fdr, "fdr_high": 1.1 * fdr, "diversity": 0.1,
                                  "adherence": 0.6, "eer": 0.1},
                      "histogram": {"edges": [-1, -0.5, 0, 0.5, 1], "genuine": [0, 1, 5, 9], "impostor": [1, 9, 5, 0]}})
    (tmp_path / "results.json").write_text(json.dumps({"title": "A test", "cells": cells}))
    render_file(tmp_path / "results.json", tmp_path / "report.html")
    return tmp_path / "report.html"


@pytest.mark.process
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_reads_the_table_and_loads_every_picture_offline(page, tmp_path):
    wide = looked_at(page, tmp_path, 1280, 900)
    assert wide["images"]
    assert all(wide["images"])
    assert "baseline" in wide["rows"]
    assert "2.40" in wide["rows"]
    assert wide["fetched"] == []
    phone = looked_at(page, tmp_path, 500, 900)
    assert phone["wide"] <= phone["window"]
    assert all(phone["images"])
