"""The wheel carries all that ships: a package installed from it can run the demo anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.process
def test_the_wheel_carries_every_shipped_file_and_recipe(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-q"]
    done = subprocess.run([*command, "-w", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-800:]
    names = set(zipfile.ZipFile(next(tmp_path.glob("negface-*.whl"))).namelist())
    card = json.loads((ROOT / "src/negface/assets/assets.json").read_text())
    wanted = {f"negface/assets/{name}" for name in (*card["files"], "assets.json")}
    wanted |= {f"negface/experiments/{name}.toml" for name in ("assets", "assets-gpu", "demo", "demo-from-scratch")}
    wanted |= {"negface/report/page.html", "negface/report/page.css"}
    assert wanted <= names
