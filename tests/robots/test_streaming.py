"""The loop in a process of its own: an emulated arm, faults, and deaths on either side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dreamzero import embodiments, robots
from dreamzero.errors import UserError
from dreamzero.robots import Emulator, HoldPolicy, Robot, RobotFault, run_episode
from dreamzero.types import ActionChunk

from .conftest import VIEW, PtyArm

# A block is half a second.
CARD = embodiments.get("tabletop_so101")


@pytest.fixture(scope="module")
def lag() -> Iterator[Emulator]:
    with Emulator(physics="lag", seed=1, camera_hz=60.0) as emulator:
        yield emulator


@pytest.fixture
def arm(lag: Emulator) -> Iterator[Robot]:
    robot = robots.open(lag.uri, CARD)
    yield robot
    robot.close()


class Wave:
    """Turns the base to and fro about where it was first seen; remembers its inputs."""

    def __init__(self, think_s: float = 0.0) -> None:
        self.think_s = think_s
        self.seen: list[tuple[dict[str, np.ndarray], np.ndarray]] = []
        self.threads: set[str] = set()
        self.middle: np.ndarray | None = None
        self.chunks = 0

    def reset(self, prompt: str) -> None:
        self.middle = None

    def observe(self, frames, state) -> None:
        self.seen.append((dict(frames), state))
        if self.middle is None:
            self.middle = state.copy()

    def act(self) -> ActionChunk:
        self.threads.add(threading.current_thread().name)
        time.sleep(self.think_s)
        assert self.middle is not None
        actions = np.repeat(self.middle[None], CARD.horizon, axis=0)
        actions[:, 0] += 0.2 * np.sin(np.arange(CARD.horizon) / 2)
        self.chunks += 1
        return ActionChunk(actions, CARD.action_hz, info={"chunk": self.chunks})


def test_an_arm_that_is_not_connected_is_streamed_to_and_left_so(lag: Emulator, arm: Robot) -> None:
    policy, calls = Wave(0.15), []
    log = run_episode(arm, policy, "wave", max_chunks=2, stream_hz=50.0, progress=calls.append)
    assert (log.ended, log.fault) == ("done", "")
    assert not arm.connected
    assert len(log.sent_s) > 2 * 50 * CARD.block_s
    assert log.frames[VIEW].shape[1:] == (64, 64, 3)
    assert [chunk.frames for chunk in log.chunks] == [1, 8]
    assert [chunk.info["chunk"] for chunk in log.chunks] == [1, 2]
    assert all(chunk.think_s >= 0.15 for chunk in log.chunks)
    # Age is counted from the picture, which is older than the question.
    assert log.age_s.min() > 0.15
    frames, state = policy.seen[1]
    assert frames[VIEW].shape == (8, 64, 64, 3)
    assert state.dtype == np.float32
    assert np.ptp(log.state[:, 0]) > 0.1
    assert calls
    assert calls[-1]["commands"] > 0
    assert json.dumps(log.to_json())


def test_a_connected_arm_is_lent_and_given_back(lag: Emulator) -> None:
    with robots.open(lag.uri, CARD) as arm:
        log = run_episode(arm, Wave(), "wave", max_chunks=3, mode="overlapped")
        assert log.ended == "done", log.fault
        assert arm.connected
        true = list(lag.state()["joints"].values())
        np.testing.assert_allclose(arm.observe(views=()).state, true, atol=0.01)


def test_until_and_seconds(arm: Robot) -> None:
    answers = iter([False, True])
    log = run_episode(arm, Wave(), "x", max_chunks=9, until=lambda: next(answers))
    assert log.ended == "until"
    assert len(log.chunks) == 2


def test_what_the_policy_raises_is_passed_on_and_the_arm_held(lag: Emulator, arm: Robot) -> None:
    class Broken(Wave):
        def act(self) -> ActionChunk:
            if self.chunks:
                raise ZeroDivisionError("in the model")
            return super().act()

    with pytest.raises(ZeroDivisionError):
        run_episode(arm, Broken(), "x", max_chunks=3)
    assert all(lag.state()["joints"].values())


def test_what_does_not_fit_is_one_sentence(lag: Emulator, arm: Robot) -> None:
    class Foreign(Wave):
        def act(self) -> ActionChunk:
            return ActionChunk(np.zeros((16, 8), np.float32), 15.0)

    with pytest.raises(UserError, match=r"shape \[16, 8\]"):
        run_episode(arm, Foreign(), "x", max_chunks=1)
    with pytest.raises(UserError, match="no emulator answers at 127.0.0.1:9"):
        run_episode(
            robots.open(f"{lag.uri}&camera.rear=camera://127.0.0.1:9/x", CARD),
            Wave(),
            "x",
            max_chunks=1,
        )
    wrong = robots.open("serial:///dev/ttyNONE", CARD, move=False)
    with pytest.raises(UserError, match="there is no /dev/ttyNONE"):
        run_episode(wrong, Wave(), "x", max_chunks=1)


def test_a_policy_that_hangs_is_left_behind_and_the_arm_held(arm: Robot) -> None:
    class Hangs(Wave):
        def act(self) -> ActionChunk:
            if self.chunks:
                threading.Event().wait()
            return super().act()

    log = run_episode(arm, Hangs(), "x", max_chunks=9, watchdog_s=0.3)
    assert log.ended == "watchdog"
    assert log.held[-5:].all()


def test_a_cable_is_pulled_and_put_back(arm: Robot, lag: Emulator) -> None:
    pulled = threading.Event()

    def pull(figures) -> None:
        if figures["chunks"] and not pulled.is_set():
            pulled.set()
            lag.fault("unplug")
            threading.Timer(0.3, lag.fault, ["replug"]).start()

    policy = Wave(0.02)
    log = run_episode(arm, policy, "wave", max_chunks=3, stream_hz=50.0, progress=pull)
    assert log.ended == "done", log.fault
    (fault,) = log.faults
    assert lag.port in fault.text
    assert fault.back_s is not None
    assert fault.back_s - fault.time_s >= 0.2
    assert log.sent_s[~log.held][-1] > fault.back_s
    assert len(policy.seen[log.chunks[-1].info["chunk"] - 1][0][VIEW]) in (1, 8)


def test_a_cable_that_stays_out_ends_the_run_and_leaves_the_arm_disconnected() -> None:
    with Emulator(physics="lag") as emulator, robots.open(emulator.uri, CARD) as arm:

        def pull(figures) -> None:
            if figures["chunks"]:
                emulator.fault("unplug")

        log = run_episode(arm, Wave(), "x", max_chunks=9, reconnect_s=0.2, progress=pull)
        assert log.ended == "fault"
        assert "Is the cable in" in log.fault
        assert not arm.connected


def test_an_arm_that_fails_when_lent_is_a_fault_of_the_run(pty_arm: PtyArm) -> None:
    with robots.open(f"serial://{pty_arm.wire.port}", CARD) as arm:
        pty_arm.servo(3).silent = True
        log = run_episode(arm, HoldPolicy(CARD), "x", max_chunks=1)
        assert log.ended == "fault"
        assert "servo id 3" in log.fault
        pty_arm.servo(3).silent = False
    other = robots.open(f"serial://{pty_arm.wire.port}", CARD)
    pty_arm.servo(3).silent = True
    with pytest.raises(RobotFault, match="servo id 3"):
        run_episode(other, HoldPolicy(CARD), "x", max_chunks=1)


def test_lending_does_not_relax_and_closing_does(pty_arm: PtyArm) -> None:
    arm = robots.open(f"serial://{pty_arm.wire.port}?relax=1", CARD)
    arm.connect()
    arm.lend()
    assert pty_arm.bus.goals()[1].all()
    arm.connect()
    arm.close()
    arm.connect()  # a round trip, so that the packet before has been read
    arm.close()
    assert run_episode(arm, HoldPolicy(CARD), "x", max_chunks=1).ended == "done"


def streamer_of(parent: int) -> int:
    """Process id of the streaming process that ``parent`` started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for child in children:
        if b"dreamzero.robots.streamer" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise AssertionError(f"no streaming process among {children}")


