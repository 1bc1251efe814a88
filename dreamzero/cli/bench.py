"""``dreamzero bench``: what this machine does, in numbers that name the machine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _bench_data, _bench_engine, _bench_kernels, _bench_robot

if TYPE_CHECKING:
    from ..report.record import RunRecord


def add(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "bench",
        help="measure the engine, kernels, data, checkpoints and robots",
        description="Each benchmark compares in one run, interleaved, and names its machine; none "
        "prints a speed-up when results differ. Without a word it is the engine's.",
        epilog="example: dreamzero bench engine --preset wan2.1-14b-droid --all --out reports/hardware "
        "(one H200, under 8 minutes)",
    )
    kinds = parser.add_subparsers(metavar="what", title="what")

    engine = kinds.add_parser(
        "engine",
        help="chunk rate, and where a chunk's time goes (default)",
        description="Times the engine beside the plain path, stage by stage and at every position of "
        "the window, on a policy or (--preset) on random weights. Exit status 1, and no speed-up, when "
        "their numbers disagree.",
        epilog="example: dreamzero bench engine --threads 2",
    )
    _bench_engine.add_arguments(engine)
    _finish(engine, _bench_engine.run)
    parser.set_defaults(function=lambda _: _bench_engine.run(engine.parse_args([])))

    kernels = kinds.add_parser(
        "kernels",
        help="every operation against its alternatives",
        description="Times every operation as reference, compiled, library and Triton kernel, with "
        "percent of this device's ceilings. Exit status 1 when a result differs.",
    )
    _bench_kernels.add_arguments(kernels)
    _finish(kernels, _bench_kernels.run)

    train = kinds.add_parser(
        "train",
        help="a training step, its memory, its attention",
        description="Times a training step with and without recomputing activations, and "
        "teacher-forcing attention beside a dense mask, with memory and ratios. Exit status 1 when "
        "they disagree.",
        epilog="example: dreamzero bench train --preset tiny --threads 2",
    )
    train.add_argument("--preset", default="tiny", help="size of the transformer (default tiny)")
    train.add_argument("--device", help="cpu or cuda[:i] (default: the GPU if there is one)")
    train.add_argument("--repeats", type=int, default=10, help="of everything (default 10)")
    train.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    _finish(train, _train)

    checkpoint = kinds.add_parser(
        "checkpoint",
        help="time and memory of an import",
        description="Makes a sparse checkpoint of real widths (no disk is taken), imports it and "
        "reports time and peak memory. Exit status 1 above the largest tensor and 1 GiB.",
        epilog="example: dreamzero bench checkpoint --gigabytes 20",
    )
    checkpoint.add_argument(
        "--gigabytes", type=float, default=20.0, help="its size (14 to 46; default 20)"
    )
    checkpoint.add_argument(
        "--load", metavar="COMPONENT", help="load this one too (needs its memory)"
    )
    _finish(checkpoint, _checkpoint)

    data = kinds.add_parser(
        "data",
        help="how fast windows are read",
        description="Windows a second beside one seek a frame of the same files, and the share of a "
        "tiny training that waits for data.",
    )
    _bench_data.add_arguments(data)
    _finish(data, _bench_data.run)

    robot = kinds.add_parser(
        "robot",
        help="punctuality, safety and the policy server, on emulated arms",
        description="Streams to emulated arms while a policy thinks beside, pulls cables, loses "
        "datagrams, fuzzes limits and wires, and soaks the policy server. Nothing is asserted: figures "
        "stand beside what they should be.",
        epilog="example: dreamzero bench robot --parts stream,cable --seconds 20",
    )
    _bench_robot.add_arguments(robot)
    _finish(robot, _robot)


def _finish(parser: argparse.ArgumentParser, function: Any) -> None:
    """What every benchmark takes, and what runs it."""
    parser.add_argument("--out", type=Path, help="folder for the record as JSON")
    parser.add_argument("--json", action="store_true", help="print the run record")
    parser.set_defaults(function=function)


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
    record = benchmark.measure(args.preset, device, args.repeats)
    _print(args, record, f"training on {record.device}")
    return 0 if record.notes["agrees"] else 1


def _robot(args: argparse.Namespace) -> int:
    record = _bench_robot.run(args)
    _save(args, record)
    print(json.dumps(record.to_dict(), indent=1) if args.json else _bench_robot.table(record))
    return 0


def _save(args: argparse.Namespace, record: RunRecord) -> None:
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        record.save(args.out)


def _print(args: argparse.Namespace, record: RunRecord, title: str) -> None:
    _save(args, record)
    if args.json:
        print(json.dumps(record.to_dict(), indent=1))
        return
    print(title)
    width = max(len(name) for name in record.metrics)
    for name, metric in record.metrics.items():
        print(f"{name:{width + 2}} {metric}")
