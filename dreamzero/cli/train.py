"""``dreamzero train``: recordings in, a policy out."""

from __future__ import annotations

import argparse
import json
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import apply_overrides
from ..shipped import find
from ..train.arguments import check_arguments
from ..train.config import CodecTraining, TrainSettings


@dataclass(frozen=True)
class Settings:
    """What ``--set`` changes."""

    train: TrainSettings = field(default_factory=TrainSettings)
    codec: CodecTraining = field(default_factory=CodecTraining)


def add(subparsers: Any) -> None:
    from ..embodiments import names
    from ..model.presets import PRESETS

    parser = subparsers.add_parser(
        "train",
        help="train a world action model on LeRobot recordings",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", nargs="+", required=True, help="LeRobot dataset folders")
    parser.add_argument(
        "--weights",
        nargs="+",
        type=float,
        metavar="W",
        help="how often each folder of --data is drawn, relative to the others",
    )
    parser.add_argument("--out", type=Path, help="run folder")
    parser.add_argument(
        "--preset",
        help=f"size of the transformer: {', '.join(PRESETS)} (default: of --init, or tiny)",
    )
    parser.add_argument(
        "--card",
        help=f"embodiment of the data: {', '.join(names())}, one that --init knows, or FILE.json "
        "(default: guessed)",
    )
    parser.add_argument("--codec", type=Path, help="folder of a trained video codec")
    parser.add_argument(
        "--init",
        metavar="DIR",
        help="start from this model: a run folder, an imported checkpoint, or tiny_so101",
    )
    parser.add_argument(
        "--latents", type=Path, help="folder of encoded windows to share between runs"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own)")
    parser.add_argument("--resume", action="store_true", help="go on from the run in --out")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="GROUP.NAME=VALUE",
        help="change a setting of train or codec, see below; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print the run record")
    parser.set_defaults(function=run)


def _settings(group: type) -> str:
    """Names and defaults of a settings class, for the help text."""
    from dataclasses import fields

    from ..config import plain

    default = group()
    named = []
    for item in fields(group):
        value = plain(getattr(default, item.name))
        if isinstance(value, dict):
            named += [f"{item.name}.{k}={v}" for k, v in value.items()]
        else:
            named.append(f"{item.name}={value}")
    return textwrap.fill(", ".join(named), 98, initial_indent="  ", subsequent_indent="  ")


_DESCRIPTION = """\
Trains the video codec on the recordings (unless --codec or --init names one), encodes all windows
once, and trains the transformer. --out is then a policy folder for evaluate, robot and the
notebooks; with train.trained=lora an adapter, which `dreamzero checkpoint merge-lora` adds to the
model it was trained from.
"""
_EPILOG = f"""\
examples:
  dreamzero train --preset tiny --data recordings --set train.steps=2000 --out runs/mine
  dreamzero train --init weights/droid --data recordings --set train.trained=lora \\
      --set train.lr=1e-4 --device cuda --out runs/my_adapter

settings and defaults (dreamzero/train/config.py says what they mean), --set train.NAME=VALUE:
{_settings(TrainSettings)}
  train.trained is all, coders or lora; train.weighting uniform or bell
of the codec, --set codec.NAME=VALUE:
{_settings(CodecTraining)}
"""


def run(args: argparse.Namespace) -> int:
    settings = apply_overrides(Settings(), args.set)
    check_arguments(
        args.data, args.out, args.preset, settings.train, args.card, args.init, args.resume
    )
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    from ..train.run import train

    record = train(
        args.data,
        args.out,
        args.preset,
        settings.train,
        card=args.card,
        codec=args.codec,
        codec_training=settings.codec,
        init=args.init,
        latents=args.latents,
        resume=args.resume,
        device=args.device,
        progress=not args.json,
    )
    if args.json:
        print(json.dumps(record.to_dict(), indent=1))
        return 0
    for name, metric in record.metrics.items():
        print(f"{name:20} {metric}")
    if settings.train.trained == "lora":
        print(f"adapter: {args.out}; to run it:")
        print(f"dreamzero checkpoint merge-lora {find(args.init)} --adapter {args.out} --out DIR")
    else:
        print(f"model: {args.out}")
    return 0
