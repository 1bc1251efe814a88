"""The emulator as a process: an arm on a pty that moves, is seen, is scored, and can break."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dreamzero import robots
from dreamzero.errors import UserError
from dreamzero.robots import (
    Emulator,
    HoldPolicy,
    LinkLost,
    ReplayPolicy,
    RobotFault,
    camera,
    run_episode,
)
from dreamzero.robots.emulation.world import EmulatorConfig, World

from .conftest import CARD, VIEW


@pytest.fixture(scope="module")
def lag() -> Iterator[Emulator]:
    with Emulator(physics="lag", seed=1, camera_hz=60.0) as emulator:
        yield emulator


def test_an_arm_on_a_pty_is_driven_and_watched(lag: Emulator) -> None:
    with robots.open(lag.uri, CARD) as arm:
        start = arm.observe()
        assert start.frames[VIEW].shape == (64, 64, 3)
        actions = np.repeat(start.state[None], 16, axis=0)
        actions[:, 0] += 0.5 * np.minimum(np.arange(16) / 6, 1)
        log = run_episode(arm, ReplayPolicy(CARD, actions), "turn", max_chunks=1)
        end = arm.observe()
    assert log.ended == "done", log.fault
    assert len(log.chunks) == 1
    assert end.state[0] == pytest.approx(start.state[0] + 0.5, abs=0.02)
    np.testing.assert_allclose(end.state[1:], start.state[1:], atol=0.01)
    assert (end.frames[VIEW] != start.frames[VIEW]).any()
    assert end.time_s > start.time_s
    true = lag.state()["joints"]
    np.testing.assert_allclose(end.state, list(true.values()), atol=0.01)


def test_inference_beside_a_streaming_loop(lag: Emulator) -> None:
    with robots.open(lag.uri, CARD) as arm:
        log = run_episode(
            arm, HoldPolicy(CARD), "hold", max_chunks=2, mode="overlapped", stream_hz=50.0
        )
    assert log.ended == "done", log.fault
    assert [chunk.frames for chunk in log.chunks] == [1, 1]
    assert log.summary()["lateness_p50_ms"] >= 0


def test_faults_end_a_run_and_can_be_mended(lag: Emulator) -> None:
    with robots.open(lag.uri, CARD) as arm:
        lag.fault("silent", joint=3)
        log = run_episode(arm, HoldPolicy(CARD), "hold", max_chunks=1)
        lag.fault("mend", joint=3)
        assert log.ended == "fault"
        assert "servo id 3" in log.fault
        assert run_episode(arm, HoldPolicy(CARD), "hold", max_chunks=1).ended == "done"


def test_a_stuck_joint_stays_while_the_others_move() -> None:
    world = World(EmulatorConfig(physics="lag"))
    before = world.plant.joints()
    for servo in world.device.servos:
        servo.set("torque_enable", 1)
        servo.set("goal_position", 2400)
    world.device.servos[1].stuck = True
    for _ in range(60):
        world.tick(1 / 60)
    after = world.plant.joints()
    assert after[1] == before[1]
    assert after[0] != before[0]


def test_without_torque_nothing_moves() -> None:
    world = World(EmulatorConfig(physics="lag", seed=4))
    before = world.plant.joints()
    for servo in world.device.servos:
        servo.set("goal_position", 2400)
    world.tick(0.5)
    np.testing.assert_array_equal(world.plant.joints(), before)


def test_the_cable_is_pulled_while_connected() -> None:
    with Emulator(physics="lag") as emulator:
        arm = robots.open(emulator.uri, CARD)
        arm.connect()
        emulator.fault("unplug")
        with pytest.raises(RobotFault, match="cable"):
            arm.observe(views=())
        arm.close()
        with pytest.raises(UserError, match=f"there is no {emulator.port}"):
            robots.open(emulator.uri, CARD).connect()


def test_a_cable_is_put_back_and_the_cameras_never_went() -> None:
    with Emulator(physics="lag") as emulator, robots.open(emulator.uri, CARD) as arm:
        before = arm._cameras[VIEW]  # type: ignore[attr-defined]
        emulator.fault("unplug")
        with pytest.raises(LinkLost, match="cable"):
            arm.observe(views=())
        with pytest.raises(UserError, match=f"there is no {emulator.port}"):
            arm.reconnect()
        assert not arm.connected
        emulator.fault("replug")
        arm.reconnect()
        np.testing.assert_allclose(arm.guard.last, arm.observe(views=()).state, atol=1e-6)
        assert arm._cameras[VIEW] is before  # type: ignore[attr-defined]
        assert arm.observe().frames[VIEW].shape == (64, 64, 3)


def test_pictures_come_by_themselves(lag: Emulator) -> None:
    address = lag.uri.split("camera=")[1].split("&")[0]
    source = camera.open(address, (64, 64))
    first = source.read()[1]
    while source.read()[1] <= first + 0.1:
        pass
    source.close()


def test_requests_that_mean_nothing(lag: Emulator) -> None:
    with pytest.raises(UserError, match="kinds are"):
        lag.fault("explode", joint=1)
    with pytest.raises(UserError, match="fault 'silent' of servo 9"):
        lag.fault("silent", joint=9)
    address = lag.uri.split("camera=")[1].split("/front")[0]
    with pytest.raises(UserError, match="no view 'rear'"):
        camera.open(f"{address}/rear", (64, 64))
    with pytest.raises(UserError, match="set height= and width= alike"):
        camera.open(f"{address}/front", (32, 32))
    with pytest.raises(UserError, match="no emulator answers at 127.0.0.1:9"):
        camera.open("camera://127.0.0.1:9/front", (64, 64))


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"robot": "so200"}, "no emulator of 'so200'"),
        ({"views": ("rear",)}, "known are front"),
        ({"camera_hz": 90.0}, "camera_hz"),
        ({"physics": "magic"}, "unknown physics 'magic'"),
        ({"task": "push-red-up"}, "target 'up'"),
    ],
)
def test_what_cannot_be_emulated(config: dict, part: str) -> None:
    with pytest.raises(UserError, match=part):
        World(EmulatorConfig(**config))


def test_a_child_that_fails_says_why() -> None:
    emulator = Emulator(physics="magic")
    with pytest.raises(UserError, match="did not start: unknown physics 'magic'"):
        emulator.start()
    with pytest.raises(RobotFault, match="not running"):
        emulator.score()


def expert(task: str, seed: int) -> np.ndarray:
    """Actions of the scripted expert in the simulator, ``[n, a]``."""
    from dreamzero.robots.emulation.plants import scene
    from dreamzero.sim import Tabletop
    from dreamzero.sim.experts import Expert

    env = Tabletop("so101", views=())
    env.reset(options={"scene": scene(task, "seen", seed)})
    policy, actions = Expert(env), []
    for _ in range(48):
        actions.append(policy.act())
        env.advance(actions[-1])
    assert env.success()
    return np.stack(actions)


def test_the_simulated_arm_repeats_the_simulator_bit_for_bit() -> None:
    from dreamzero.robots.emulation.plants import scene
    from dreamzero.sim import Tabletop

    actions = expert("push-red-left", 3)
    with robots.open("sim://so101?task=push-red-left&seed=3", CARD) as arm:
        log = run_episode(arm, ReplayPolicy(CARD, actions), arm.instruction, max_chunks=3)
    assert log.score is not None
    assert log.score["success"]
    assert not any(log.counts.values())
    np.testing.assert_array_equal(log.sent, actions)
    env = Tabletop("so101")
    env.reset(options={"scene": scene("push-red-left", "seen", 3)})
    frames = [env.render_views()["front"]]
    for i, action in enumerate(actions):
        env.advance(action)
        if i % 2:
            frames.append(env.render_views()["front"])
    np.testing.assert_array_equal(log.frames[VIEW], np.stack(frames))
    env.close()


def test_a_task_over_the_wire_succeeds() -> None:
    actions = expert("reach-red", 5)
    with (
        Emulator(task="reach-red", seed=5) as emulator,
        robots.open(emulator.uri, CARD) as arm,
    ):
        assert not emulator.score()["success"]
        assert "red" in emulator.instruction
        log = run_episode(arm, ReplayPolicy(CARD, actions), emulator.instruction, max_chunks=2)
        score = emulator.score()
        assert log.ended == "done", log.fault
        assert score["success"]
        # Another scene: the arm finds itself elsewhere and holds there.
        emulator.reset(seed=5, task="reach-blue")
        arm.stop()
        assert not emulator.score()["success"]
        assert "blue" in emulator.instruction
        with pytest.raises(UserError, match="task verb 'fly'"):
            emulator.reset(task="fly-red")


def test_a_file_as_camera(tmp_path: Path) -> None:
    import av

    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=50)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            picture = np.full((48, 64, 3), (200, 40, 40), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    source = camera.open(f"file://{path}", (24, 32))
    frame, time_s = source.read()
    assert frame.shape == (24, 32, 3)
    assert abs(int(frame[12, 16, 0]) - 200) < 12
    # The clip starts over: a later picture comes although the clip is short.
    while source.read()[1] <= time_s + 0.2:
        pass
    source.close()


def test_cameras_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="group video"):
        camera.open("v4l2:///dev/video99", (24, 32))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match="text.mp4"):
        camera.open(f"file://{tmp_path}/text.mp4", (24, 32))


def test_the_drivers_room_does_not_import_the_heavy_ones() -> None:
    code = (
        "import sys, dreamzero.robots; "
        "print(sorted({'serial', 'mujoco', 'gymnasium', 'av', 'torch', 'pty'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
