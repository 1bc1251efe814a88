"""A policy by name: what ``--policy`` of ``evaluate``, ``robot`` and ``serve`` may be.

```text
tiny_so101, runs/mine            a shipped model, a model folder
hold                             the pose in which the arm was first seen
replay:FILE.npy                  recorded actions [n, a] in SI units
ws://HOST:PORT, wss://HOST       a policy server (`RemotePolicy`); options
                                 ?token-file=FILE&ca=FILE&timeout=SECONDS
```
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import embodiments
from ..embodiments import Embodiment
from ..errors import UserError
from ..shipped import shipped
from ..types import Policy


@dataclass(frozen=True)
class Source:
    """Makes policies of one kind for one robot; what they can share they share.

    Attributes:
        name: as it was asked for.
        card: of the robot, with the rates and the horizon of its training.
        make: a new policy, with a session of its own; UserError when there is no memory for it.
    """

    name: str
    card: Embodiment
    make: Callable[[], Policy]


def is_remote(spec: str) -> bool:
    """Whether a policy is asked for over a wire."""
    return spec.startswith(("ws://", "wss://"))


def open_policy(spec: str, card: Embodiment, **options: Any) -> Policy:
    """One policy for a robot, from any of the names above.

    Args:
        card: of the robot.
        options: as in ``WorldActionPolicy``, for models.

    Raises:
        UserError: no such policy, not of that robot, or nobody answers.
    """
    if is_remote(spec):
        from . import RemotePolicy

        remote: Policy = RemotePolicy.open(spec, card)
        return remote
    return source(spec, card, **options).make()


def source(
    spec: str,
    card: Embodiment | str | None = None,
    device: str = "cpu",
    dtype: Any = None,
    threads: int | None = None,
    **options: Any,
) -> Source:
    """What makes policies of a name that is not remote.

    Args:
        spec: see the module.
        card: of the robot, or its name; models go by the name alone, and need it only if they know
            several.
        device, dtype, options: of ``load_policy``, for models.
        threads: CPU threads that they compute on from here on. The models that are fast enough on a CPU
            gain nothing from a second one, and beside other work (an arm's loop, a simulator) two wait
            for each other.

    Raises:
        UserError: no such policy, or not of that robot.
    """
    if is_remote(spec):
        raise UserError(f"--policy {spec}: that one is served already; give a model folder")
    if spec == "hold" or spec.startswith("replay:"):
        if card is None:
            raise UserError(f"--policy {spec}: for which robot? give --embodiment")
        card = embodiments.get(card) if isinstance(card, str) else card
        return Source(spec, card, _plain(spec, card))
    if not Path(spec).is_dir() and shipped(spec) is None:
        raise UserError(
            f"--policy {spec}: no such folder; give a checkpoint, a shipped model, hold, "
            "replay:FILE.npy or ws://HOST:PORT"
        )
    name = card.name if isinstance(card, Embodiment) else card
    if threads is not None:
        if threads < 1:
            raise UserError(f"--threads {threads}: give at least 1")
        import torch

        torch.set_num_threads(threads)
    return _model(spec, name, device, dtype, options)


def _plain(spec: str, card: Embodiment) -> Callable[[], Policy]:
    import numpy as np

    from ..robots.policies import HoldPolicy, ReplayPolicy

    if spec == "hold":
        return lambda: HoldPolicy(card)
    path = Path(spec.removeprefix("replay:"))
    try:
        actions = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"--policy {spec}: {path} is no .npy file of actions ({error})") from error
    ReplayPolicy(card, actions)
    return lambda: ReplayPolicy(card, actions)


def _model(
    spec: str, embodiment: str | None, device: str, dtype: Any, options: dict[str, Any]
) -> Source:
    from ..inference import Engine, EngineConfig, WorldActionPolicy
    from ..model.bundle import WorldActionModel
    from ..shipped import find

    model = WorldActionModel.load(find(spec), device, dtype)
    card = model.card(embodiment)
    config = options.pop("engine", EngineConfig())
    engine = Engine(model.transformer, config)
    return Source(
        spec, card, lambda: WorldActionPolicy(model, embodiment, engine=engine, **options)
    )