def test_a_streaming_process_that_dies_is_told_as_a_fault(arm: Robot) -> None:
    def kill(figures) -> None:
        if figures["chunks"]:
            os.kill(streamer_of(os.getpid()), signal.SIGKILL)

    log = run_episode(arm, Wave(), "x", max_chunks=50, progress=kill)
    assert log.ended == "fault"
    assert "status -9" in log.fault
    assert len(log.sent_s)


def start_run(uri: str, *more: str) -> subprocess.Popen[str]:
    """``dreamzero robot run`` as a process that holds for long; it has begun when this returns."""
    command = ["env", "--default-signal=INT", sys.executable, "-m", "dreamzero.cli"]
    command += ["robot", "run", "--policy", "hold", "--robot", uri, "--seconds", "60", "--json"]
    return subprocess.Popen([*command, *more], stdout=subprocess.PIPE, text=True)


def packets_flow(lag: Emulator, flowing: bool) -> bool:
    """Wait until packets come over the bus (or until none do)."""
    for _ in range(100):
        before = lag.state()["packets"]
        time.sleep(0.15)
        if (lag.state()["packets"] > before) == flowing:
            return True
    return False


def test_ctrl_c_ends_a_run_and_keeps_its_log(lag: Emulator) -> None:
    with start_run(lag.uri) as child:
        assert packets_flow(lag, True)
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=20)
    assert child.returncode == 130
    said = json.loads(out)
    assert said["ended"] == "interrupted"
    assert said["commands"] > 0
    assert packets_flow(lag, False)


def test_when_the_policys_process_dies_the_arm_is_held_and_let_go(lag: Emulator) -> None:
    with start_run(lag.uri) as child:
        assert packets_flow(lag, True)
        streamer = streamer_of(child.pid)
        child.kill()
    assert packets_flow(lag, False)
    for _ in range(100):
        if not Path(f"/proc/{streamer}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{streamer}").exists()
    # Nobody holds the port any more, and the arm can be taken again.
    with robots.open(lag.uri, CARD) as arm:
        assert np.isfinite(arm.observe(views=()).state).all()


def test_a_stop_from_another_process(lag: Emulator, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DREAMZERO_ESTOP", str(tmp_path))
    with start_run(lag.uri) as child:
        assert packets_flow(lag, True)
        subprocess.run(
            [sys.executable, "-m", "dreamzero.cli", "robot", "stop"],
            check=True,
            capture_output=True,
        )
        out, _ = child.communicate(timeout=20)
    assert child.returncode == 1
    said = json.loads(out)
    assert said["ended"] == "estop"
    assert "was stopped by process" in said["fault"]


def test_the_streaming_process_is_light() -> None:
    code = (
        "import sys, dreamzero.robots.streamer; "
        "print(sorted({'torch', 'mujoco', 'gymnasium', 'av', 'pyarrow', 'dreamzero.inference'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
