"""Cards as files: TOML (or JSON) in, TOML out, every wrong field named in one line."""

from __future__ import annotations

import difflib
import json
import math
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from ..errors import UserError
from .card import Embodiment, Field
from .layout import VIEWS, cells

UNITS = ("rad", "m", "1")


def is_file_name(name: str | Path) -> bool:
    """Whether a card is meant by its file rather than by its name."""
    return str(name).endswith((".toml", ".json"))


def load(path: str | Path) -> Embodiment:
    """The card in a TOML (or JSON) file.

    Raises:
        UserError: no such file, not of that format, or a field that is missing, unknown, of the wrong
            kind or at odds with another; one line that names file and field.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"card {path}: there is no such file")
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise UserError(f"card {path} is not readable {kind} ({error})") from error
    if not isinstance(data, dict):
        raise UserError(f"card {path} is no table of fields")
    try:
        return parse(data)
    except UserError as error:
        raise UserError(f"card {path}: {error}") from error


def parse(data: Mapping[str, Any]) -> Embodiment:
    """A card from plain values, as ``load`` checks it.

    Raises:
        UserError: what is wrong with which field, and what would be right.
    """
    known = {f.name: f for f in fields(Embodiment)}
    for name in data:
        if name not in known:
            raise UserError(f"unknown field {name!r}{_near(name, known)}")
    for name, field in known.items():
        if name not in data and field.default is MISSING:
            raise UserError(f"{name} is missing; it must be {_KINDS[name][1]}")
    values: dict[str, Any] = {}
    for name, value in data.items():
        if value is None and known[name].default is None:
            continue
        accept, wants = _KINDS[name]
        values[name] = accept(value)
        if values[name] is None:
            raise UserError(f"{name} must be {wants}, got {value!r}")
    values.setdefault("has_action", bool(values["action"]))
    card = Embodiment(**values)
    for misfit in misfits(card):
        raise UserError(misfit)
    return card


def misfits(card: Embodiment) -> Iterator[str]:
    """What in a card contradicts something else in it; nothing for a sound card."""
    try:
        cells(card.layout, len(card.views), card.canvas_px)
    except UserError as error:
        yield f"layout: {error}"
    if len(set(card.views)) < len(card.views):
        yield "views: a view is named twice"
    frames_s = card.frames_per_block / card.video_hz
    if abs(frames_s - card.block_s) > 1e-6:
        fitting = frames_s * card.action_hz
        yield (
            f"horizon: {card.frames_per_block} frames at video_hz {card.video_hz:g} last "
            f"{frames_s:g} s, in which action_hz {card.action_hz:g} makes {fitting:g} steps, not "
            f"{card.horizon}"
        )
    try:
        card.render_prompt("x")
    except (KeyError, IndexError, ValueError):
        yield "prompt: braces may hold {instruction} only"
    if "{instruction}" not in card.prompt:
        yield "prompt: {instruction} is nowhere in it, so every task would read the same"
    for kind, parts in (("state", card.state), ("action", card.action)):
        keys = [f.key for f in parts]
        if len(set(keys)) < len(keys):
            yield f"{kind}: a key is there twice ({', '.join(keys)})"
    widths = {f.key: f.width for f in card.state}
    for f in card.action:
        if f.relative and widths.get(f.key) != f.width:
            yield (
                f"action {f.key}: relative needs a state field of the same key and of width {f.width}"
            )
    if any(f.relative for f in card.state):
        yield "state: only action fields can be relative"
    if card.has_action != bool(card.action):
        yield f"has_action is {str(card.has_action).lower()}, but there are {len(card.action)} action fields"
    for name in ("lower", "upper", "velocity"):
        limits = getattr(card, name)
        if limits and len(limits) != card.action_dim:
            yield f"{name} holds {len(limits)} numbers; the action has {card.action_dim} dimensions"
    if card.lower and card.upper:
        for i, (low, high) in enumerate(zip(card.lower, card.upper, strict=False)):
            if not low < high:
                yield f"lower[{i}] is {low:g}, not below upper[{i}], {high:g}"
    if any(v <= 0 for v in card.velocity):
        yield "velocity: every limit must be above 0"


def dumps(card: Embodiment, comments: Mapping[str, str] | None = None) -> str:
    """The card as TOML that ``load`` reads back equal.

    Args:
        comments: field -> what is written above it.
    """
    said = {
        name: [f"# {line}" for part in text.splitlines() for line in textwrap.wrap(part, 94)]
        for name, text in (comments or {}).items()
    }
    head: list[str] = []
    tables: list[str] = []
    for field in fields(card):
        name, value = field.name, getattr(card, field.name)
        if name in ("state", "action") and value:
            tables += ["", *said.get(name, ())]
            for f in value:
                keys = ("key", "start", "stop", "unit", *(["relative"] if name == "action" else []))
                tables += [
                    f"[[{name}]]",
                    *(f"{key} = {_toml(getattr(f, key))}" for key in keys),
                    "",
                ]
        elif value is not None:
            head += [*(["", *said[name]] if name in said else []), f"{name} = {_toml(value)}"]
    return "\n".join(head + tables).strip() + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        parts = [_toml(v) for v in value]
        flat = f"[{', '.join(parts)}]"
        rows = [", ".join(parts[i : i + 8]) for i in range(0, len(parts), 8)]
        if any(isinstance(v, str) for v in value):
            rows = parts
        return flat if len(flat) < 90 else "[\n" + "".join(f"  {row},\n" for row in rows) + "]"
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return json.dumps(value, ensure_ascii=False)


def _near(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _texts(value: Any) -> tuple[str, ...] | None:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    return tuple(value) if all(_text(v) for v in value) else None


def _whole(least: int) -> Callable[[Any], int | None]:
    def accept(value: Any) -> int | None:
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
        return value if whole else None

    return accept


def _rate(value: Any) -> float | None:
    return float(value) if _is_number(value) and 0 < value < math.inf else None


def _size(value: Any) -> tuple[int, int] | None:
    good = isinstance(value, Sequence) and len(value) == 2 and all(map(_whole(1), value))
    return (value[0], value[1]) if good else None


def _numbers(value: Any) -> tuple[float, ...] | None:
    good = (
        isinstance(value, Sequence) and not isinstance(value, str) and all(map(_is_number, value))
    )
    return tuple(float(v) for v in value) if good else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _layout(value: Any) -> str | None:
    return value if value in VIEWS else None


def _fields(kind: str) -> Callable[[Any], tuple[Field, ...] | None]:
    def accept(value: Any) -> tuple[Field, ...] | None:
        if not isinstance(value, Sequence) or isinstance(value, str):
            return None
        return tuple(_field(f"{kind}[{i}]", part) for i, part in enumerate(value))

    return accept


def _field(where: str, part: Any) -> Field:
    if not isinstance(part, Mapping):
        raise UserError(f"{where} must be a table with key, start, stop, got {part!r}")
    known = {f.name: f for f in fields(Field)}
    for name in part:
        if name not in known:
            raise UserError(f"{where}: unknown field {name!r}{_near(name, known)}")
    for name in ("key", "start", "stop"):
        if name not in part:
            raise UserError(f"{where}: {name} is missing")
    field = Field(**part)
    where = f"{where} ({field.key})" if _text(field.key) else where
    for name, accept, wants in (
        ("key", _text, "a text"),
        ("start", _whole(0), "a whole number of at least 0"),
        ("stop", _whole(1), "a whole number of at least 1"),
        ("relative", _flag, "true or false"),
    ):
        if accept(getattr(field, name)) is None:
            raise UserError(f"{where}: {name} must be {wants}, got {getattr(field, name)!r}")
    if field.stop <= field.start:
        raise UserError(f"{where}: stop must lie behind start, got {field.start} to {field.stop}")
    if field.unit not in UNITS:
        raise UserError(f"{where}: unit must be one of {', '.join(UNITS)}, got {field.unit!r}")
    return field


_LIMITS = "a list of numbers, one for each action dimension"
_KINDS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "name": (_text, "a text"),
    "robot": (_text, "a text"),
    "views": (_texts, "a list of video features such as observation.images.front"),
    "layout": (_layout, f"one of {', '.join(VIEWS)}"),
    "canvas_px": (_size, "[height, width], two whole numbers above 0"),
    "state": (_fields("state"), "a list of tables with key, start, stop"),
    "action": (_fields("action"), "a list of tables with key, start, stop"),
    "video_hz": (_rate, "a rate above 0"),
    "action_hz": (_rate, "a rate above 0"),
    "horizon": (_whole(1), "a whole number of at least 1"),
    "latent_frames": (_whole(1), "a whole number of at least 1"),
    "blocks": (_whole(1), "a whole number of at least 1"),
    "memory_blocks": (_whole(0), "a whole number of at least 0"),
    "prompt": (_text, "a text with {instruction} in it"),
    "lower": (_numbers, _LIMITS),
    "upper": (_numbers, _LIMITS),
    "velocity": (_numbers, _LIMITS),
    "has_action": (_flag, "true or false"),
}
