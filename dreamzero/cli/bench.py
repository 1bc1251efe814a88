"""``dreamzero bench``: what this machine does with a model, in numbers that name the machine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..report.record import RunRecord


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "bench",
        help="measure chunk rate and where a chunk's time goes",
        description=(
            "engine: feeds random frames to a policy and reports chunks a second with evaluations, "
            "guidance branches and KV writes a chunk, and the milliseconds of every part. "
            "checkpoint: makes a sparse checkpoint of real widths (no disk is taken), imports it and "
            "reports time and peak memory; exit status 1 above the largest tensor and 1 GiB."
        ),
        epilog="examples: dreamzero bench --steps 4 --threads 2 --json; "
        "dreamzero bench checkpoint --gigabytes 20",
    )
    parser.add_argument(
        "what", nargs="?", default="engine", choices=("engine", "checkpoint"), help="default engine"
    )
    parser.add_argument(
        "--gigabytes", type=float, default=20.0, help="checkpoint: its size (14 to 46; default 20)"
    )
    parser.add_argument(
        "--load", metavar="COMPONENT", help="checkpoint: load this one too (needs its memory)"
    )
    parser.add_argument("--policy", default="tiny_so101", help="model folder or shipped name")
    parser.add_argument("--steps", type=int, default=4, help="denoising steps (default 4)")
    parser.add_argument("--guidance", type=float, default=1.0, help="guidance (default 1: off)")
    parser.add_argument("--chunks", type=int, default=60, help="chunks measured (default 60)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own)")
    parser.add_argument("--out", type=Path, help="folder for metrics.json")
    parser.add_argument("--json", action="store_true", help="print the run record")
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


def run(args: argparse.Namespace) -> int:
    if args.what == "checkpoint":
        return _checkpoint(args)
    import numpy as np
    import torch

    from ..errors import UserError
    from ..evaluate.probe import Probe
    from ..flow import SamplerConfig
    from ..inference import load_policy
    from ..report.record import RunRecord

    if args.chunks < 1 or args.steps < 1:
        raise UserError("--chunks and --steps must be at least 1")
    if args.threads:
        torch.set_num_threads(args.threads)
    policy = load_policy(
        args.policy, sampler=SamplerConfig(steps=args.steps, guidance=args.guidance)
    )
    parameters = {k: v for k, v in vars(args).items() if k not in ("function", "json")}
    parameters["threads"] = torch.get_num_threads()
    record = RunRecord("bench-engine", parameters=parameters, seed=0, device="cpu")
    card, rng = policy.card, np.random.default_rng(0)
    height, width = card.canvas_px
    shape = (card.frames_per_block, height, width, 3)
    views = {view: rng.integers(0, 255, shape, dtype=np.uint8) for view in card.views}
    state = np.zeros(card.state_dim, dtype=np.float32)

    def chunk() -> None:
        policy.observe(views, state)
        policy.act()

    policy.reset("push the red block to the left")
    policy.observe({view: frames[:1] for view, frames in views.items()}, state)
    for _ in range(card.blocks + 1):
        chunk()  # every position of the window once
    with Probe(policy) as probe:
        for _ in range(args.chunks):
            chunk()
        calls, milliseconds = probe.calls(), probe.milliseconds()
        spent = np.array(probe.total_s)
    low, middle, high = np.quantile(spent, [0.05, 0.5, 0.95])
    record.add("chunk_rate", 1 / middle, unit="Hz", n=args.chunks, low=1 / high, high=1 / low)
    record.add("real_time", card.block_s / middle)
    record.add("evaluations_per_chunk", calls["evaluations"])
    record.add("branches", 2 if args.guidance != 1.0 else 1)
    record.add("kv_writes_per_chunk", calls["KV write"])
    for part, value in milliseconds.items():
        record.add(f"{part.replace(' ', '_').lower()}_ms", value, unit="ms")
    _print(args, record, f"{args.policy} on {record.device}, {torch.get_num_threads()} threads")
    return 0


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
