"""Everything a training has to remember, and a training that remembers it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..config import to_dict
from ..errors import UserError
from .checkpoint import Checkpoint, latest, save
from .config import TrainSettings
from .optim import optimizer_tensors, restore_optimizers

if TYPE_CHECKING:
    from .loop import Trainer


def store(trainer: Trainer) -> None:
    """Write a checkpoint of this moment: weights, averages, optimisers, and what the log owes."""
    tensors: dict[str, Tensor] = {f"model/{n}": p for n, p in trainer.parameters.items()}
    tensors |= {f"average/{name}": value for name, value in trainer.average.weights.items()}
    memory = optimizer_tensors(trainer.optimizers, trainer.parameters)
    tensors |= {f"optimizer/{name}": value for name, value in memory.items()}
    facts = {
        "seconds": trainer.seconds,
        "cpu_seconds": trainer.cpu_seconds,
        "settings": to_dict(trainer.settings),
        "base": trainer.base and trainer.base.fingerprint,
        "processes": trainer.processes.count,
        "recent": trainer.recent,
        "divergence": trainer.divergence.state,
    }
    save(trainer.out, trainer.step, tensors, facts, trainer.processes, trainer.settings.keep)


def restore(trainer: Trainer) -> None:
    """Go on from the last good checkpoint of the run folder, on whatever number of processes.

    Raises:
        UserError: there is none, or it is of other settings or of another model.
    """
    path = latest(trainer.out)
    if path is None:
        raise UserError(
            f"--resume: {trainer.out} holds no checkpoint; leave --resume out to begin anew"
        )
    found = Checkpoint(path)
    facts = found.facts
    now = json.loads(json.dumps(to_dict(trainer.settings)))
    then = to_dict(TrainSettings()) | facts["settings"]
    changed = [k for k in now if k not in TrainSettings.FREE and now[k] != then.get(k)]
    if changed:
        raise UserError(
            f"--resume: {', '.join(changed)} differ from the run in {trainer.out}; resume with the "
            "same settings or start in another folder"
        )
    if facts["base"] != (trainer.base and trainer.base.fingerprint):
        raise UserError(f"--resume: the run in {trainer.out} started from another --init")
    with torch.no_grad():
        for name, value in trainer.parameters.items():
            value.copy_(found.read(f"model/{name}", value))
            kept = trainer.average.weights[name]
            kept.copy_(found.read(f"average/{name}", kept))
    restore_optimizers(
        trainer.optimizers,
        trainer.parameters,
        found.names("optimizer/"),
        lambda name, like: found.read(f"optimizer/{name}", like),
    )
    trainer.step = found.step
    trainer.seconds, trainer.cpu_seconds = facts["seconds"], facts["cpu_seconds"]
    trainer.recent, trainer.divergence.state = facts["recent"], facts["divergence"]
