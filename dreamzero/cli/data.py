"""``dreamzero data``: what a recording holds, whether to train on it, and how to have it otherwise."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from ..data.reader import Dataset

_DESCRIPTION = """\
LeRobot recordings (v2.0, v2.1, v3.0, with GEAR's additions) before and for training.

  inspect     what is there: rate, episodes, views, columns, tasks, and every quirk found
  stats       quantiles per dimension, actions relative per block, beside the published ones
  check       what would make a training wrong, by episode and row; exit status 1 if anything would
  convert     the same recording in another version; video is copied as it is encoded
  card        drafts the card of a new robot from its recording
  precompute  latents and text features of all windows into a folder that trainings share
"""

_EXAMPLES = """\
examples:
  dreamzero data inspect recordings/usb
  dreamzero data check recordings/usb --json
  dreamzero data card recordings/usb --out usb.toml
  dreamzero data stats recordings/usb --card usb.toml
  dreamzero data convert recordings/usb --to v3.0 --out recordings/usb_v3
  dreamzero data convert recordings/usb --to v2.0 --gear --card usb.toml --out recordings/usb_gear
  dreamzero data precompute recordings/usb --card usb.toml --codec runs/mine/vae --out features
  dreamzero train --data recordings/usb --card usb.toml --codec runs/mine/vae --latents features ...

A card says how a robot's columns and views are read. Without --card the one that fits is
taken; where none does, a makeshift one that treats all columns alike. FILE.toml is a card
of your own.
"""

_VERBS = {
    "inspect": "show version, rates, episodes, views, columns, tasks and quirks",
    "stats": "show the quantiles that training normalises by, beside the published ones",
    "check": "list what would make a training wrong; exit status 1 if anything would",
    "convert": "write the recording in another version of the format",
    "card": "draft a card from the recording, as TOML",
    "precompute": "encode all windows and prompts into a folder that trainings share",
}


def add(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "data",
        help="inspect, check, convert and precompute data sets",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="data_verb", metavar="|".join(_VERBS), required=True)
    parsers = {}
    for verb, text in _VERBS.items():
        one = parsers[verb] = verbs.add_parser(verb, help=text, description=text.capitalize() + ".")
        many = "+" if verb == "precompute" else None
        one.add_argument(
            "path", metavar="PATH", nargs=many, help="folder that holds meta/info.json"
        )
        if verb != "card":
            one.add_argument(
                "--card", metavar="NAME", help="embodiment card: a built-in name or FILE.toml"
            )
            one.add_argument("--json", action="store_true", help="print JSON for programs")
        one.set_defaults(function=run)
    parsers["check"].add_argument(
        "--thorough", action="store_true", help="decode every episode, not only 32 of them"
    )
    parsers["card"].add_argument("--out", type=Path, metavar="FILE.toml", help="write it there")
    convert = parsers["convert"]
    convert.add_argument("--to", required=True, metavar="VERSION", help="v2.0, v2.1 or v3.0")
    convert.add_argument("--out", required=True, type=Path, help="folder to create")
    convert.add_argument(
        "--gear",
        action="store_true",
        help="write GEAR's modality.json, embodiment.json and relative statistics for --card",
    )
    _add_precompute(parsers["precompute"])


def _add_precompute(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, type=Path, help="folder of the features")
    parser.add_argument("--init", metavar="DIR", help="model whose encoders are used")
    parser.add_argument("--codec", type=Path, help="folder of a video codec")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode (default 0)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="train.NAME=VALUE",
        help="as for `dreamzero train`; full and first (blocks, stride, idle) matter here",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read every file of --out again; exit status 1 if damaged",
    )
    parser.add_argument(
        "--prune", action="store_true", help="remove from --out what these recordings do not need"
    )


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked; exit status 1 where ``check`` or ``--verify`` finds something wrong."""
    if arguments.data_verb == "precompute":
        return _precompute(arguments)
    from ..data.reader import Dataset

    dataset = Dataset.open(arguments.path)
    verbs = {
        "inspect": _inspect,
        "stats": _stats,
        "check": _check,
        "convert": _convert,
        "card": _card,
    }
    return verbs[arguments.data_verb](dataset, arguments)


def _quiet(arguments: argparse.Namespace) -> bool:
    """Whether nobody watches a progress bar."""
    return bool(arguments.json) or not sys.stderr.isatty()


def _inspect(dataset: Dataset, arguments: argparse.Namespace) -> int:
    from ..data import cards
    from . import _data_tables

    found = _data_tables.facts(dataset, cards.choose(dataset, arguments.card))
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        _data_tables.inspect(found)
    return 0


def _stats(dataset: Dataset, arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from ..data import cards
    from ..data.normalize import Normalizer, compute
    from ..data.published import compare

    card = cards.choose(dataset, arguments.card)
    statistics, compared = compute(dataset, card), compare(dataset, card)
    if arguments.json:
        found = {"card": card.name, **statistics.to_json()}
        print(json.dumps(found | {"published": [asdict(row) for row in compared]}, indent=2))
        return 0
    if not statistics.state and not statistics.action:
        raise UserError(f"{dataset.root} records neither state nor action: nothing to summarise")
    from . import _data_tables

    _data_tables.statistics(statistics, card, compared)
    complete = bool(statistics.action) or not card.action
    usable = card if complete else card.with_(action=())
    for note in Normalizer(usable, statistics).notes:
        print(note)
    return 0


def _check(dataset: Dataset, arguments: argparse.Namespace) -> int:
    from .. import embodiments
    from ..data import cards
    from ..data.check import check

    # A named card that does not fit is a finding here, not a refusal.
    named = arguments.card is not None
    card = embodiments.get(arguments.card) if named else cards.choose(dataset, None)
    own = card if card.name != "makeshift" else None
    found = check(dataset, own, arguments.thorough, progress=not _quiet(arguments))
    wrong = any(f.level == "error" for f in found)
    if arguments.json:
        print(json.dumps({"ok": not wrong, "findings": [f.to_json() for f in found]}, indent=2))
    else:
        from . import _data_tables

        _data_tables.findings(dataset, card, found)
    return 1 if wrong else 0


def _convert(dataset: Dataset, arguments: argparse.Namespace) -> int:
    from ..data import cards
    from ..data.convert import convert

    card = cards.choose(dataset, arguments.card)
    if arguments.gear and card.name == "makeshift":
        raise UserError(
            "--gear: no built-in card fits; name one with --card (`dreamzero data card` drafts it)"
        )
    report = convert(
        dataset,
        arguments.to,
        arguments.out,
        card if arguments.gear else None,
        progress=not _quiet(arguments),
    )
    if arguments.json:
        print(json.dumps(report.to_json(), indent=2))
        return 0
    print(
        f"{arguments.out}: LeRobot {arguments.to}, {report.episodes} episodes, {report.rows} rows"
    )
    for line in report.lines():
        print(f"  {line}")
    return 0


def _card(dataset: Dataset, arguments: argparse.Namespace) -> int:
    from ..data.draft import draft
    from ..embodiments.files import dumps

    text = dumps(*draft(dataset))
    if arguments.out is None:
        print(text, end="")
        return 0
    if arguments.out.suffix != ".toml":
        raise UserError(f"--out {arguments.out}: a card's file name ends in .toml")
    if arguments.out.exists():
        raise UserError(f"--out {arguments.out} exists already; choose another name or remove it")
    try:
        arguments.out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {arguments.out}: cannot be written ({error.strerror})") from error
    print(
        f"{arguments.out}: read it through, then: dreamzero data check {dataset.root} --card "
        f"{arguments.out}"
    )
    return 0


def _precompute(arguments: argparse.Namespace) -> int:
    from ..config import apply_overrides
    from ..train.cache import FeatureCache
    from ..train.precompute import precompute
    from .train import Settings

    settings = apply_overrides(Settings(), arguments.set).train
    found = precompute(
        arguments.path,
        arguments.out,
        settings,
        card=arguments.card,
        init=arguments.init,
        codec=arguments.codec,
        device=arguments.device,
        workers=arguments.workers,
        progress=not _quiet(arguments),
    )
    cache = FeatureCache(arguments.out)
    damaged = cache.verify() if arguments.verify else []
    for path in damaged:
        path.unlink()
    gone = cache.prune(found.keys) if arguments.prune else []
    facts = {"windows": found.windows, "files": found.episodes, "prompts": found.prompts}
    facts |= {"damaged": len(damaged), "removed": len(gone)}
    if arguments.json:
        print(json.dumps({"path": str(arguments.out), **facts}, indent=2))
    else:
        print(
            f"{arguments.out}: {found.windows} windows in {found.episodes} files, "
            f"{found.prompts} prompts"
        )
        if gone:
            print(f"  {len(gone)} files that these recordings do not need were removed")
        if damaged:
            print(f"  {len(damaged)} damaged files were removed: run again to make them anew")
    return 1 if damaged else 0
