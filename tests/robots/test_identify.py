"""What is on a port: both protocols, any baud, ids changed, and what is said when nothing fits."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from dreamzero.cli import main
from dreamzero.errors import UserError
from dreamzero.robots import RobotFault
from dreamzero.robots.dynamixel import protocol as dynamixel
from dreamzero.robots.emulation.pty import PtyWire
from dreamzero.robots.servos.identify import bus_of, buses, survey
from dreamzero.robots.uri import Uri, parse

from .conftest import PtyArm

NOWHERE = parse("serial:///dev/ttyTEST")


class Line:
    """A port on which somebody listens at one baud rate only, and hears noise at others."""

    name = "/dev/ttyTEST"

    def __init__(
        self, uri: Uri, baud: int, feed: Callable[[bytes], bytes], noise: bytes = b""
    ) -> None:
        self.detail = f"{uri.number('baud', 1_000_000)} baud"
        self.right = uri.number("baud", 1_000_000) == baud
        self.feed, self.noise, self.answers = feed, noise, b""

    def write(self, data: bytes) -> None:
        self.answers += self.feed(data) if self.right else self.noise

    def read(self, timeout_s: float) -> bytes:
        data, self.answers = self.answers, b""
        return data

    def discard_input(self) -> None:
        self.answers = b""

    def close(self) -> None: ...


def patience(monkeypatch: pytest.MonkeyPatch, timeout_s: float) -> None:
    for bus in buses().values():
        scan = bus.scan
        monkeypatch.setattr(
            bus, "scan", lambda self, ids, scan=scan: scan(self, ids, timeout_s=timeout_s)
        )


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For lines that answer at once or never."""
    patience(monkeypatch, 0.001)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For ports on a machine that does other things as well."""
    patience(monkeypatch, 0.1)


@pytest.mark.parametrize(
    ("robot", "protocol", "baud", "names"),
    [
        ("so101", "feetech", 500_000, ["STS3215"] * 6),
        ("koch", "dynamixel", 57_600, ["XL430-W250"] * 2 + ["XL330-M288"] * 4),
        ("vx300s", "dynamixel", 4_000_000, ["XM540-W270"] * 7 + ["XM430-W350"] * 2),
    ],
)
def test_protocol_and_baud_are_found_out(
    robot: str, protocol: str, baud: int, names: list[str], impatient: None
) -> None:
    from dreamzero.robots.emulation import ARMS

    device = ARMS[robot].make()
    seen = survey(NOWHERE, link=lambda uri: Line(uri, baud, device.feed))
    assert {(one.protocol, one.baud) for one in seen.found} == {(protocol, baud)}
    assert [one.id for one in seen.found] == list(range(1, len(names) + 1))
    assert [one.name for one in seen.found] == names
    assert seen.garbage == {}
    assert not any(one.torque or one.trouble for one in seen.found)
    assert not device.goals()[1].any()


def test_the_whole_list_of_bauds_is_gone_through_if_asked(koch: PtyArm, impatient: None) -> None:
    """One servo as it comes from the shop among others that were set up: two bauds, one id."""

    def link(uri: Uri) -> Line:
        shop = uri.number("baud", 0) == 57_600
        arm = fresh if shop else koch
        return Line(uri, 57_600 if shop else 1_000_000, arm.bus.feed)

    fresh = PtyArm("openmanipulator_x")
    fresh.wire.close()
    seen = survey(NOWHERE, ids=(1, 11), everything=True, link=link)
    assert [(one.baud, one.id) for one in seen.found] == [(1_000_000, 1), (57_600, 11)]
    assert {protocol for protocol, _ in seen.tried} == {"feetech", "dynamixel"}


def test_what_a_servo_says_of_itself_is_told(koch: PtyArm, patient: None) -> None:
    koch.servo(2).set("return_delay", 250)
    koch.servo(2).set("torque_enable", 1)
    koch.bus.fault("overload", 3)
    found = {one.id: one for one in survey(koch.uri, ["dynamixel"], range(1, 7)).found}
    assert (found[2].return_delay_us, found[2].torque, found[2].firmware) == (500, True, 50)
    assert "overload" in found[3].trouble
    assert found[1].trouble == ""


def test_garbage_is_shown(impatient: None) -> None:
    def link(uri: Uri) -> Line:
        return Line(uri, 0, lambda _: b"", noise=b"\x00\x1c\xf0")

    seen = survey(parse("serial:///dev/ttyTEST?baud=57600"), link=link)
    assert seen.found == []
    assert set(seen.garbage) == {("feetech", 57_600), ("dynamixel", 57_600)}
    for part in ("/dev/ttyTEST", "dynamixel at 57600 baud came 00 1c f0", "another baud rate"):
        assert part in seen.explain()


def test_silence_says_what_was_tried(impatient: None) -> None:
    seen = survey(NOWHERE, link=lambda uri: Line(uri, 0, lambda _: b""))
    for part in ("/dev/ttyTEST", "feetech at 1000000, 500000", "9600 baud", "check power"):
        assert part in seen.explain()
    with pytest.raises(RobotFault, match="servo id 7: .*no servo answers"):
        bus_of(NOWHERE, 7, link=lambda uri: Line(uri, 0, lambda _: b""))
    with pytest.raises(UserError, match="no servo protocol 'modbus'; known: feetech, dynamixel"):
        survey(NOWHERE, ["modbus"])


@pytest.mark.parametrize("robot", ["so101", "koch"])
def test_an_id_is_changed(robot: str, patient: None) -> None:
    arm = PtyArm(robot)
    try:
        servo = arm.servo(3)
        servo.set("torque_enable", 1)
        bus = bus_of(arm.uri, 3)
        bus.set_id(3, 9)
        assert (servo.get("id"), servo.get("torque_enable")) == (9, 0)
        if robot == "so101":
            assert servo.get("lock") == 1
        with pytest.raises(UserError, match=f"servo id 4 answers on {arm.wire.port} already"):
            bus.set_id(9, 4)
        assert servo.get("id") == 9
        with pytest.raises(RobotFault, match="no answer from servo id 3"):
            bus.set_id(3, 12)
        bus.link.close()
    finally:
        arm.wire.close()


@pytest.mark.parametrize("robot", ["so101", "koch"])
def test_two_servos_of_one_id_are_noticed_when_only_one_takes_the_new_one(
    robot: str, patient: None
) -> None:
    """A twin that answers to the old id still."""
    arm = PtyArm(robot)
    try:
        bus = bus_of(arm.uri, 3)
        feed = arm.bus.feed
        twin = next(s for s in arm.bus.servos if s.get("id") == 3)

        def both(data: bytes) -> bytes:
            answer = feed(data)
            if not answer and twin.get("id") == 9:  # asked for the id that is free now
                twin.set("id", 3)
                answer = feed(data)
                twin.set("id", 9)
            return answer

        arm.wire.feed = both
        with pytest.raises(RobotFault, match="two servos of that id"):
            bus.set_id(3, 9)
        bus.link.close()
    finally:
        arm.wire.close()


def test_the_command_line(koch: PtyArm, pty_arm: PtyArm, patient: None, capsys) -> None:
    where = ["robot", "identify", "--robot"]
    assert main([*where, str(koch.uri), "--ids", "1-6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[5] == (
        "dynamixel at 1000000 baud: id 6: XL330-M288 (1200), firmware 50, answers after 0 us, "
        "torque off"
    )
    assert main([*where, str(pty_arm.uri), "--ids", "2,4-5", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in said["servos"]] == [2, 4, 5]
    assert {one["name"] for one in said["servos"]} == {"STS3215"}
    assert main([*where, str(koch.uri), "--protocol", "feetech", "--ids", "1"]) == 1
    assert "no servo answers (tried feetech at" in capsys.readouterr().err

    assert main([*where, str(koch.uri), "--set-id", "6", "12"]) == 0
    assert "id 6 is id 12 now" in capsys.readouterr().out
    koch.bus.fault("overload", 12)
    assert main([*where, str(koch.uri), "--reboot", "12", "--json"]) == 0
    assert koch.servo(12).get("hardware_error") == 0
    capsys.readouterr()
    for arguments, part in [
        ([str(koch.uri), "--set-id", "12", "3"], "servo id 3 answers on"),
        ([str(koch.uri), "--set-id", "12", "300"], "0 to 252"),
        ([str(pty_arm.uri), "--reboot", "2"], "that is a feetech servo; switch it off and on"),
        ([str(koch.uri), "--reboot", "77"], "servo id 77: "),
        (["serial:///dev/ttyNONE"], "there is no /dev/ttyNONE; serial ports here"),
        ([str(koch.uri), "--ids", "a-b"], "servo ids are 0 to 252"),
        ([str(koch.uri), "--ids", "9-2"], "no list of servo ids"),
        (["sim://so101"], "unknown scheme 'sim'"),
    ]:
        assert main([*where, *arguments]) == 2
        error = capsys.readouterr().err
        assert part in error
        assert error.count("\n") == 1


def test_a_forbidden_port_and_one_that_is_taken(koch: PtyArm, monkeypatch, capsys) -> None:
    from dreamzero.robots import transport

    taken = transport.SerialLink(koch.uri)
    assert main(["robot", "identify", "--robot", str(koch.uri)]) == 2
    assert f"{koch.wire.port} is in use by another program" in capsys.readouterr().err
    taken.close()
    monkeypatch.setattr(transport.os, "access", lambda *_: False)
    assert main(["robot", "identify", "--robot", str(koch.uri)]) == 2
    error = capsys.readouterr().err
    assert f"no permission to open {koch.wire.port}: add yourself to dialout" in error


def test_something_else_on_the_port(patient: None, capsys) -> None:
    wire = PtyWire(lambda data: b"ok\r\n" if data else b"")
    try:
        assert (
            main(["robot", "identify", "--robot", f"{wire.address}?baud=115200", "--ids", "1"]) == 1
        )
    finally:
        wire.close()
    error = capsys.readouterr().err
    assert "asked in dynamixel at 115200 baud came 6f 6b 0d 0a" in error


def test_the_bus_answers_while_a_servo_is_in_trouble(koch: PtyArm, patient: None) -> None:
    koch.bus.fault("overload", 2)
    bus = bus_of(koch.uri, 2)
    assert bus.answers(2)
    assert "reports overload" in bus.trouble(2)
    assert bus.trouble(3) == ""
    koch.wire.unplug()
    with pytest.raises(RobotFault, match="cable"):
        bus.answers(3)
    bus.link.close()


def test_the_ping_of_one_protocol_means_nothing_to_the_other(koch: PtyArm, pty_arm: PtyArm) -> None:
    from dreamzero.robots import feetech

    for servo in range(20):
        assert koch.bus.feed(feetech.ping(servo)) == b""
        assert pty_arm.bus.feed(dynamixel.ping(servo)) == b""
