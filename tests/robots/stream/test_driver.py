"""The driver over real sockets: what it moves, and the one line that it says when something is wrong."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from dreamzero import embodiments, robots
from dreamzero.errors import UserError
from dreamzero.robots import LinkLost, ReplayPolicy, RobotFault, run_episode
from dreamzero.robots.emulation.impairments import Dice, Impairments
from dreamzero.robots.emulation.proxy import UdpProxy
from dreamzero.robots.stream import protocol
from dreamzero.robots.stream.backend import ArmFault, Rules
from dreamzero.robots.stream.bodies import Fault
from dreamzero.robots.stream.companion import Companion
from dreamzero.robots.stream.driver import StreamRobot
from dreamzero.robots.stream.server import UdpServer
from dreamzero.robots.stream.session import load_key
from dreamzero.robots.uri import parse

from .conftest import CARD, HOME, Arm

# A companion holds sooner than a test on a busy machine gets round to its next command.
PATIENT = Rules(watchdog_s=2.0, max_age_s=2.0)


class End:
    """A companion in this process, and what its arm was told."""

    def __init__(
        self, secret: bytes = b"", rules: Rules = PATIENT, at: str = "udp://127.0.0.1:0"
    ) -> None:
        self.arm = Arm(time.monotonic)
        self.companion = Companion(self.arm, CARD, secret, rules)
        self.rules = rules
        self.server = UdpServer(self.companion, at)
        self.uri = self.server.address

    def driver(self, options: str = "", loss_ms: int = 3000, move: bool = True) -> StreamRobot:
        mark = "&" if "?" in self.uri else "?"
        patience = f"connect_ms=5000&loss_ms={loss_ms}"
        made = robots.open(f"{self.uri}{mark}{patience}{options}", CARD, move=move)
        assert isinstance(made, StreamRobot)
        return made


@contextmanager
def end(**options) -> Iterator[End]:
    made = End(**options)
    try:
        yield made
    finally:
        made.server.close()


@pytest.fixture
def companion() -> Iterator[End]:
    with end() as made:
        yield made


def until(true, seconds: float = 5.0) -> None:
    """Wait for something another thread does."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not come about"
        time.sleep(0.005)


def key_file(folder: Path, name: str = "arm.key", text: str = "ab" * 32) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_it_moves_an_arm_and_sees_where_it_is(companion: End) -> None:
    with companion.driver() as arm:
        first = arm.observe()
        np.testing.assert_allclose(first.state, HOME, atol=1e-6)
        assert first.state.dtype == np.float32
        assert abs(first.time_s - time.monotonic()) < 1.0
        target = HOME + np.array([0.05, 0, 0, 0, 0, 0, 0, 0.1])
        sent = arm.act(target)
        np.testing.assert_allclose(sent, target, atol=1e-6)
        until(lambda: np.allclose(arm.observe(views=()).state, target, atol=1e-4))
        arm.stop()
        assert companion.arm.holds[-1] > companion.arm.commands[-1][0]
        stats = arm.stats()
        assert stats["loss_out"] == 0
        # Both ends have the same clock here.
        assert abs(stats["offset_ms"]) <= stats["offset_error_ms"] + 0.001
    assert arm.stats() == {}
    assert companion.companion.report()["commander"] is None


def test_an_episode_through_a_bad_network_is_safe_and_arrives() -> None:
    """The whole of it in real time: 10 % loss, 20 to 70 ms under way, 1 % corrupted."""
    rules = Rules(watchdog_s=1.0, max_age_s=0.5)
    with end(rules=rules) as companion:
        dice = Dice(Impairments(0.02, 0.05, loss=0.1, corrupt=0.01, seed=3))
        port = companion.server._socket.getsockname()[1]
        proxy = UdpProxy(("127.0.0.1", 0), ("127.0.0.1", port), dice)
        card = CARD.with_(horizon=24)
        actions = np.repeat(HOME[None], 24, axis=0)
        actions[:, 0] += 0.6 * np.minimum(np.arange(24) / 12, 1)
        uri = parse(f"udp://127.0.0.1:{proxy.port}?loss_ms=3000&connect_ms=5000")
        with StreamRobot(uri, card) as arm:
            log = run_episode(arm, ReplayPolicy(card, actions), "turn", max_chunks=1)
            assert log.ended == "done", log.fault
            end_pose = arm.observe(views=()).state
        proxy.close()
        np.testing.assert_allclose(end_pose, actions[-1], atol=0.06)
        assert companion.arm.unsafe(rules) == []
        assert dice.counts["lost"] > 0
        assert companion.companion.report()["counts"]["commands"] > 10


