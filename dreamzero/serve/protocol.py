"""What goes over the wire: msgpack with numpy arrays, without a socket in sight (MODEL.md 8).

An array is the map ``{b"__ndarray__": True, b"data": bytes, b"dtype": dtype.str, b"shape": list}``,
a numpy scalar ``{b"__npgeneric__": True, b"data": value, b"dtype": dtype.str}``: the form of openpi's
client (Physical-Intelligence/openpi, ``openpi_client/msgpack_numpy.py``). Only plain numbers, bools and
texts have such a form; object, complex and structured dtypes are refused both ways, and nothing is
ever unpickled. ``unpack`` takes any bytes: they are a message within ``Limits`` or one `ProtocolError`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from ..errors import UserError

MIB = 2**20
# dtype.str of bool, integers, floats, and texts of fixed width. Nothing else is even parsed: numpy
# reads structured and sub-array types from strings too.
_DTYPE = re.compile(r"[<>|=](?:b1|[iu][1248]|f[248]|[SU]\d{1,6})")
_ARRAY = {b"__ndarray__", b"data", b"dtype", b"shape"}
_SCALAR = {b"__npgeneric__", b"data", b"dtype"}


class ProtocolError(UserError):
    """Bytes that are no message of this protocol, in one line."""


@dataclass(frozen=True)
class Limits:
    """How much a message may hold; what is over them is refused before memory is spent on it.

    Attributes:
        size: bytes of the whole message.
        items: entries of one map or list.
        containers: maps and lists of a message, all together (an array is a map and a list).
        depth: maps and lists inside one another.
    """

    size: int = 64 * MIB
    items: int = 1024
    containers: int = 256
    depth: int = 8


def pack(message: Any) -> bytes:
    """A message as bytes: maps, lists, texts, bytes, numbers, None, numpy arrays and scalars.

    Raises:
        ProtocolError: an array of a dtype that has no form on the wire.
    """
    return bytes(msgpack.packb(message, default=_to_map))


def unpack(data: bytes, limits: Limits | None = None) -> Any:
    """The message that ``data`` is; arrays are writable copies.

    Raises:
        ProtocolError: it is none, or is over the limits.
    """
    limits = limits or Limits()
    if len(data) > limits.size:
        raise ProtocolError(f"a message of {len(data)} bytes; at most {limits.size} are taken")
    reader = _Reader(limits)
    try:
        message = msgpack.unpackb(
            data,
            object_pairs_hook=reader.mapping,
            list_hook=reader.sequence,
            ext_hook=reader.extension,
            max_array_len=limits.items,
            max_map_len=limits.items,
        )
    except ProtocolError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise ProtocolError(f"no msgpack message ({_line(error)})") from error
    _check(message, limits.depth)
    return message


def _line(error: Exception) -> str:
    # A value that does not fit can be in the text of the error: megabytes of it.
    text = f"{type(error).__name__} {error}".strip()
    return text if len(text) <= 120 else f"{text[:117]}..."


class _Reader:
    """Hooks of one unpacking: msgpack calls them at the end of every map and list."""

    def __init__(self, limits: Limits) -> None:
        self._left = limits.containers
        self._most = limits.containers

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ProtocolError(f"more than {self._most} maps and lists in a message")

    def sequence(self, items: list[Any]) -> list[Any]:
        self._count()
        return items

    def extension(self, code: int, data: bytes) -> Any:
        raise ProtocolError(f"msgpack extension {code}: this protocol has none")

    def mapping(self, pairs: list[tuple[str | bytes, Any]]) -> Any:
        self._count()
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ProtocolError("a map holds a key twice")
        if b"__ndarray__" in found:
            return _array(found)
        if b"__npgeneric__" in found:
            return _scalar(found)
        return found


def _check(message: Any, depth: int) -> None:
    layer = [message]
    for _ in range(depth + 1):
        if any(isinstance(item, msgpack.Timestamp) for item in layer):
            raise ProtocolError("msgpack extension -1: this protocol has none")
        layer = [
            inner
            for item in layer
            if isinstance(item, (dict, list))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not layer:
            return
    raise ProtocolError(f"maps and lists more than {depth} deep")


def _to_map(value: Any) -> dict[bytes, Any]:
    if not isinstance(value, (np.ndarray, np.generic)):
        raise ProtocolError(f"a {type(value).__name__} has no form on the wire")
    if not _DTYPE.fullmatch(value.dtype.str):
        raise ProtocolError(f"arrays of {value.dtype} have no form on the wire")
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    return {
        b"__ndarray__": True,
        b"data": value.tobytes(),
        b"dtype": value.dtype.str,
        b"shape": list(value.shape),
    }


def _dtype(found: Mapping[Any, Any]) -> np.dtype[Any]:
    text = found[b"dtype"]
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        shown = text[:32] if isinstance(text, str) else type(text).__name__
        raise ProtocolError(
            f"array dtype {shown!r}: bool, integer, float and text types are taken, as numpy's "
            "dtype.str writes them ('|u1', '<f4')"
        )
    return np.dtype(text)


def _array(found: dict[Any, Any]) -> np.ndarray:
    if set(found) != _ARRAY or found[b"__ndarray__"] is not True:
        raise ProtocolError("an array is a map of __ndarray__, data, dtype and shape")
    dtype, data, shape = _dtype(found), found[b"data"], found[b"shape"]
    whole = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
    if not isinstance(data, bytes) or not whole or len(shape) > 8:
        raise ProtocolError("an array's data are bytes and its shape up to 8 whole numbers")
    # In Python's integers: a product that overflows must not look like a small one.
    size = dtype.itemsize
    for n in shape:
        size *= n
    if size != len(data) or not dtype.itemsize:
        raise ProtocolError(f"an array of {dtype} {shape} takes {size} bytes, not {len(data)}")
    try:
        return np.ndarray(tuple(shape), dtype, bytearray(data))
    except (ValueError, OverflowError) as error:  # empty, with a side that numpy cannot count
        raise ProtocolError(f"an array of shape {shape}: {error}") from error


def _scalar(found: dict[Any, Any]) -> np.generic:
    if set(found) != _SCALAR or found[b"__npgeneric__"] is not True:
        raise ProtocolError("a numpy scalar is a map of __npgeneric__, data and dtype")
    dtype, value = _dtype(found), found[b"data"]
    takes: dict[str, tuple[type, ...]] = {
        "b": (bool,), "i": (int,), "u": (int,), "f": (float, int), "S": (bytes,), "U": (str,),
    }  # fmt: skip
    if not isinstance(value, takes[dtype.kind]) or (dtype.kind != "b" and isinstance(value, bool)):
        raise ProtocolError(f"a numpy scalar of {dtype} holds a {type(value).__name__}")
    try:
        with np.errstate(over="raise"):
            return np.array(value, dtype)[()]  # type: ignore[return-value]
    except (ValueError, ArithmeticError) as error:
        raise ProtocolError(f"a numpy scalar of {dtype} is out of range") from error
