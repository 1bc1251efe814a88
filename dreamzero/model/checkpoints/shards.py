"""Reading weight files without loading them: headers first, then one memory-mapped tensor at a time.

The safetensors library reads well, but it neither gives a header back verbatim (``export`` needs it
bit for bit) nor lets go of pages that were read, so that a 45 GB checkpoint would look like 45 GB of
memory. The format is 8 bytes of length, a JSON header and the tensors
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import ctypes
import json
import math
import mmap
import pickle
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...errors import UserError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LONGEST_HEADER = 100 << 20


@dataclass(frozen=True)
class Entry:
    """One tensor of a file.

    Attributes:
        dtype: safetensors' word for it ("BF16").
        start, stop: bytes of the file; both 0 in a ``.pth``, whose places only torch knows.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int = 0
    stop: int = 0

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size, bytes."""
        return self.count * DTYPES[self.dtype].itemsize


def read_header(path: Path) -> tuple[bytes, list[Entry]]:
    """Header of a safetensors file, verbatim, and its tensors in the order of their bytes.

    Raises:
        UserError: no such file, not safetensors, or shorter than its header says.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_LONGEST_HEADER, max(size - 8, 0)):
                raise ValueError("its first 8 bytes name no header that fits into it")
            header = file.read(length)
        entries = parse_header(header, path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no safetensors file ({error}): download it again") from error
    at = 8 + length
    for entry in entries:
        if entry.stop - entry.start != entry.nbytes:
            raise UserError(
                f"{path}: {entry.name} takes {entry.stop - entry.start} bytes, its shape "
                f"{list(entry.shape)} in {entry.dtype} {entry.nbytes}: download it again"
            )
        if entry.start != at:
            raise UserError(f"{path}: {entry.name} does not begin where the one before it ends")
        at = entry.stop
    if size != at:
        what = "truncated" if size < at else "too long"
        raise UserError(
            f"{path} is {what}: its header asks for {at} bytes and it has {size}: download it again"
        )
    return header, entries


def parse_header(header: bytes, path: Path) -> list[Entry]:
    """Tensors of a safetensors header in the order of their bytes, which start behind it.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is none.
        UserError: a dtype that torch lacks.
    """
    entries = []
    for name, info in json.loads(header).items():
        if name == "__metadata__":
            continue
        start, stop = (8 + len(header) + int(at) for at in info["data_offsets"])
        shape = tuple(int(n) for n in info["shape"])
        if any(n < 0 for n in shape):
            raise ValueError(f"{name} has shape {list(shape)}")
        if info["dtype"] not in DTYPES:
            raise UserError(f"{path}: {name} has dtype {info['dtype']}, which torch lacks here")
        entries.append(Entry(name, info["dtype"], shape, path, start, stop))
    return sorted(entries, key=lambda entry: (entry.start, entry.stop))


class Weights:
    """Tensors of one or several files by name; nothing is read until ``tensor`` is called.

    Attributes:
        entries: name -> where it lies, in the order of files and bytes.
        headers: file name -> verbatim safetensors header.
    """

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.headers: dict[str, bytes] = {}
        self._maps: dict[Path, mmap.mmap] = {}

    @classmethod
    def open(cls, *files: Path) -> Weights:
        """Of safetensors files; UserError also where two files hold the same name."""
        weights = cls()
        for file in files:
            header, entries = read_header(file)
            weights.headers[file.name] = header
            weights._add(entries)
        return weights

    def _add(self, entries: list[Entry]) -> None:
        for entry in entries:
            known = self.entries.setdefault(entry.name, entry)
            if known is not entry:
                raise UserError(f"{entry.name} is in {known.file.name} and in {entry.file}")

    @property
    def files(self) -> list[Path]:
        return list(dict.fromkeys(entry.file for entry in self.entries.values()))

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def tensor(self, name: str) -> Tensor:
        """The tensor as a view of its file: read it, copy from it, do not write to it."""
        entry = self.entries[name]
        dtype = DTYPES[entry.dtype]
        if not entry.count:
            return torch.empty(entry.shape, dtype=dtype)
        if entry.file not in self._maps:
            with entry.file.open("rb") as file:
                self._maps[entry.file] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with warnings.catch_warnings():
            # A read-only buffer is what is wanted; a writable one would have to be private memory.
            warnings.filterwarnings("ignore", "The given buffer is not writable")
            flat = torch.frombuffer(
                self._maps[entry.file], dtype=dtype, count=entry.count, offset=entry.start
            )
        return flat.view(entry.shape)

    def release(self, name: str) -> None:
        """Give the pages of a tensor back to the system; it is read again if asked for again."""
        entry = self.entries[name]
        mapped = self._maps.get(entry.file)
        if mapped is not None:
            start = entry.start // mmap.PAGESIZE * mmap.PAGESIZE
            mapped.madvise(mmap.MADV_DONTNEED, start, entry.stop - start)


class PickledWeights(Weights):
    """Tensors of a ``.pth`` file: read as weights only, memory-mapped where its format allows.

    Raises:
        UserError: it holds anything but a flat dictionary of tensors. Nothing in it is executed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._tensors, self._mapped = _unpickle(path)
        self._add(
            [
                Entry(name, NAMES[tensor.dtype], tuple(tensor.shape), path)
                for name, tensor in self._tensors.items()
            ]
        )

    def tensor(self, name: str) -> Tensor:
        """See ``Weights.tensor``."""
        return self._tensors[name]

    def release(self, name: str) -> None:
        """See ``Weights.release``; the mapping is torch's, so the system is asked directly."""
        tensor = self._tensors[name]
        if self._mapped and tensor.numel():
            start = tensor.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
            length = tensor.data_ptr() + tensor.nbytes - start
            madvise = ctypes.CDLL(None).madvise
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)


