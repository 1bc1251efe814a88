"""A bad network on purpose: datagrams, streams and serial bytes, as bad as was asked for."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from dreamzero.errors import UserError
from dreamzero.robots import RobotFault
from dreamzero.robots.emulation.impairments import Dice, Impairments, impaired
from dreamzero.robots.emulation.proxy import Proxy, TcpProxy, UdpProxy, listen

from .conftest import PtyArm

LOCAL = ("127.0.0.1", 0)


def test_shares_are_what_was_asked_for_and_the_seed_repeats_them() -> None:
    rules = Impairments(0.02, 0.05, loss=0.2, duplicate=0.1, reorder=0.1, corrupt=0.3, seed=7)
    first, second = Dice(rules), Dice(rules)
    fates = [first.datagram(b"hello there") for _ in range(4000)]
    assert fates == [second.datagram(b"hello there") for _ in range(4000)]
    copies = [copy for fate in fates for copy in fate]
    delays = np.array([delay for delay, _ in copies])
    assert first.counts["lost"] == sum(not fate for fate in fates) == pytest.approx(800, rel=0.15)
    assert first.counts["duplicated"] == pytest.approx(320, rel=0.25)
    assert (delays == 0).sum() == first.counts["reordered"] == pytest.approx(350, rel=0.25)
    assert ((delays == 0) | ((delays >= 0.02) & (delays <= 0.07))).all()
    wrong = [data for _, data in copies if data != b"hello there"]
    assert len(wrong) == first.counts["corrupted"] == pytest.approx(0.3 * len(copies), rel=0.15)
    for data in wrong:
        flipped = int.from_bytes(data) ^ int.from_bytes(b"hello there")
        assert flipped.bit_count() == 1


def test_in_a_blackout_nothing_passes_and_a_stream_waits() -> None:
    dice = Dice(Impairments())
    dice.blackout(30.0)
    assert dice.datagram(b"x") == []
    assert dice.serial(b"x") == b""
    assert 29 < dice.chunk(b"x")[0] <= 30
    dice.blackout(0.0)
    assert dice.datagram(b"x") == [(0.0, b"x")]
    assert dice.counts["blackout"] == 2


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"loss": 1.5}, "loss=1.5 must be a share, 0 to 1"),
        ({"delay_s": -1.0}, "delay_s=-1.0 must be 0 or more"),
    ],
)
def test_impairments_that_are_none(wrong: dict, part: str) -> None:
    with pytest.raises(UserError, match=part):
        Impairments(**wrong)


@contextmanager
def echo(kind: socket.SocketKind) -> Iterator[tuple[str, int]]:
    """Whoever says something hears it again."""
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind(LOCAL)
        server.settimeout(5.0)

        def answer() -> None:
            try:
                if kind == socket.SOCK_DGRAM:
                    while True:
                        data, client = server.recvfrom(4096)
                        server.sendto(data, client)
                        if data == b"end":
                            return
                server.listen()
                peer, _ = server.accept()
                with peer:
                    while data := peer.recv(4096):
                        peer.sendall(data)
            except OSError:
                return

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield server.getsockname()
        thread.join(5.0)


@contextmanager
def before(kind: type[Proxy], target: tuple[str, int], **rules) -> Iterator[Proxy]:
    proxy = kind(LOCAL, target, Dice(Impairments(**rules)))
    yield proxy
    proxy.close()
    proxy.close()


def test_datagrams_are_lost_doubled_and_late() -> None:
    with (
        echo(socket.SOCK_DGRAM) as target,
        before(UdpProxy, target, delay_s=0.02, loss=0.2, duplicate=0.2, seed=1) as proxy,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.connect(("127.0.0.1", proxy.port))
        client.settimeout(0.3)
        begin = time.monotonic()
        for i in range(100):
            client.send(bytes((i,)))
        heard = []
        while True:
            try:
                heard.append(client.recv(100))
            except TimeoutError:
                break
            if len(heard) == 1:
                assert time.monotonic() - begin >= 0.04
        assert 50 < len(set(heard)) < 90
        assert len(heard) > len(set(heard))
        assert proxy.dice.counts["lost"] > 10
        # Unplugged, nothing passes at all.
        proxy.plugged = False
        client.send(b"dark")
        with pytest.raises(TimeoutError):
            client.recv(100)
        proxy.plugged, proxy.dice.impairments = True, Impairments()
        client.send(b"end")
        assert client.recv(100) == b"end"


def test_a_stream_keeps_its_order_and_loses_nothing_but_time() -> None:
    with (
        echo(socket.SOCK_STREAM) as target,
        before(TcpProxy, target, jitter_s=0.03, loss=0.1, seed=2) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), 5.0) as client,
    ):
        sent = b""
        for i in range(20):
            client.sendall(bytes((i,)) * 50)
            sent += bytes((i,)) * 50
            time.sleep(0.001)
        heard = b""
        while len(heard) < len(sent):
            heard += client.recv(4096)
        assert heard == sent
        proxy.dice.impairments = Impairments(corrupt=1.0)
        # Long: a bit that is turned on the way there and turned back on the way home is no damage.
        clean = b"clean" * 400
        client.sendall(clean)
        heard = b""
        while len(heard) < len(clean):
            heard += client.recv(4096)
        assert heard != clean
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""


def test_a_servo_bus_with_noise_is_asked_again_and_a_dead_one_is_a_fault(pty_arm: PtyArm) -> None:
    dice = Dice(Impairments(seed=5))
    pty_arm.wire.feed = impaired(pty_arm.bus.feed, dice)
    with pty_arm.driver() as arm:
        dice.impairments = Impairments(corrupt=0.05, loss=0.02)
        for _ in range(30):
            arm.observe(views=())
        assert dice.counts["corrupted"] > 0
        dice.blackout(30.0)
        with pytest.raises(RobotFault, match="nothing came back"):
            arm.observe(views=())
        dice.blackout(0.0)
        dice.impairments = Impairments()


def test_the_wire_of_an_emulated_arm_is_put_behind_it() -> None:
    from dreamzero.robots.feetech.servos import so101
    from dreamzero.robots.stream.emulator import franka

    wire, dice = listen(franka(), "udp://127.0.0.1:0?watchdog_ms=500", Impairments(loss=0.5))
    assert wire.address == f"udp://{wire.port}?emulated=1"
    wire.unplug()
    wire.replug()
    wire.close()
    wire, dice = listen(so101(), "pty", Impairments(corrupt=1.0))
    wire.feed(b"\xff\xff\x01\x02\x01\xfb")
    assert dice.counts["corrupted"] == 1
    wire.close()
    with pytest.raises(UserError, match="cannot listen there"):
        listen(franka(), "udp://192.0.2.1:47800?insecure=1", Impairments(loss=0.5))
    with pytest.raises(UserError, match="without a key"):
        listen(franka(), "udp://0.0.0.0:0", Impairments(loss=0.5))
    with pytest.raises(UserError, match="listen on a pty, not at 'tcp"):
        listen(so101(), "tcp://127.0.0.1:0", Impairments(loss=0.5))


def test_a_port_that_is_taken() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(LOCAL)
        taken.listen()
        with pytest.raises(UserError, match="cannot listen there"):
            TcpProxy(taken.getsockname(), LOCAL, Dice(Impairments()))
