"""The run record: one ``metrics.json`` for every training run, rollout set and notebook.

It says what was run (parameters, seed, commit, versions, machine), what came out (metrics with
their number of trials and interval) and which files belong to it (with their hashes). Everything
that is shown later, pages and tables alike, is rendered from these files.

    record = RunRecord("train", parameters=to_dict(config), seed=0, device="cpu")
    record.add("psnr", 30.2, unit="dB", n=64, low=29.8, high=30.6)
    record.artifact(out / "model.safetensors")
    record.save(out)

Only the standard library is needed here, so every room of the house may import this module.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import time
from dataclasses import asdict, dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

from dreamzero.config import plain
from dreamzero.errors import UserError
from dreamzero.report.machine import describe_device, git_state, versions

FILE_NAME = "metrics.json"


@dataclass(frozen=True)
class Metric:
    """One number: value and unit, trials ``n``, and the 95 % interval ``[low, high]`` if known.

    ``value`` is None when what was measured is not finite (a diverged loss), never left out.
    """

    value: float | int | None
    unit: str = ""
    n: int | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        text = "not finite" if self.value is None else format_number(self.value)
        unit = f" {self.unit}" if self.unit else ""
        if self.low is not None and self.high is not None:
            unit += f" [{format_number(self.low)}, {format_number(self.high)}]"
        return text + unit + (f", n = {self.n}" if self.n is not None else "")

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What a notebook shows for it."""
        printer.text(str(self))


@dataclass
class RunRecord:
    """What one run was and what came out of it.

    Attributes:
        name: what was run ("train", "03_inference").
        parameters: JSON-ready settings; dataclasses are taken apart with `config.to_dict`.
        seed: the seed everything random in the run was drawn from.
        device: "cpu" or "cuda[:i]"; the record holds the name of the processor or GPU.
        seconds: wall time; measured from construction to `save` unless given.
        notes: further JSON-ready facts (a notebook's question, answer and captions).
    """

    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    device: str = "cpu"
    seconds: float | None = None
    metrics: dict[str, Metric] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    git: dict[str, Any] = field(default_factory=git_state)
    versions: dict[str, str] = field(default_factory=versions)
    artifacts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._start = time.monotonic()
        self._files: list[Path] = []
        self.device = describe_device(str(self.device))

    def add(
        self,
        name: str,
        value: float,
        unit: str = "",
        n: int | None = None,
        low: float | None = None,
        high: float | None = None,
    ) -> Metric:
        """Record one metric; numbers may be numpy or torch scalars. Replaces one of that name."""
        kept = _number(value)
        metric = Metric(kept, unit, None if n is None else int(n), _finite(low), _finite(high))
        self.metrics[name] = metric
        return metric

    def artifact(self, path: str | os.PathLike[str]) -> Path:
        """Name a file as part of the result; it is hashed when the record is saved."""
        self._files.append(Path(path))
        return Path(path)

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write ``directory/metrics.json`` in one step (a reader never sees half of it).

        Raises:
            ValueError: an artifact lies outside ``directory``.
            FileNotFoundError: an artifact does not exist.
        """
        out = Path(directory)
        out.mkdir(parents=True, exist_ok=True)
        for path in self._files:
            try:
                relative = path.resolve().relative_to(out.resolve())
            except ValueError:
                raise ValueError(
                    f"artifact {path} lies outside the record's folder {out}"
                ) from None
            self.artifacts[relative.as_posix()] = sha256(path)
        if self.seconds is None:
            self.seconds = round(time.monotonic() - self._start, 3)
        return write_json(out / FILE_NAME, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The content of ``metrics.json``."""
        return {
            "name": self.name,
            "parameters": _finite_tree(plain(self.parameters)),
            "seed": self.seed,
            "git": self.git,
            "versions": self.versions,
            "device": self.device,
            "seconds": self.seconds,
            "metrics": {name: asdict(metric) for name, metric in self.metrics.items()},
            "artifacts": dict(sorted(self.artifacts.items())),
            "notes": _finite_tree(plain(self.notes)),
        }


def load(path: str | os.PathLike[str]) -> RunRecord:
    """Read a record from ``metrics.json`` or the folder that holds it.

    Raises:
        UserError: there is no such file, or it is not a run record.
    """
    file = Path(path)
    file = file / FILE_NAME if file.is_dir() else file
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: no run record here; expected a {FILE_NAME}") from None
    except (ValueError, IsADirectoryError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not a run record ({error}); expected JSON") from None
    try:
        record = RunRecord(
            name=data["name"],
            parameters=data["parameters"],
            seed=data["seed"],
            device="cpu",
            seconds=data["seconds"],
            metrics={name: Metric(**metric) for name, metric in data["metrics"].items()},
            notes=data.get("notes", {}),
            git=data["git"],
            versions=data["versions"],
            artifacts=data["artifacts"],
        )
        record.device = data["device"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: not a run record, {error} is missing or malformed") from None
    return record


def verify(record: RunRecord, directory: str | os.PathLike[str]) -> list[str]:
    """Names of the record's artifacts that are missing or have another hash now."""
    changed = []
    for name, digest in record.artifacts.items():
        path = Path(directory) / name
        if not path.is_file() or sha256(path) != digest:
            changed.append(name)
    return changed


def is_deep(name: str) -> bool:
    """Whether a metric is one of many of its kind, as "cells/labels/wam-640/so101/seen": folded in reports."""
    return name.count("/") > 2


def format_number(value: float) -> str:
    """A number as a reader wants it: four significant digits, no exponent from 0.001 to 1e6."""
    if isinstance(value, int) or float(value).is_integer() and abs(value) < 1e6:
        return str(int(value))
    if 1e-3 <= abs(value) < 1e6:
        digits = max(0, 3 - math.floor(math.log10(abs(value))))
        text = f"{value:.{digits}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.3g}"


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, data: Any) -> Path:
    """Write JSON through a temporary file beside ``path`` and a rename."""
    return write_text(path, json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> Path:
    """Write text through a temporary file beside ``path`` and a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool):
        raise TypeError("a metric is a number; record a yes or no as a count with its n")
    if isinstance(value, Integral):
        return int(value)
    return _finite(value)


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(float(value)) else None


def _finite_tree(value: Any) -> Any:
    """JSON has no NaN: what is not finite becomes null."""
    if isinstance(value, dict):
        return {key: _finite_tree(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite_tree(item) for item in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None
