"""The training loop: short enough to read, exact to resume.

Which windows, which noise and which dropped prompts a step sees depends on (seed, step) alone, so
that a run that is killed and resumed takes the same steps as one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..config import to_dict
from ..errors import UserError
from ..model.bundle import WorldActionModel
from ..report.record import RunRecord
from .config import Source, TrainSettings
from .latents import EPISODES, LatentWindows
from .objective import training_loss
from .optim import Average, optimizers, rate


@dataclass
class Feed:
    """Windows of one kind, split into those trained on and those held out.

    Held out are the last episodes of every recording.
    """

    source: Source
    windows: LatentWindows
    train: torch.Tensor = field(init=False)
    held_out: torch.Tensor = field(init=False)
    begins: torch.Tensor = field(init=False)
    validation: float = 0.02

    def __post_init__(self) -> None:
        held = torch.zeros(len(self.windows), dtype=torch.bool)
        episodes = self.windows.episode.unique()
        for recording in (episodes // EPISODES).unique():
            own = episodes[episodes // EPISODES == recording]
            count = max(1, round(self.validation * len(own))) if len(own) > 1 else 0
            held |= torch.isin(self.windows.episode, own[len(own) - count :])
        self.train, self.held_out = (~held).nonzero()[:, 0], held.nonzero()[:, 0]
        # Windows of an episode follow one another.
        own = self.windows.episode[self.train]
        self.begins = self.train[torch.cat([own.new_ones(1).bool(), own[1:] != own[:-1]])]

    def draw(self, generator: torch.Generator) -> torch.Tensor:
        begins = round(self.source.begin * self.source.batch)
        drawn = [
            pool[torch.randint(0, len(pool), (count,), generator=generator)]
            for pool, count in ((self.train, self.source.batch - begins), (self.begins, begins))
        ]
        return torch.cat(drawn)


def mean_of(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over the steps since the last log row, so that every kind of batch is in them."""
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


