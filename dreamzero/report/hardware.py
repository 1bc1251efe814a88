"""What others published of the 14B's speed, what is aimed at on one GPU, and what was measured there.

Records lie in ``reports/hardware/*.json``, written by ``COMMAND`` on a machine with a GPU. Where there
are none, the tables say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .paths import repository_root
from .record import RunRecord, format_number, load

COMMAND = "dreamzero bench engine --preset wan2.1-14b-droid --all --out reports/hardware"
PRESET = "wan2.1-14b-droid"
UNMEASURED = "not measured"
BASELINE_S = 5.7


@dataclass(frozen=True)
class Published:
    """A row of table 1 of arXiv 2602.15922: times as fast as ``BASELINE_S``, all rows above included.

    Attributes:
        h100, gb200: on that machine (two GPUs from the second row on); None: not published.
        here: what does it in this engine.
    """

    label: str
    h100: float | None
    gb200: float
    here: str


PUBLISHED = (
    Published("baseline, 16 steps, guided", 1.0, 1.1, "keys and values kept"),
    Published("+ a guidance branch a GPU", 1.9, 1.8, "one batch; a branch a GPU under torchrun"),
    Published("+ step cache, about 4 of 16", 5.5, 5.4, "Reuse() of the sampler"),
    Published("+ torch.compile, CUDA graphs", 8.9, 10.9, "graphs and kernels, on a GPU"),
    Published("+ kernels, scheduler on the GPU", 9.6, 14.8, "tables made once; a kernel on a GPU"),
    Published("+ 4-bit floats (NVFP4)", None, 16.6, "8-bit floats, on a GPU"),
    Published("+ Flash: 1 step", None, 38.0, "SamplerConfig.flash()"),
)


def published_rows() -> list[dict[str, Any]]:
    """The published ladder as a table; seconds follow from the factors."""

    def cell(factor: float | None) -> str:
        return "-" if factor is None else f"{factor:g} x, {BASELINE_S / factor:.2f} s"

    return [
        {
            "published": r.label,
            "H100": cell(r.h100),
            "GB200": cell(r.gb200),
            "in this engine": r.here,
        }
        for r in PUBLISHED
    ]


@dataclass(frozen=True)
class Target:
    """A row of the table to fill on one H200.

    Attributes:
        label: as ``dreamzero bench engine`` calls it; best: the best published figure.
        limit: to reach, in ``unit``.
        what, path: of the row in a benchmark's report; ``what`` "memory" is its GiB.
    """

    label: str
    best: str
    limit: float
    what: str
    path: str
    unit: str = "ms"


TARGETS = (
    Target("evaluation, bf16", "188 ms (eager, H200 NVL)", 85, "evaluation", "engine"),
    Target("evaluation, fp8", "none on one GPU", 60, "evaluation", "fp8"),
    Target(
        "guided chunk, step cache", "1.78 s on H100; 0.58 s on 2 x H200 (TensorRT fp8)", 550,
        "whole chunk", "guided chunk, step cache",
    ),
    Target("flash chunk", "150 ms on 2 x GB200", 143, "whole chunk", "flash chunk"),
    Target("flash chunk, fp8", "150 ms on 2 x GB200", 143, "whole chunk", "flash chunk, fp8"),
    Target("memory, flash chunk, fp8", "66 GiB", 30, "memory", "flash chunk, fp8", "GiB"),
)  # fmt: skip


def records(folder: Path | None = None) -> list[RunRecord]:
    """Benchmarks of the engine in ``reports/hardware``; none where there is no such folder.

    Raises:
        UserError: a file there is not a run record.
    """
    folder = repository_root() / "reports" / "hardware" if folder is None else folder
    found = [load(path) for path in sorted(folder.glob("*.json"))]
    # metrics.json may lie beside them for the page of reports: the same run twice.
    return [record for record in found if record.name == "bench-engine"]


def measured(target: Target, record: RunRecord) -> float | None:
    """The target's figure in a record (last position of the window); None without it."""
    report = record.notes["report"]
    if target.what == "memory":
        gib: float | None = report["memory_gib"].get(target.path)
        return gib
    rows = [r for r in report["rows"] if (r["what"], r["path"]) == (target.what, target.path)]
    return float(rows[-1]["ms"]) if rows else None


def target_rows(found: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """The GPU table: best published, aimed at, and measured by the records of the large preset."""
    large = [
        r for r in found if r.parameters.get("preset") == PRESET and r.device.startswith("cuda")
    ]
    rows = []
    for target in TARGETS:
        here = []
        for record in large:
            value = measured(target, record)
            if value is not None:
                here.append(f"{format_number(value)} {target.unit} ({_machine(record)})")
        rows.append(
            {
                PRESET: target.label,
                "best published": target.best,
                "aim, one H200": f"{target.limit:g} {target.unit}",
                "measured": "; ".join(here) or UNMEASURED,
            }
        )
    return rows


def unmeasured(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Labels of the rows of ``target_rows`` that nothing fills."""
    return [row[PRESET] for row in rows if row["measured"] == UNMEASURED]


def chunk_rows(found: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Whole chunks of all records: machine, model, what a chunk held, chunks a second, tier."""
    rows = []
    for record in found:
        model = record.parameters.get("preset") or record.parameters.get("policy")
        for row in record.notes["report"]["rows"]:
            if row["what"] == "whole chunk":
                rows.append(
                    {
                        "machine": _machine(record),
                        "model": model,
                        "chunk": row["path"],
                        "holds": f"{row['evaluations']} x {row['branches']} evaluations, "
                        f"{row['kv_writes']} KV write",
                        "ms": row["ms"],
                        "chunks/s": 1e3 / row["ms"],
                        "tier": row["tier"],
                    }
                )
    return rows


def _machine(record: RunRecord) -> str:
    name = record.device.split(":", 1)[-1].split(",")[0].strip()
    return f"{name}, commit {(record.git.get('commit') or 'unknown')[:8]}"
