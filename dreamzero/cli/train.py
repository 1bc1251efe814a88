"""``dreamzero train``: recordings in, a policy out."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import apply_overrides
from ..errors import UserError
from ..shipped import find
from ..train import launch
from ..train.arguments import check_arguments
from ..train.config import CHECKPOINTS, LATEST, CodecTraining, TrainSettings

if TYPE_CHECKING:
    from ..report.record import RunRecord


@dataclass(frozen=True)
class Settings:
    """What ``--set`` changes."""

    train: TrainSettings = field(default_factory=TrainSettings)
    codec: CodecTraining = field(default_factory=CodecTraining)


def add(subparsers: Any) -> None:
    """Add the verb to the command line."""
    from ..embodiments import names
    from ..model.presets import PRESETS

    parser = subparsers.add_parser(
        "train",
        help="train a world action model on LeRobot recordings",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", nargs="+", default=[], help="LeRobot dataset folders")
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
        help=f"embodiment of the data: {', '.join(names())}, one that --init knows, or FILE.toml "
        "(default: guessed)",
    )
    parser.add_argument("--codec", type=Path, help="folder of a trained video codec")
    parser.add_argument(
        "--init",
        metavar="DIR",
        help="start from this model: a run folder, an imported checkpoint, or tiny_so101",
    )
    parser.add_argument(
        "--latents",
        type=Path,
        help="folder of encoded windows and prompts to share between runs (`dreamzero data precompute`)",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument(
        "--processes",
        type=int,
        help="that share each step on a CPU (default: one a core, up to 4; torchrun starts GPUs)",
    )
    parser.add_argument(
        "--threads", type=int, help="CPU threads of each process (default: the cores divided)"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the run in --out")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="GROUP.NAME=VALUE",
        help="change a setting of train or codec, see below; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print the run record, or the plan")
    group = parser.add_argument_group("before renting anything")
    group.add_argument(
        "--plan",
        action="store_true",
        help="print memory a GPU, seconds a step and days; train nothing",
    )
    group.add_argument("--gpu", default="H100", help="kind: A100, H100 (default), H200, B200, ...")
    group.add_argument("--gpus", type=int, default=8, help="how many (default 8)")
    group.add_argument(
        "--utilisation", type=float, help="share of the peak that is reached (default: assumed)"
    )
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
once (unless train.reading=video), and trains the transformer. --out is then a policy folder for
evaluate, robot and the notebooks; with train.trained=lora an adapter, which `dreamzero checkpoint
merge-lora` adds to the model it was trained from.
"""
_EPILOG = f"""\
examples:
  dreamzero train --preset tiny --data recordings --set train.steps=2000 --out runs/mine
  dreamzero train --init weights/droid --data recordings --set train.trained=lora \\
      --set train.lr=1e-4 --device cuda --out runs/my_adapter
  torchrun --nproc_per_node 8 -m dreamzero train --init weights/droid --data recordings \\
      --device cuda --set train.sharding=full --set train.recompute=full --set train.optimizer=adamw \\
      --set train.full.batch=8 --set train.first.batch=0 --out runs/whole     (or accelerate launch)
  dreamzero train --plan --preset wan2.1-14b-droid --gpus 8 --gpu H200 --set train.sharding=full

settings and defaults (dreamzero/train/config.py says what they mean), --set train.NAME=VALUE:
{_settings(TrainSettings)}
  train.trained is all, coders or lora; train.weighting uniform or bell; train.stage coupled or flash;
  train.shuffle windows or episodes; train.reading auto, memory, cache or video;
  train.dream seen, apart or none; train.objective flow, regression or diffusion;
  train.timesteps shared or independent;
  train.optimizer muon or adamw; train.sharding none or full; train.recompute none, selective or full
of the codec, --set codec.NAME=VALUE:
{_settings(CodecTraining)}
"""


