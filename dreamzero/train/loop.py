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
from ..model.checkpoints.adapters import Base, write_adapter
from ..model.checkpoints.importer import write_robots
from ..report.record import RunRecord
from .config import Source, TrainSettings
from .latents import EPISODES, LatentWindows
from .objective import training_loss
from .optim import Average, optimizers, rate, set_rate
from .prompts import Prompts, PromptTable
from .trained import networks, on_device, pairs_and_coders, parameters, widen


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
    """Trains a model, or the part of it that ``settings.trained`` names, on encoded windows.

    Args:
        model: parts and robots; codec and image encoder are not touched.
        feeds: kinds of batches, taken in turn.
        out: run folder: ``log.jsonl``, ``state.pt`` (to resume), and the model or adapter.
        base: what the model was loaded from, where only a part of it is trained.
    """

    def __init__(
        self,
        model: WorldActionModel,
        feeds: Sequence[Feed],
        settings: TrainSettings,
        out: Path,
        device: str = "cpu",
        base: Base | None = None,
    ) -> None:
        if not feeds:
            raise UserError("nothing to train on: give at least one kind of batch a batch size")
        self.model, self.feeds, self.settings = model, list(feeds), settings
        self.out, self.device, self.base = out, torch.device(device), base
        if settings.trained != "all" and base is None:
            raise UserError(
                f"train.trained={settings.trained} trains a part of a model: give --init"
            )
        self.dtype = model.transformer.proj_out.weight.dtype
        torch.manual_seed(settings.seed)
        self.modules = networks(model, settings)
        for module in self.modules.values():
            widen(module, frozen=not (settings.bf16 and self.device.type == "cuda"))
            module.to(self.device)
        if settings.compile:
            for block in model.transformer.blocks:
                block.compile()
        self.prompts: Prompts = model.text_encoder
        if "text_encoder" not in self.modules:
            known = {prompt for feed in feeds for prompt in feed.windows.prompts}
            with on_device([model.text_encoder], self.device):
                self.prompts = PromptTable(model.text_encoder, known, self.device)
        self.parameters = parameters(self.modules)
        self.optimizers = optimizers(self.parameters, settings)
        self.average = Average(self.parameters, settings.ema)
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
        batch = feed.windows.batch(feed.draw(self._generator(0))).to(self.device)
        factor = rate(self.step, settings)
        set_rate(self.optimizers, factor, settings)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        transformer, generator = self.model.transformer, self._generator(1)
        loss = training_loss(transformer, self.prompts, batch, settings, generator)
        loss.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), settings.clip)
        values = {"video": loss.video.item(), "action": loss.action.item(), "gradient": norm.item()}
        if not math.isfinite(values["video"] + values["action"] + values["gradient"]):
            raise UserError(
                f"training diverged at step {self.step} ({values}); the last good state is "
                f"{self.out / 'state.pt'}: lower train.lr and train.matrix_lr, then --resume"
            )
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update(self.step)
        return {"lr": factor, **values}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Loss of the averaged weights on held-out windows, at fixed noise."""
        feed = self.feeds[-1]
        index = feed.held_out[:128]
        if not len(index):
            return {}
        batch = feed.windows.batch(index).to(self.device)
        generator = torch.Generator().manual_seed(0)
        self.average.exchange()
        transformer = self.model.transformer
        loss = training_loss(transformer, self.prompts, batch, self.settings, generator)
        self.average.exchange()
        return {"held_out_video": loss.video.item(), "held_out_action": loss.action.item()}

    def _save_state(self) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "settings": json.dumps(to_dict(self.settings)),
            "average": self.average.weights,
            "optimizers": [o.state_dict() for o in self.optimizers],
            "modules": {
                key: {n: p.detach() for n, p in module.named_parameters() if p.requires_grad}
                for key, module in self.modules.items()
            },
            "base": self.base and self.base.fingerprint,
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
        then = to_dict(TrainSettings()) | json.loads(state["settings"])
        changed = [k for k in now if k != "steps" and now[k] != then.get(k)]
        if changed:
            raise UserError(
                f"--resume: {', '.join(changed)} differ from the run in {self.out}; "
                f"resume with the same settings or start in another folder"
            )
        if state.get("base") != (self.base and self.base.fingerprint):
            raise UserError(f"--resume: the run in {self.out} started from another --init")
        with torch.no_grad():
            for key, weights in state["modules"].items():
                for name, value in weights.items():
                    self.parameters[f"{key}.{name}"].copy_(value)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.average.weights.update(state["average"])
        self.step, self.seconds = state["step"], state["seconds"]

    def _finish(self) -> RunRecord:
        self._save_state()
        held_out = self.evaluate()
        self.average.exchange()
        trained = sum(value.numel() for value in self.parameters.values())
        self._write_result()
        count = sum(p.numel() for m in self.modules.values() for p in m.parameters())
        self.record.add("parameters", count)
        if trained != count:
            self.record.add("trained_parameters", trained)
        self.record.add("steps", self.step)
        self.record.add("training_seconds", round(self.seconds, 1), unit="s")
        for name, value in held_out.items():
            self.record.add(name, value)
        self.record.artifact(self.out / "log.jsonl")
        self.record.save(self.out)
        return self.record

    def _write_result(self) -> None:
        """The policy; of a LoRA training the adapter and its robots."""
        settings, transformer = self.settings, self.model.transformer
        if settings.trained == "lora":
            assert self.base is not None
            tensors = pairs_and_coders(transformer)
            write_adapter(self.out, self.base, tensors, settings.lora_rank, settings.lora_alpha)
            write_robots(self.model.robots, self.out)
        for module in self.modules.values():
            module.eval().requires_grad_(False)
        if settings.trained != "lora":
            for parameter in transformer.parameters():
                parameter.data = parameter.data.to(self.dtype)
            self.model.save(self.out)
