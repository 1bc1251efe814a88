"""The ``dreamzero`` command: one module a verb, imported only when that verb is asked for.

A verb module has ``add(subparsers)``: it adds its parser and sets ``function``, which takes the
parsed arguments and returns an exit status:

    def add(subparsers):
        parser = subparsers.add_parser("doctor", help="...")
        parser.set_defaults(function=run)

Exit status: 0 done, 1 the thing itself failed, 2 the user can mend it (one line on stderr), 130
interrupted. Nothing heavy is imported for ``--help``.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from dreamzero import __version__
from dreamzero.errors import UserError

VERBS = {
    "doctor": "what this machine can do, and the fix for what it cannot",
    "run": "run one notebook with parameters",
    "sweep": "run one notebook with every combination of parameters",
    "report": "run all notebooks into one site of results; compare runs",
    "data": "inspect, check, convert and precompute data sets",
    "train": "train a model from a preset",
    "evaluate": "closed-loop success of a policy, with intervals",
    "experiment": "run, list and tabulate the cells behind the paper's claims",
    "serve": "serve a policy over a websocket",
    "robot": "emulate, run, identify and calibrate arms",
    "bench": "measure the engine, kernels, data, checkpoints and robots",
    "checkpoint": "inspect, import, export and merge checkpoints",
}


class Parser(argparse.ArgumentParser):
    """argparse whose mistakes are `UserError`: one line, with the closest known name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        command = self.prog.partition(" ")[2]
        where = f"{command}: " if command else ""
        raise UserError(f"{where}{message} (see '{self.prog} --help')")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        hint = _did_you_mean(str(value), known) or f"choose from {', '.join(known)}"
        raise argparse.ArgumentError(action, f"unknown {str(value)!r}: {hint}")


def build_parser(verb: str | None = None) -> Parser:
    """The parser; only ``verb``'s own module is imported, the others are listed with their help."""
    parser = Parser(prog="dreamzero", description="DreamZero: one model that dreams video and acts")
    parser.add_argument("--version", action="version", version=f"dreamzero {__version__}")
    subparsers = parser.add_subparsers(
        dest="verb", metavar="verb", title="verbs (dreamzero VERB --help says more)"
    )
    for name in available_verbs():
        if name == verb:
            importlib.import_module(f"dreamzero.cli.{name}").add(subparsers)
        else:
            subparsers.add_parser(name, help=VERBS[name], add_help=False)
    return parser


def available_verbs() -> list[str]:
    """The verbs whose module is there, in the order of `VERBS`."""
    return [name for name in VERBS if importlib.util.find_spec(f"dreamzero.cli.{name}")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except UserError as error:
        return _say(str(error), 2)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except BrokenPipeError:
        # The reader (head, less) has gone: say nothing, and keep the exit from flushing to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        return _say(f"the disk is full{where}: free some space, or write to another --out", 2)


def _run(arguments: list[str]) -> int:
    verb = next((text for text in arguments if not text.startswith("-")), None)
    parser = build_parser(verb)
    parsed, rest = parser.parse_known_args(arguments)
    if rest:
        options = sorted(_options(parser, arguments))
        hint = _did_you_mean(rest[0].partition("=")[0], options)
        command = " ".join(["dreamzero", *([parsed.verb] if parsed.verb else [])])
        raise UserError(
            f"{command.partition(' ')[2] or 'command line'}: unknown argument {rest[0]!r}"
            f"{': ' + hint if hint else ''} (see '{command} --help')"
        )
    function: Callable[[argparse.Namespace], int | None] | None = getattr(parsed, "function", None)
    if function is None:
        parser.print_help()
        return 0 if not arguments else 2
    parsed.given = arguments  # a verb may start itself again
    return int(function(parsed) or 0)


def _options(parser: argparse.ArgumentParser, arguments: list[str]) -> Iterator[str]:
    """Option names of the parser and of the verbs and sub-verbs on the command line."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                if name in arguments:
                    yield from _options(child, arguments)


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else ""


def _say(message: str, status: int) -> int:
    sys.stdout.flush()
    print(f"dreamzero: {message}", file=sys.stderr)
    return status
