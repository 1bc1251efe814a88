"""MuJoCo tabletop: arms, tasks, looks and scripted experts.

``gymnasium.make("DreamZero/Tabletop-v0", robot="so101")`` after importing this package, or
``Tabletop(robot="so101")``. mujoco is imported when the first of these is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .looks import Look, LookRange
from .splits import HELD_OUT, SUITES, Block, Scene, Zone, look_range, sample_scene, split
from .tasks import COLOURS, DIRECTIONS, Task, parse

if TYPE_CHECKING:
    from .experts import Expert
    from .recording import Episode, record, record_arrays, rollout_expert
    from .tabletop import Tabletop

__all__ = [
    "COLOURS",
    "DIRECTIONS",
    "HELD_OUT",
    "SUITES",
    "Block",
    "Episode",
    "Expert",
    "Look",
    "LookRange",
    "Scene",
    "Tabletop",
    "Task",
    "Zone",
    "look_range",
    "parse",
    "record",
    "record_arrays",
    "rollout_expert",
    "sample_scene",
    "split",
]
# What needs mujoco comes on first use.
_LAZY = {
    "Tabletop": "tabletop",
    "Expert": "experts",
    "Episode": "recording",
    "rollout_expert": "recording",
    "record_arrays": "recording",
    "record": "recording",
}

try:
    import gymnasium
except ModuleNotFoundError:  # tasks, splits and looks need neither gymnasium nor mujoco
    pass
else:
    if "DreamZero/Tabletop-v0" not in gymnasium.registry:
        gymnasium.register(
            "DreamZero/Tabletop-v0", "dreamzero.sim.tabletop:Tabletop", max_episode_steps=65
        )


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f".{_LAZY[name]}", __name__)
    except ModuleNotFoundError as error:
        if error.name not in ("mujoco", "gymnasium"):
            raise
        raise UserError(
            f"the simulator needs {error.name}, which is not installed: "
            "pip install 'dreamzero[sim]'"
        ) from error
    return getattr(module, name)
