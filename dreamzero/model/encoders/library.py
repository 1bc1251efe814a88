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
    library = transformers()
    verbosity = library.logging.get_verbosity()
    # Its table of odd weights is longer than a screen; the first of them is named below.
    library.logging.set_verbosity_error()
    try:
        with user_errors(path):
            model, report = getattr(library, kind).from_pretrained(
                path,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,  # never a pickle
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    finally:
        library.logging.set_verbosity(verbosity)
    for name, stored, wanted in sorted(report["mismatched_keys"]):
        raise UserError(
            f"{path}: {name} has shape {list(stored)}, config.json asks for {list(wanted)}"
        )
    for key, what in (
        ("missing_keys", "weights lack"),
        ("unexpected_keys", "config.json has no place for"),
    ):
        if odd := sorted(report[key]):
            raise UserError(f"{path}: {what} {odd[0]} ({len(odd)} in all)")
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
