"""``dreamzero bench engine``: the engine beside the plain path, as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..inference.benchmark import Report
    from ..inference.engine import Engine
    from ..model.bundle import WorldActionModel
    from ..report.record import RunRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the engine's benchmark."""
    parser.add_argument("--policy", default="tiny_so101", help="model folder or shipped name")
    parser.add_argument(
        "--preset", help="random weights of this size instead, made on the device: no download"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="also torch.compile, 8-bit floats, guidance with step cache, and Flash",
    )
    parser.add_argument("--device", help="cpu or cuda[:i] (default: the GPU if there is one)")
    parser.add_argument("--steps", type=int, default=4, help="denoising steps (default 4)")
    parser.add_argument("--guidance", type=float, default=1.0, help="guidance (default 1: off)")
    parser.add_argument("--chunks", type=int, default=60, help="whole chunks timed (default 60)")
    parser.add_argument("--repeats", type=int, default=10, help="of everything else (default 10)")
    parser.add_argument(
        "--threads",
        type=int,
        help="CPU threads (default 1: small models gain nothing from more, and lose much beside other "
        "programs)",
    )


def run(args: argparse.Namespace) -> int:
    """Measure and print; exit status 1 when the numbers disagree.

    Under ``torchrun`` all processes compute one model's chunks together, and the first reports.
    """
    import torch

    from ..errors import UserError
    from ..flow import SamplerConfig
    from ..inference import Engine, parallel
    from ..report.record import RunRecord

    threads = 1 if args.threads is None else args.threads
    if min(args.chunks, args.steps, args.repeats, threads) < 1:
        raise UserError("--chunks, --steps, --repeats and --threads must be at least 1")
    torch.set_num_threads(threads)
    together = parallel.start()
    device = args.device or "cpu"
    if args.device is None and torch.cuda.is_available():
        device = "cuda" if together is None else f"cuda:{torch.cuda.current_device()}"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine has no CUDA GPU; leave it out to use the CPU")
    model = _model(args, device)
    skipped = ("function", "json", "out", "verb")
    parameters = {k: v for k, v in vars(args).items() if k not in skipped}
    parameters["threads"] = torch.get_num_threads()
    record = RunRecord("bench-engine", parameters=parameters, seed=0, device=device)
    sampler = SamplerConfig(steps=args.steps, guidance=args.guidance)
    with torch.inference_mode():
        engine = Engine(model.transformer, parallel=together)
        report = _measure(args, model, engine, sampler)
    _summarise(record, report, model)
    record.notes |= {"report": report.to_dict(), "hardware": _hardware(device)}
    record.parameters["processes"] = 1 if together is None else together.world
    if together is None or together.first:
        if args.out is not None:
            _write(args, record)
        shown = [json.dumps(record.to_dict(), indent=1)] if args.json else None
        print("\n".join(shown or _lines(args, record, report)))
    return 1 if report.disagreements else 0


def _model(args: argparse.Namespace, device: str) -> WorldActionModel:
    import torch

    from ..errors import UserError
    from ..inference.synthetic import random_model
    from ..model.bundle import WorldActionModel
    from ..shipped import find

    if args.preset is None:
        return WorldActionModel.load(find(args.policy), device)
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    if device == "cpu":
        import psutil

        sketch = random_model(args.preset, "meta", dtype)
        count = sum(p.numel() for p in sketch.transformer.parameters())
        needs, free = 4 * count / 2**30, psutil.virtual_memory().available / 2**30
        if needs > 0.5 * free:
            raise UserError(
                f"--preset {args.preset}: {needs:.0f} GiB of weights and {free:.0f} GiB of memory "
                "free; it is measured on a GPU, on a CPU take --preset tiny"
            )
    return random_model(args.preset, device, dtype)


