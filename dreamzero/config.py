"""Settings as frozen dataclasses, changed by dotted overrides: ``train.steps=2000``.

    >>> @dataclass(frozen=True)
    ... class Train:
    ...     steps: int = 100
    >>> apply_overrides(Train(), ["steps=2000"])
    Train(steps=2000)

There is no configuration file format: presets are Python, changes are overrides, and the settings
of a finished run stand in its ``metrics.json`` (`dreamzero.report.record`).
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from dreamzero.errors import UserError

T = TypeVar("T")

_TRUE, _FALSE, _NONE = ("true", "yes", "on"), ("false", "no", "off"), ("none", "null")


def apply_overrides(config: T, overrides: Iterable[str]) -> T:
    """A copy of a (nested) dataclass with ``"dotted.name=literal"`` changes applied in order.

    Args:
        config: dataclass instance; nested dataclasses are reached with dots. It is not changed.
        overrides: texts such as ``"train.steps=2000"``; the value is parsed by the field's type.

    Raises:
        UserError: no ``=``, an unknown field (names the closest), a value of the wrong type, or a
            value that the dataclass itself refuses in ``__post_init__``.
    """
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UserError(f"override {text!r} has no '=': write it as name=value")
        config = _replace(config, name.strip().split("."), value.strip(), text)
    return config


def _replace(config: Any, path: list[str], value: str, text: str) -> Any:
    fields = [f.name for f in dataclasses.fields(config) if f.init]
    head, rest = path[0], path[1:]
    if head not in fields:
        raise UserError(f"override {text!r}: {closest(head, fields, 'field')}")
    current = getattr(config, head)
    if rest:
        if not dataclasses.is_dataclass(current):
            raise UserError(f"override {text!r}: {head} is a value, it has no field {rest[0]!r}")
        new: Any = _replace(current, rest, value, text)
    elif dataclasses.is_dataclass(current):
        inner = ", ".join(f"{head}.{f.name}" for f in dataclasses.fields(current))
        raise UserError(f"override {text!r}: {head} is a group, set one of its fields: {inner}")
    else:
        annotation = typing.get_type_hints(type(config))[head]
        try:
            new = parse_value(value, annotation)
        except ValueError as error:
            raise UserError(f"override {text!r}: {head} {error}") from None
    try:
        return dataclasses.replace(config, **{head: new})
    except UserError:
        raise
    except ValueError as error:  # refused by the dataclass's own __post_init__
        raise UserError(f"override {text!r}: {error}") from error


def parse_value(text: str, annotation: Any) -> Any:
    """Text from a command line as the annotated type.

    Knows ``int`` (also ``2_000`` and ``2e3``), ``float``, ``bool`` (true/false, yes/no, on/off),
    ``str`` (taken as it is, quotes optional), ``Path``, ``None``, ``Literal``, unions, and lists
    and tuples of these (``1,2`` or ``(1, 2)``).

    Raises:
        ValueError: "must be ..., got ..." when the text is not such a value.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return parse_value(text, arguments[0])
    if origin is Literal:
        for choice in arguments:
            if text in (str(choice), repr(choice)):
                return choice
        raise ValueError(f"must be one of {', '.join(map(str, arguments))}; got {text!r}")
    if origin in (Union, types.UnionType):
        return _parse_union(text, annotation, arguments)
    if annotation is type(None):
        if text.lower() in _NONE:
            return None
    elif annotation is bool:
        if text.lower() in _TRUE + _FALSE:
            return text.lower() in _TRUE
    elif annotation is str:
        return _unquote(text)
    elif annotation is Path:
        return Path(_unquote(text))
    elif annotation in (int, float):
        number = _number(text)
        if annotation is float and number is not None:
            return float(number)
        if number is not None and float(number).is_integer():
            return int(number)
    elif annotation in (tuple, list) or origin in (tuple, list):
        return _parse_sequence(text, annotation, origin or annotation, arguments)
    elif annotation is Any:
        return _literal(text)
    raise ValueError(f"must be {type_name(annotation)}, got {text!r}")


def _parse_union(text: str, annotation: Any, choices: tuple[Any, ...]) -> Any:
    # A string swallows everything, so it comes last; None comes first.
    ordered = sorted(choices, key=lambda c: (c is str or c is Path, c is not type(None)))
    for choice in ordered:
        try:
            return parse_value(text, choice)
        except ValueError:
            continue
    raise ValueError(f"must be {type_name(annotation)}, got {text!r}")


def _parse_sequence(text: str, annotation: Any, kind: Any, arguments: tuple[Any, ...]) -> Any:
    inner = text.strip()
    if inner[:1] in "([" and inner[-1:] in ")]" and len(inner) > 1:
        inner = inner[1:-1]
    items = [item.strip() for item in inner.split(",") if item.strip()]
    if kind is list or len(arguments) == 2 and arguments[1] is Ellipsis or not arguments:
        wanted = [arguments[0] if arguments else Any] * len(items)
    else:
        wanted = list(arguments)
    if len(wanted) != len(items):
        raise ValueError(f"must be {type_name(annotation)} ({len(wanted)} values), got {text!r}")
    return kind(parse_value(item, want) for item, want in zip(items, wanted, strict=True))


def _number(text: str) -> int | float | None:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _unquote(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text


def type_name(annotation: Any) -> str:
    """A type as a reader of an error message would say it: ``"an integer"``, ``"a number"``."""
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}
    if annotation is type(None):
        return "none"
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(type_name(a) for a in typing.get_args(annotation))
    return names.get(annotation, str(annotation).replace("typing.", ""))


def closest(name: str, known: Iterable[str], kind: str = "name") -> str:
    """``"unknown field 'stpes': did you mean steps? Known: ..."`` for error messages."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {kind} {name!r}: {hint}known: {', '.join(known) or 'none'}"


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as JSON-ready values: nested dicts, lists for tuples, texts for paths."""
    return {f.name: plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def plain(value: Any) -> Any:
    """Any setting as JSON-ready values (see `to_dict`)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
