"""Dotted overrides: every type parses, every mistake is one line that names the right thing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamzero.config import apply_overrides, parse_value, to_dict
from dreamzero.errors import UserError


@dataclass(frozen=True)
class Optimizer:
    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError("rate must be positive")


@dataclass(frozen=True)
class Config:
    steps: int = 100
    name: str = "run"
    resume: bool = False
    views: tuple[str, ...] = ("front",)
    limit: int | None = None
    kind: Literal["wam", "action"] = "wam"
    out: Path = Path("runs")
    optimizer: Optimizer = field(default_factory=Optimizer)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("steps=2_000", "steps", 2000),
        ("steps=2e3", "steps", 2000),
        ("name=a=b", "name", "a=b"),
        ("name='3'", "name", "3"),
        ("resume=yes", "resume", True),
        ("resume=False", "resume", False),
        ("views=top,wrist", "views", ("top", "wrist")),
        ("views=()", "views", ()),
        ("limit=7", "limit", 7),
        ("limit=none", "limit", None),
        ("kind=action", "kind", "action"),
        ("out=/tmp/x", "out", Path("/tmp/x")),
        ("optimizer.rate=3", "optimizer.rate", 3.0),
        ("optimizer.betas=(0.5, 0.9)", "optimizer.betas", (0.5, 0.9)),
    ],
)
def test_overrides_parse_by_type(text: str, path: str, value: object) -> None:
    changed: object = apply_overrides(Config(), [text])
    for name in path.split("."):
        changed = getattr(changed, name)
    assert changed == value
    assert type(changed) is type(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stpes=1", "did you mean steps"),
        ("optimizer.rte=1", "did you mean rate"),
        ("steps", "no '='"),
        ("steps=1.5", "must be an integer"),
        ("steps=many", "must be an integer"),
        ("resume=1", "must be true or false"),
        ("limit=x", "must be an integer or none"),
        ("kind=vla", "one of wam, action"),
        ("optimizer=1", "optimizer.rate"),
        ("steps.x=1", "has no field 'x'"),
        ("optimizer.betas=1", "2 values"),
        ("optimizer.rate=nan", "must be a number"),
        ("optimizer.rate=-1", "rate must be positive"),
    ],
)
def test_mistakes_say_what_is_right(text: str, says: str) -> None:
    with pytest.raises(UserError, match=r".") as caught:
        apply_overrides(Config(), [text])
    assert says in str(caught.value)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_later_overrides_win_and_the_original_is_untouched() -> None:
    original = Config()
    changed = apply_overrides(original, ["steps=1", "steps=2", "optimizer.rate=0.5"])
    assert (changed.steps, changed.optimizer.rate) == (2, 0.5)
    assert original == Config()


@given(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_written_values_are_read_back(steps: int, rate: float, resume: bool) -> None:
    assert parse_value(str(steps), int) == steps
    assert parse_value(repr(rate), float) == rate
    assert parse_value(str(resume), bool) is resume


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_tuples_are_read_back(values: list[float]) -> None:
    assert parse_value(str(tuple(values)), tuple[float, ...]) == tuple(values)


def test_to_dict_is_json() -> None:
    data = to_dict(Config())
    assert json.loads(json.dumps(data)) == data
    assert data["optimizer"]["betas"] == [0.9, 0.999]
    assert data["out"] == "runs"
