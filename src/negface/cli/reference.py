"""``python -m negface.cli.reference docs/cli.md``: the commands' own help as one page, so that it cannot grow stale."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from negface.cli.main import VERBS, available_verbs, load_verb

HEAD = """# Commands

Written by `make docs` from the commands' own help; edit that instead.

Exit codes: 0 all that was asked is done; 1 the work could not be completed; 2 wrong use or bad input; 130 interrupted.
An error is one line on standard error; `--verbose`, anywhere on the line, adds where it came from.
`--json PATH` writes a command's result as JSON; with `-` standard output holds the JSON and nothing else.
"""


def leaves(path: str, command: Any) -> list[tuple[str, Any]]:
    """Commands that do something, with their full names."""
    children = getattr(command, "commands", None)
    if not children:
        return [(path, command)]
    return [leaf for name, child in children.items() for leaf in leaves(f"{path} {name}", child)]


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD]
    for verb in available_verbs():
        parts.append(f"## {verb}\n\n{VERBS[verb]}\n")
        for path, command in leaves(f"negface {verb}", load_verb(verb)):
            context = typer.Context(command, info_name=path, terminal_width=110, max_content_width=110)
            parts.append(f"### `{path}`\n\n```text\n{command.get_help(context).rstrip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    from negface.foundation.files import write_text

    write_text(Path(sys.argv[1]), page())
