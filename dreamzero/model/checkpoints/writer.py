"""Writing weight files tensor by tensor, and folders that appear complete or not at all."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from .shards import DTYPES, Entry

SHARD_BYTES = 5_000_000_000
_PIECE = 1 << 19  # elements


class Progress(Protocol):
    """What a copy tells about itself: tqdm's ``update``."""

    def update(self, n: float | None = 1) -> Any: ...


@contextlib.contextmanager
def progress_bar(total: int, what: str, show: bool | None) -> Iterator[Progress]:
    """Bytes done and time left, on stderr; ``show`` None shows it on a terminal only."""
    from tqdm import tqdm

    disable = None if show is None else not show
    with tqdm(
        total=total, desc=what, unit="B", unit_scale=True, unit_divisor=1000, disable=disable
    ) as bar:
        yield bar


@contextlib.contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` to write into; renamed to ``out`` at the end, removed on any failure.

    Raises:
        UserError: ``out`` is there already (an empty folder may be).
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already: choose a new folder or remove it")
    made = [p for p in (out.parent, *out.parent.parents) if not p.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield work
        work.chmod(0o755)
        if out.exists():
            out.rmdir()
        work.rename(out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


class ShardFile:
    """One safetensors file, its header first, its tensors in the order of that header.

    Runs of zeros become holes, so that a sparse checkpoint stays sparse.
    """

    def __init__(self, path: Path, header: bytes, end: int, progress: Progress) -> None:
        self._file = path.open("wb", buffering=0)
        self._file.write(len(header).to_bytes(8, "little") + header)
        self._end, self._progress = end, progress

    def write(self, start: int, tensor: Tensor, dtype: torch.dtype | None = None) -> None:
        """The tensor's bytes at ``start`` of the file, converted piece by piece to ``dtype``."""
        self._file.seek(start)
        for piece in tensor.detach().contiguous().reshape(-1).split(_PIECE):
            data = piece.to(dtype or tensor.dtype).view(torch.uint8).numpy()
            if _holds_anything(data):
                self._write(data)
            else:
                self._file.seek(len(data), 1)
            self._progress.update(len(data))

    def _write(self, piece: Any) -> None:
        view = memoryview(piece)
        while view:
            view = view[self._file.write(view) :]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._file.truncate(self._end)
        self._file.close()


def _holds_anything(piece: np.ndarray) -> bool:
    """Whether any byte is not zero; eight at a time, and real weights show at once."""
    words = len(piece) // 8 * 8
    return bool(piece[:4096].any() or piece[:words].view(np.uint64).any() or piece[words:].any())


def header_of(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]],
) -> tuple[bytes, dict[str, int], int]:
    """A safetensors header for (name, dtype, shape) in this order.

    Returns:
        the header, where each tensor starts in the file, and the file's size in bytes.
    """
    fields: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    places, at = {}, 0
    for name, dtype, shape in tensors:
        stop = at + Entry(name, dtype, shape, Path()).nbytes
        fields[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, stop]}
        places[name] = at
        at = stop
    header = json.dumps(fields, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors start at a multiple of eight
    base = 8 + len(header)
    return header, {name: base + start for name, start in places.items()}, base + at


class ShardSet:
    """A component's weights as diffusers and transformers keep them: one file, or shards and index.

    Args:
        folder: of the component; made if it is not there.
        stem: "diffusion_pytorch_model" or "model".
        tensors: name -> (dtype, shape), in the order in which they will be written.
        shard_bytes: at most this much in one file (a larger tensor gets its own).
    """

    def __init__(
        self,
        folder: Path,
        stem: str,
        tensors: Mapping[str, tuple[str, tuple[int, ...]]],
        progress: Progress,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shards: list[list[tuple[str, str, tuple[int, ...]]]] = [[]]
        size = total = 0
        for name, (dtype, shape) in tensors.items():
            nbytes = Entry(name, dtype, shape, folder).nbytes
            if shards[-1] and size + nbytes > shard_bytes:
                shards.append([])
                size = 0
            shards[-1].append((name, dtype, shape))
            size, total = size + nbytes, total + nbytes
        self._tensors = dict(tensors)
        self._place: dict[str, tuple[ShardFile, int]] = {}
        self._files: list[ShardFile] = []
        weight_map: dict[str, str] = {}
        for i, shard in enumerate(shards):
            part = f"-{i + 1:05}-of-{len(shards):05}" if len(shards) > 1 else ""
            path = folder / f"{stem}{part}.safetensors"
            header, places, end = header_of(shard)
            self._files.append(ShardFile(path, header, end, progress))
            self._place |= {name: (self._files[-1], at) for name, at in places.items()}
            weight_map |= dict.fromkeys(places, path.name)
        if len(shards) > 1:
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            path = folder / f"{stem}.safetensors.index.json"
            path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def write(self, name: str, tensor: Tensor) -> None:
        """One tensor; converted to the dtype that was announced."""
        dtype, shape = self._tensors.pop(name)
        assert tuple(tensor.shape) == shape, f"{name}: {tuple(tensor.shape)}, announced {shape}"
        file, start = self._place[name]
        file.write(start, tensor, DTYPES[dtype])

    def leave_holes(self) -> None:
        """Finish without the tensors: files of the right size that read as zeros and take no disk."""
        self._tensors.clear()
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files:
            file.__exit__(kind, error, trace)
        assert kind is not None or not self._tensors, f"never written: {list(self._tensors)[:3]}"