class Trainer:
    """Trains a model's transformer and text encoder on encoded windows.

    Args:
        model: parts and robots; the codec is not touched.
        feeds: kinds of batches, taken in turn.
        out: run folder: ``log.jsonl``, ``state.pt`` (to resume), and the model itself.
    """

    def __init__(
        self,
        model: WorldActionModel,
        feeds: Sequence[Feed],
        settings: TrainSettings,
        out: Path,
        device: str = "cpu",
    ) -> None:
        if not feeds:
            raise UserError("nothing to train on: give at least one kind of batch a batch size")
        self.model, self.feeds, self.settings = model, list(feeds), settings
        self.out, self.device = out, torch.device(device)
        self.modules: dict[str, torch.nn.Module] = {
            "transformer": model.transformer,
            "text_encoder": model.text_encoder,
        }
        for module in self.modules.values():
            module.to(self.device).train().requires_grad_(True)
        if settings.compile:
            for block in model.transformer.blocks:
                block.compile()
        self.optimizers = optimizers(self.modules.values(), settings)
        self.average = Average(self.modules, settings.ema)
        self.step = 0
        self.seconds = 0.0
        self.record = RunRecord(
            "train", parameters=to_dict(settings), seed=settings.seed, device=device
        )

    def run(self, resume: bool = False, progress: bool = True) -> RunRecord:
        """Train to ``settings.steps``; returns (and writes) the run record."""
        from tqdm.auto import tqdm

        self.out.mkdir(parents=True, exist_ok=True)
        if resume:
            self._load_state()
        log = (self.out / "log.jsonl").open("a" if resume else "w")
        bar = tqdm(total=self.settings.steps, initial=self.step, desc="train", disable=not progress)
        started = time.monotonic() - self.seconds
        recent: list[dict[str, float]] = []
        with log, bar:
            while self.step < self.settings.steps:
                recent.append(self._one_step())
                self.step += 1
                self.seconds = time.monotonic() - started
                bar.update()
                evaluation = self.evaluate() if self._due(self.settings.evaluate_every) else {}
                if self._due(self.settings.log_every) or evaluation:
                    row = mean_of(recent) | {"seconds": round(self.seconds, 2), **evaluation}
                    log.write(json.dumps({"step": self.step, **row}) + "\n")
                    log.flush()
                    bar.set_postfix(video=f"{row['video']:.3f}", action=f"{row['action']:.3f}")
                    recent = []
                if self._due(self.settings.save_every) and self.step < self.settings.steps:
                    self._save_state()
        return self._finish()

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.settings.steps

    def _generator(self, purpose: int) -> torch.Generator:
        seed = (self.settings.seed * 1_000_003 + self.step) * 4 + purpose
        return torch.Generator().manual_seed(seed)

    def _one_step(self) -> dict[str, float]:
        settings = self.settings
        feed = self.feeds[self.step % len(self.feeds)]
        batch = feed.windows.batch(feed.draw(self._generator(0)))
        for name in ("latents", "action", "state", "action_mask", "has_action"):
            setattr(batch, name, getattr(batch, name).to(self.device))
        factor = rate(self.step, settings)
        for optimizer, peak in zip(self.optimizers, (settings.matrix_lr, settings.lr), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
            optimizer.zero_grad(set_to_none=True)
        loss = training_loss(
            self.model.transformer, self.model.text_encoder, batch, settings, self._generator(1)
        )
        loss.total.backward()
        parameters = [p for module in self.modules.values() for p in module.parameters()]
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        values = {"video": loss.video.item(), "action": loss.action.item(), "gradient": norm.item()}
        if not math.isfinite(values["video"] + values["action"] + values["gradient"]):
            raise UserError(
                f"training diverged at step {self.step} ({values}); the last good state is "
                f"{self.out / 'state.pt'}: lower train.lr and train.matrix_lr, then --resume"
            )
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update(self.modules, self.step)
        return {"lr": factor, **values}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Loss of the averaged weights on held-out windows, at fixed noise."""
        trained = {k: m.state_dict() for k, m in self.modules.items()}
        trained = {k: {n: v.clone() for n, v in w.items()} for k, w in trained.items()}
        for key, module in self.modules.items():
            module.load_state_dict(self.average.of(key))
        feed = self.feeds[-1]
        index = feed.held_out[:128]
        result: dict[str, float] = {}
        if len(index):
            batch = feed.windows.batch(index)
            for name in ("latents", "action", "state", "action_mask", "has_action"):
                setattr(batch, name, getattr(batch, name).to(self.device))
            generator = torch.Generator().manual_seed(0)
            loss = training_loss(
                self.model.transformer, self.model.text_encoder, batch, self.settings, generator
            )
            result = {"held_out_video": loss.video.item(), "held_out_action": loss.action.item()}
        for key, module in self.modules.items():
            module.load_state_dict(trained[key])
        return result

    def _save_state(self) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "settings": json.dumps(to_dict(self.settings)),
            "average": self.average.weights,
            "optimizers": [o.state_dict() for o in self.optimizers],
            "modules": {k: m.state_dict() for k, m in self.modules.items()},
        }
        temporary = self.out / "state.partial"
        torch.save(state, temporary)
        temporary.replace(self.out / "state.pt")

    def _load_state(self) -> None:
        path = self.out / "state.pt"
        if not path.exists():
            raise UserError(f"--resume: {path} does not exist; leave --resume out to start anew")
        state = torch.load(path, weights_only=True, map_location=self.device)
        now = json.loads(json.dumps(to_dict(self.settings)))
        then = json.loads(state["settings"])
        changed = [k for k in now if k != "steps" and now[k] != then.get(k)]
        if changed:
            raise UserError(
                f"--resume: {', '.join(changed)} differ from the run in {self.out}; "
                f"resume with the same settings or start in another folder"
            )
        for key, module in self.modules.items():
            module.load_state_dict(state["modules"][key])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.average.weights = state["average"]
        self.step, self.seconds = state["step"], state["seconds"]

    def _finish(self) -> RunRecord:
        self._save_state()
        held_out = self.evaluate()
        for key, module in self.modules.items():
            module.load_state_dict(self.average.of(key))
            module.eval().requires_grad_(False)
        self.model.save(self.out)
        count = sum(p.numel() for m in self.modules.values() for p in m.parameters())
        self.record.add("parameters", count)
        self.record.add("steps", self.step)
        self.record.add("training_seconds", round(self.seconds, 1), unit="s")
        for name, value in held_out.items():
            self.record.add(name, value)
        self.record.artifact(self.out / "log.jsonl")
        self.record.save(self.out)
        return self.record
