"""The emulated Dynamixels, asked by our codec and by ROBOTIS' own SDK."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamzero.errors import UserError
from dreamzero.robots.dynamixel import protocol as dynamixel
from dreamzero.robots.dynamixel import servos
from dreamzero.robots.dynamixel.protocol import ALERT, BROADCAST, Instruction, Parser
from dreamzero.robots.dynamixel.servos import ServoBus
from dreamzero.robots.dynamixel.table import NO_SECONDARY_ID, OVERLOAD, X_SERIES, Mode
from dreamzero.robots.servos.codec import Packet, Status

ACCESS, LIMIT, LENGTH, RANGE, INSTRUCTION = 7, 6, 5, 4, 2
GOAL, POSITION = X_SERIES["goal_position"], X_SERIES["present_position"]


@pytest.fixture
def bus() -> ServoBus:
    return servos.koch()


@pytest.fixture
def viper_bus() -> ServoBus:
    return servos.vx300s()


def ask(bus: ServoBus, request: bytes, count: int = 0) -> list[Status]:
    packets = Parser().feed(bus.feed(request))
    return [status for packet in packets for status in dynamixel.statuses(packet, count)]


def write(bus: ServoBus, servo: int, name: str, value: int) -> int:
    """Error byte of the answer to a write."""
    register = X_SERIES[name]
    (status,) = ask(bus, dynamixel.write(servo, register.address, register.to_bytes(value)))
    return status.error


def test_ping_read_write(bus: ServoBus) -> None:
    assert ask(bus, dynamixel.ping(3)) == [Status(3, 0, (1200).to_bytes(2, "little") + b"\x32")]
    assert ask(bus, dynamixel.ping(9)) == []
    assert write(bus, 3, "goal_position", -1000) == 0
    answer = ask(bus, dynamixel.read(3, GOAL.address, 4))
    assert answer == [Status(3, 0, GOAL.to_bytes(-1000))]


def test_everyone_answers_a_broadcast_ping_in_order(viper_bus: ServoBus) -> None:
    answers = ask(viper_bus, dynamixel.ping(BROADCAST))
    assert [status.id for status in answers] == list(range(1, 10))


def test_sync_read_answers_in_the_order_asked_and_bulk_read_too(bus: ServoBus) -> None:
    answers = ask(bus, dynamixel.sync_read(7, 1, [6, 2, 99, 4]))
    assert [(s.id, s.data[0]) for s in answers] == [(6, 6), (2, 2), (4, 4)]
    answers = ask(bus, dynamixel.bulk_read({5: (0, 2), 1: (7, 1), 99: (0, 1)}))
    assert answers == [Status(5, 0, (1200).to_bytes(2, "little")), Status(1, 0, b"\x01")]


def test_fast_sync_read_is_one_packet_which_breaks_off_at_a_silent_servo(bus: ServoBus) -> None:
    whole = bus.feed(dynamixel.fast_sync_read(POSITION.address, 4, [1, 2, 3]))
    (packet,) = Parser().feed(whole)
    assert [s.id for s in dynamixel.statuses(packet, 4)] == [1, 2, 3]
    bus.fault("silent", 3)
    part = bus.feed(dynamixel.fast_sync_read(POSITION.address, 4, [1, 2, 3]))
    assert part == whole[: len(whole) - 8]
    bus.fault("silent", 1)
    assert bus.feed(dynamixel.fast_sync_read(POSITION.address, 4, [1, 2, 3])) == b""


def test_a_written_goal_waits_for_action(bus: ServoBus) -> None:
    request = dynamixel.reg_write(2, GOAL.address, GOAL.to_bytes(777))
    assert ask(bus, request) == [Status(2, 0, b"")]
    assert bus.servos[1].get("goal_position") == 2048
    assert bus.servos[1].get("registered_instruction") == 1
    assert ask(bus, dynamixel.action()) == []
    assert bus.servos[1].get("goal_position") == 777
    (answer,) = ask(bus, dynamixel.action(2))
    assert answer.error == INSTRUCTION


def test_what_a_servo_refuses(bus: ServoBus) -> None:
    assert write(bus, 1, "torque_enable", 1) == 0
    assert write(bus, 1, "operating_mode", Mode.POSITION) == ACCESS  # EEPROM while torque is on
    assert write(bus, 1, "torque_enable", 0) == 0
    assert write(bus, 1, "operating_mode", Mode.POSITION) == 0
    assert write(bus, 1, "operating_mode", Mode.CURRENT_BASED_POSITION) == RANGE  # an XL430
    assert write(bus, 6, "operating_mode", Mode.CURRENT_BASED_POSITION) == 0  # an XL330
    assert write(bus, 1, "goal_position", 4096) == LIMIT
    assert write(bus, 2, "goal_position", 4096) == 0  # extended position
    assert write(bus, 1, "present_position", 5) == ACCESS
    assert write(bus, 1, "id", 253) == RANGE
    (answer,) = ask(bus, dynamixel.write(1, GOAL.address, b"\x00\x01"))
    assert answer.error == LENGTH
    (answer,) = ask(bus, dynamixel.read(1, 5000, 4))
    assert answer == Status(1, ACCESS, b"")
    (answer,) = ask(bus, dynamixel.encode(Packet(1, 0x77)))
    assert answer.error == INSTRUCTION
    # All of a write or nothing: what stands before a refused register stays.
    both = X_SERIES["profile_velocity"].to_bytes(9) + GOAL.to_bytes(9999)
    (answer,) = ask(bus, dynamixel.write(1, X_SERIES["profile_velocity"].address, both))
    assert answer.error == LIMIT
    assert bus.servos[0].get("profile_velocity") == 0


def test_status_return_level(bus: ServoBus) -> None:
    bus.servos[0].set("response_level", 1)
    assert ask(bus, dynamixel.write(1, 65, b"\x01")) == []
    assert bus.servos[0].get("led") == 1
    assert len(ask(bus, dynamixel.read(1, 65, 1))) == 1
    bus.servos[0].set("response_level", 0)
    assert ask(bus, dynamixel.read(1, 65, 1)) == []
    assert len(ask(bus, dynamixel.ping(1))) == 1


def test_overload_lets_go_and_says_so_until_the_reboot(bus: ServoBus) -> None:
    write(bus, 4, "torque_enable", 1)
    bus.fault("overload", 4)
    servo = bus.servos[3]
    assert (servo.get("torque_enable"), servo.get("hardware_error")) == (0, OVERLOAD)
    assert ask(bus, dynamixel.read(4, 70, 1)) == [Status(4, ALERT, bytes((OVERLOAD,)))]
    assert ask(bus, dynamixel.sync_read(7, 1, [3, 4]))[1].error == ALERT
    assert write(bus, 4, "torque_enable", 1) == ALERT
    assert not bus.goals()[1][3]
    servo.set("goal_position", 900)
    assert ask(bus, dynamixel.reboot(4)) == [Status(4, ALERT, b"")]
    assert servo.get("hardware_error") == 0
    assert servo.get("goal_position") == servo.get("present_position")
    assert write(bus, 4, "torque_enable", 1) == 0
    assert bus.goals()[1][3]


def test_faults_are_named_and_mended(bus: ServoBus) -> None:
    bus.fault("stuck", 2)
    before = bus.servos[1].get("present_position")
    bus.measure(np.full(6, 0.3), 0.1)
    assert bus.servos[1].get("present_position") == before
    assert bus.servos[0].get("present_position") > 2048
    bus.fault("mend", 2)
    bus.measure(np.full(6, 0.3), 0.1)
    assert bus.servos[1].get("present_position") > before
    with pytest.raises(UserError, match="fault 'silent' of servo 77"):
        bus.fault("silent", 77)


def test_positions_and_velocities_come_from_the_physics(bus: ServoBus) -> None:
    bus.measure(np.array([0.5, 0, 0, 0, 0, 1.0]), 0.1)
    ticks = round(0.5 * 4096 / (2 * np.pi))
    assert bus.servos[0].get("present_position") == 2048 + ticks
    rev_min = bus.servos[0].get("present_velocity") * 0.229
    assert rev_min == pytest.approx(0.5 / 0.1 / (2 * np.pi) * 60, abs=0.3)
    assert bus.servos[5].get("present_position") == 3072


def test_turns_are_counted_until_the_servo_starts_anew(bus: ServoBus) -> None:
    bus.measure(np.full(6, 4.0), 0.1)  # past the end of the turn
    raw = 2048 + round(4.0 * 4096 / (2 * np.pi))
    assert bus.servos[1].get("present_position") == raw > 4095
    ask(bus, dynamixel.reboot(2))
    assert bus.servos[1].get("present_position") == raw - 4096
    # In position mode torque does the same, and in extended position mode it does not.
    for servo, mode, left in ((3, Mode.POSITION, raw - 4096), (4, Mode.EXTENDED_POSITION, raw)):
        bus.servos[servo - 1].set("operating_mode", mode)
        assert write(bus, servo, "torque_enable", 1) == 0
        assert bus.servos[servo - 1].get("present_position") == left


def test_homing_offset_is_added(bus: ServoBus) -> None:
    assert write(bus, 1, "homing_offset", -300) == 0
    assert bus.servos[0].get("present_position") == 2048 - 300
    write(bus, 1, "goal_position", 2048 - 300)
    assert bus.goals()[0][0] == pytest.approx(0.0)


def test_shadows_do_as_their_leaders_are_told(viper_bus: ServoBus) -> None:
    (shoulder, first), (_, second) = viper_bus.shadows
    assert (first.get("id"), second.get("id")) == (3, 5)
    assert first.get("drive_mode") != viper_bus.servos[shoulder].get("drive_mode")
    # One answer, two servos changed; RAM only.
    assert write(viper_bus, 2, "torque_enable", 1) == 0
    assert first.get("torque_enable") == 1
    viper_bus.feed(dynamixel.sync_write(GOAL.address, {2: GOAL.to_bytes(1500)}))
    assert first.get("goal_position") == 1500
    assert viper_bus.goals()[1][shoulder]
    write(viper_bus, 2, "torque_enable", 0)
    write(viper_bus, 2, "return_delay", 100)
    assert first.get("return_delay") == 0
    # Without its secondary id the shadow stays behind, and the joint with it.
    first.set("secondary_id", NO_SECONDARY_ID)
    write(viper_bus, 2, "torque_enable", 1)
    assert not viper_bus.goals()[1][shoulder]


@given(st.lists(st.binary(max_size=48), max_size=10))
def test_no_bytes_bring_it_down(parts: list[bytes]) -> None:
    bus = servos.vx300s()
    for part in parts:
        Parser().feed(bus.feed(part))
    goal, live = bus.goals()
    assert np.isfinite(goal).all()
    assert live.shape == (7,)


@given(
    st.sampled_from(list(Instruction)),
    st.sampled_from([1, 2, 3, 9, 77, BROADCAST]),
    st.one_of(
        st.binary(max_size=20),
        # Requests that make sense, at addresses that exist.
        st.builds(
            lambda address, data: address.to_bytes(2, "little") + data,
            st.sampled_from([r.address for r in X_SERIES.values()]),
            st.binary(max_size=8),
        ),
    ),
)
def test_no_request_brings_it_down(code: int, servo: int, params: bytes) -> None:
    bus = servos.vx300s()
    answers = Parser().feed(bus.feed(dynamixel.encode(Packet(servo, code, params))))
    assert all(packet.code == Instruction.STATUS for packet in answers)
    bus.measure(np.zeros(7), 0.01)
    assert np.isfinite(bus.goals()[0]).all()


@pytest.mark.peer
def test_robotis_sdk_talks_to_the_servos(koch, monkeypatch) -> None:
    sdk = pytest.importorskip("dynamixel_sdk", reason="pip install dynamixel-sdk")
    # It waits 34 ms for an answer, which on a busy machine is not always enough.
    monkeypatch.setattr(sdk.port_handler, "LATENCY_TIMER", 500)
    port = sdk.PortHandler(koch.wire.port)
    assert port.openPort()
    assert port.setBaudRate(1_000_000)
    handler = sdk.PacketHandler(2.0)
    try:
        assert handler.ping(port, 4) == (1200, sdk.COMM_SUCCESS, 0)
        found, result = handler.broadcastPing(port)
        assert (sorted(found), result) == ([1, 2, 3, 4, 5, 6], sdk.COMM_SUCCESS)
        assert handler.write1ByteTxRx(port, 4, 64, 1) == (sdk.COMM_SUCCESS, 0)
        assert handler.write4ByteTxRx(port, 4, 116, 1234) == (sdk.COMM_SUCCESS, 0)
        assert handler.read4ByteTxRx(port, 4, 116) == (1234, sdk.COMM_SUCCESS, 0)
        assert handler.regWriteTxRx(port, 4, 116, 4, [0xFF, 0xFF, 0xFD, 0x00]) == (0, 0)
        # To all, for of one servo the SDK does not await the status, and then takes it for the next.
        assert handler.action(port, sdk.BROADCAST_ID) == sdk.COMM_SUCCESS
        assert handler.read4ByteTxRx(port, 4, 116) == (0x00FDFFFF, sdk.COMM_SUCCESS, 0)

        write = sdk.GroupSyncWrite(port, handler, 116, 4)
        read = sdk.GroupSyncRead(port, handler, 116, 4)
        for servo in range(1, 7):
            assert write.addParam(servo, list((2000 + servo).to_bytes(4, "little")))
            assert read.addParam(servo)
        assert write.txPacket() == sdk.COMM_SUCCESS
        for ask_all in (read.txRxPacket, read.fastSyncRead):
            assert ask_all() == sdk.COMM_SUCCESS
            got = [read.getData(s, 116, 4) for s in range(1, 7)]
            assert got == [2001, 2002, 2003, 2004, 2005, 2006]
        bulk = sdk.GroupBulkRead(port, handler)
        assert bulk.addParam(1, 132, 4)
        assert bulk.addParam(2, 146, 1)
        assert bulk.txRxPacket() == sdk.COMM_SUCCESS
        assert (bulk.getData(1, 132, 4), bulk.getData(2, 146, 1)) == (2048, 30)

        # A refusal and an alert as the SDK understands them, then the reboot.
        assert handler.write1ByteTxRx(port, 4, 11, 3) == (sdk.COMM_SUCCESS, ACCESS)
        koch.bus.fault("overload", 4)
        _, result, error = handler.ping(port, 4)
        assert (result, error & ALERT) == (sdk.COMM_SUCCESS, ALERT)
        assert handler.reboot(port, 4)[0] == sdk.COMM_SUCCESS
        assert handler.ping(port, 4) == (1200, sdk.COMM_SUCCESS, 0)
        _, result, _ = handler.ping(port, 17)
        assert result == sdk.COMM_RX_TIMEOUT
    finally:
        port.closePort()