def _unpickle(path: Path) -> tuple[dict[str, Tensor], bool]:
    try:
        with path.open("rb") as file:
            mapped = file.read(2) == b"PK"  # torch's format before 1.6 is no zip file
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[-1] if "Unsupported" not in str(error) else str(error)
        raise UserError(
            f"{path} holds more than tensors and is not opened, because loading it could run "
            f"code: convert it to safetensors where you trust it ({_short(reason)})"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, AssertionError) as error:
        raise UserError(
            f"{path} is no complete torch file ({_short(str(error))}): download it again"
        ) from error
    if not isinstance(loaded, dict) or not loaded:
        raise UserError(f"{path} holds a {type(loaded).__name__}, not a dictionary of tensors")
    for name, value in loaded.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"{path} holds a {type(value).__name__} under {name!r}: only tensors are taken"
            )
        if value.dtype not in NAMES:
            raise UserError(f"{path}: {name} has dtype {value.dtype}, which safetensors lacks")
    return loaded, mapped


def _short(text: str) -> str:
    first = " ".join(text.split())
    return first if len(first) <= 120 else first[:117] + "..."


def open_indexed(folder: Path, stem: str) -> Weights | None:
    """Weights of ``stem.safetensors`` or of the shards of its index; None where neither is there.

    Args:
        folder: where they lie.
        stem: "model" (transformers, the release) or "diffusion_pytorch_model" (diffusers, Wan).

    Raises:
        UserError: the index names a missing file, or a tensor that its file lacks.
    """
    index, single = folder / f"{stem}.safetensors.index.json", folder / f"{stem}.safetensors"
    if not index.is_file():
        return Weights.open(single) if single.is_file() else None
    try:
        places: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = list(dict.fromkeys(places.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is no index of shards ({error!r}): download it again") from error
    for file in files:
        if Path(file).name != file:
            raise UserError(f"{index} names {file!r}, which is no file beside it")
        if not (folder / file).is_file():
            raise UserError(f"{index} names {file}, which is missing: download it again")
    weights = Weights.open(*(folder / file for file in sorted(files)))
    for name, file in places.items():
        entry = weights.entries.get(name)
        if entry is None or entry.file.name != file:
            raise UserError(f"{index} says that {name} is in {file}, but it is not")
    extra = [name for name in weights if name not in places]
    if extra:
        raise UserError(f"{index} does not know {extra[0]} of {weights.entries[extra[0]].file}")
    return weights
