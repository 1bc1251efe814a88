"""``dreamzero bench``: what this machine does with a model, in numbers that name the machine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _bench_engine, _bench_kernels

if TYPE_CHECKING:
    from ..report.record import RunRecord


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "bench",
        help="measure chunk rate and where a chunk's time goes",
        description=(
            "engine: times the engine beside the plain path, stage by stage and at every position of "
            "the window, on a policy or (--preset) on random weights; exit status 1, and no speed-up, "
            "when their numbers disagree. "
            "kernels: times every operation as reference, compiled, library and Triton kernel, with "
            "percent of this device's ceilings, and exits with 1 when a result differs. "
            "train: times a training step with and without recomputing activations, and teacher-forcing "
            "attention beside a dense mask, with memory and ratios; exit status 1 when they disagree. "
            "checkpoint: makes a sparse checkpoint of real widths (no disk is taken), imports it and "
            "reports time and peak memory; exit status 1 above the largest tensor and 1 GiB."
        ),
        epilog="examples: dreamzero bench engine --threads 2; dreamzero bench engine --preset "
        "wan2.1-14b-droid --all --out reports/hardware (one H200, under 8 minutes); "
        "dreamzero bench train --preset tiny --threads 2; dreamzero bench checkpoint --gigabytes 20",
    )
    parser.add_argument(
        "what",
        nargs="?",
        default="engine",
        choices=("engine", "kernels", "train", "checkpoint"),
        help="default engine",
    )
    parser.add_argument(
        "--gigabytes", type=float, default=20.0, help="checkpoint: its size (14 to 46; default 20)"
    )
    parser.add_argument(
        "--load", metavar="COMPONENT", help="checkpoint: load this one too (needs its memory)"
    )
    _bench_engine.add_arguments(parser)
    parser.add_argument("--out", type=Path, help="folder for the record as JSON")
    parser.add_argument("--json", action="store_true", help="print the run record")
    _bench_kernels.add_arguments(parser)
    parser.set_defaults(function=run)


def _checkpoint(args: argparse.Namespace) -> int:
    from ..model.checkpoints import benchmark
    from ..report.record import RunRecord

    parameters = {"gigabytes": args.gigabytes, "load": args.load}
    record = RunRecord("bench-checkpoint", parameters=parameters, seed=0, device="cpu")
    results = benchmark.run(args.gigabytes, load=args.load or "")
    for name, memory in results.items():
        what = name.replace(" ", "_")
        record.add(f"{what}_size", memory.written / 1e9, unit="GB")
        record.add(f"{what}_largest_tensor", memory.largest / 1e9, unit="GB")
        record.add(f"{what}_memory_above_destination", memory.above / 1e9, unit="GB")
        record.add(f"{what}_mapped_pages", memory.mapped / 1e9, unit="GB")
        record.add(f"{what}_bound", memory.bound / 1e9, unit="GB")
        record.add(f"{what}_time", memory.seconds, unit="s")
    _print(args, record, f"checkpoint on {record.device}")
    return 0 if all(memory.above < memory.bound for memory in results.values()) else 1


def _train(args: argparse.Namespace) -> int:
    import torch

    from ..errors import UserError
    from ..train import benchmark

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine has no CUDA GPU; leave it out to use the CPU")
    if args.threads:
        torch.set_num_threads(args.threads)
    record = benchmark.measure(args.preset or "tiny", device, args.repeats)
    _print(args, record, f"training on {record.device}")
    return 0 if record.notes["agrees"] else 1


def run(args: argparse.Namespace) -> int:
    if args.what == "checkpoint":
        return _checkpoint(args)
    if args.what == "train":
        return _train(args)
    if args.what == "kernels":
        return _bench_kernels.run(args)
    return _bench_engine.run(args)


def _print(args: argparse.Namespace, record: RunRecord, title: str) -> None:
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        record.save(args.out)
    if args.json:
        print(json.dumps(record.to_dict(), indent=1))
        return
    print(title)
    width = max(len(name) for name in record.metrics)
    for name, metric in record.metrics.items():
        print(f"{name:{width + 2}} {metric}")
