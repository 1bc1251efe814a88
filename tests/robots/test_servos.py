"""The emulated servos, asked by our codec and by Feetech's own SDK."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamzero.robots import calibration, feetech
from dreamzero.robots.feetech import STS3215, Packet, Parser
from dreamzero.robots.feetech.servos import ServoBus


@pytest.fixture
def bus() -> ServoBus:
    return ServoBus(calibration.SO101)


def ask(bus: ServoBus, request: bytes) -> list[Packet]:
    return Parser().feed(bus.feed(request))


def test_ping_read_write(bus: ServoBus) -> None:
    assert ask(bus, feetech.ping(3)) == [Packet(3, 0)]
    assert ask(bus, feetech.ping(9)) == []
    goal = STS3215["goal_position"]
    assert ask(bus, feetech.write(3, goal.address, goal.to_bytes(1000))) == [Packet(3, 0)]
    assert ask(bus, feetech.read(3, goal.address, 2)) == [Packet(3, 0, goal.to_bytes(1000))]


def test_sync_read_answers_in_the_order_asked(bus: ServoBus) -> None:
    answers = ask(bus, feetech.sync_read(5, 1, [6, 2, 99, 4]))
    assert [(p.id, p.params[0]) for p in answers] == [(6, 6), (2, 2), (4, 4)]


def test_sync_write_is_silent_and_reaches_all(bus: ServoBus) -> None:
    data = {
        joint.id: STS3215["goal_position"].to_bytes(100 * joint.id)
        for joint in bus.calibration.joints
    }
    assert bus.feed(feetech.sync_write(42, data)) == b""
    assert [s.get("goal_position") for s in bus.servos] == [100, 200, 300, 400, 500, 600]


def test_everyone_answers_a_broadcast_ping(bus: ServoBus) -> None:
    assert [p.id for p in ask(bus, feetech.ping(feetech.BROADCAST))] == [1, 2, 3, 4, 5, 6]


def test_a_written_goal_waits_for_action(bus: ServoBus) -> None:
    goal = STS3215["goal_position"]
    request = Packet(2, feetech.Instruction.REG_WRITE, bytes((42,)) + goal.to_bytes(777))
    ask(bus, feetech.encode(request))
    assert bus.servos[1].get("goal_position") == 2048
    bus.feed(feetech.encode(Packet(feetech.BROADCAST, feetech.Instruction.ACTION)))
    assert bus.servos[1].get("goal_position") == 777


def test_read_only_registers_stay(bus: ServoBus) -> None:
    ask(bus, feetech.write(1, STS3215["present_voltage"].address, b"\x01"))
    assert bus.servos[0].get("present_voltage") == 74


def test_positions_and_speeds_come_from_the_physics(bus: ServoBus) -> None:
    bus.servos[0].set("torque_enable", 1)
    bus.servos[0].set("goal_position", 3000)
    bus.measure(np.array([0.5, 0, 0, 0, 0, 1.0]), 0.1)
    ticks = round(0.5 * 4096 / (2 * np.pi))
    assert bus.servos[0].get("present_position") == 2048 + ticks
    assert bus.servos[0].get("present_speed") == 10 * ticks
    assert bus.servos[0].get("moving") == 1
    assert bus.servos[0].get("present_load") > 0
    assert bus.servos[5].get("present_position") == 3072


@given(st.lists(st.binary(max_size=48), max_size=10))
def test_no_bytes_bring_it_down(parts: list[bytes]) -> None:
    bus = ServoBus(calibration.SO101)
    for part in parts:
        Parser().feed(bus.feed(part))
    goal, live = bus.goals()
    assert np.isfinite(goal).all()
    assert live.shape == (6,)


@given(st.sampled_from(list(feetech.Instruction)), st.integers(0, 254), st.binary(max_size=20))
def test_no_request_brings_it_down(code: int, servo: int, params: bytes) -> None:
    bus = ServoBus(calibration.SO101)
    answers = Parser().feed(bus.feed(feetech.encode(Packet(servo, code, params))))
    assert all(feetech.encode(answer) for answer in answers)
    bus.measure(np.zeros(6), 0.01)


@pytest.mark.peer
def test_feetechs_sdk_talks_to_the_servos(pty_arm, monkeypatch) -> None:
    sdk = pytest.importorskip("scservo_sdk", reason="pip install feetech-servo-sdk")
    # It waits 34 ms for an answer, which on a busy machine is not always enough.
    monkeypatch.setattr(sdk.port_handler, "LATENCY_TIMER", 500)
    port = sdk.PortHandler(pty_arm.wire.port)
    assert port.openPort()
    assert port.setBaudRate(1_000_000)
    handler = sdk.PacketHandler(0)
    try:
        model, result, error = handler.ping(port, 4)
        assert (model, result, error) == (777, sdk.COMM_SUCCESS, 0)
        assert handler.write1ByteTxRx(port, 4, 40, 1) == (sdk.COMM_SUCCESS, 0)
        assert handler.write2ByteTxRx(port, 4, 42, 1234) == (sdk.COMM_SUCCESS, 0)
        assert handler.read2ByteTxRx(port, 4, 42) == (1234, sdk.COMM_SUCCESS, 0)

        write = sdk.GroupSyncWrite(port, handler, 42, 2)
        read = sdk.GroupSyncRead(port, handler, 42, 2)
        for servo in range(1, 7):
            assert write.addParam(servo, list((2000 + servo).to_bytes(2, "little")))
            assert read.addParam(servo)
        assert write.txPacket() == sdk.COMM_SUCCESS
        assert read.txRxPacket() == sdk.COMM_SUCCESS
        assert [read.getData(s, 42, 2) for s in range(1, 7)] == [2001, 2002, 2003, 2004, 2005, 2006]

        _, result, _ = handler.ping(port, 17)
        assert result == sdk.COMM_RX_TIMEOUT
    finally:
        port.closePort()
    assert pty_arm.servo(4).get("torque_enable") == 1
