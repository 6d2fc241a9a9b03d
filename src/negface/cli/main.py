"""``negface``: a lazy group of verbs, and the one place where errors become a line on stderr and an exit code.

Exit codes: 0 all that was asked is done; 1 the work could not be completed; 2 wrong use or bad input; 130 interrupted.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command as command_of

from negface.foundation.errors import NegFaceError, UnknownNameError

VERBS = {
    "contexts": "Make a bank of identity contexts: who the people are.",
    "negatives": "Choose for each identity whom it must not look like.",
    "train": "Train generators, recognisers and students of generators from a recipe.",
    "generate": "Generate images of a bank's identities, resumable and reproducible.",
    "align": "Bring faces into the 112 x 112 five-point template.",
    "curate": "Filter a dataset: wanted identity, face found, quality, leakage, copies.",
    "embed": "Turn images into recogniser embeddings.",
    "verify": "Test recognisers on verification benchmarks: one table, with intervals.",
    "evaluate": "Measure a dataset: separability with its company, with intervals.",
    "report": "Turn results into one self-contained HTML page.",
    "run": "Do all of it from one recipe: a folder of faces in, a dataset and its verdict out.",
    "experiment": "Compare strategies over a grid: generate, judge, train students, examine.",
    "frontier": "Quality against predictions an image: schedulers, steps, intervals, reuse.",
    "demo": "See the whole path at work in a few minutes, on this machine.",
    "assets": "The models that ship with the package: check them, make them again.",
    "convert": "Turn datasets, verification pairs and released models into the form you need.",
    "compat": "The released code's deviations by name, for `generate --compat`.",
    "population": "Render procedural people with exact ground truth.",
}

INTERRUPTED = 130

# typer carries its own copy of click from 0.20 on and the separate package before; the bases are the same either way.
UsageError = typer.BadParameter.__base__
ClickException = UsageError.__base__


def module_name(verb: str) -> str:
    """The module that holds a verb."""
    return f"negface.cli.{verb.replace('-', '_')}"


def available_verbs() -> list[str]:
    """Verbs whose module is there, in the order a person meets them."""
    return [verb for verb in VERBS if importlib.util.find_spec(module_name(verb)) is not None]


def load_verb(verb: str) -> Any:
    """The click command of a verb; imports its module."""
    app: typer.Typer = importlib.import_module(module_name(verb)).app
    app._add_completion = False
    # Markup would swallow shapes such as "[n, d]" in a help text.
    app.rich_markup_mode = None
    command = command_of(app)
    command.name = verb
    for item in walk(command):
        item.context_settings.setdefault("max_content_width", 110)
        item.help = keep_examples(item.help or "")
    return command


def walk(command: Any) -> Iterable[Any]:
    """A command and all its subcommands."""
    yield command
    for child in getattr(command, "commands", {}).values():
        yield from walk(child)


def keep_examples(text: str) -> str:
    """Mark paragraphs that open with ``Example`` so that help does not re-wrap them."""
    blocks = text.split("\n\n")
    return "\n\n".join(f"\b\n{block}" if block.lstrip().startswith("Example") else block for block in blocks)


class LazyGroup(TyperGroup):
    """A group that knows its verbs by name and imports one only when it is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        return available_verbs()

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return load_verb(cmd_name) if cmd_name in available_verbs() else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if not name.startswith("-") and name not in available_verbs():
            raise UnknownNameError("command", name, available_verbs())
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(verb, VERBS[verb]) for verb in available_verbs()]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _print_version(value: bool) -> None:
    if value:
        from negface import __version__

        typer.echo(f"negface {__version__}")
        raise typer.Exit


app = typer.Typer(cls=LazyGroup, add_completion=False, rich_markup_mode=None,
                  context_settings={"max_content_width": 110, "help_option_names": ["-h", "--help"]})


@app.callback()
def negface(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_print_version,
                                          help="Print the version and leave.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show where an error came from; log more. May stand "
                                                            "anywhere on the line.")] = False,
) -> None:
    """Face-recognition training sets of people who do not exist.

    Identity contexts go in; images go through a diffusion model that is steered towards one identity and away from
    another (NegFaceDiff); a verdict comes out: how separable, how diverse, how true to the identities, with intervals.

    Models that ship with the package can stand wherever a file can: shipped:generator, shipped:conditioner,
    shipped:judge, shipped:analyser, shipped:embeddings-conditioner, shipped:embeddings-judge, shipped:people.

    Example: negface contexts uniform --n 1000 --dim 512 --seed 0 --out bank.safetensors
    """


def take_verbose(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Split ``--verbose`` off, wherever it stands before a ``--``."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    head = [item for item in arguments[:end] if item != "--verbose"]
    return [*head, *arguments[end:]], len(head) < end


def find_shipped(arguments: Sequence[str]) -> list[str]:
    """``shipped:NAME``, as an argument or behind ``=``, becomes the path of that file of the package."""
    if not any("shipped:" in item for item in arguments):
        return list(arguments)
    from negface import shipped

    return [re.sub(r"(^|=)shipped:([\w-]*)", lambda found: f"{found[1]}{shipped(found[2])}", item)
            for item in arguments]


def run(arguments: Sequence[str], *, verbose: bool = False) -> int:
    """Run a command line; returns the exit code. Raises whatever the verb raised."""
    if verbose:
        import logging

        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    command = command_of(app)
    command.help = keep_examples(command.help or "")
    code = command.main(args=list(arguments), prog_name="negface", standalone_mode=False)
    if code == INTERRUPTED:  # newer typer turns ^C into this exit code
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def fail(message: str, code: int) -> int:
    """Print one line on stderr; returns ``code``."""
    line = " ".join(message.split())
    typer.echo(f"negface: error: {line}", err=True)
    return code


def usage_message(error: Any) -> str:
    """A click error in one line that says where help is to be found."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "negface"
    return f"{error.format_message().rstrip('.')}; see '{path} --help'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: run, and turn every error into one line and an exit code."""
    arguments, verbose = take_verbose(list(sys.argv[1:] if arguments is None else arguments))
    try:
        return run(find_shipped(arguments) or ["--help"], verbose=verbose)
    except typer.Exit as leave:
        return leave.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return fail("interrupted", INTERRUPTED)
    except NegFaceError as error:
        if verbose:
            traceback.print_exc()
        return fail(str(error), error.exit_code)
    except ClickException as error:
        return fail(usage_message(error), 2) if isinstance(error, UsageError) else fail(error.format_message(), 2)
    except BrokenPipeError:
        # The reader has gone; point stdout away so that the interpreter's last flush stays quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if verbose:
            traceback.print_exc()
        return fail(_unexpected(error, verbose), 1)


def _unexpected(error: Exception, verbose: bool) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the device ({error.filename or 'output'}); free some space and run it again"
    hint = "" if verbose else "; run it again with --verbose for where it happened"
    return f"unexpected {type(error).__name__}: {error}{hint}"


if __name__ == "__main__":
    raise SystemExit(main())
