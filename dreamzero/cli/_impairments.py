"""Flags of ``dreamzero robot emulate`` for a bad network between the arm and its driver."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..robots.emulation import Impairments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("a bad network between the arm and its driver")
    for name, what in {
        "delay-ms": "every datagram is under way for so long",
        "jitter-ms": "and up to so much longer",
    }.items():
        group.add_argument(f"--{name}", type=float, default=0.0, metavar="MS", help=what)
    for name, what in {
        "loss": "share that is lost",
        "duplicate": "share that comes twice",
        "reorder": "share that overtakes the rest",
        "corrupt": "share in which a bit is flipped",
    }.items():
        group.add_argument(f"--{name}", type=float, default=0.0, metavar="SHARE", help=what)


def chosen(args: argparse.Namespace) -> Impairments:
    """The impairments that were asked for; UserError for shares that are none."""
    from ..robots.emulation import Impairments

    return Impairments(
        delay_s=args.delay_ms / 1000,
        jitter_s=args.jitter_ms / 1000,
        loss=args.loss,
        duplicate=args.duplicate,
        reorder=args.reorder,
        corrupt=args.corrupt,
        seed=args.seed,
    )
