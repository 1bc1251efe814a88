"""The tabletop as a gymnasium environment: one arm, three blocks, absolute joint targets at 15 Hz."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from ..embodiments.tabletop import VIEWS
from ..errors import UserError
from . import arms, world
from .ik import Solver
from .judge import Judge
from .layout import BLOCK_HALF_M
from .looks import Look
from .render import Camera, mujoco
from .splits import Scene, parse_suite, sample_scene, with_look
from .tasks import COLOURS, Task


class Tabletop(gymnasium.Env):
    """A MuJoCo tabletop.

    Action: float32 ``[a]``, absolute joint targets (rad) and the gripper (0 closed, 1 open), in the
    order of the card ``tabletop_<robot>``. Observation: ``{view: uint8 [h, w, 3], "state": float32
    [s]}``; the state holds measured joint positions and gripper in the same order. Reward: progress in
    [0, 1]. An episode never terminates by itself; ``info["success"]`` says how it stands.

    Args:
        robot: one of ``arms.ROBOTS``.
        views: of ``VIEWS``, those to draw; may be empty.
        size_px: edge of the square pictures.
        suite: from which ``reset(seed=...)`` draws scenes.
        strict: refuse actions outside the joint limits instead of clipping them.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(
        self,
        robot: str = "so101",
        views: Sequence[str] = ("front",),
        size_px: int = 64,
        suite: str = "seen",
        strict: bool = False,
        render_mode: str | None = "rgb_array",
    ) -> None:
        unknown = [v for v in views if v not in VIEWS]
        if unknown:
            raise UserError(f"unknown view {unknown[0]!r}; known: {', '.join(VIEWS)}")
        if not 16 <= size_px <= 512:
            raise UserError(f"size_px must be between 16 and 512, got {size_px}")
        parse_suite(suite)
        self.arm = arms.get(robot)
        self.views, self.size_px, self.suite, self.strict = tuple(views), size_px, suite, strict
        self.render_mode = render_mode
        self.model = mujoco.MjModel.from_xml_string(world.mjcf(self.arm))
        self.data = mujoco.MjData(self.model)
        self.solver = Solver(self.model, self.arm)
        self._camera: Camera | None = None
        self._joint_qpos = self.model.jnt_qposadr[[self.model.joint(n).id for n in self.arm.joints]]
        self._finger_qpos = self.model.jnt_qposadr[
            [self.model.joint(n).id for n in self.arm.fingers]
        ]
        self._lower = np.array(self.arm.lower, np.float32)
        self._upper = np.array(self.arm.upper, np.float32)
        self._slew = np.array(self.arm.velocity) / world.CONTROL_HZ
        self.action_space = gymnasium.spaces.Box(self._lower, self._upper, dtype=np.float32)
        picture = gymnasium.spaces.Box(0, 255, (size_px, size_px, 3), np.uint8)
        # A servo may be pushed a little past its limit.
        slack = np.full_like(self._lower, 0.2)
        self.observation_space = gymnasium.spaces.Dict(
            {v: picture for v in self.views}
            | {
                "state": gymnasium.spaces.Box(
                    self._lower - slack, self._upper + slack, dtype=np.float32
                )
            }
        )
        self.scene = sample_scene(suite, 0)
        self._judge: Judge | None = None
        self._sent = np.zeros(len(self._lower))

    # -- gymnasium ---------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: decides the scene, together with the suite; without one the next of this
                environment's own generator is taken.
            options: "scene" (``Scene``, used as it is), or "task" (``Task``) and "look" (``Look``)
                in place of the drawn ones.
        """
        super().reset(seed=seed)
        number = int(self.np_random.integers(2**31)) if seed is None else seed
        options = options or {}
        unknown = set(options) - {"scene", "task", "look"}
        if unknown:
            raise UserError(f"unknown reset option {unknown.pop()!r}; known: scene, task, look")
        scene, task, look = (options.get(k) for k in ("scene", "task", "look"))
        for value, kind in ((scene, Scene), (task, Task), (look, Look)):
            if value is not None and not isinstance(value, kind):
                raise UserError(f"reset option must be a {kind.__name__}, got {value!r}")
        scene = scene or sample_scene(self.suite, number, task)
        self._place(scene if look is None else with_look(scene, look))
        return self.observe(), self._info(clipped=False)

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One control step of 1/15 s; see ``advance`` for the errors."""
        sent = self.advance(action)
        clipped = not np.allclose(sent, action, atol=1e-5)
        return self.observe(), self.progress(), False, False, self._info(clipped)

    def render(self) -> np.ndarray:
        """uint8 ``[h, w, 3]`` of the first view (front if there is none)."""
        return self.render_views(self.views[:1] or ("front",)).popitem()[1]

    def close(self) -> None:
        """Frees the GL context."""
        if self._camera is not None:
            self._camera.close()
            self._camera = None

    # -- without pictures --------------------------------------------------------------------------

    def reset_quietly(self, scene: Scene) -> None:
        """Starts an episode in a scene without drawing anything."""
        self._place(scene)

    def advance(self, action: np.ndarray, substeps: int = world.SUBSTEPS) -> np.ndarray:
        """One control step without drawing anything.

        Args:
            action: ``[a]``; what exceeds joint or velocity limits is clipped.
            substeps: physics steps to take; fewer than ``SUBSTEPS`` for an arm driven in real time.
        Returns:
            float32 ``[a]``, what was really sent to the servos.
        Raises:
            UserError: the action has another shape or is not finite; or ``strict`` and it lies
                outside the joint limits.
        """
        wanted = np.asarray(action, np.float64)
        if wanted.shape != self._lower.shape:
            raise UserError(
                f"action for {self.arm.name} must have shape {self._lower.shape}, got {wanted.shape}"
            )
        if not np.isfinite(wanted).all():
            raise UserError(
                f"action for {self.arm.name} is not finite at index "
                f"{int(np.flatnonzero(~np.isfinite(wanted))[0])}"
            )
        outside = (wanted < self._lower - 1e-4) | (wanted > self._upper + 1e-4)
        if self.strict and outside.any():
            i = int(np.flatnonzero(outside)[0])
            raise UserError(
                f"action {i} of {self.arm.name} is {wanted[i]:.3f}, outside "
                f"[{self._lower[i]:.3f}, {self._upper[i]:.3f}]"
            )
        sent = np.clip(wanted, self._lower, self._upper)
        slew = self._slew * (substeps / world.SUBSTEPS)
        self._sent = np.clip(sent, self._sent - slew, self._sent + slew)
        self._command(self._sent)
        mujoco.mj_step(self.model, self.data, nstep=substeps)
        self._judged.watch()
        return self._sent.astype(np.float32)

    def observe(self) -> dict[str, np.ndarray]:
        """The observation of now: every view, uint8 ``[h, w, 3]``, and the state, ``[s]``."""
        return self.render_views() | {"state": self.state()}

    def render_views(self, views: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """View name -> uint8 ``[h, w, 3]``; UserError where the machine cannot draw."""
        wanted = self.views if views is None else tuple(views)
        if not wanted:
            return {}
        if self._camera is None:
            self._camera = Camera(self.model, self.size_px)
        return {view: self._camera.draw(self.data, view) for view in wanted}

    def state(self) -> np.ndarray:
        """float32 ``[s]``: measured joint positions (rad) and gripper (0 closed, 1 open)."""
        joints = self.data.qpos[self._joint_qpos]
        return np.append(joints, self.gripper()).astype(np.float32)

    def gripper(self) -> float:
        """Measured opening, 0 closed to 1 open."""
        span = self.arm.opened - self.arm.closed
        return float((self.data.qpos[self._finger_qpos].mean() - self.arm.closed) / span)

    def tip(self) -> np.ndarray:
        """Position ``[3]`` of the tip, m, world frame."""
        return self.data.site("tip").xpos.copy()

    def block(self, colour: str) -> tuple[np.ndarray, float]:
        """Centre ``[3]``, m, and yaw (rad) of a block of the scene."""
        return self._judged.block(colour)

    def progress(self) -> float:
        """How much of the task is done, in [0, 1]; 1 only on success."""
        return self._judged.progress()

    def success(self) -> bool:
        """Whether the task is done; see ``judge`` for what that means for each verb."""
        return self._judged.success()

    # -- inside ------------------------------------------------------------------------------------

    @property
    def _judged(self) -> Judge:
        if self._judge is None:
            raise UserError("the tabletop was not reset; call reset() before anything else")
        return self._judge

    def _info(self, clipped: bool) -> dict[str, Any]:
        return {
            "instruction": self.scene.instruction,
            "progress": self.progress(),
            "success": self.success(),
            "clipped": clipped,
        }

    def _command(self, target: np.ndarray) -> None:
        joints = len(self.arm.joints)
        self.data.ctrl[:joints] = target[:joints]
        span = self.arm.opened - self.arm.closed
        self.data.ctrl[joints:] = self.arm.closed + span * target[joints]

    def _place(self, scene: Scene) -> None:
        for things, most in (("blocks", world.BLOCKS), ("zones", world.ZONES)):
            if len(getattr(scene, things)) > most:
                raise UserError(f"a scene holds at most {most} {things}")
        self.scene = scene
        world.dress(self.model, scene)
        mujoco.mj_resetData(self.model, self.data)
        for i, block in enumerate(scene.blocks):
            pose = self.data.joint(f"block{i}").qpos
            pose[:3] = block.x_m, block.y_m, BLOCK_HALF_M
            pose[3:] = np.cos(block.yaw_rad / 2), 0.0, 0.0, np.sin(block.yaw_rad / 2)
            self.model.geom(f"block{i}").rgba[:3] = COLOURS[block.colour]
        for i in range(len(scene.blocks), world.BLOCKS):
            self.data.joint(f"block{i}").qpos[:3] = *world.AWAY_M, BLOCK_HALF_M
        start = self.solver.solve(
            np.array(scene.start_tip_m), np.array(self.arm.home_rad), iterations=60
        )
        self.data.qpos[self._joint_qpos] = start
        self.data.qpos[self._finger_qpos] = self.arm.closed
        self._sent = np.append(start, 0.0)
        self._command(self._sent)
        mujoco.mj_forward(self.model, self.data)
        self._judge = Judge(self.model, self.data, scene)
