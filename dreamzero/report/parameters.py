"""The parameters cell of a notebook: what may be set, what it is by default, what it means.

The cell tagged ``parameters`` holds only assignments of literals, one comment each:

    profile = "quick"  # quick, small or full
    seed = 0           # everything random is drawn from this
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamzero.config import closest, parse_value
from dreamzero.errors import UserError


@dataclass(frozen=True)
class Parameter:
    """One assignment of a parameters cell: its literal and the comment on its line."""

    name: str
    default: Any
    comment: str


def read_parameters(path: str | Path) -> dict[str, Parameter]:
    """The notebook's parameters by name, in the order of its cell.

    Raises:
        UserError: the file is no notebook, has no cell tagged ``parameters``, or the cell holds
            anything but literals assigned to names.
    """
    import nbformat

    try:
        notebook = nbformat.read(str(path), as_version=4)
    except (OSError, ValueError, AttributeError, nbformat.ValidationError) as error:
        raise UserError(f"{path}: not a notebook ({error})") from None
    cells = [
        cell.source
        for cell in notebook.cells
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", [])
    ]
    if len(cells) != 1:
        raise UserError(f"{path}: {len(cells)} cells are tagged 'parameters', there must be one")
    return parse_cell(cells[0], str(path))


def parse_cell(source: str, where: str = "parameters cell") -> dict[str, Parameter]:
    """The assignments of a parameters cell; see `read_parameters`."""
    comments = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found: dict[str, Parameter] = {}
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if not isinstance(node, ast.Assign) or not isinstance(target, ast.Name):
            raise UserError(f"{where}: line {node.lineno} is not 'name = literal'")
        try:
            default = ast.literal_eval(node.value)
        except ValueError:
            raise UserError(f"{where}: {target.id} is not a literal") from None
        comment = comments.get(node.end_lineno or node.lineno, "")
        found[target.id] = Parameter(target.id, default, comment)
    return found


def typed(known: Mapping[str, Parameter], pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Texts from the command line as the types of the notebook's defaults.

    A default of None takes any literal; a list or tuple takes items like its first one.

    Raises:
        UserError: an unknown name (lists the known ones with their comments), or a wrong type.
    """
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name not in known:
            listing = "; ".join(f"{p.name} ({p.comment})" for p in known.values())
            hint = closest(name, known, "parameter").partition("known:")[0]
            raise UserError(f"{hint}known: {listing}")
        try:
            values[name] = parse_value(text, _annotation(known[name].default))
        except ValueError as error:
            raise UserError(f"parameter {name} {error} ({known[name].comment})") from None
    return values


def _annotation(default: Any) -> Any:
    if default is None:
        return Any
    if isinstance(default, (list, tuple)):
        kind: Any = type(default)
        item = type(default[0]) if default else Any
        return kind[item] if kind is list else tuple[item, ...]  # type: ignore[valid-type]
    return type(default)
