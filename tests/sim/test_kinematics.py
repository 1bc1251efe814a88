"""The tip without MuJoCo is where MuJoCo has it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from dreamzero.errors import UserError
from dreamzero.sim import Tabletop, arms
from dreamzero.sim.ik import Solver
from dreamzero.sim.kinematics import Chain


@pytest.mark.parametrize("robot", ["so101", "franka", "ur5e"])
def test_the_tip_is_where_mujoco_has_it(robot: str) -> None:
    arm = arms.get(robot)
    chain = Chain.of(arm)
    assert chain.joints == len(arm.joints)
    env = Tabletop(robot, views=())
    solver = Solver(env.model, arm)
    rng = np.random.default_rng(0)
    low, high = (np.array(limit[: chain.joints]) for limit in (arm.lower, arm.upper))
    for _ in range(30):
        joints = rng.uniform(low, high)
        tip = chain.tip(joints) + arm.base_m
        np.testing.assert_allclose(tip, solver.tip(joints), atol=1e-9)
    env.close()


def test_a_body_that_slides_has_no_chain() -> None:
    with pytest.raises(UserError, match="no plain hinge"):
        Chain.of(arms.get("hand"))


def test_no_simulator_is_needed() -> None:
    code = (
        "import sys; sys.modules['mujoco'] = None; import numpy as np; "
        "from dreamzero.sim import arms, kinematics; "
        "print(kinematics.Chain.of(arms.get('so101')).tip(np.zeros(5)).round(4).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Upper arm up, forearm and gripper ahead: the lengths of the drawing added up.
    ahead, up = 0.0304 + 0.028 + 0.1349 + 0.0611 + 0.0981, 0.0624 + 0.0542 + 0.1126
    assert done.stdout.strip() == str([round(ahead, 4), 0.0, round(up, 4)])