def _measure(
    args: argparse.Namespace, model: WorldActionModel, engine: Engine, sampler: Any
) -> Report:
    from ..flow import Reuse, SamplerConfig
    from ..inference import Engine, EngineConfig, WorldActionPolicy
    from ..inference.benchmark import Bench

    def opened(sampler: Any, engine: Engine) -> WorldActionPolicy:
        """With a window as long as it can be, whatever the card says."""
        most = model.card().blocks - 1
        return WorldActionPolicy(model, sampler=sampler, engine=engine, memory_blocks=most)

    policy = opened(sampler, engine)
    bench = Bench(policy, args.repeats)
    report = bench.positions(args.all)
    policy.session.close()
    own = WorldActionPolicy(model, sampler=sampler, engine=engine)
    bench.use(own).chunks("engine", args.chunks)
    own.session.close()
    if not args.all:
        report.unmeasured.append("fp8, guidance with step cache, Flash: give --all")
        return report
    # Cosines between the velocities of random weights mean nothing: after two evaluations every
    # fourth step, which is what trained ones come to.
    reuse = Reuse(((-1.0, 4),))
    cached = SamplerConfig(steps=16, guidance=5.0, reuse=reuse)
    for label, chosen in (
        ("guided chunk, step cache", cached),
        ("flash chunk", SamplerConfig.flash()),
    ):
        policy = opened(chosen, engine)
        bench.use(policy).chunks(label, max(args.chunks // 4, 3))
        policy.session.close()
    engine.close()  # its weights would be counted with the others
    eight = EngineConfig(precision="fp8", keep_originals=False)
    rounded = Engine(model.transformer, eight, engine.parallel)
    policy = opened(SamplerConfig.flash(), rounded)
    bench.use(policy).fill().evaluations("fp8")
    bench.chunks("flash chunk, fp8", max(args.chunks // 4, 3))
    assert rounded.errors is not None
    report.errors |= {f"fp8 {name}": value for name, value in vars(rounded.errors).items()}
    return report


def _summarise(record: RunRecord, report: Report, model: WorldActionModel) -> None:
    """The record's metrics: one number a thing, over all positions."""
    import numpy as np

    whole = report.find("whole chunk", "engine")[0]
    record.add(
        "chunk_rate", 1e3 / whole.ms, unit="Hz", n=whole.n,
        low=1e3 / whole.high_ms, high=1e3 / whole.low_ms,
    )  # fmt: skip
    record.add("real_time", model.card().block_s * 1e3 / whole.ms)
    record.add("evaluations_per_chunk", whole.evaluations or 0)
    record.add("branches", whole.branches or 0)
    record.add("kv_writes_per_chunk", whole.kv_writes or 0)
    for what in ("canvas", "encode", "KV write", "evaluation", "scheduler", "decode"):
        rows = report.find(what, "engine")
        name = what.replace(" ", "_").lower()
        record.add(f"{name}_ms", float(np.mean([row.ms for row in rows])), unit="ms")
    for path, (ratio, *each) in report.speedups("chunk").items():
        record.add(f"speedup_over_{path}", ratio, unit="x", low=min(each), high=max(each))
    for path, error in report.errors.items():
        record.add(f"relative_error_{path.replace(' ', '_')}", error)
    for row in report.rows:
        if row.what == "whole chunk" and row.path != "engine":
            record.add(f"{_name(row.path)}_ms", row.ms, unit="ms", n=row.n)
    for row in report.find("evaluation", "fp8"):
        record.add("evaluation_fp8_ms", row.ms, unit="ms", n=row.n)
    for label, gib in report.memory_gib.items():
        record.add(f"memory_{_name(label)}", gib, unit="GiB")


def _name(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")


def _hardware(device: str) -> dict[str, str | None]:
    """What the run record does not say: the driver's version, and the library's for CUDA."""
    import torch

    if not device.startswith("cuda"):
        return {"driver": None, "cuda": None}
    from ..report.machine import driver

    return {"driver": driver(), "cuda": torch.version.cuda}


def _write(args: argparse.Namespace, record: RunRecord) -> None:
    """``OUT/<device>_<model>.json``, and metrics.json beside it for the reports."""
    args.out.mkdir(parents=True, exist_ok=True)
    device = record.device.split(":", 1)[-1].split(",")[0]
    path = Path(args.out) / f"{_name(device)}_{_name(args.preset or args.policy)}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record.to_dict(), indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _count(number: int | None, what: str, plural: str = "s") -> str:
    return f"{number} {what}{'' if number == 1 else plural}"


def _lines(args: argparse.Namespace, record: RunRecord, report: Report) -> list[str]:
    """The table a person reads."""
    from ..report.hardware import PRESET, TARGETS

    lines = [f"{args.preset or args.policy} on {record.device}"]
    if report.ceilings is not None:
        lines.append(
            f"measured ceilings: {report.ceilings.flops / 1e12:.3g} TFLOP/s, "
            f"{report.ceilings.bytes / 1e9:.3g} GB/s"
        )
    lines += ["", f"{'milliseconds, by latent frames in the window':50} path"]
    positions = sorted({r.cached_frames for r in report.rows if r.cached_frames is not None})
    lines.append(
        f"{'':50} {'':10}" + "".join(f"{p:>10}" for p in positions) + "   matmul, bandwidth"
    )
    for what, path in dict.fromkeys((r.what, r.path) for r in report.rows if r.cached_frames):
        rows = {r.cached_frames: r for r in report.find(what, path)}
        cells = "".join(f"{rows[p].ms:>10.2f}" if p in rows else f"{'':>10}" for p in positions)
        last = rows[max(rows)]  # type: ignore[type-var]
        share = ""
        if last.matmul_percent is not None and last.bandwidth_percent is not None:
            share = f"   {last.matmul_percent:.0f} %, {last.bandwidth_percent:.0f} %"
        held = [_count(last.evaluations, "evaluation") if last.evaluations else "", last.tier]
        if last.kv_writes:
            held.insert(1, _count(last.kv_writes, "KV write"))
        lines.append(
            f"{what + ' (' + ', '.join(h for h in held if h) + ')':50} {path:10}{cells}{share}"
        )
    lines.append("")
    for row in (r for r in report.rows if r.what == "whole chunk"):
        holds = ", ".join(
            (
                _count(row.evaluations, "evaluation"),
                _count(row.branches, "branch", "es"),
                _count(row.kv_writes, "KV write"),
            )
        )
        lines.append(
            f"{row.path}: {row.ms:.1f} ms [{row.low_ms:.1f}, {row.high_ms:.1f}], "
            f"{1e3 / row.ms:.1f} chunks/s ({holds}; {row.tier})"
        )
    lines += [f"memory, {label}: {gib:.1f} GiB" for label, gib in report.memory_gib.items()]
    lines += [f"relative error, {path}: {error:.1e}" for path, error in report.errors.items()]
    if args.preset == PRESET and "H200" in record.device:
        lines += [f"target, {t.label}: {t.limit:g} {t.unit}" for t in TARGETS]
    if report.disagreements:
        lines += [f"no speed-up is claimed: {why}" for why in report.disagreements]
    for path, (ratio, *each) in report.speedups("chunk").items():
        shown = ", ".join(f"{ratio:.1f}" for ratio in each)
        lines.append(f"chunk: {path} takes {ratio:.1f} times as long as the engine ({shown})")
    return lines + [f"not measured: {what}" for what in report.unmeasured]