def test_a_dry_run_looks_on_while_another_commands(companion: End) -> None:
    with companion.driver() as arm, companion.driver(move=False) as watcher:
        assert watcher.act(HOME + 0.05)[0] == pytest.approx(0.05, abs=1e-6)
        arm.act(HOME)
        until(lambda: companion.companion.report()["counts"].get("commands"))
        watcher.stop()
        assert companion.companion.report()["counts"].get("observer") is None
        assert companion.companion.report()["sessions"] == 2
    np.testing.assert_allclose(companion.arm.pose, HOME, atol=1e-6)


def test_without_move_a_real_companion_is_only_looked_at(companion: End) -> None:
    assert not robots.open("udp://10.0.0.5:47800?insecure=1", CARD).move
    assert robots.open("udp://127.0.0.1:47800?emulated=1", CARD).move


def test_a_busy_arm_is_waited_for_and_then_named(companion: End) -> None:
    with companion.driver():
        with pytest.raises(RobotFault, match=r"is busy: another session commands it 127\.0\.0\.1:"):
            StreamRobot(parse(f"{companion.uri}?connect_ms=300"), CARD).connect()
        late = companion.driver()
        waiting = threading.Thread(target=late.connect)
        waiting.start()
        time.sleep(0.2)
    waiting.join(5.0)
    assert late.connected
    late.close()


@pytest.mark.parametrize(
    ("ours", "theirs", "part"),
    [
        ("cd" * 32, "ab" * 32, r"key is another \(that of \?key\)"),
        (
            "",
            "ab" * 32,
            r"key is another \(this end has none\): copy its key file and give \?key=FILE",
        ),
        ("cd" * 32, "", r"key is another"),
    ],
)
def test_a_wrong_key_or_none_is_one_line(tmp_path: Path, ours: str, theirs: str, part: str) -> None:
    secret = load_key(key_file(tmp_path, "theirs", theirs)) if theirs else b""
    with end(secret=secret) as companion:
        key = f"&key={key_file(tmp_path, 'ours', ours)}" if ours else ""
        with pytest.raises(UserError, match=part) as caught:
            StreamRobot(parse(f"{companion.uri}?connect_ms=300{key}"), CARD).connect()
    assert "\n" not in str(caught.value)


def test_with_the_right_key_it_opens(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    with end(secret=load_key(path)) as companion, companion.driver(f"&key={path}") as arm:
        arm.act(HOME + 0.01)
        until(lambda: companion.companion.report()["counts"].get("commands"))


def test_another_arm_and_another_version_are_one_line(companion: End) -> None:
    yam = embodiments.get("yam_arm")
    with pytest.raises(UserError, match="drives a franka of 8 values, not a yam of 7 .yam_arm."):
        robots.open(f"{companion.uri}?connect_ms=2000", yam, move=True).connect()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))

        def from_the_future() -> None:
            _, driver = other.recvfrom(2000)
            data = bytearray(protocol.pack(protocol.Frame(3, 0, 1, 1), b""))
            data[4] = 7
            data[-20:-16] = protocol._CRC.pack(protocol.zlib.crc32(bytes(data[:-20])))
            other.sendto(bytes(data), driver)

        thread = threading.Thread(target=from_the_future)
        thread.start()
        uri = f"udp://127.0.0.1:{other.getsockname()[1]}?connect_ms=500"
        with pytest.raises(UserError, match="speaks version 7 of the stream, this end 1"):
            robots.open(uri, CARD, move=True).connect()
        thread.join(2.0)


