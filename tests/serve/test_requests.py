"""Requests: their fields, the names of cameras and state, and which frames continue a context."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamzero import embodiments
from dreamzero.embodiments import Embodiment
from dreamzero.serve.episode import Episode
from dreamzero.serve.frames import refusal, spread
from dreamzero.serve.messages import (
    Answer,
    Infer,
    Reset,
    ServerConfig,
    greeting,
    parse_request,
)
from dreamzero.serve.protocol import ProtocolError, pack, unpack
from dreamzero.serve.wire import wire
from dreamzero.types import ActionChunk

from .peer import observation
from .spy import DROID, Spy

TABLETOP = embodiments.get("tabletop_so101")
IMPORTED = DROID.with_(name="oxe_droid")


def test_droid_says_what_its_clients_expect() -> None:
    wanted = {
        "image_resolution": [180, 320],
        "needs_wrist_camera": True,
        "n_external_cameras": 2,
        "needs_stereo_camera": False,
        "needs_session_id": True,
        "action_space": "joint_position",
    }
    for card in (DROID, IMPORTED):
        config = wire(card).config
        assert config.to_message() == wanted
        assert greeting("roboarena", config, "x", card) == wanted
        assert ServerConfig.from_message(unpack(pack(wanted))) == config


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image_resolution": [180]}, "image_resolution"),
        ({"image_resolution": [0, 320]}, "image_resolution"),
        ({"n_external_cameras": 3}, "n_external_cameras 3"),
        ({"needs_wrist_camera": "yes"}, "needs_wrist_camera"),
        ({"action_space": "torque"}, "action_space 'torque'"),
    ],
)
def test_a_configuration_that_makes_no_sense(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        ServerConfig.from_message(wire(DROID).config.to_message() | change)
    assert ServerConfig.from_message({"some": "metadata"}) is None


def test_requests_are_read() -> None:
    request = parse_request(observation(prompt=np.str_("lift"), executed_steps=np.int64(24)))
    assert isinstance(request, Infer)
    assert (request.prompt, request.session_id, request.executed_steps) == ("lift", "episode-1", 24)
    assert parse_request({"endpoint": "reset"}) == Reset(None)
    # openpi's clients name neither endpoint nor session.
    assert parse_request({"prompt": "lift"}) == Infer({"prompt": "lift"}, "lift")


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ([1, 2], "a request is a map"),
        ({b"prompt": "x"}, "texts as keys"),
        ({"endpoint": "learn", "prompt": "x"}, "'learn' is neither"),
        ({"endpoint": "infer"}, "no prompt"),
        ({"prompt": 3}, "prompt should be a text"),
        ({"prompt": "x" * 5000}, "at most 4096"),
        ({"prompt": "x", "session_id": 7}, "session_id should be a text"),
        ({"prompt": "x", "executed_steps": -1}, "executed_steps"),
        ({"prompt": "x", "executed_steps": 1.5}, "executed_steps"),
    ],
)
def test_requests_that_are_refused(message: Any, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        parse_request(message)


def test_droid_cameras_and_state() -> None:
    """Exterior image 0 of a client is exterior camera 1 of the data set (MODEL.md 8)."""
    frames, state = wire(DROID).read(observation())
    assert {view: int(clip[0, 0, 0, 0]) for view, clip in frames.items()} == {
        "observation.images.exterior_1_left": 1,
        "observation.images.exterior_2_left": 2,
        "observation.images.wrist_left": 3,
    }
    assert {clip.shape for clip in frames.values()} == {(1, 180, 320, 3)}
    np.testing.assert_array_equal(state, np.float32([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.5]))
    assert state.dtype == np.float32


@pytest.mark.parametrize("name", embodiments.names())
def test_every_card_has_names_that_come_back(name: str) -> None:
    card = embodiments.get(name)
    names, rng = wire(card), np.random.default_rng(0)
    frames = {v: rng.integers(0, 255, (4, 6, 8, 3), dtype=np.uint8) for v in card.views}
    state = rng.normal(size=card.state_dim).astype(np.float32)
    found, numbers = names.read(unpack(pack(names.write(frames, state))))
    assert found.keys() == frames.keys()
    assert all(np.array_equal(found[view], frames[view]) for view in frames)
    np.testing.assert_array_equal(numbers, state)


def test_other_cards_are_spoken_to_by_one_rule() -> None:
    names = wire(TABLETOP)
    assert (names.views, names.state) == (("observation/front",), (("observation/state", 6),))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"observation/wrist_image_left": None}, "wrist_image_left should be uint8"),
        ({"observation/wrist_image_left": np.zeros((2, 2, 3))}, r"not float64 \[2, 2, 3\]"),
        ({"observation/wrist_image_left": np.zeros((2, 2, 4), np.uint8)}, "RGB frames"),
        ({"observation/wrist_image_left": np.zeros((0, 2, 2, 3), np.uint8)}, "1 to 64 RGB"),
        ({"observation/wrist_image_left": np.zeros((65, 2, 2, 3), np.uint8)}, "1 to 64 RGB"),
        ({"observation/wrist_image_left": np.zeros((1, 5000, 3), np.uint8)}, "4096 are the most"),
        ({"observation/wrist_image_left": np.zeros((2, 9, 9, 3), np.uint8)}, r"differ .* \[1, 2\]"),
        ({"observation/joint_position": np.zeros(6)}, "joint_position should be 7 numbers"),
        ({"observation/joint_position": ["a"] * 7}, "should be 7 numbers"),
        ({"observation/joint_position": [[1], [1, 2]]}, "should be 7 numbers"),
        ({"observation/joint_position": np.full(7, np.nan)}, "not finite"),
        ({"observation/joint_position": np.full(7, 1e300)}, "not finite"),
    ],
)
def test_observations_that_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        wire(DROID).read(observation(**change))


def test_a_missing_camera_is_named() -> None:
    request = observation()
    del request["observation/exterior_image_1_left"]
    with pytest.raises(ProtocolError, match="lacks observation/exterior_image_1_left; it has obs"):
        wire(DROID).read(request)


@pytest.mark.parametrize(
    ("count", "steps", "elapsed_s", "says"),
    [
        (8, 24, 0.1, ""),  # all executed, whenever it comes
        (4, 24, None, ""),
        (24, 24, None, ""),
        (16, 24, None, ""),  # a camera at 10 Hz
        (8, None, 1.7, ""),  # nothing said, and in good time
        (4, None, 1.7, ""),  # the release's client
        (24, None, 1.7, ""),  # one frame an action
        (8, None, None, ""),  # a simulation's clock
        (1, None, 1.7, "one frame"),
        (1, 24, None, "one frame"),
        (8, 8, 1.7, "8 of 24 actions"),
        (8, 0, 1.7, "0 of 24 actions"),
        (8, None, 0.6, "8 frames 0.60 s after the last answer"),  # 8 actions at 15 Hz
        (7, None, 1.7, "7 frames; a whole block is 4, 8, 24"),
        (3, 24, None, "3 frames"),
    ],
)
def test_what_is_a_whole_block(
    count: int, steps: int | None, elapsed_s: float | None, says: str
) -> None:
    why = refusal(wire(DROID), count, steps, elapsed_s)
    assert why.startswith(says) and bool(why) == bool(says)


def test_four_frames_are_half_a_block_on_the_tabletop() -> None:
    assert "4 frames" in refusal(wire(TABLETOP), 4, None, None)
    assert not refusal(wire(TABLETOP), 8, None, None)


@given(st.integers(4, 40))
def test_frames_are_spread_evenly_and_end_with_the_last(have: int) -> None:
    clip = np.arange(have, dtype=np.uint8).reshape(have, 1, 1, 1)
    picked = spread({"v": clip}, 8)["v"].reshape(-1)
    assert len(picked) == 8 and picked[-1] == have - 1
    assert np.all(np.abs(picked - (np.arange(1, 9) * have / 8 - 1)) <= 1)


@pytest.mark.parametrize(
    ("have", "picked"),
    [
        (4, [0, 0, 1, 1, 2, 2, 3, 3]),  # the release holds each of four for two
        (8, list(range(8))),
        (24, [2, 5, 8, 11, 14, 17, 20, 23]),  # every third of 15 Hz is 5 Hz
    ],
)
def test_known_spreads(have: int, picked: list[int]) -> None:
    clip = np.arange(have).reshape(have, 1, 1, 1)
    assert spread({"v": clip}, 8)["v"].reshape(-1).tolist() == picked


def frames(count: int, card: Embodiment = DROID) -> dict[str, np.ndarray]:
    made = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1).repeat(3, 3)
    return {view: made for view in card.views}


def newest(spy: Spy) -> list[int]:
    return spy.frames[DROID.views[0]][:, 0, 0, 0].tolist()  # type: ignore[no-any-return]


STATE = np.zeros(8, np.float32)


def test_an_episode_begins_with_its_newest_frame() -> None:
    spy = Spy()
    answer = Episode(spy, wire(DROID)).infer("lift", frames(8), STATE)
    assert (answer.context, spy.calls, newest(spy)) == ("begun", ["lift", 1], [7])


def test_eight_of_24_actions_do_not_corrupt_the_context() -> None:
    """MODEL.md 7.7: eight frames after eight actions are no block, said or unsaid."""
    spy = Spy()
    episode = Episode(spy, wire(DROID))
    episode.infer("lift", frames(1), STATE)
    said = episode.infer("lift", frames(8), STATE, executed_steps=8)
    unsaid = episode.infer("lift", frames(8), STATE)  # at once: no 1.6 s have passed
    for answer in (said, unsaid):
        assert answer.context == "restarted" and answer.why
    assert spy.calls == ["lift", 1, 1, 1] and newest(spy) == [7]
    whole = episode.infer("lift", frames(8), STATE, executed_steps=24)
    assert (whole.context, spy.calls[-1], newest(spy)) == ("continued", 8, list(range(8)))


def test_frames_in_good_time_are_believed() -> None:
    import time

    spy = Spy()
    episode = Episode(spy, wire(DROID))
    episode.infer("lift", frames(1), STATE)
    later = episode.infer("lift", frames(8), STATE, arrived_s=time.monotonic() + 1.3)
    assert later.context == "continued"
    simulated = Episode(spy, wire(DROID), real_clock=False)
    simulated.infer("lift", frames(1), STATE)
    assert simulated.infer("lift", frames(8), STATE).context == "continued"


def test_another_prompt_begins_another_episode() -> None:
    spy = Spy()
    episode = Episode(spy, wire(DROID))
    contexts = [episode.infer(p, frames(1), STATE).context for p in ("lift", "lift", "drop")]
    assert contexts == ["begun", "restarted", "begun"]
    assert spy.calls == ["lift", 1, 1, "drop", 1]


@pytest.mark.parametrize("dialect", ["roboarena", "openpi", "dreamzero"])
def test_answers_are_what_each_dialect_takes(dialect: Any) -> None:
    video = np.zeros((8, 4, 4, 3), np.uint8)
    chunk = ActionChunk(
        np.zeros((24, 8)), 15.0, video, {"evaluations": 4, "errors": {"video": 0.1}}
    )
    answer = Answer(chunk, 0.25, "restarted", "one frame", {"queue_ms": 3.0})
    message = unpack(pack(answer.to_message(dialect)))
    if dialect == "roboarena":
        assert (message.dtype, message.shape) == (np.float32, (24, 8))
        return
    assert message["actions"].shape == (24, 8) and message["actions"].dtype == np.float32
    assert message["server_timing"] == {"infer_ms": 250.0, "queue_ms": 3.0}
    assert ("info" in message) == ("video" in message) == (dialect == "dreamzero")
    if dialect == "dreamzero":
        assert message["info"]["context"] == "restarted" and message["info"]["why"] == "one frame"
        assert message["info"]["errors"] == {"video": 0.1} and message["rate_hz"] == 15.0
