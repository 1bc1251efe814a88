"""Tasks, their words, splits, looks and scenes; none of it needs mujoco."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest

from dreamzero.errors import UserError
from dreamzero.sim import SUITES, Look, Task, look_range, parse, sample_scene, split
from dreamzero.sim.layout import BLOCK_HALF_M, BOUND_M, PUSH_M
from dreamzero.sim.looks import TRAIN, UNSEEN, LookRange
from dreamzero.sim.tasks import DIRECTIONS, EXTRA_COLOURS, TRAIN_COLOURS, VERBS


def test_canonical_sentence_and_paraphrases() -> None:
    task = Task("push", "red", "left")
    assert task.instruction() == "push the red block to the left"
    rng = np.random.default_rng(0)
    said = {task.instruction(rng) for _ in range(400)}
    assert said == set(task.wordings())
    assert len(said) >= 8


def test_no_two_tasks_share_a_sentence() -> None:
    tasks = [t for suite in SUITES[:2] for t in split(suite, VERBS[:4])] + list(split("seen"))
    owner: dict[str, Task] = {}
    for task in tasks:
        for sentence in task.wordings():
            assert owner.setdefault(sentence, task) == task


def test_keys_parse_back() -> None:
    for task in split("seen", VERBS):
        assert parse(task.key) == task


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly", "red"),
        ("reach", "pink"),
        ("push", "red"),
        ("push", "red", "up"),
        ("reach", "red", "left"),
        ("zone", "red", "left"),
        ("play", "red"),
        ("zone", "red", "cyan", "blue"),
        ("chain", "red", "cyan"),
        ("chain", "red", "cyan", "red"),
    ],
)
def test_wrong_tasks_are_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(UserError):
        Task(*arguments)


def test_splits_are_disjoint_and_hold_out_combinations_only() -> None:
    seen, held = split("seen"), split("unseen-combination")
    assert (len(seen), len(held)) == (16, 4)
    assert not set(seen) & set(held)
    assert split("unseen-look") == seen
    objects, verbs = split("unseen-object"), split("unseen-verb")
    assert {t.colour for t in objects} == set(EXTRA_COLOURS)
    assert {t.verb for t in objects} == {"reach", "push"} and {t.verb for t in verbs} == {"zone"}
    assert (len(objects), len(verbs)) == (10, 8)
    pushes = [t for t in seen if t.verb == "push"]
    assert {t.colour for t in pushes} == set(TRAIN_COLOURS)
    assert {t.target for t in pushes} == set(DIRECTIONS)
    for verb in ("zone", "place"):
        kept, out = split("seen", (verb,)), split("unseen-combination", (verb,))
        assert len(kept) == 6 and len(out) == 2
        assert {t.colour for t in kept} == set(TRAIN_COLOURS)
        assert {t.target for t in kept} == {t.target for t in out}


def test_unknown_suites_and_empty_ones_are_refused() -> None:
    for call in (split, look_range):
        with pytest.raises(UserError, match="unseen-look"):
            call("unseen")
    with pytest.raises(UserError, match="lift"):
        split("unseen-combination", ("lift",))
    with pytest.raises(UserError, match="seed"):
        sample_scene("seen", -1)
    with pytest.raises(UserError, match="no verb 'dance'"):
        split("seen:dance")


def test_a_suite_may_name_its_verbs() -> None:
    assert split("seen:shove,chain") == split("seen", ("shove", "chain"))
    assert {t.verb for t in split("seen:shove,chain")} == {"shove", "chain"}
    assert sample_scene("seen:chain", 5).task.verb == "chain"
    assert look_range("unseen-look:shove") == UNSEEN


def test_held_out_looks_do_not_overlap_the_training_ones() -> None:
    numeric = [f.name for f in fields(LookRange) if f.name not in ("value", "shapes")]
    for name in numeric:
        (low, high), (low2, high2) = getattr(TRAIN, name), getattr(UNSEEN, name)
        assert high < low2 or high2 < low, name
    assert not set(TRAIN.shapes) & set(UNSEEN.shapes)
    assert look_range("seen") == look_range("unseen-combination") == TRAIN
    assert look_range("unseen-look") == UNSEEN


def test_a_scene_is_decided_by_suite_and_seed() -> None:
    for suite in SUITES:
        assert sample_scene(suite, 7) == sample_scene(suite, 7)
        assert sample_scene(suite, 7) != sample_scene(suite, 7 + len(split(suite)))
    assert sample_scene("seen", 3).look != sample_scene("unseen-look", 3).look


def test_seeds_walk_through_the_tasks_in_turn() -> None:
    tasks = split("seen")
    assert tuple(sample_scene("seen", i).task for i in range(len(tasks))) == tasks


@pytest.mark.parametrize("verb", VERBS)
def test_blocks_have_room(verb: str) -> None:
    for seed in range(60):
        scene = sample_scene("seen", seed, verbs=(verb,))
        task = scene.task
        colours = [b.colour for b in scene.blocks]
        assert {task.colour, task.then} - {None, ""} <= set(colours)
        assert len(set(colours)) == len(colours)
        xy = np.array([(b.x_m, b.y_m) for b in scene.blocks])
        gaps = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
        assert gaps[np.triu_indices(len(xy), 1)].min() > 2 * math.sqrt(2) * BLOCK_HALF_M
        if verb == "play":
            assert not scene.zones
            continue
        own = xy[colours.index(task.colour)]
        if verb == "push":
            end = own + PUSH_M * np.array(task.direction)
            assert (np.abs(end) <= BOUND_M).all()
        if verb in ("zone", "place", "chain"):
            zone = next(z for z in scene.zones if z.colour == task.target)
            assert len(scene.zones) == 2
            assert np.hypot(*(own - (zone.x_m, zone.y_m))) > 0.05
        else:
            assert not scene.zones


def test_looks_vary() -> None:
    looks = [sample_scene("seen", s).look for s in range(20)]
    assert len({look.table_rgb for look in looks}) == 20
    assert {len(look.clutter) for look in looks} == {0, 1, 2}
    assert all(isinstance(look, Look) for look in looks)
