"""The arm's end on a network of numbers: bad weather, bad drivers, bad arms; nothing unsafe reaches it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamzero.errors import UserError
from dreamzero.robots.stream import protocol
from dreamzero.robots.stream.backend import ArmFault, Rules
from dreamzero.robots.stream.bodies import Fault, Flag, Hello, Reason, Role
from dreamzero.robots.stream.companion import Companion
from dreamzero.robots.stream.protocol import Frame, Kind
from dreamzero.robots.stream.session import handshake_keys

from .conftest import CARD, DRIVER, HOME, KEY, LOWER, UPPER, VELOCITY, Arm, Net, Weather

BAD = Weather(delay_s=0.02, jitter_s=0.05, loss=0.1, corrupt=0.01, duplicate=0.02)
GOAL = HOME + np.array([0.8, 0.3, -0.5, 0.4, 0.6, -0.7, 0.9, -0.4])


def count(companion: Companion, what: str) -> int:
    return companion.report()["counts"].get(what, 0)


def towards_goal(net: Net, seconds: float = 2.0):
    """A policy that walks from home to the goal."""
    begin = net.now_s
    return lambda now: net.command(HOME + (GOAL - HOME) * min(1.0, (now - begin) / seconds))


def safe(net: Net) -> None:
    """What holds whatever happens on the wire."""
    assert net.arm.unsafe(net.rules) == []
    assert all(age <= net.rules.max_age_s for _, age in net.taken), net.taken
    sequences = [sequence for sequence, _ in net.taken]
    assert sequences == sorted(set(sequences)), "an older command was executed after a newer one"


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_through_loss_jitter_and_corruption_the_arm_gets_there_safely(seed: int) -> None:
    net = Net(BAD, seed)
    net.run(3.0, towards_goal(net))
    safe(net)
    np.testing.assert_allclose(net.arm.pose, GOAL, atol=1e-3)
    assert len(net.taken) > 25
    stats = net.client.stats(net.ours())
    assert 0.02 < stats["loss_in"] < 0.25
    assert stats["least_rtt_ms"] >= 40


@settings(max_examples=25)
@given(
    st.integers(0, 10**6), st.floats(0, 0.3), st.floats(0, 0.4), st.floats(0, 0.5), st.floats(0, 0.3),
    st.floats(0, 0.2), st.sampled_from([-0.01, 0.0, 0.04]),
    st.lists(st.tuples(st.floats(0.2, 2.5), st.floats(0.05, 0.8)), max_size=3),
)  # fmt: skip
def test_no_weather_makes_it_unsafe(seed, delay, jitter, loss, double, corrupt, skew, dark) -> None:
    """A policy that jumps about, far outside every limit, through anything."""
    blackouts = tuple((start, start + length) for start, length in dark)
    net = Net(Weather(delay + 0.01, jitter, loss, double, corrupt, skew, blackouts), seed)
    dice = np.random.default_rng(seed)
    net.run(3.0, lambda now: net.command(dice.uniform(-6, 6, len(HOME))), hz=30.0)
    safe(net)


def test_in_a_blackout_it_holds_and_afterwards_it_does_not_jump() -> None:
    net = Net(Weather(blackouts=((1.0, 2.2),)), seed=4)
    net.run(1.0, towards_goal(net, 4.0))
    net.run(1.15)
    # 300 ms after the last command, not a moment later than the next setpoint.
    last = max(t for t, _ in net.arm.commands)
    assert 1.2 < last < 1.32
    assert count(net.companion, "watchdog") == 1
    pose = net.arm.pose.copy()
    net.run(0.1)
    assert net.client.state.flags & Flag.WATCHDOG
    assert net.client.state.flags & Flag.HOLDING
    np.testing.assert_array_equal(net.arm.pose, pose)
    net.run(2.0, lambda now: net.command(GOAL))
    safe(net)
    np.testing.assert_allclose(net.arm.pose, GOAL, atol=1e-3)
    assert not net.client.state.flags & Flag.WATCHDOG


def test_commands_held_back_on_the_way_are_too_old_to_be_executed() -> None:
    net = Net()
    net.run(0.3)
    net.client.command((0.0,) * 8, 0.1, net.ours())
    late = net.client.command(tuple(GOAL), 0.1, net.ours())
    net.run(net.rules.max_age_s + 0.02)
    net.companion.receive(late, DRIVER, net.theirs())
    assert count(net.companion, "old") == 1
    assert count(net.companion, "commands") == 0
    assert net.arm.commands == []
    assert any("older than 250 ms" in line for line in net.companion.report()["lines"])


def test_a_command_that_was_overtaken_is_not_executed() -> None:
    net = Net()
    net.run(0.3)
    first = net.client.command(tuple(GOAL), 0.1, net.ours())
    second = net.client.command(tuple(HOME), 0.1, net.ours())
    net.companion.receive(second, DRIVER, net.theirs())
    net.companion.receive(first, DRIVER, net.theirs())
    net.run(0.3)
    assert count(net.companion, "late") == 1
    np.testing.assert_allclose(net.arm.pose, HOME, atol=1e-6)


def test_a_jump_is_walked_at_the_velocity_limit() -> None:
    net = Net(rules=Rules(speed=0.5))
    net.run(0.2)
    start = net.now_s
    net.run(0.5, lambda now: net.command(np.clip(HOME + 3.0, LOWER, UPPER), 0.0))
    # 5 ms setpoints; the first may be two periods long.
    moved = np.abs(net.arm.pose - HOME)
    assert (moved <= 0.5 * VELOCITY * (net.now_s - start + 0.01) + 1e-9).all()
    assert moved[0] > 0.5 * VELOCITY[0] * 0.4
    assert net.companion.report()["counts"]["limit_velocity"] > 0
    assert net.client.state.flags & Flag.LIMITED


def test_hold_is_repeated_until_it_is_confirmed() -> None:
    net = Net(Weather(loss=0.6), seed=5)
    net.run(1.0, lambda now: net.command(GOAL, 5.0))
    net.put(net.client.hold(net.ours()), True)
    assert not net.client.held
    net.run(0.6)
    assert net.client.held
    assert net.client.state.flags & Flag.HOLDING
    # A later hold waits for a confirmation of its own.
    net.client.hold(net.ours())
    assert not net.client.held


def test_a_driver_that_leaves_or_dies_leaves_a_held_arm() -> None:
    for leave in (True, False):
        net = Net()
        net.run(0.5, lambda now, net=net: net.command(GOAL, 9.0))
        assert net.companion.report()["commander"] == "10.0.0.1:5000"
        if leave:
            net.put(net.client.bye(net.ours()), True)
            net.run(0.02)
        else:
            net.weather = Weather(loss=1.0)
            net.run(2.1)
        assert net.companion.report()["commander"] is None
        assert net.arm.holds[-1] >= net.arm.commands[-1][0]
        net.weather, net.client = Weather(), net.driver()
        net.run(0.2)
        assert net.client.state is not None
        assert net.companion.report()["commander"] == "10.0.0.1:5000"


def test_one_session_commands_and_others_look_on() -> None:
    net = Net()
    net.run(0.2)
    first = net.client
    net.client = net.driver()
    net.run(0.3)
    assert net.client.state is None
    assert net.client.refusal.reason == Reason.BUSY
    assert net.client.refusal.text == "10.0.0.1:5000"
    net.client = net.driver(role=Role.OBSERVE)
    net.run(0.2)
    assert net.client.state is not None
    net.command(GOAL)
    net.put(net.client.hold(net.ours()), True)
    net.run(0.05)
    assert count(net.companion, "observer") >= 2
    assert count(net.companion, "commands") == 0
    np.testing.assert_array_equal(net.arm.pose, HOME)
    assert first.channel.session != net.client.channel.session


def test_two_that_ask_at_once_do_not_both_get_the_arm() -> None:
    net = Net()
    one, two = net.driver(), net.driver()
    for client in (one, two):
        for data in client.poll(net.ours()):
            for answer, _ in net.companion.receive(data, DRIVER, net.theirs()):
                client.receive(answer, net.ours())
    for client in (one, two):
        for data in client.poll(net.ours() + 10**8):
            for answer, _ in net.companion.receive(data, DRIVER, net.theirs() + 10**8):
                client.receive(answer, net.ours())
    assert net.companion.report()["sessions"] == 1
    assert one.refusal is None
    assert two.refusal.reason == Reason.BUSY


@pytest.mark.parametrize(("mine", "arm"), [(bytes(32), KEY), (b"", KEY), (KEY, b"")])
def test_another_key_or_none_opens_nothing(mine: bytes, arm: bytes) -> None:
    net = Net(secret=arm)
    net.client = net.driver(secret=mine)
    net.run(0.5)
    assert net.client.state is None
    assert net.client.refusal is None
    assert net.client.counts["other key"] > 0
    assert net.companion.report()["sessions"] == 0
    (line,) = net.companion.report()["lines"]
    assert "key" in line
    assert line.startswith("10.0.0.1:5000 ")


def test_a_captured_session_is_nothing_when_it_is_replayed() -> None:
    net = Net()
    net.run(0.6, towards_goal(net))
    capture = list(net.capture)
    # While it is open: from elsewhere it is nothing, and every frame of its own has been seen.
    for data in capture:
        net.companion.receive(data, ("10.6.6.6", 6), net.theirs())
    assert count(net.companion, "foreign") >= 9
    assert any("which is 10.0.0.1:5000's" in line for line in net.companion.report()["lines"])
    net.run(0.01)
    taken, pose = count(net.companion, "commands"), net.arm.pose.copy()
    for data in capture:
        net.companion.receive(data, DRIVER, net.theirs())
    assert count(net.companion, "repeated") >= taken
    assert any("a capture is replayed" in line for line in net.companion.report()["lines"])
    # States still go to the driver, not to whoever replayed.
    assert {peer for _, peer in net.companion.tick(net.theirs() + 10**7)} == {DRIVER}
    # When it is over, HELLO included.
    net.weather = Weather(loss=1.0)
    net.run(2.5)
    for data in capture:
        for answer, peer in net.companion.receive(data, ("10.6.6.6", 6), net.theirs()):
            assert protocol.parse(answer).kind == Kind.WELCOME
            assert peer == ("10.6.6.6", 6)
    # In another companion's life, which knows nothing of the first.
    arm = Arm()
    reborn = Companion(arm, CARD, KEY)
    reborn.tick(net.theirs())
    for data in capture:
        reborn.receive(data, ("10.6.6.6", 6), net.theirs())
    for companion in (net.companion, reborn):
        assert companion.report()["commander"] is None
        assert companion.report()["sessions"] == 0
    assert count(net.companion, "commands") == taken
    assert count(reborn, "foreign") > 0
    assert any("is not open here" in line for line in reborn.report()["lines"])
    np.testing.assert_allclose(net.arm.pose, pose, atol=0.4)
    assert arm.commands == []


def test_hellos_replayed_by_the_thousand_keep_nobody_out() -> None:
    net = Net()
    own, _ = handshake_keys(KEY)
    for i in range(1000):
        hello = Hello(i.to_bytes(16, "little"), Role.COMMAND, 8, "franka")
        data = protocol.pack(Frame(Kind.HELLO, 0, 1, i, body=hello.pack()), own)
        net.companion.receive(data, ("10.6.6.6", 6), net.theirs())
    net.run(0.3)
    assert net.client.state is not None
    assert len(net.companion._door.sessions) <= 8


def test_a_forged_frame_of_an_open_session_is_told_once() -> None:
    net = Net()
    net.run(0.2)
    session = net.client.channel.session
    for i in range(50):
        data = protocol.pack(Frame(Kind.COMMAND, session, 1000 + i, 0), b"guessed")
        net.companion.receive(data, DRIVER, net.theirs())
    assert count(net.companion, "forged") == 50
    assert sum("wrong tag" in line for line in net.companion.report()["lines"]) == 1


def test_another_version_is_named_on_both_ends() -> None:
    net = Net()
    data = bytearray(net.client.poll(net.ours())[0])
    data[4] = 2
    data[-20:-16] = protocol._CRC.pack(protocol.zlib.crc32(bytes(data[:-20])))
    ((answer, _),) = net.companion.receive(bytes(data), DRIVER, net.theirs())
    assert "speaks version 2" in net.companion.report()["lines"][-1]
    assert len(answer) <= len(data), "an answer that is longer than the question helps floods"
    back = bytearray(answer)
    back[4] = 3
    back[-20:-16] = protocol._CRC.pack(protocol.zlib.crc32(bytes(back[:-20])))
    net.client.receive(bytes(back), net.ours())
    assert net.client.other_version == 3


def test_another_arm_is_refused() -> None:
    net = Net()
    net.client = net.driver(robot="yam", count=7)
    net.run(0.2)
    assert net.client.refusal.reason == Reason.ARM
    assert net.client.refusal.text == "a franka of 8 values"


def test_an_arm_in_trouble_is_held_until_somebody_has_looked() -> None:
    net = Net()
    net.run(0.5, towards_goal(net))
    before = len(net.arm.commands)
    net.arm.trouble = ArmFault(Fault.OVERLOAD, 3)
    net.run(0.2, towards_goal(net))
    assert len(net.arm.commands) == before
    state = net.client.state
    assert state.flags & Flag.FAULT
    assert (state.fault, state.joint) == (Fault.OVERLOAD, 3)
    # The arm is well again, but nobody has said that he knows.
    net.arm.trouble = None
    net.run(0.2, towards_goal(net))
    assert len(net.arm.commands) == before
    assert net.client.state.fault == Fault.OVERLOAD
    net.put(net.client.hold(net.ours()), True)
    net.run(0.05)
    assert not net.client.state.flags & Flag.FAULT
    net.run(0.2, lambda now: net.command(GOAL))
    assert len(net.arm.commands) > before
    safe(net)
    assert sum("overload of joint 3" in line for line in net.companion.report()["lines"]) == 1


def test_a_backend_that_gives_nonsense_counts_as_trouble() -> None:
    net = Net()
    net.run(0.2)
    net.arm.pose = np.full(8, np.nan)
    net.run(0.1)
    assert net.client.state.fault == Fault.VENDOR
    assert np.isfinite(net.client.state.values).all()


def test_a_driver_in_a_hurry_is_slowed_but_never_kept_from_holding() -> None:
    net = Net(rules=Rules(command_hz=100.0))
    net.run(0.3)
    for _ in range(100):
        data = net.client.command(tuple(HOME), 0.1, net.ours())
        net.companion.receive(data, DRIVER, net.theirs())
    assert count(net.companion, "hurried") == 90
    assert not net.client.may_command(net.ours())
    net.companion.receive(net.client.hold(net.ours()), DRIVER, net.theirs())
    assert net.companion.report()["taken"] == net.client.channel.sent


def test_goodbye_is_said_to_everyone() -> None:
    net = Net()
    net.run(0.2)
    for data, _ in net.companion.close(net.theirs()):
        net.client.receive(data, net.ours())
    assert net.client.over


@pytest.mark.parametrize("wrong", [{"watchdog_s": 0.0}, {"state_hz": -1.0}])
def test_rules_that_are_none(wrong: dict) -> None:
    with pytest.raises(UserError, match="must be > 0"):
        Rules(**wrong)


def test_whatever_a_backend_raises_is_the_arms_trouble() -> None:
    """A vendor's SDK raises what it likes; the companion goes on watching and holds."""
    net = Net()
    net.run(0.5, towards_goal(net))
    before = len(net.arm.commands)
    net.arm.trouble = RuntimeError("libfranka: communication_constraints_violation")  # type: ignore[assignment]
    net.run(0.2, towards_goal(net))
    assert len(net.arm.commands) == before
    state = net.client.state
    assert state.flags & Flag.FAULT and state.fault == Fault.VENDOR
    assert any("communication_constraints" in line for line in net.companion.report()["lines"])
