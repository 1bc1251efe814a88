"""How much memory and time an import and a load take, on a sparse checkpoint made for it.

The checkpoint has the real widths and fewer layers. Its files are holes: they take no disk, but reading
them fills pages like any other file. Each measurement runs in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from ...errors import UserError
from .miniature import FULL, Shape, Widths, release_shapes, write_text_files
from .shards import Entry
from .writer import ShardSet, progress_bar

GIB = 1 << 30


@dataclass(frozen=True)
class Memory:
    """One measured call; bytes. ``anonymous`` is memory proper, ``mapped`` pages of files that the
    system takes back whenever it needs them; both are peaks above what the process had before.

    Attributes:
        written: bytes of weights that were copied.
        destination: bytes that stay in memory afterwards (0 for an import).
        largest: bytes of the largest tensor.
    """

    anonymous: int
    mapped: int
    total: int
    written: int
    destination: int
    largest: int
    seconds: float

    @property
    def above(self) -> int:
        """Peak of anonymous memory above the destination."""
        return self.anonymous - self.destination

    @property
    def bound(self) -> int:
        """What ``above`` has to stay under: the largest tensor and 1 GiB."""
        return self.largest + GIB


def widths_for(gigabytes: float) -> Widths:
    """Real widths with as many layers as come closest to that size in bf16, 1 to 40."""
    one, two = (
        sum(Entry("", "BF16", s, Path()).nbytes for s in release_shapes(w).values())
        for w in (replace(FULL, layers=1), replace(FULL, layers=2))
    )
    layers = 1 + round((gigabytes * 1e9 - one) / (two - one))
    return replace(FULL, layers=min(max(layers, 1), 40))


def write_sparse(out: Path, widths: Widths, shard_bytes: int = 5_000_000_000) -> int:
    """A checkpoint in the public layout whose files are one hole each; returns its bytes."""
    out.mkdir(parents=True)
    announced: dict[str, tuple[str, Shape]] = {
        name: ("BF16", shape) for name, shape in release_shapes(widths).items()
    }
    total = sum(Entry(name, *spec, out).nbytes for name, spec in announced.items())
    with progress_bar(total, "write", False) as bar:
        files = ShardSet(out, "model", announced, bar, shard_bytes)
        files.leave_holes()
    write_text_files(out, widths)
    return total


def measure_import(checkpoint: Path, out: Path) -> Memory:
    """Import in a process of its own."""
    return _measure("import", checkpoint, out)


def measure_load(folder: Path, component: str) -> Memory:
    """Load one component of an imported folder in a process of its own."""
    return _measure("load", folder, Path(component))


def _measure(what: str, path: Path, argument: Path) -> Memory:
    command = [sys.executable, "-m", __name__, what, str(path), str(argument)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed"])[-1]
        raise UserError(f"the {what} that was to be measured failed: {last}")
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def run(gigabytes: float = 20.0, folder: Path | None = None, load: str = "") -> dict[str, Memory]:
    """Make the checkpoint in a temporary folder, import it, load a component, clean up.

    Args:
        gigabytes: size of the checkpoint; at least that of one layer with all encoders (14).
        folder: where the temporary folder goes (default: the system's).
        load: component to load as well; its bytes have to fit into memory.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="dreamzero-bench-") as name:
        root = Path(name)
        write_sparse(root / "public", widths_for(gigabytes))
        results = {"import": measure_import(root / "public", root / "ours")}
        if load:
            results[f"load {load}"] = measure_load(root / "ours", load)
    return results


class Watch:
    """Highest anonymous and file-backed memory of this process above its start, sampled at 200 Hz."""

    def __init__(self) -> None:
        self.start = _status()
        self.peak = dict(self.start)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self._stop.wait(0.005):
            now = _status()
            self.peak = {key: max(now[key], self.peak[key]) for key in now}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        now = _status()
        self.peak = {key: max(now[key], self.peak[key]) for key in now}

    def above(self, key: str) -> int:
        return self.peak[key] - self.start[key]


def _status() -> dict[str, int]:
    """RssAnon, RssFile and VmRSS of this process, in bytes (Linux)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError as error:
        raise UserError("memory is measured with /proc, which this system lacks") from error
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return {key: int(fields[key].split()[0]) * 1024 for key in ("RssAnon", "RssFile", "VmRSS")}


def _watched(call: Callable[[], int], written: int, largest: int) -> Memory:
    begin = time.perf_counter()
    with Watch() as watch:
        destination = call()
    return Memory(
        anonymous=watch.above("RssAnon"),
        mapped=watch.above("RssFile"),
        total=watch.above("VmRSS"),
        written=written,
        destination=destination,
        largest=largest,
        seconds=time.perf_counter() - begin,
    )


def _main(what: str, path: Path, argument: Path) -> None:
    from .importer import import_checkpoint
    from .layouts import open_layout
    from .loading import load_component

    entries = [
        entry
        for component, entry in open_layout(path).tensors()
        if what == "import" or component == str(argument)
    ]
    written, largest = sum(e.nbytes for e in entries), max(e.nbytes for e in entries)
    # The libraries are imported before the watch starts: they are not the checkpoint's memory.
    from diffusers import AutoencoderKLWan  # noqa: F401
    from transformers import CLIPVisionModel, UMT5EncoderModel  # noqa: F401

    from ..transformer import DreamZeroTransformer  # noqa: F401

    def call() -> int:
        if what == "import":
            import_checkpoint(path, argument)
            return 0
        module = load_component(path, str(argument))
        return sum(p.nbytes for p in module.parameters())

    print(json.dumps(_watched(call, written, largest).__dict__))


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
