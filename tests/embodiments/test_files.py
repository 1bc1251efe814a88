"""Cards as files: what is written is read, and every wrong field is named in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dreamzero import embodiments
from dreamzero.embodiments import Embodiment, Field
from dreamzero.embodiments.files import dumps, load, misfits, parse
from dreamzero.errors import UserError

GOOD = """
name = "bench_arm"
robot = "arm"
views = ["observation.images.left", "observation.images.right"]
layout = "column"
canvas_px = [128, 64]
video_hz = 5
action_hz = 15
horizon = 24
prompt = "an arm: {instruction}"
lower = [-1, -2, 0]
upper = [1, 2, 1]

[[state]]
key = "joint_position"
start = 0
stop = 2

[[state]]
key = "gripper_position"
start = 2
stop = 3
unit = "1"

[[action]]
key = "joint_position"
start = 0
stop = 2
relative = true

[[action]]
key = "gripper_position"
start = 2
stop = 3
unit = "1"
"""


def test_a_path_is_taken_wherever_a_name_is(tmp_path: Path) -> None:
    path = tmp_path / "arm.toml"
    path.write_text(GOOD)
    card = embodiments.get(str(path))
    assert card == embodiments.get(path)
    assert (card.name, card.action_dim, card.blocks, card.has_action) == ("bench_arm", 3, 4, True)
    assert card.action[0] == Field("joint_position", 0, 2, relative=True)
    assert isinstance(card.lower[0], float)


@pytest.mark.parametrize("name", embodiments.names())
def test_every_card_is_sound_and_comes_back(tmp_path: Path, name: str) -> None:
    card = embodiments.get(name)
    assert list(misfits(card)) == []
    notes = {"views": "where they lie\nand how", "state": "a long remark " * 20, "action": "x"}
    for comments in (None, notes):
        path = tmp_path / "card.toml"
        path.write_text(dumps(card, comments))
        assert load(path) == card
    (tmp_path / "card.json").write_text(json.dumps(card.to_json()))
    assert load(tmp_path / "card.json") == card


def test_long_lists_and_odd_texts_come_back(tmp_path: Path) -> None:
    many = tuple(i / 7 for i in range(30))
    card = embodiments.get("tabletop_so101").with_(
        name='quote " and \\ backslash, ü',
        views=tuple(f"observation.images.a camera with a long name, number {i}" for i in range(3)),
        layout="grid",
        state=(Field("x", 0, 30),),
        action=(Field("x", 0, 30, relative=True),),
        lower=tuple(-v - 1 for v in many),
        upper=many,
        velocity=(float("inf"),) * 30,
    )
    path = tmp_path / "card.toml"
    path.write_text(dumps(card))
    assert load(path) == card
    assert max(map(len, path.read_text().splitlines())) < 240


def change(**fields: Any) -> dict[str, Any]:
    import tomllib

    return {**tomllib.loads(GOOD), **fields}


def without(name: str) -> dict[str, Any]:
    data = change()
    del data[name]
    return data


def part(kind: str, index: int, **fields: Any) -> dict[str, Any]:
    data = change()
    data[kind][index] = {**data[kind][index], **fields}
    return data


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (without("horizon"), "horizon is missing; it must be a whole number"),
        (change(horizont=24), "unknown field 'horizont'; did you mean horizon?"),
        (change(name=""), "name must be a text, got ''"),
        (change(robot=3), "robot must be a text, got 3"),
        (change(views="front"), "views must be a list of video features"),
        (change(views=["a", "a"]), "a view is named twice"),
        (change(layout="mosaic"), "layout must be one of single, column, droid, grid"),
        (change(layout="single"), "layout 'single' takes 1 views, got 2"),
        (change(canvas_px=[128]), "canvas_px must be .height, width., two whole numbers"),
        (change(canvas_px=[128, 0]), "canvas_px must be"),
        (change(canvas_px=[127, 64]), "does not divide for layout 'column'"),
        (change(video_hz=0), "video_hz must be a rate above 0, got 0"),
        (change(action_hz=True), "action_hz must be a rate above 0, got True"),
        (change(horizon=24.0), "horizon must be a whole number of at least 1, got 24.0"),
        (change(horizon=20), "makes 24 steps, not 20"),
        (change(blocks=0), "blocks must be a whole number"),
        (change(memory_blocks=-1), "memory_blocks must be a whole number of at least 0"),
        (change(prompt="do {task}"), "braces may hold {instruction} only"),
        (change(prompt="do it"), "{instruction} is nowhere in it"),
        (change(lower=[-1, "x", 0]), "lower must be a list of numbers"),
        (change(lower=[-1, -2]), "lower holds 2 numbers; the action has 3 dimensions"),
        (change(lower=[2, -2, 0]), "lower.0. is 2, not below upper.0., 1"),
        (change(velocity=[1, 0, 1]), "velocity: every limit must be above 0"),
        (change(has_action="yes"), "has_action must be true or false"),
        (change(has_action=False), "has_action is false, but there are 2 action fields"),
        (change(state={}), "state must be a list of tables"),
        (change(state=[3]), r"state\[0\] must be a table"),
        (part("state", 0, start=-1), r"state\[0\] \(joint_position\): start must be a whole number"),
        (part("state", 0, stop=0), "stop must be a whole number of at least 1"),
        (part("state", 1, start=3), "stop must lie behind start, got 3 to 3"),
        (part("state", 1, unit="deg"), "unit must be one of rad, m, 1, got 'deg'"),
        (part("state", 1, untis="m"), "unknown field 'untis'; did you mean unit?"),
        (part("state", 0, relative=True), "only action fields can be relative"),
        (part("state", 1, key="joint_position"), "a key is there twice"),
        (part("action", 0, key="joints"), "relative needs a state field of the same key"),
        (part("action", 0, stop=3), "relative needs a state field of the same key and of width 3"),
        (part("action", 1, relative=1), "relative must be true or false"),
    ],
)  # fmt: skip
def test_every_mistake_is_named(tmp_path: Path, data: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse(data)
    path = tmp_path / "card.json"
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=f"card {path}: .*{says}") as error:
        embodiments.get(path)
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        embodiments.get(str(tmp_path / "absent.toml"))
    (tmp_path / "bad.toml").write_text("name = x")
    with pytest.raises(UserError, match="is not readable TOML .*line 1"):
        load(tmp_path / "bad.toml")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(UserError, match="is no table of fields"):
        load(tmp_path / "list.json")
    with pytest.raises(UserError, match="known: droid, .*or the path of a card FILE.toml"):
        embodiments.get("r2d2")


def test_a_new_module_with_cards_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One file is all that a new built-in robot takes."""
    (tmp_path / "newarm.py").write_text(
        "from dreamzero.embodiments.tabletop import SO101\nCARDS = (SO101.with_(name='newarm'),)\n"
    )
    monkeypatch.setattr(embodiments, "__path__", [*embodiments.__path__, str(tmp_path)])
    found = embodiments._discover()
    assert isinstance(found["newarm"], Embodiment) and set(embodiments.names()) < set(found)
