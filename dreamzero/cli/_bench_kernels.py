"""``dreamzero bench kernels``: every operation against its alternatives on this machine."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from dreamzero_kernels.bench import Ceilings, Row

    from ..report.record import RunRecord

_COLUMNS = ("reference", "compiled", "library", "triton")


def run(args: argparse.Namespace) -> int:
    """Exit status 1 when a kernel does not agree with its reference."""
    import torch
    from dreamzero_kernels import bench

    from ..report.record import RunRecord, write_json

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {device}: torch sees no GPU here; use --device cpu")
    for flag in ("tune", "prefer"):
        if getattr(args, flag) and device == "cpu":
            raise UserError(f"--{flag} keeps what is faster on a GPU; this run is on the CPU")
    if args.threads:
        torch.set_num_threads(args.threads)
    names = args.ops.split(",") if args.ops else list(bench.PROBLEMS)
    parameters = {"ops": names, "compile": not args.no_compile, "threads": torch.get_num_threads()}
    record = RunRecord("bench-kernels", parameters=parameters, seed=0, device=device)
    if args.tune:
        record.notes["tiles"] = bench.tune(device)
    try:
        ceilings, rows = bench.measure(device, names, compiled=not args.no_compile)
    except ValueError as error:
        raise UserError(f"--ops: {error}") from None
    _fill(record, ceilings, rows)
    record.notes["driver"] = bench.driver()
    if args.prefer:
        record.notes["preferred"] = bench.prefer(rows, device)
    if args.out is not None:
        # One file a device: rows of several machines lie side by side.
        model = re.sub(r"[^a-z0-9]+", "-", record.device.lower()).strip("-")
        path = write_json(Path(args.out) / f"kernels-{model}.json", record.to_dict())
        record.notes["file"] = str(path)
    if args.json:
        print(json.dumps(record.to_dict(), indent=1))
    else:
        print(_table(record, ceilings, rows))
    return 1 if any(row.wrong for row in rows) else 0


def _fill(record: RunRecord, ceilings: Ceilings | None, rows: list[Row]) -> None:
    if ceilings is not None:
        record.add("copy_bandwidth", ceilings.bandwidth / 1e9, unit="GB/s")
        for dtype, peak in ceilings.matrix.items():
            name = str(dtype).removeprefix("torch.")
            record.add(f"matrix_{name}", peak / 1e12, unit="TFLOP/s")
    for row in rows:
        for backend, t in row.timings.items():
            name = f"{row.name}_{backend}"
            record.add(name, t.ms, unit="ms", n=t.n, low=t.low, high=t.high)
            for what, shares in (("bandwidth", row.bandwidth), ("matrix", row.matrix)):
                if backend in shares:
                    record.add(f"{name}_{what}", shares[backend], unit="%")
        for backend, error in row.errors.items():
            record.add(f"{row.name}_{backend}_error", error)
        if row.speedup is not None:
            record.add(f"{row.name}_speedup", row.speedup)
    record.notes["shapes"] = {row.name: row.shape for row in rows}
    record.notes["missing"] = {row.name: row.failed for row in rows if row.failed}


def _table(record: RunRecord, ceilings: Ceilings | None, rows: list[Row]) -> str:
    lines = [f"kernels on {record.device}"]
    what = "milliseconds"
    if ceilings is not None:
        peaks = ", ".join(
            f"{str(d).removeprefix('torch.')} products {p / 1e12:.3g} TFLOP/s"
            for d, p in ceilings.matrix.items()
        )
        lines.append(f"ceilings: copy {ceilings.bandwidth / 1e9:.4g} GB/s, {peaks}")
        what += " (percent of the matrix ceiling for products, else of the copy's)"
    lines += [f"{what}; speed-up over the fastest other", ""]
    header = "".join(f"{column:>18}" for column in _COLUMNS)
    lines.append(f"{'operation':27}{header}{'speed-up':>10}")
    for row in rows:
        cells = []
        for backend in _COLUMNS:
            timing = row.timings.get(backend)
            text = "-" if timing is None else f"{timing.ms:.4g}"
            share = row.matrix.get(backend, row.bandwidth.get(backend))
            cells.append(text if share is None else f"{text} ({share:.0f} %)")
        speedup = "-" if row.speedup is None else f"{row.speedup:.2f}x"
        lines.append(f"{row.name:27}" + "".join(f"{c:>18}" for c in cells) + f"{speedup:>10}")
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for backend, why in row.failed.items():
            reasons.setdefault(f"{backend}: {why}", []).append(row.name)
    total = len(rows)
    for why, where in reasons.items():
        lines.append(f"{why} ({'all' if len(where) == total > 1 else ', '.join(where)})")
    return "\n".join(lines)


def add_arguments(parser: Any) -> None:
    """The flags of this verb alone."""
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own)")
    parser.add_argument("--ops", metavar="A,B", help="operations (default: all)")
    parser.add_argument("--device", help="cpu or cuda[:i] (default: the GPU if there is one)")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument(
        "--tune", action="store_true", help="first find the fastest tile sizes on this GPU"
    )
    parser.add_argument(
        "--prefer", action="store_true", help="from now on use what was faster on this GPU"
    )
