"""The emulated Franka and YAM as processes: a real companion, an arm that is not there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dreamzero import embodiments, robots
from dreamzero.cli import main
from dreamzero.errors import UserError
from dreamzero.robots import Emulator, LinkLost, ReplayPolicy, RobotFault, run_episode
from dreamzero.robots.emulation import Impairments
from dreamzero.robots.emulation.world import EmulatorConfig, World
from dreamzero.robots.stream import bench

from .conftest import CARD

# Others may keep the two cores busy for a while.
PATIENT = "loss_ms=3000&connect_ms=8000"
AT = "udp://127.0.0.1:0?watchdog_ms=1000&max_age_ms=1000"


@pytest.fixture(scope="module")
def lag() -> Iterator[Emulator]:
    with Emulator("franka", physics="lag", seed=1, at=AT) as emulator:
        yield emulator


def test_an_emulated_franka_is_driven_and_watched(lag: Emulator) -> None:
    with robots.open(f"{lag.uri}&{PATIENT}", CARD) as arm:
        start = arm.observe()
        assert start.frames[CARD.views[0]].shape == (64, 64, 3)
        actions = np.repeat(start.state[None], 16, axis=0)
        actions[:, 0] += 0.4 * np.minimum(np.arange(16) / 8, 1)
        log = run_episode(arm, ReplayPolicy(CARD, actions), "turn", max_chunks=1)
        assert log.ended == "done", log.fault
        end = arm.observe(views=())
    assert end.state[0] > start.state[0] + 0.1
    np.testing.assert_allclose(end.state[1:], start.state[1:], atol=0.02)
    state = lag.state()
    np.testing.assert_allclose(end.state, list(state["joints"].values()), atol=0.02)
    assert state["packets"] > 5
    assert "network" not in state


def test_faults_are_named_and_the_cable_can_be_put_back(lag: Emulator) -> None:
    with robots.open(f"{lag.uri}&loss_ms=800&connect_ms=8000", CARD) as arm:
        lag.fault("overload", joint=4)
        with pytest.raises(RobotFault, match="reports overload of joint 4"):
            for _ in range(100):
                time.sleep(0.02)
                arm.observe(views=())
        lag.fault("mend")
        time.sleep(0.1)
        arm.stop()
        for kind, mended in (("unplug", "replug"), ("silent", "mend")):
            lag.fault(kind)
            with pytest.raises(LinkLost, match="no state for 800 ms"):
                for _ in range(100):
                    time.sleep(0.02)
                    arm.observe(views=())
            lag.fault(mended)
            arm.reconnect()
            arm.observe(views=())
    with pytest.raises(UserError, match="no such joint; they are 1 to 8"):
        lag.fault("stuck", joint=9)
    with pytest.raises(UserError, match="kinds are unplug, replug, silent, stuck, overload, mend"):
        lag.fault("explode")


def test_a_stuck_joint_stays_and_a_displaced_arm_waits_for_a_hold() -> None:
    world = World(EmulatorConfig("franka", physics="lag"))
    before = world.plant.joints()
    world.device.fault("stuck", 2)
    world.device.hold()
    world.device.command(before + 0.2)
    for _ in range(60):
        world.tick(1 / 60)
    after = world.plant.joints()
    assert after[1] == before[1]
    assert after[0] == pytest.approx(before[0] + 0.2, abs=0.01)
    world.place(None, "seen", 3)
    there = world.plant.joints()
    world.device.command(before)
    world.tick(0.1)
    np.testing.assert_allclose(world.plant.joints(), there)
    world.device.hold()
    world.device.command(before)
    world.tick(0.1)
    assert np.abs(world.plant.joints() - there).max() > 0.01


def test_the_simulated_franka_is_moved_by_mujoco() -> None:
    world = World(EmulatorConfig("franka", seed=2))
    goal = world.plant.joints()
    goal[0] += 0.3
    world.device.hold()
    world.device.command(goal)
    for _ in range(60):
        world.tick(1 / 60)
    assert world.device.read()[0] == pytest.approx(goal[0], abs=0.05)
    world.plant.close()


def test_a_yam_needs_no_body_to_be_emulated() -> None:
    with pytest.raises(UserError, match="no robot 'yam'|no simulated body"):
        World(EmulatorConfig("yam", physics="tabletop"))
    card = embodiments.get("yam_arm")
    with (
        Emulator("yam", physics="lag", at=AT, views=("front", "wrist")) as emulator,
        robots.open(f"{emulator.uri.split('&camera')[0]}&{PATIENT}", card) as arm,
    ):
        assert arm.observe(views=()).state.shape == (7,)
        assert arm.features.joints[-1] == "gripper_pos"


def test_the_benchmark_names_what_the_link_does() -> None:
    network = Impairments(0.005, 0.01, loss=0.1, corrupt=0.05, seed=4)
    with Emulator("franka", physics="lag", at=AT, network=network) as emulator:
        uri = emulator.uri.split("&camera")[0]
        report = bench.run(f"{uri}&{PATIENT}", CARD, seconds=1.5, hz=30.0)
        watched = bench.run(f"{uri}&{PATIENT}", CARD, seconds=0.2, move=False)
        counts = emulator.state()["network"]
    assert report.commands == 45
    assert report.unsafe == 0
    assert report.rtt_p50_ms >= 10
    assert 0 < report.loss_up < 0.5
    assert 0 < report.command_age_p50_ms <= report.command_age_p99_ms
    assert report.to_dict()["hz"] == 30.0
    assert watched.commands == 0
    assert watched.command_age_p50_ms == -1
    assert counts["lost"] > 0
    assert counts["corrupted"] > 0


def test_unsafe_poses_are_counted() -> None:
    still = np.zeros((4, 8)) + np.array(CARD.lower)
    still[:, 3], still[:, 5] = -1.5, 1.5
    times = np.arange(4) / 15
    assert bench.unsafe(still, times, CARD) == 0
    jump = still.copy()
    jump[2:, 0] += 1.0
    assert bench.unsafe(jump, times, CARD) == 1
    outside = still.copy()
    outside[:, 1] -= 0.1
    assert bench.unsafe(outside, times, CARD) == 4
    with pytest.raises(UserError, match="must be > 0"):
        bench.run("udp://127.0.0.1:1", CARD, seconds=0.0)


def test_emulate_on_the_command_line_with_a_bad_network() -> None:
    command = ["env", "--default-signal=INT", sys.executable, "-m", "dreamzero.cli", "robot"]
    command += ["emulate", "franka", "--physics", "lag", "--loss", "0.05", "--jitter-ms", "5"]
    child = subprocess.Popen(
        [*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert child.stdout is not None
    where = json.loads(child.stdout.readline())
    try:
        assert where["uri"].startswith(f"udp://{where['port']}?emulated=1&camera=")
        arguments = ["robot", "run", "--policy", "hold", "--embodiment", "tabletop_franka"]
        uri = f"{where['uri']}&{PATIENT}"
        assert main([*arguments, "--robot", uri, "--chunks", "1"]) == 0
    finally:
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 0
        child.stdout.close()


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--loss", "2"], "loss=2.0 must be a share"),
        (["--at", "pty"], "unknown scheme|no scheme"),
        (["--at", "udp://0.0.0.0:0"], "without a key"),
        (["--at", "udp://127.0.0.1:0?key=nowhere"], "key nowhere: No such file"),
    ],
)
def test_what_cannot_be_emulated_is_one_line(flags: list[str], part: str, capsys) -> None:
    import re

    assert main(["robot", "emulate", "franka", "--physics", "lag", *flags]) == 2
    error = capsys.readouterr().err
    assert re.search(part, error)
    assert error.count("\n") == 1


def test_a_key_goes_into_the_address(tmp_path: Path) -> None:
    path = tmp_path / "arm.key"
    path.write_text("ab" * 16)
    path.chmod(0o600)
    with Emulator("franka", physics="lag", at=f"{AT}&key={path}") as emulator:
        assert f"key={path}" in emulator.uri
        with robots.open(f"{emulator.uri}&{PATIENT}", CARD) as arm:
            arm.observe(views=())
