"""transformers, imported when an encoder is needed and not before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from ...errors import UserError


def transformers() -> Any:
    """The library; UserError with the command that installs it where it is missing."""
    try:
        import transformers as library
    except ImportError as error:
        raise UserError(
            "text and image encoders need transformers: pip install 'dreamzero[text]'"
        ) from error
    return library


def load_model(kind: str, path: Path, dtype: Any) -> nn.Module:
    """A model of the library from a local folder; every weight must be there and fit.

    Raises:
        UserError: no weights, or weights that do not fit the configuration.
    """
    with user_errors(path):
        model, report = getattr(transformers(), kind).from_pretrained(
            path, dtype=dtype, local_files_only=True, output_loading_info=True
        )
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise UserError(f"{path}: weights lack {lacking[0]} (and {len(lacking) - 1} more)")
    return model.eval().requires_grad_(False)  # type: ignore[no-any-return]


@contextmanager
def user_errors(path: Path) -> Iterator[None]:
    """What the library says about a bad folder, in one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # safetensors' and the library's own kinds share no base
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path}: {first[0]}") from error
