"""The parameters cell of a notebook: what may be set, what it is by default, what it means.

The cell tagged ``parameters`` holds only assignments of literals, with their type and one comment
each, which `dreamzero run NN --parameters` and `papermill --help-notebook` show:

    profile: str = "quick"  # quick, small or full
    seed: int = 0  # everything random is drawn from this
"""

from __future__ import annotations

import ast
import io
import tokenize
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamzero.config import closest, parse_value
from dreamzero.errors import UserError


@dataclass(frozen=True)
class Parameter:
    """One assignment of a parameters cell: its literal, its comment and the type written beside it.

    ``kind`` is the type as it stands in the cell ("int", "list[str]"), empty where there is none:
    then the default's own type holds.
    """

    name: str
    default: Any
    comment: str
    kind: str = ""

    @property
    def annotation(self) -> Any:
        """The type of its values, for `config.parse_value`."""
        if self.kind:
            return _type(ast.parse(self.kind, mode="eval").body)
        return _type_of(self.default)

    def __str__(self) -> str:
        kind = f": {self.kind}" if self.kind else ""
        return f"{self.name}{kind} = {self.default!r}  # {self.comment}"


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
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
        if value is None or not isinstance(target, ast.Name):
            raise UserError(f"{where}: line {node.lineno} is not 'name: type = literal'")
        try:
            default = ast.literal_eval(value)
        except ValueError:
            raise UserError(f"{where}: {target.id} is not a literal") from None
        kind = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
        comment = comments.get(node.end_lineno or node.lineno, "")
        found[target.id] = Parameter(target.id, default, comment, kind)
        _check(found[target.id], where)
    return found


def _check(parameter: Parameter, where: str) -> None:
    """A default of another type than the one beside it would make every run's type a guess."""
    try:
        kind = parameter.annotation
    except ValueError:
        raise UserError(
            f"{where}: {parameter.name}: {parameter.kind}: use str, int, float, bool, "
            "list[...] or tuple[..., ...]"
        ) from None
    base = typing.get_origin(kind) or kind
    allowed = (int, float) if base is float else (base,)
    if parameter.kind and type(parameter.default) not in allowed:
        raise UserError(f"{where}: {parameter.name}: {parameter.default!r} is no {parameter.kind}")


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
            values[name] = parse_value(text, known[name].annotation)
        except ValueError as error:
            raise UserError(f"parameter {name} {error} ({known[name].comment})") from None
    return values


_TYPES: dict[str, Any] = {"str": str, "int": int, "float": float, "bool": bool}


def _type(node: ast.expr) -> Any:
    """``int``, ``list[str]``, ``tuple[int, ...]`` from their syntax; ValueError for another."""
    if isinstance(node, ast.Name) and node.id in _TYPES:
        return _TYPES[node.id]
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        item = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) else node.slice
        if node.value.id == "list":
            return list[_type(item)]  # type: ignore[misc]
        if node.value.id == "tuple":
            return tuple[_type(item), ...]  # type: ignore[misc]
    raise ValueError(ast.unparse(node))


def _type_of(default: Any) -> Any:
    if default is None:
        return Any
    if isinstance(default, (list, tuple)):
        kind: Any = type(default)
        item = type(default[0]) if default else Any
        return kind[item] if kind is list else tuple[item, ...]  # type: ignore[valid-type]
    return type(default)