def test_nobody_there_is_a_lost_link() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(LinkLost, match=r"no answer within 0\.2 s \(Connection refused\)"):
        robots.open(f"udp://127.0.0.1:{port}?connect_ms=200", CARD, move=True).connect()


def test_a_lost_link_is_a_fault_and_can_be_brought_back(companion: End) -> None:
    arm = companion.driver(loss_ms=400)
    arm.connect()
    companion.server.unplug()
    with pytest.raises(LinkLost, match="no state for 400 ms"):
        for _ in range(100):
            time.sleep(0.05)
            arm.act(HOME)
    with pytest.raises(LinkLost, match="no state for 400 ms"):
        arm.observe(views=())
    with pytest.raises(LinkLost):
        arm.stop()
    companion.server.replug()
    arm.reconnect()
    arm.act(HOME + 0.01)
    arm.stop()
    arm.close()
    arm.close()


def test_a_companion_that_ends_says_so(companion: End) -> None:
    with pytest.raises(LinkLost, match="its companion has ended"), companion.driver() as arm:
        companion.server.close()
        for _ in range(100):
            arm.observe(views=())
            time.sleep(0.01)


def test_a_fault_of_the_arm_is_named_and_cleared_by_stop(companion: End) -> None:
    with companion.driver() as arm:
        companion.arm.trouble = ArmFault(Fault.EMERGENCY_STOP)
        with pytest.raises(RobotFault, match="reports emergency stop and holds"):
            for _ in range(100):
                arm.observe(views=())
                time.sleep(0.01)
        companion.arm.trouble = None
        time.sleep(0.05)
        with pytest.raises(RobotFault, match="emergency stop"):
            arm.observe(views=())
        arm.stop()
        arm.observe(views=())


def test_the_watchdog_at_the_arms_end_needs_no_driver() -> None:
    with end(rules=Rules(watchdog_s=0.1)) as companion, companion.driver() as arm:
        arm.act(HOME + 0.02)
        until(lambda: companion.companion.report()["counts"].get("watchdog"))
        until(lambda: arm.stats()["watchdog"])
        assert companion.arm.holds[-1] >= companion.arm.commands[-1][0]


@pytest.mark.parametrize(
    ("text", "mode", "part"),
    [
        (None, 0o600, "No such file or directory; make one: .*openssl rand -hex 32"),
        ("no hexadecimal", 0o600, "not hexadecimal"),
        ("abcd", 0o600, "2 bytes are too few"),
        ("ab" * 32, 0o644, "others may read it; chmod 600"),
    ],
)
def test_keys_that_are_none(tmp_path: Path, text: str | None, mode: int, part: str) -> None:
    path = tmp_path / "arm.key"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(UserError, match=part):
        robots.open(f"udp://127.0.0.1:1?key={path}", CARD)


def test_without_a_key_nothing_leaves_this_machine() -> None:
    with pytest.raises(UserError, match=r"leaves this machine without a key; add \?key=FILE"):
        robots.open("udp://192.0.2.1:47800", CARD, move=True).connect()
    with pytest.raises(UserError, match="without a key"):
        End(at="udp://0.0.0.0:0")
    with end(at="udp://0.0.0.0:0?insecure=1") as companion:
        assert companion.uri.endswith("?insecure=1")


def test_addresses_that_lead_nowhere() -> None:
    with pytest.raises(UserError, match="host or port is missing.*udp://10.0.0.5:47800"):
        robots.open("udp://10.0.0.5", CARD)
    with pytest.raises(UserError, match="unknown option 'loss'"):
        robots.open("udp://10.0.0.5:1?loss=1", CARD)
    with pytest.raises(UserError, match=r"host 'a\.\.b' is not known"):
        robots.open("udp://a..b:1?insecure=1", CARD, move=True).connect()
    with pytest.raises(UserError, match="cannot listen there"):
        End(at="udp://192.0.2.1:47800?insecure=1")
    with pytest.raises(UserError, match="no driver for so101 over udp"):
        robots.open("udp://10.0.0.5:1", embodiments.get("tabletop_so101"))
