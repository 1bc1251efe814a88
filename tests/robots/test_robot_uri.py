"""Addresses of arms and cameras, right and wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamzero import embodiments, robots
from dreamzero.errors import UserError
from dreamzero.robots.uri import CAMERA_SCHEMES, Uri, parse

CARD = embodiments.get("tabletop_so101")


def test_serial() -> None:
    uri = parse("serial:///dev/ttyACM0?baud=500000&camera=v4l2:///dev/video0")
    assert uri.path == "/dev/ttyACM0"
    assert uri.number("baud", 1_000_000) == 500_000
    assert uri.query["camera"] == "v4l2:///dev/video0"
    assert uri.hardware


def test_tcp_and_sim_and_camera() -> None:
    assert parse("tcp://10.0.0.2:4000") == Uri("tcp", "10.0.0.2", 4000)
    assert parse("sim://so101?seed=3").query == {"seed": "3"}
    camera = parse("camera://127.0.0.1:40123/front", CAMERA_SCHEMES)
    assert (camera.host, camera.port, camera.path) == ("127.0.0.1", 40123, "/front")


def test_what_moves_by_itself_is_known() -> None:
    assert not parse("serial:///dev/pts/7").hardware
    assert not parse("sim://so101").hardware
    assert parse("tcp://10.0.0.2:4000").hardware
    assert not parse("tcp://127.0.0.1:4000?emulated=1").hardware


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("/dev/ttyACM0", "no scheme"),
        ("usb:///dev/ttyACM0", "unknown scheme 'usb'"),
        ("serial://dev/ttyACM0", "third slash"),
        ("serial://", "path is missing"),
        ("tcp://10.0.0.2", "host or port is missing"),
        ("tcp://10.0.0.2:99999", "out of range"),
        ("tcp://10.0.0.2:abc", "Port"),
        ("sim://", "name one robot"),
        ("serial:///dev/x?baud=1&baud=2", "twice"),
    ],
)
def test_mistakes_are_named_and_a_right_address_shown(text: str, part: str) -> None:
    with pytest.raises(UserError, match=part) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_baud_must_be_a_number() -> None:
    with pytest.raises(UserError, match="baud=fast is not a positive whole number"):
        robots.open("serial:///dev/ttyACM0?baud=fast", CARD).connect()


@pytest.mark.parametrize("uri", ["serial:///dev/ttyACM0?boud=1", "sim://so101?sede=1"])
def test_misspelt_options_do_not_pass(uri: str) -> None:
    with pytest.raises(UserError, match="unknown option"):
        robots.open(uri, CARD)


def test_an_arm_without_a_driver_says_so() -> None:
    with pytest.raises(UserError, match="no driver for franka over serial"):
        robots.open("serial:///dev/ttyACM0", embodiments.get("tabletop_franka"))
    with pytest.raises(UserError, match="no joint limits"):
        robots.open("sim://hand", embodiments.get("tabletop_hand"))


def test_hardware_is_a_dry_run_unless_asked() -> None:
    assert not robots.open("serial:///dev/ttyACM0", CARD).move
    assert robots.open("serial:///dev/ttyACM0", CARD, move=True).move
    assert robots.open("serial:///dev/pts/0", CARD).move


def test_features_are_there_while_disconnected() -> None:
    uri = "serial:///dev/ttyACM0?camera=v4l2:///dev/video0&width=320&height=240"
    features = robots.open(uri, CARD).features
    assert features.joints[0] == "shoulder_pan"
    assert features.joints[-1] == "gripper"
    assert features.units == ("rad",) * 5 + ("1",)
    assert features.views == {"observation.images.front": (240, 320)}
    assert features.lower == CARD.lower
    assert features.rate_hz == 15


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        uri = parse(text)
    except UserError:
        return
    assert parse(str(uri)) == uri
