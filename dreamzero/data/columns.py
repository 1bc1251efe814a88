"""Parquet columns as arrays, whatever way they were stored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import UserError


def find(schema: pa.Schema, key: str, named: Sequence[str], notes: list[str]) -> list[str]:
    """Columns that make up ``key``: itself, its parts ``key.*``, or those that modality.json names.

    A note is added wherever it is not the column itself.
    """
    if key in schema.names:
        return [key]
    parts = [name for name in schema.names if name.startswith(f"{key}.")]
    if parts:
        notes.append(f"split-columns: {key} is put together from {', '.join(parts)}")
        return parts
    parts = [name for name in named if name in schema.names]
    if parts:
        notes.append(f"renamed-columns: modality.json finds {key} in {', '.join(parts)}")
    return parts


def is_text(schema: pa.Schema, key: str) -> bool:
    """Whether a column holds strings (JSON text), plain or as an Arrow extension."""
    kind = schema.field(key).type
    return bool(pa.types.is_string(getattr(kind, "storage_type", kind)))


def is_numeric(schema: pa.Schema, key: str) -> bool:
    """Whether a column holds numbers or lists of them."""
    kind = schema.field(key).type
    while pa.types.is_nested(kind) and kind.num_fields == 1:
        kind = kind.field(0).type
    plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return bool(plain)


def flatten(names: Any) -> list[str]:
    """Names of dimensions, however deeply info.json nests them."""
    if isinstance(names, dict):
        return [n for part in names.values() for n in flatten(part)]
    if isinstance(names, list):
        return [n for part in names for n in flatten(part)]
    return [] if names is None else [str(names)]


def join(parts: list[np.ndarray], rows: int) -> np.ndarray:
    """Parts ``[t, d]`` side by side; ``[rows, 0]`` float32 if there are none."""
    return np.concatenate(parts, axis=1) if parts else np.zeros((rows, 0), dtype=np.float32)


def matrix(column: pa.ChunkedArray, path: Path) -> np.ndarray:
    """A parquet column of numbers, lists or JSON text as ``[t, d]``: float32, or float64 for
    columns of doubles and of whole numbers."""
    array = column.combine_chunks()
    array = getattr(array, "storage", array)
    kind = array.type
    try:
        if pa.types.is_string(kind):
            return np.asarray([json.loads(v) for v in array.to_pylist()], np.float32).reshape(
                len(array), -1
            )
        if pa.types.is_nested(kind):
            flat = array.flatten()
            while pa.types.is_nested(flat.type):
                flat = flat.flatten()
            values = np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float32)
            return values.reshape(len(array), -1)
        values = array.to_numpy(zero_copy_only=False)
        # Whole numbers beyond 2**24 have no float32 of their own.
        dtype = (
            np.float64 if values.dtype.kind in "iu" or values.dtype == np.float64 else np.float32
        )
        return np.asarray(values, dtype=dtype).reshape(len(array), 1)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: column is no table of numbers of one width ({error})") from error


def vectors(values: np.ndarray) -> pa.Array:
    """float32 ``[t, d]`` as a column; of width one as plain numbers, as lerobot stores them."""
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1), type=pa.float32())
    width = values.shape[1] if values.ndim > 1 else 1
    return flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width)
