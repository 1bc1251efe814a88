"""The emulated controller as a process: closed loops, other people's clients, the command line."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from dreamzero import embodiments, robots
from dreamzero.cli import main
from dreamzero.errors import UserError
from dreamzero.robots import Emulator, ReplayPolicy, run_episode
from dreamzero.robots.base import LinkLost
from dreamzero.robots.ur.bench import stream

CARD = embodiments.get("tabletop_ur5e")
VIEW = CARD.views[0]


@pytest.fixture(scope="module")
def lag() -> Iterator[Emulator]:
    with Emulator("ur5e", physics="lag", seed=1) as emulator:
        yield emulator


def until(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()


def test_a_closed_loop_over_ethernet(lag: Emulator) -> None:
    with robots.open(lag.uri, CARD) as arm:
        start = arm.observe()
        assert start.frames[VIEW].shape == (64, 64, 3)
        actions = np.repeat(start.state[None], 24, axis=0)
        actions[:, 0] += 0.3 * np.minimum(np.arange(24) / 8, 1)
        actions[:, 6] = 0.0
        log = run_episode(arm, ReplayPolicy(CARD, actions), "turn", max_chunks=3, stream_hz=60.0)
        end = arm.observe()
    assert log.ended == "done", log.fault
    assert end.state[0] == pytest.approx(start.state[0] + 0.3, abs=0.02)
    np.testing.assert_allclose(end.state[1:6], start.state[1:6], atol=0.01)
    assert end.state[6] == pytest.approx(0.0, abs=0.03)
    assert (end.frames[VIEW] != start.frames[VIEW]).any()
    state = lag.state()
    assert state["safety_mode"] == "NORMAL"
    assert state["cycles"] > 500


def test_the_cable_is_pulled_in_a_run_and_put_back(lag: Emulator) -> None:
    with robots.open(lag.uri, CARD) as arm:
        lag.fault("unplug")
        try:
            still = np.repeat(arm.guard.last[None], 8, axis=0)
            log = run_episode(arm, ReplayPolicy(CARD, still), "hold", max_chunks=1)
            assert log.ended == "fault"
            assert lag.port.split(":")[0] in log.fault
            with pytest.raises(LinkLost, match="no RTDE interface answers"):
                arm.reconnect()
        finally:
            lag.fault("replug")
        arm.reconnect()
        assert lag.state()["program"] == "PLAYING"


def test_a_task_over_the_wire_succeeds() -> None:
    from dreamzero.robots.emulation.plants import scene
    from dreamzero.sim import Tabletop
    from dreamzero.sim.experts import Expert

    env = Tabletop("ur5e", views=())
    env.reset(options={"scene": scene("reach-red", "seen", 5)})
    policy, actions = Expert(env), []
    while not env.success():
        actions.append(policy.act())
        env.advance(actions[-1])
        assert len(actions) < 40
    # The arm on the wire follows a little later: it is given a block more.
    chunks = -(-len(actions) // CARD.horizon) + 1
    with (
        Emulator("ur5e", task="reach-red", seed=5) as emulator,
        robots.open(emulator.uri, CARD) as arm,
    ):
        assert not emulator.score()["success"]
        log = run_episode(arm, ReplayPolicy(CARD, np.stack(actions)), "reach", max_chunks=chunks)
        assert log.ended == "done", log.fault
        assert emulator.score()["success"]


def test_the_stream_is_timed(lag: Emulator) -> None:
    times = stream(lag.uri, CARD, seconds=0.6)
    summary = times.summary()
    assert times.rate_hz == 500.0
    assert 0 <= times.missed <= times.deadlines
    assert times.deadlines >= 300
    assert len(times.late_s) == len(times.age_s) == len(times.behind)
    assert (times.late_s >= 0).all()
    assert (times.behind >= 0).all()
    # The controller reads while we stream: it is never the whole run behind.
    assert summary["behind_p50"] < 100
    assert times.packages > 100
    with pytest.raises(UserError, match="a dry run sends nothing"):
        stream("tcp://10.0.0.2:30004", CARD)


def test_emulate_and_run_from_the_command_line() -> None:
    # A shell's background job, as this test run may be, has SIGINT ignored, and so have its children.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "dreamzero.cli"]
    command += [
        "robot",
        "emulate",
        "ur5e",
        "--at",
        "tcp://127.0.0.1:0",
        "--physics",
        "lag",
        "--json",
    ]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    where = json.loads(child.stdout.readline())
    try:
        uri = where["uri"]
        assert uri.startswith(f"tcp://{where['port']}?emulated=1&script_port=")
        run = ["robot", "run", "--robot", uri, "--embodiment", "tabletop_ur5e"]
        assert main([*run, "--policy", "hold", "--chunks", "1"]) == 0
        assert main(["robot", "dashboard", "--robot", uri, "power", "off"]) == 0
        assert main([*run, "--policy", "hold", "--chunks", "1"]) == 2
    finally:
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 0
        child.stdout.close()


@pytest.mark.parametrize("at", ["pty", "tcp://127.0.0.1", "tcp://203.0.113.1:0"])
def test_places_where_no_controller_can_listen(at: str) -> None:
    with pytest.raises(UserError, match="did not start: .*(listens? at)"):
        Emulator("ur5e", physics="lag", at=at).start()


# ur_rtde knows the standard ports only; an address of its own keeps them free of others' tests.
HOST = "127.0.30.4"


@pytest.fixture(scope="module")
def standard() -> Iterator[Emulator]:
    try:
        socket.create_server((HOST, 30004)).close()
    except OSError as error:
        pytest.skip(f"port 30004 of {HOST} is taken: {error}")
    with Emulator("ur5e", physics="lag", seed=2, at=f"tcp://{HOST}:30004") as emulator:
        yield emulator


@pytest.mark.peer
def test_ur_rtde_reads_the_state(standard: Emulator) -> None:
    peer = pytest.importorskip("rtde_receive", reason="pip install ur-rtde")
    receive = peer.RTDEReceiveInterface(HOST)
    try:
        joints = list(standard.state()["joints"].values())[:6]
        np.testing.assert_allclose(receive.getActualQ(), joints, atol=1e-9)
        before = receive.getTimestamp()
        assert until(lambda: receive.getTimestamp() > before + 0.1)
        # Whole cycles of 2 ms.
        cycles = (receive.getTimestamp() - before) / 0.002
        assert round(cycles) == pytest.approx(cycles, abs=1e-6)
        assert (receive.getRobotMode(), receive.getSafetyMode()) == (7, 1)
        assert receive.getSafetyStatusBits() == 1
        assert not receive.isProtectiveStopped()
        standard.fault("protective")
        assert until(receive.isProtectiveStopped)
        assert receive.getSafetyMode() == 3
        standard.fault("mend")
        standard.fault("estop")
        assert until(receive.isEmergencyStopped)
        assert receive.getRobotMode() == 3
    finally:
        standard.fault("mend")
        receive.disconnect()


@pytest.mark.peer
def test_ur_rtde_writes_an_output_and_asks_the_dashboard(standard: Emulator) -> None:
    peer = pytest.importorskip("rtde_io", reason="pip install ur-rtde")
    dashboard_client = pytest.importorskip("dashboard_client", reason="pip install ur-rtde")
    io = peer.RTDEIOInterface(HOST)
    with robots.open(standard.uri, CARD, move=False) as arm:
        assert io.setStandardDigitalOut(3, True)
        assert until(lambda: arm.state()[0]["actual_digital_output_bits"] == 1 << 3)
    io.disconnect()
    board = dashboard_client.DashboardClient(HOST)
    board.connect()
    assert "RUNNING" in board.robotmode()
    assert board.isInRemoteControl()
    board.disconnect()
