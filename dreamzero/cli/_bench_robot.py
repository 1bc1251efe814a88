"""``dreamzero bench robot``: what the drivers, the loop and the server promise, measured on this machine."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from ..report.record import RunRecord


@dataclass(frozen=True)
class Aim:
    """What a figure should be: at most ``most``."""

    metric: str
    most: float
    label: str


AIMS = (
    Aim("stream/jitter_p99_ms", 2.0, "100 Hz stream: jitter p99"),
    Aim("stream/deadlines_missed", 0.0, "100 Hz stream: deadlines missed"),
    Aim("rtde/missed_percent", 0.1, "500 Hz RTDE: deadlines missed"),
    Aim("feetech/sync_read_p50_ms", 1.5, "sync read of six Feetech servos: p50"),
    Aim("dynamixel/sync_read_p50_ms", 1.5, "sync read of six Dynamixel servos: p50"),
    Aim("limits/violations", 0.0, "fuzzed commands outside limits"),
    Aim("frames/crashes", 0.0, "fuzzed frames: crashes"),
    Aim("frames/accepted", 0.0, "fuzzed frames taken for genuine"),
    Aim("cable/noticed_ms", 100.0, "pulled cable: until it holds"),
    Aim("cable/moves_ms", 1000.0, "cable back: until it moves again"),
    Aim("udp/unsafe", 0.0, "UDP with 10 % loss, 50 ms jitter: unsafe poses"),
    Aim("server/grown_rss_mib", 8.0, "policy server, 8 clients: memory grown"),
    Aim("server/honest_errors", 0.0, "policy server: honest clients turned away"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the robots' benchmark."""
    parser.add_argument(
        "--parts",
        default=",".join(PARTS),
        help=f"which, separated by commas (default: {','.join(PARTS)})",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of every stream (default 60)")
    parser.add_argument("--soak", type=float, default=600.0, help="of the server (default 600 s)")
    parser.add_argument("--n", type=int, default=1_000_000, help="fuzzed commands and frames each")
    parser.add_argument(
        "--policy", default="tiny_so101", help="what thinks beside the 100 Hz stream"
    )


def run(args: argparse.Namespace) -> RunRecord:
    """Measure the parts one after the other; figures as "part/figure"."""
    from ..report.record import RunRecord

    chosen = [part.strip() for part in args.parts.split(",") if part.strip()]
    if unknown := [part for part in chosen if part not in PARTS]:
        raise UserError(f"--parts {unknown[0]}: known are {', '.join(PARTS)}")
    if min(args.seconds, args.soak, args.n) <= 0:
        raise UserError("--seconds, --soak and --n must be positive")
    parameters = {"parts": chosen, "seconds": args.seconds, "soak": args.soak, "n": args.n}
    parameters["policy"] = args.policy
    record = RunRecord("bench-robot", parameters=parameters, seed=0, device="cpu")
    record.notes["load_before"] = os.getloadavg()[0]
    for part in chosen:
        print(f"bench robot: {part} ...", file=sys.stderr, flush=True)
        for name, value in PARTS[part](args).items():
            record.add(name, value, unit=_unit(name))
    return record


def table(record: RunRecord) -> str:
    """Figures beside what they should be, and the others below."""
    lines = [f"robots on {record.device}"]
    for aim in AIMS:
        metric = record.metrics.get(aim.metric)
        if metric is not None and metric.value is not None:
            met = "" if metric.value <= aim.most else "   above"
            lines.append(f"{aim.label:52} {metric!s:>14}   aim <= {aim.most:g}{met}")
    known = {aim.metric for aim in AIMS}
    lines.append("")
    lines += [f"{name:40} {m}" for name, m in record.metrics.items() if name not in known]
    return "\n".join(lines)


def _unit(name: str) -> str:
    endings = {"_ms": "ms", "_us": "us", "_mib": "MiB", "_percent": "%", "_rad": "rad"}
    return next((unit for end, unit in endings.items() if name.endswith(end)), "")


def _named(part: str, figures: dict[str, Any]) -> dict[str, float]:
    return {f"{part}/{name}": float(value) for name, value in figures.items()}


def _stream(args: argparse.Namespace) -> dict[str, float]:
    from ..robots.benchmark import stream_100hz

    return _named("stream", stream_100hz(args.seconds, policy=args.policy))


def _rtde(args: argparse.Namespace) -> dict[str, float]:
    from .. import embodiments
    from ..robots import Emulator
    from ..robots.clock import punctual_process
    from ..robots.ur.bench import stream

    punctual_process()
    with Emulator("ur5e") as emulator:
        times = stream(emulator.uri, embodiments.get("tabletop_ur5e"), args.seconds)
    return _named("rtde", times.summary() | {"real_time": times.real_time})


def _servos(args: argparse.Namespace) -> dict[str, float]:
    import numpy as np

    from .. import embodiments
    from ..robots import Emulator
    from ..robots.servos.timing import time_sync_read

    found: dict[str, float] = {}
    for robot, bus in (("so101", "feetech"), ("koch", "dynamixel")):
        with Emulator(robot, physics="lag") as emulator:
            card = embodiments.get(f"tabletop_{robot}")
            read_ms = 1e3 * time_sync_read(emulator.uri, card, 1000)
        for share in (50, 99):
            found[f"{bus}/sync_read_p{share}_ms"] = float(np.percentile(read_ms, share))
    return found


def _limits(args: argparse.Namespace) -> dict[str, float]:
    from ..robots.benchmark import fuzz_guard

    return _named("limits", fuzz_guard(args.n))


def _frames(args: argparse.Namespace) -> dict[str, float]:
    from ..robots.fuzz import fuzz_frames

    return _named("frames", fuzz_frames(args.n))


def _cable(args: argparse.Namespace) -> dict[str, float]:
    from ..robots.benchmark import pulled_cable

    return _named("cable", pulled_cable(policy=args.policy))


def _udp(args: argparse.Namespace) -> dict[str, float]:
    from .. import embodiments
    from ..robots import Emulator
    from ..robots.emulation.impairments import Impairments
    from ..robots.stream.bench import run

    bad = Impairments(delay_s=0.02, jitter_s=0.05, loss=0.1, corrupt=0.01)
    with Emulator("franka", network=bad) as emulator:
        report = run(emulator.uri, embodiments.get("tabletop_franka"), args.seconds, 100.0)
    return _named("udp", report.to_dict())


def _server(args: argparse.Namespace) -> dict[str, float]:
    from ..serve.soak import soak

    report = soak(args.soak, 8)
    figures = {f"p{share}_ms": report.percentile_ms(share) for share in (50, 99)}
    for what in ("rss_mib", "fds", "threads", "tasks"):
        figures[f"grown_{what}"] = report.grown(what)
    figures |= {
        "chunks": len(report.latency_ms),
        "honest_errors": sum(report.errors.values()),
        "malformed": sum(report.mischief.values()),
        "exit_status": -1 if report.exit_status is None else report.exit_status,
    }
    return _named("server", figures)


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "stream": _stream,
    "rtde": _rtde,
    "servos": _servos,
    "cable": _cable,
    "udp": _udp,
    "limits": _limits,
    "frames": _frames,
    "server": _server,
}
