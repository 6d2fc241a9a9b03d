"""The door: errors are one line with an exit code, help never breaks, results reach people and programs."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest
import typer

from negface import shipped
from negface.cli import common, main
from negface.cli.common import JsonOption
from negface.foundation.errors import IncompleteError, InputError


def verb(monkeypatch, body, name="demo"):
    """Put a verb whose command runs ``body`` in the place of ``name``."""
    app = typer.Typer()
    app.command()(body)
    module = types.ModuleType(f"negface.cli.{name}")
    module.app = app
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(main, "available_verbs", lambda: [name])
    return name


def raising(error):
    def body():
        raise error
    return body


@pytest.mark.parametrize(("error", "code", "line"), [
    (InputError("is empty", where="faces", fix="put pictures in it"), 2, "faces: is empty; put pictures in it"),
    (IncompleteError("3 of 10 images are missing"), 1, "3 of 10 images are missing"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (ValueError("two\nlines"), 1, "unexpected ValueError: two lines; run it again with --verbose"),
    (OSError(28, "No space left on device"), 1, "no space left"),
])
def test_an_error_is_one_line_on_stderr_with_its_exit_code(monkeypatch, negface, error, code, line):
    name = verb(monkeypatch, raising(error))
    got, out, err = negface(name)
    assert (got, out) == (code, "")
    assert err.startswith("negface: error: ")
    assert line in err
    assert err.count("\n") == 1


def test_verbose_shows_where_it_came_from_wherever_it_stands(monkeypatch, negface):
    name = verb(monkeypatch, raising(InputError("is empty")))
    for arguments in ((name, "--verbose"), ("--verbose", name)):
        code, _, err = negface(*arguments)
        assert code == 2
        assert "Traceback" in err
    assert "Traceback" not in negface(name)[2]


def test_verbose_after_two_dashes_is_an_argument():
    assert main.take_verbose(["a", "--", "--verbose"]) == (["a", "--", "--verbose"], False)
    assert main.take_verbose(["a", "--verbose", "--", "b"]) == (["a", "--", "b"], True)


def test_shipped_files_stand_wherever_a_file_can(negface):
    judge = str(shipped("judge"))
    assert main.find_shipped(["a", "shipped:judge", "--x=shipped:judge", "f,least=0.3,recognizer=shipped:judge"]) == [
        "a", judge, f"--x={judge}", f"f,least=0.3,recognizer={judge}"]
    for other in ("folder/shipped:judge", "notshipped:judge"):
        assert main.find_shipped([other]) == [other]
    code, _, err = negface("embed", "faces", "--recognizer", "shipped:jugde", "--out", "x.npz")
    assert (code, "did you mean 'judge'" in err) == (2, True)


def test_unknown_command_gets_a_suggestion(negface):
    code, _, err = negface("reprot")
    assert code == 2
    assert "did you mean 'report'?" in err


def test_wrong_use_is_one_line_that_names_the_help(negface):
    for arguments in (("report",), ("report", "--nothing"), ("--nothing",)):
        code, _, err = negface(*arguments)
        assert code == 2
        assert err.count("\n") == 1
        assert "--help'" in err


def test_no_arguments_show_help_and_version_is_printed(negface):
    code, out, _ = negface()
    assert code == 0
    assert "Commands:" in out
    assert negface("--version")[1].startswith("negface 0.")


def test_a_missing_verb_is_left_out_of_help(monkeypatch, negface):
    monkeypatch.setitem(main.VERBS, "not-there-yet", "A promise.")
    code, out, _ = negface("--help")
    assert code == 0
    assert "not-there-yet" not in out


def test_shapes_in_brackets_survive_help(monkeypatch, negface):
    def body():
        """Read contexts [n, d].

        Example: negface demo
          second line
        """
    _, out, _ = negface(verb(monkeypatch, body), "--help")
    assert "[n, d]" in out
    assert "Example: negface demo\n    second line" in out


def test_emit_keeps_stdout_pure_where_json_goes_there(monkeypatch, negface, tmp_path):
    def body(json: JsonOption = None):
        common.emit({"fdr": np.float32(0.5), "missing": float("nan"), "ids": np.arange(2), "at": tmp_path},
                    json=json, text="FDR 0.5")
    name = verb(monkeypatch, body)
    code, out, err = negface(name, "--json", "-")
    assert code == 0
    assert json.loads(out) == {"fdr": 0.5, "missing": None, "ids": [0, 1], "at": str(tmp_path)}
    assert err == "FDR 0.5\n"
    code, out, err = negface(name, "--json", tmp_path / "out.json")
    assert (out, err) == ("FDR 0.5\n", "")
    assert json.loads((tmp_path / "out.json").read_text())["fdr"] == 0.5


def test_json_into_a_folder_that_cannot_be_is_an_output_error(monkeypatch, negface, tmp_path):
    (tmp_path / "file").write_text("")
    name = verb(monkeypatch, lambda json=None: common.emit({}, json=tmp_path / "file" / "out.json"))
    code, _, err = negface(name)
    assert code == 2
    assert err.count("\n") == 1


def test_plain_refuses_what_json_cannot_hold():
    with pytest.raises(TypeError, match="object"):
        common.plain({"a": object()})
