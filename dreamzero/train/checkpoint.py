"""What a run is resumed from: folders that are whole or not there, whoever wrote or reads them.

```text
OUT/checkpoints/step-00000500/state.json              step, settings, whatever is no tensor
                              shard-00000.safetensors the pieces of each process
OUT/checkpoints/latest                                name of the last good one
```

Every process writes its own pieces, named by the whole tensor and the row at which they begin, so that
any number of processes puts together what it needs. The folder has another name until all of it is on
the disk. Several machines need a file system that all of them see.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from ..errors import UserError
from ..report.record import FILE_NAME, write_json, write_text
from .config import CHECKPOINTS, LATEST
from .distributed import Processes


def latest(out: Path) -> Path | None:
    """The last good checkpoint of a run folder, None if there is none."""
    try:
        name = (out / CHECKPOINTS / LATEST).read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    path = out / CHECKPOINTS / name
    return path if name and (path / "state.json").is_file() else None


def last_good(out: Path) -> str:
    """For error messages."""
    path = latest(out)
    return "there is no checkpoint yet" if path is None else f"the last good checkpoint is {path}"


def forget(out: Path) -> None:
    """Make room for another run: no checkpoint or record of an earlier one is taken for its own."""
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    (out / FILE_NAME).unlink(missing_ok=True)


def full_disk(error: BaseException) -> bool:
    """Whether an error says that nothing more fits on the disk."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, SafetensorError) and "os error 28" in str(error)


def save(
    out: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    processes: Processes,
    keep: int = 2,
) -> Path:
    """Write a checkpoint, make it the latest, and remove all but the last ``keep``.

    Args:
        tensors: sharded or whole; all processes give the same names.
        facts: JSON-ready.

    Raises:
        UserError: it cannot be written; what was there before is as it was.
    """
    folder = out / CHECKPOINTS
    target = folder / f"step-{step:08d}"
    partial = target.with_suffix(".partial")
    problem = None
    try:
        if processes.main:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        processes.wait()
        _write_pieces(partial / f"shard-{processes.rank:05d}.safetensors", tensors, processes)
    except (OSError, SafetensorError) as error:
        problem = trouble(error, out)
    try:
        processes.raise_together(problem)
    except UserError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if processes.main:
        write_json(partial / "state.json", {"step": step, **facts})
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        write_text(folder / LATEST, target.name + "\n")
        others = sorted(p for p in folder.glob("step-????????") if p != target)
        for old in others[: max(len(others) + 1 - keep, 0)]:
            shutil.rmtree(old)
    processes.wait()
    return target


def _write_pieces(path: Path, tensors: Mapping[str, Tensor], processes: Processes) -> None:
    pieces: dict[str, Tensor] = {}
    starts: dict[str, str] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            local, start = tensor.to_local(), _start(tensor)
            if not local.numel():
                continue
            starts[name] = str(start)
        elif processes.main:
            local = tensor
        else:
            continue
        pieces[name] = local.detach().cpu().contiguous()
    if not pieces:  # a copy that another process writes
        return
    save_file(pieces, path, starts)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _start(tensor: DTensor) -> int:
    """The first row of this process's piece."""
    (placement,) = tensor.placements
    assert isinstance(placement, Shard) and placement.dim == 0
    rows, mesh = tensor.shape[0], tensor.device_mesh
    return min(rows, -(-rows // mesh.size()) * mesh.get_local_rank())


def trouble(error: BaseException, out: Path) -> UserError:
    """What cannot be written into a run folder, in one line."""
    path = getattr(error, "filename", None) or out
    if full_disk(error):
        return UserError(
            f"the disk is full while writing {path}; {last_good(out)}: free some space, then --resume"
        )
    return UserError(f"{path} cannot be written or read ({error}); {last_good(out)}")


class Checkpoint:
    """A checkpoint to read from.

    Attributes:
        path: its folder; facts: what ``save`` was given.

    Raises:
        UserError: it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.facts: dict[str, Any] = json.loads((path / "state.json").read_text())
            self.step = int(self.facts["step"])
            self._pieces: dict[str, list[tuple[Any, int]]] = {}
            for shard in sorted(path.glob("shard-*.safetensors")):
                file = safe_open(shard, "pt")
                starts = file.metadata() or {}
                for name in file.keys():  # noqa: SIM118
                    self._pieces.setdefault(name, []).append((file, int(starts.get(name, 0))))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise UserError(
                f"{path} is damaged ({error}): name an earlier one in {LATEST}"
            ) from error

    def names(self, prefix: str) -> list[str]:
        """What is there under a prefix, without it."""
        return [name.removeprefix(prefix) for name in self._pieces if name.startswith(prefix)]

    def read(self, name: str, like: Tensor) -> Tensor:
        """A tensor, sharded as ``like`` is if that has its shape.

        Raises:
            UserError: it is not there, or has another shape.
        """
        found = self._pieces.get(name)
        if found is None:
            raise UserError(
                f"{self.path} lacks {name}: it is of another model or of other settings"
            )
        file = found[0][0]
        if not file.get_slice(name).get_shape():  # a step count: optimisers keep those on the CPU
            return file.get_tensor(name)  # type: ignore[no-any-return]
        if not isinstance(like, DTensor):
            return self._rows(name, found, 0, None).to(like.device)
        local = like.to_local()
        start = _start(like)
        piece = self._rows(name, found, start, start + local.shape[0]).to(local.device)
        return DTensor.from_local(
            piece, like.device_mesh, like.placements, run_check=False,
            shape=like.shape, stride=like.stride(),
        )  # fmt: skip

    def _rows(
        self, name: str, pieces: list[tuple[Any, int]], start: int, stop: int | None
    ) -> Tensor:
        parts = []
        for file, first in sorted(pieces, key=lambda piece: piece[1]):
            part = file.get_slice(name)
            shape = part.get_shape()
            low = max(start - first, 0)
            high = shape[0] if stop is None else min(stop - first, shape[0])
            if low < high:
                parts.append(part[low:high])
        if not parts:
            shape = pieces[0][0].get_slice(name).get_shape()
            return torch.empty(0, *shape[1:])
        return parts[0] if len(parts) == 1 else torch.cat(parts)