def run(args: argparse.Namespace) -> int:
    """Train, or say with ``--plan`` what it would take."""
    settings = apply_overrides(Settings(), args.set)
    if args.plan:
        return _plan(args, settings.train)
    if not args.data or args.out is None:
        missing = "--out" if args.data else "--data"
        raise UserError(f"train: {missing} is required (see 'dreamzero train --help')")
    main = os.environ.get("RANK", "0") == "0"  # torchrun and accelerate number their processes
    try:
        check_arguments(
            args.data, args.out, args.preset, settings.train, args.card, args.init, args.resume,
            args.weights,
        )  # fmt: skip
        _check_unfinished(args)
        count = launch.choose(args.processes, settings.train, args.device)
        if count == 1:
            return _train(args, settings, main)
        args.threads = args.threads or max(1, launch.cores() // count)
        with launch.together(count, args.given, args.threads):
            return _train(args, settings, main)
    except (UserError, SystemExit):
        if main:
            raise
        # The first process says what all of them found; a launcher ends it when another ends first.
        time.sleep(5)
        return 2


def _check_unfinished(args: argparse.Namespace) -> None:
    if launch.launched() and os.environ["RANK"] != "0":
        return  # the first process may have begun already
    begun = (args.out / CHECKPOINTS / LATEST).is_file()
    if begun and not (args.out / "metrics.json").is_file() and not args.resume:
        raise UserError(
            f"--out {args.out} holds a run that was not finished: go on with --resume, or remove its "
            f"{CHECKPOINTS} folder to begin anew"
        )


def _train(args: argparse.Namespace, settings: Settings, main: bool) -> int:
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    from ..train.monitor import Stopped
    from ..train.run import train

    try:
        record = _call(train, args, settings)
    except Stopped as stopped:
        if main:
            print(f"dreamzero: {stopped}", file=sys.stderr)
        return stopped.status
    if not main:
        return 0
    curve = _curve(args.out)
    if args.json:
        print(json.dumps(record.to_dict(), indent=1))
        return 0
    for name, metric in record.metrics.items():
        print(f"{name:20} {metric}")
    if curve is not None:
        print(f"curve: {curve}")
    if settings.train.trained == "lora":
        print(f"adapter: {args.out}; to run it:")
        print(f"dreamzero checkpoint merge-lora {find(args.init)} --adapter {args.out} --out DIR")
    else:
        print(f"model: {args.out}")
    return 0


def _curve(out: Path) -> Path | None:
    """A picture of the run's evaluations, where matplotlib is installed and there were any."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return None
    from ..report import plots_training, style

    rows = plots_training.read_log(out / "log.jsonl")
    if sum("open_loop" in row for row in rows) < 2:
        return None
    return style.save(plots_training.early_signals({"": rows}), out, "curve")


def _call(
    train: Callable[..., RunRecord], args: argparse.Namespace, settings: Settings
) -> RunRecord:
    return train(
        args.data,
        args.out,
        args.preset,
        settings.train,
        card=args.card,
        codec=args.codec,
        codec_training=None if settings.codec == CodecTraining() else settings.codec,
        init=args.init,
        latents=args.latents,
        resume=args.resume,
        device=args.device,
        progress=not args.json,
        weights=args.weights,
    )


def _plan(args: argparse.Namespace, settings: TrainSettings) -> int:
    from ..train.plan import plan

    name = args.preset or "tiny"
    found = plan(
        name, settings, args.gpu, args.gpus, canvas_px=_canvas(args.card),
        utilisation=args.utilisation,
    )  # fmt: skip
    if args.json:
        print(json.dumps(found.to_dict(), indent=1))
        return 0
    share = "" if found.trained == found.parameters else f", {found.trained / 1e9:.3g} G trained"
    print(f"{name} on {args.gpus} x {args.gpu}: {found.parameters / 1e9:.3g} G parameters{share}")
    print(f"\n{'memory a GPU':24}{'GB':>8}")
    for what, size in found.memory_gb.items():
        print(f"  {what:22}{size:8.2f}")
    verdict = "fits" if found.fits else "does not fit"
    print(f"  {'all':22}{found.total_gb:8.2f}   of {found.capacity_gb:g}: {verdict}")
    print(f"\n{'a step':24}{'':8}")
    print(f"  {'windows':22}{found.windows_a_step:8.4g}   of up to {found.tokens_a_window} tokens")
    print(f"  {'PFLOP':22}{found.pflop_a_step:8.3g}")
    print(
        f"  {'seconds':22}{found.step_s:8.3g}   "
        + ", ".join(f"{what} {s:.3g}" for what, s in found.seconds.items())
    )
    print(
        f"  {'attention the mask sees':22}{found.useful_attention:7.0%}   of a dense one; no other is computed"
    )
    hours = 24 * found.days * found.gpus
    print(f"\n{found.steps} steps: {found.days:.3g} days, {hours:.4g} GPU hours")
    for line in found.assumed:
        print(f"assumed: {line}")
    if not found.fits:
        print(f"to make it fit: {_advice(settings, args.gpus)}")
    return 0


def _advice(settings: TrainSettings, gpus: int) -> str:
    tips = []
    if settings.sharding == "none" and gpus > 1:
        tips.append("train.sharding=full")
    if settings.recompute != "full":
        tips.append("train.recompute=full")
    if settings.optimizer == "muon" and settings.trained == "all":
        tips.append("train.optimizer=adamw (Muon turns whole matrices)")
    tips.append("a smaller batch or more train.accumulate")
    return ", ".join([*tips, "more GPUs, or train.trained=lora"])


def _canvas(card: str | None) -> tuple[int, int] | None:
    """Of a named card or of a card's file."""
    if card is None:
        return None
    from ..embodiments import Embodiment, get

    if card.endswith(".json"):
        try:
            return Embodiment.from_json(json.loads(Path(card).read_text())).canvas_px
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"--card {card} holds no embodiment card ({error})") from error
    return get(card).canvas_px
