"""The server on a real socket, spoken to by a peer that shares no code with it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from dreamzero.errors import UserError
from dreamzero.serve import ServeConfig, Source, serving
from dreamzero.serve.config import Address
from dreamzero.serve.server import Server

from .conftest import Start
from .peer import Peer, encode, observation
from .spy import Spies, Spy

ACTION = np.float32([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.5])
SIX = ["action_space", "image_resolution", "n_external_cameras", "needs_session_id",
       "needs_stereo_camera", "needs_wrist_camera"]  # fmt: skip


def get(address: Address, path: str, **headers: str) -> tuple[int, str]:
    url = f"http{address.uri.removeprefix('ws')}{path}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metric(address: Address, name: str, **headers: str) -> float:
    text = get(address, "/metrics", **headers)[1]
    found = re.search(rf"^dreamzero_{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def until(true: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.01)


def test_a_droid_client_is_served(start: Start, spies: Spies) -> None:
    address = start(spies.source)
    with Peer(address.uri) as peer:
        assert sorted(peer.config) == SIX and peer.config["image_resolution"] == [180, 320]
        actions = peer.ask(observation())
        assert (actions.dtype, actions.shape) == (np.float32, (24, 8))
        np.testing.assert_array_equal(actions, np.repeat(ACTION[None], 24, 0))
        peer.ask(observation(8, executed_steps=24))
        peer.ask(observation(4, executed_steps=24))
        peer.ask(observation(8))  # at once, and nothing said: only the newest is believed
        assert peer.ask({"endpoint": "reset"}) == "reset successful"
        peer.ask(observation())
    prompt = "put the cup on the plate"
    assert spies.calls == [[prompt, 1, 8, 8, 1, prompt, 1]]
    assert metric(address, 'contexts_total{context="restarted"}') == 1
    assert metric(address, "evaluations_total") == 20


def test_a_new_session_or_prompt_begins_anew(start: Start, spies: Spies) -> None:
    with Peer(start(spies.source, max_sessions=2).uri) as peer:
        for request in (
            observation(),
            observation(session_id="episode-2"),
            observation(8, executed_steps=24),  # the first goes on where it was
            observation(session_id="episode-2", prompt="open the drawer"),
        ):
            assert peer.ask(request).shape == (24, 8)
    cup = "put the cup on the plate"
    assert spies.calls == [[cup, 1, 8], [cup, 1, "open the drawer", 1]]


def test_an_openpi_client_is_served(start: Start, spies: Spies) -> None:
    request = observation()
    for key in ("endpoint", "session_id"):
        del request[key]
    with Peer(start(spies.source, dialect="openpi").uri) as peer:
        assert peer.config["action_horizon"] == 24 and peer.config["embodiment"] == "droid"
        answer = peer.ask(request)
        np.testing.assert_array_equal(answer["actions"][0], ACTION)
        assert answer["server_timing"]["infer_ms"] >= 0
        assert sorted(answer) == ["actions", "server_timing"]


@pytest.mark.parametrize(
    ("send", "says", "code"),
    [
        (b"\xc1", "no msgpack message", 1007),
        ("text", "a text frame is no request", 1007),
        (observation(endpoint="learn"), "'learn' is neither", 1007),
        (observation(executed_steps=25), "a chunk has 24 actions", 1007),
        (observation(**{"observation/wrist_image_left": None}), "should be uint8", 1007),
    ],
)
def test_a_mistake_is_told_and_ends_its_connection_alone(
    start: Start, spies: Spies, send: Any, says: str, code: int
) -> None:
    address = start(spies.source)
    with Peer(address.uri) as good, Peer(address.uri) as bad:
        good.ask(observation())
        if isinstance(send, dict):
            assert says in bad.ask(send)
        else:
            bad.socket.send(send)
            assert says in bad.receive()
        with pytest.raises(ConnectionClosed) as closed:
            bad.receive()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == code
        assert good.ask(observation(8, executed_steps=24)).shape == (24, 8)
    assert metric(address, 'errors_total{kind="protocol"}') == 1
    until(lambda: metric(address, "sessions") == 0)


def test_what_the_policy_refuses_and_what_breaks(start: Start, spies: Spies) -> None:
    address = start(spies.source)
    spies.made[0].fault = UserError("the state is of another robot")
    with Peer(address.uri) as peer:
        assert peer.ask(observation()) == "the state is of another robot"
    assert get(address, "/healthz")[0] == 200
    spies.made[0].fault = RuntimeError("CUDA error: an illegal memory access\nsecret path")
    with Peer(address.uri) as peer:
        assert peer.ask(observation()) == ("internal error (RuntimeError); the server's log has it")
        with pytest.raises(ConnectionClosed) as closed:
            peer.receive()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1011
    status, text = get(address, "/healthz")
    assert status == 503 and "illegal memory access" in json.loads(text)["fault"]
    spies.made[0].fault = None
    with Peer(address.uri) as peer:
        peer.ask(observation())
    assert get(address, "/healthz")[0] == 200


def test_health_and_figures(start: Start, spies: Spies) -> None:
    address = start(spies.source)
    with Peer(address.uri) as peer:
        peer.ask(observation())
        health = json.loads(get(address, "/healthz?verbose")[1])
        assert health["ready"] is True and health["policy"] == "spy"
        assert (health["sessions"], health["connections"], health["queue"]) == (1, 1, 0)
        assert metric(address, 'requests_total{endpoint="infer"}') == 1
        assert metric(address, "request_seconds_count") == 1
        assert metric(address, "connections") == 1 and metric(address, "tasks") > 1
    assert get(address, "/elsewhere")[0] == 426


def test_only_those_with_the_token_come_in(start: Start, spies: Spies) -> None:
    address = start(spies.source, token="s3cret")
    for headers in ({}, {"Authorization": "Api-Key wrong"}, {"Authorization": "Bearer s3cret"},
                    {"Authorization": "Api-Key é"}):  # fmt: skip
        with pytest.raises(InvalidStatus) as refused:
            Peer(address.uri, additional_headers=headers)
        assert refused.value.response.status_code == 401
    with pytest.raises(InvalidStatus):
        twice = [("Authorization", "Api-Key s3cret"), ("Authorization", "Api-Key wrong")]
        Peer(address.uri, additional_headers=twice)
    assert get(address, "/metrics")[0] == 401 and get(address, "/healthz")[0] == 200
    key = {"Authorization": "Api-Key s3cret"}
    assert metric(address, 'errors_total{kind="auth"}', **key) == 6
    with Peer(address.uri, additional_headers=key) as peer:
        assert peer.ask(observation()).shape == (24, 8)


def test_web_pages_stay_outside(start: Start, spies: Spies) -> None:
    with pytest.raises(InvalidStatus) as refused:
        Peer(start(spies.source).uri, origin="http://evil.example")
    assert refused.value.response.status_code == 403


def test_connections_are_bounded(start: Start, spies: Spies) -> None:
    address = start(spies.source, max_connections=1)
    with Peer(address.uri) as peer:
        with pytest.raises(InvalidStatus) as refused:
            Peer(address.uri)
        assert refused.value.response.status_code == 503
        peer.ask(observation())
    until(lambda: metric(address, "connections") == 0)
    Peer(address.uri).__exit__(None, None, None)


def test_messages_are_bounded(start: Start, spies: Spies) -> None:
    address = start(spies.source, max_message=100_000)
    with Peer(address.uri) as peer:
        peer.socket.send(bytes(200_000))
        with pytest.raises(ConnectionClosed) as closed:
            peer.receive()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009
    until(lambda: metric(address, 'errors_total{kind="protocol"}') == 1)


def test_when_there_is_no_room_it_is_said(start: Start, spies: Spies) -> None:
    address = start(spies.source, max_sessions=3, queue=1)
    spy = spies.made[0]
    with Peer(address.uri) as one, Peer(address.uri) as two, Peer(address.uri) as three:
        spy.inside.clear(), spy.go.clear()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(one.ask, observation())
            assert spy.inside.wait(10)
            second = pool.submit(two.ask, observation())
            until(lambda: metric(address, "queue_length") == 2)
            assert three.ask(observation()).startswith("busy: 1 requests wait already")
            with pytest.raises(ConnectionClosed) as closed:
                three.receive()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1013
            spy.go.set()
            assert first.result(10).shape == second.result(10).shape == (24, 8)


def test_no_session_is_left_for_one_more(start: Start, spies: Spies) -> None:
    address = start(spies.source, max_sessions=1)
    with Peer(address.uri) as one:
        one.ask(observation())
        with Peer(address.uri) as two:
            assert two.ask(observation()).startswith("busy: all 1 sessions are in use")
    until(lambda: metric(address, "sessions") == 0)
    with Peer(address.uri) as two:
        assert two.ask(observation()).shape == (24, 8)


def test_who_left_is_not_computed_for(start: Start, spies: Spies) -> None:
    address = start(spies.source, max_sessions=2)
    spy = spies.made[0]
    with Peer(address.uri) as one, ThreadPoolExecutor(1) as pool:
        spy.inside.clear(), spy.go.clear()
        first = pool.submit(one.ask, observation())
        assert spy.inside.wait(10)
        two = Peer(address.uri)
        two.socket.send(msgpack.packb(observation(), default=encode))
        until(lambda: metric(address, "queue_length") == 2)
        two.socket.socket.shutdown(socket.SHUT_RDWR)
        two.__exit__(None, None, None)
        time.sleep(0.1)
        spy.go.set()
        first.result(10)
    until(lambda: metric(address, "queue_length") == 0)
    assert sum(len(calls) for calls in spies.calls) == 2


@contextmanager
def deaf(address: Address, message: bytes = b"") -> Iterator[socket.socket]:
    """A client that opens a websocket of ours, sends one message, and then reads nothing at all."""
    client = ClientProtocol(parse_uri(address.uri), subprotocols=[Subprotocol("dreamzero.v1")])
    with socket.create_connection((address.host, address.port)) as raw:
        client.send_request(client.connect())
        raw.sendall(b"".join(client.data_to_send()))
        while client.state is not State.OPEN:
            client.receive_data(raw.recv(4096))
        if message:
            client.send_binary(message)
            raw.sendall(b"".join(client.data_to_send()))
        yield raw


def test_a_client_that_takes_nothing_is_cut_off_alone(start: Start, spies: Spies) -> None:
    address = start(spies.source, send_timeout_s=0.3)
    spies.made[0].video = np.zeros((60, 480, 480, 3), np.uint8)  # 41 MB: no buffer holds it
    with Peer(address.uri) as good, deaf(address, msgpack.packb(observation(), default=encode)):
        until(lambda: metric(address, 'errors_total{kind="slow"}') == 1)
        assert good.ask(observation()).shape == (24, 8)
    until(lambda: metric(address, "connections") == 0)


def test_a_client_that_answers_no_pings_is_given_up(start: Start, spies: Spies) -> None:
    address = start(spies.source, ping_s=0.2)
    with deaf(address):
        until(lambda: metric(address, 'errors_total{kind="slow"}') == 1)


def test_the_end_waits_for_answers_under_way(spies: Spies) -> None:
    go = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with serving(spies.source, ServeConfig(port=0)) as address:
            idle, busy = Peer(address.uri), Peer(address.uri)
            spy: Spy = spies.made[0]
            spy.inside.clear(), spy.go.clear()
            under_way = pool.submit(busy.ask, observation())
            assert spy.inside.wait(10)
            threading.Timer(0.2, lambda: (go.set(), spy.go.set())).start()
        # The block has ended only after the answer went out.
        assert go.is_set() and under_way.result(1).shape == (24, 8)
    for peer in (idle, busy):
        with pytest.raises(ConnectionClosed) as closed:
            peer.receive()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001
        peer.__exit__(None, None, None)
    with pytest.raises(OSError):
        socket.create_connection((address.host, address.port), 1)


def test_the_end_does_not_wait_for_ever(spies: Spies) -> None:
    began_s = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        with serving(spies.source, ServeConfig(port=0, grace_s=0.2)) as address:
            peer = Peer(address.uri)
            spy = spies.made[0]
            spy.inside.clear(), spy.go.clear()
            under_way = pool.submit(peer.ask, observation())
            assert spy.inside.wait(10)
        assert time.monotonic() - began_s < 15
        spy.go.set()
        with pytest.raises(ConnectionClosed):
            under_way.result(10)
        peer.__exit__(None, None, None)


def test_one_line_a_connection(start: Start, spies: Spies, caplog: Any) -> None:
    with caplog.at_level(logging.INFO, "dreamzero.serve"):
        address = start(spies.source)
        with Peer(address.uri) as peer:
            peer.ask(observation())
            peer.ask(observation())
        until(lambda: any(r.message == "connection" for r in caplog.records))
    (line,) = [r.fields for r in caplog.records if r.message == "connection"]
    assert (line["requests"], line["restarts"], line["code"]) == (2, 1, 1000)
    assert (line["dialect"], line["error"]) == ("roboarena", "")
    restarts = [r.fields for r in caplog.records if "restarted" in r.message]
    assert [r["why"] for r in restarts] == ["one frame"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_sessions": 0}, "max_sessions=0"),
        ({"grace_s": 0.0}, "grace_s=0.0"),
        ({"port": 70000}, "port 70000"),
        ({"host": "192.0.2.1"}, "cannot listen on 192.0.2.1 port 0"),
    ],
)
def test_settings_that_are_refused(options: dict[str, Any], says: str, spies: Spies) -> None:
    with (
        pytest.raises(UserError, match=says),
        serving(spies.source, ServeConfig(**({"port": 0} | options))),
    ):
        pytest.fail("it listened")


def test_a_port_that_is_taken(start: Start, spies: Spies) -> None:
    address = start(spies.source)
    taken = ServeConfig(port=address.port)
    with pytest.raises(UserError, match="in use.*--port 0"), serving(spies.source, taken):
        pytest.fail("it listened")


def test_stopping_before_it_is_warm(spies: Spies) -> None:
    go = threading.Event()

    def make() -> Spy:
        go.wait(30)
        return spies()

    async def work() -> None:
        stop = asyncio.Event()
        server = Server(Source("slow", spies.card, make), ServeConfig(port=0))
        running = asyncio.create_task(server.run(lambda address: pytest.fail("ready"), stop))
        await asyncio.sleep(0.05)
        stop.set()
        async with asyncio.timeout(5):
            assert not await running
        go.set()

    asyncio.run(work())
