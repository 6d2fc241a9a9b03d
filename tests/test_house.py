"""The house stands: layers hold, every plug-in loads and names its source, every command helps, the door is light."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import negface as package
from negface.cli import main as cli
from negface.foundation import registry

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "diffusers", "pydantic", "matplotlib", "numpy", "rich")


def rooms() -> list[str]:
    return [item.name for item in pkgutil.iter_modules(package.__path__) if item.ispkg]


def commands() -> list[tuple[str, object]]:
    """Every command that does something, with its full name."""
    found = []

    def collect(path: str, command: object) -> None:
        children = getattr(command, "commands", None)
        if not children:
            found.append((path, command))
        for name, child in (children or {}).items():
            collect(f"{path} {name}", child)

    for verb in cli.available_verbs():
        collect(verb, cli.load_verb(verb))
    return found


def test_rooms_import_only_lower_layers(monkeypatch, capsys):
    from importlinter.cli import lint_imports

    monkeypatch.chdir(ROOT)
    code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert code == 0, capsys.readouterr().out


def test_every_plugin_loads_and_names_its_source():
    for room in rooms():
        importlib.import_module(f"negface.{room}")
    faults = []
    for item in registry.entries():
        if item.load() is None or not item.summary.strip() or not item.paper.strip() or not item.licence.strip():
            faults.append((item.kind, item.name))
    assert faults == []


def test_every_kind_of_plugin_the_first_path_needs_is_registered():
    for room in rooms():
        importlib.import_module(f"negface.{room}")
    missing = {"identity-source", "negative", "guidance", "scheduler"} - {item.kind for item in registry.entries()}
    assert missing == set()


def test_every_command_offers_json_and_an_example():
    faults = []
    for path, command in commands():
        options = {option for parameter in command.params for option in parameter.opts}
        if "--json" not in options:
            faults.append(f"{path}: no --json")
        if f"Example: negface {path}" not in " ".join((command.help or "").split()):
            faults.append(f"{path}: no 'Example: negface {path} ...' in its help")
    assert faults == []


def test_every_option_of_every_command_says_what_it_does():
    silent = [f"{path} {parameter.opts[0]}" for path, command in commands() for parameter in command.params
              if not (getattr(parameter, "help", None) or "").strip()]
    assert silent == []


def test_public_names_exist():
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


@pytest.mark.process
def test_help_imports_nothing_heavy():
    program = ("import sys; from negface.cli.main import main; code = main(['--help']); "
               f"print(code, sorted(set({HEAVY!r}) & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


def test_at_most_25_tests_start_a_process():
    marks = [line for path in (ROOT / "tests").rglob("test_*.py") for line in path.read_text().splitlines()
             if re.match(r"\s*@pytest\.mark\.process", line)]
    assert 1 <= len(marks) <= 25


def test_test_modules_have_unique_names():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_files_stay_short():
    long = [f"{path.relative_to(ROOT)}: {count}" for path in (ROOT / "src").rglob("*.py")
            if (count := len(path.read_text().splitlines())) > 400]
    assert long == []


def test_every_module_says_what_it_is_for():
    silent = [str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*.py")
              if not path.read_text().lstrip().startswith('"""')]
    assert silent == []


def test_the_lock_pins_every_dependency_exactly():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines()
                if line and not line.startswith("#"))
    locked = {name.lower().replace("_", "-") for name in pins}
    extras = project["optional-dependencies"]
    needed = project["dependencies"] + extras["onnx"] + extras["align"] + extras["fast"] + extras["dev"]
    names = {re.split(r"[<>=\[ ]", item)[0].lower() for item in needed} | {"setuptools"}
    assert names - locked == set()
    assert pins["torch"] == "2.13.0"


def test_the_command_reference_is_what_make_docs_writes():
    from negface.cli.reference import page

    assert (ROOT / "docs" / "cli.md").read_text() == page(), "run: make docs"


def test_every_document_is_reachable_and_no_link_is_broken():
    """Relative links in the README and in docs/ lead to files; every page of docs/ is linked from its index."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    broken, linked = [], set()
    for page in pages:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            path = (page.parent / target).resolve()
            linked.add(path)
            if not path.exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []
    assert [page.name for page in pages[1:] if page.resolve() not in linked and page.name != "index.md"] == []


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    """Both blocks, word for word, with the shipped generator: four pictures come out, and an FDR with its interval."""
    import numpy as np

    from negface import ContextBank

    rng = np.random.default_rng(0)
    ContextBank.from_vectors(rng.normal(size=(6, 128)), normalise=True).save(tmp_path / "bank.safetensors")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    names = {"embeddings": rng.normal(size=(12, 8)).astype(np.float32), "labels": np.repeat(np.arange(4), 3)}
    for block in blocks:
        exec(block, names)
    assert len(names["images"]) == 4
    assert names["images"][0].size == (64, 64)
    assert names["result"].n_images == 12


def test_the_commands_of_the_readme_are_understood():
    """Every ``negface`` line of the README names options that exist (nothing is run)."""
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    lines = [line.split("negface ", 1)[1].split() for line in text.splitlines()
             if re.match(r"(\.venv/bin/)?negface [a-z]", line)]
    known = dict(commands())
    faults = []
    for words in lines:
        path = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in known), None)
        options = {option for parameter in known[path].params for option in parameter.opts} if path else set()
        faults += [f"{' '.join(words)}: {word}" for word in words if word.startswith("--") and word not in options]
    assert faults == []


@pytest.mark.slow
def test_the_readme_by_hand_gives_a_dataset_and_its_verdict(tmp_path, monkeypatch, negface):
    """The block under "By hand", word for word: 200 pictures, FDR and adherence with intervals."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text().split("By hand", 1)[1].replace("\\\n", " ")
    lines = re.search(r"```bash\n(.*?)```", text, re.DOTALL)[1].strip().splitlines()
    assert len(lines) == 5
    for line in lines:
        code, out, err = negface(*line.split()[1:])
        assert code == 0, err
    assert len(list((tmp_path / "dataset").rglob("*.jpg"))) == 200
    assert re.search(r"FDR +[0-9.]+ +\[[0-9.]+, [0-9.]+\]", out)
    assert re.search(r"adherence +0\.[0-9]+ +\[", out)
