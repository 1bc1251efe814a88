"""``dreamzero train``: recordings in, a policy out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "train",
        help="train a world action model on LeRobot recordings",
        description=(
            "Trains the video codec on the recordings (unless --codec or --init names one), "
            "encodes all windows once, and trains the transformer. --out is then a policy folder "
            "for evaluate, robot and the notebooks."
        ),
        epilog=(
            "example: dreamzero train --preset tiny --data recordings --set train.steps=2000 "
            "--out runs/mine"
        ),
    )
    parser.add_argument("--data", nargs="+", required=True, help="LeRobot dataset folders")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--preset", help="size of the transformer (default: of --init, or tiny)")
    parser.add_argument("--card", help="embodiment of the data (default: guessed)")
    parser.add_argument("--codec", type=Path, help="folder of a trained video codec")
    parser.add_argument("--init", type=Path, help="model folder to start from")
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
        metavar="train.NAME=VALUE",
        help="change a setting (train.* or codec.*), e.g. --set train.steps=2000; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print the run record")
    parser.set_defaults(function=run)


def run(args: argparse.Namespace) -> int:
    from dataclasses import dataclass, field

    from ..config import apply_overrides
    from ..train.codec import CodecTraining
    from ..train.config import TrainSettings
    from ..train.run import train

    @dataclass(frozen=True)
    class Settings:
        train: TrainSettings = field(default_factory=TrainSettings)
        codec: CodecTraining = field(default_factory=CodecTraining)

    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    settings = apply_overrides(Settings(), args.set)
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
    else:
        for name, metric in record.metrics.items():
            print(f"{name:20} {metric}")
        print(f"model: {args.out}")
    return 0
