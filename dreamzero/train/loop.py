"""The training loop: short enough to read, exact to resume, the same on any number of processes.

Which windows, which noise and which dropped prompts a step sees depends on (seed, step) alone. A run
that is killed and resumed takes the same steps as one that was not, and N processes take the steps of
one: each computes its rows of the batch, and sums of errors are divided by the whole batch's counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import torch

from ..config import to_dict
from ..data.loader import Loader
from ..data.mixture import BatchSource, Feed, Mixture
from ..errors import UserError
from ..model.bundle import WorldActionModel
from ..model.checkpoints.adapters import Base
from ..report.record import RunRecord
from .checkpoint import forget, last_good, trouble
from .config import TrainSettings
from .distributed import Processes, gradient_norms, norm_of
from .early import Early, save_strip
from .flops import peak_flops
from .latents import LatentWindows
from .monitor import Divergence, Log, Meter, Stopped, diverged, mean_of, signals
from .objective import Objective
from .optim import Average, optimizers, rate, set_rate
from .precision import in_bf16
from .prompts import Prompts, PromptTable
from .recompute import set_recompute
from .result import write_record, write_result
from .resume import restore, store
from .shares import Share, share_of, work_of
from .trained import networks, parameters, widen


class Trainer:
    """Trains a model, or the part of it that ``settings.trained`` names, on encoded windows.

    Args:
        model: parts and robots; codec and image encoder are not touched.
        source: what each step sees: feeds, which then take turns, or any ``BatchSource``.
        out: run folder: ``log.jsonl``, ``checkpoints`` (to resume), and the model or adapter.
        processes: that do it together; or a device, for those there are.
        base: what the model was loaded from, where only a part of it is trained.
        features: folder where embeddings of prompts are looked for and kept (``FeatureCache``).
    """

    def __init__(
        self,
        model: WorldActionModel,
        source: BatchSource | Sequence[Feed],
        settings: TrainSettings,
        out: Path,
        processes: Processes | str = "cpu",
        base: Base | None = None,
        features: Path | None = None,
    ) -> None:
        self.source = Mixture(source, settings.seed) if isinstance(source, Sequence) else source
        self.model, self.settings, self.out, self.base = model, settings, out, base
        if settings.trained != "all" and base is None:
            raise UserError(
                f"train.trained={settings.trained} trains a part of a model: give --init"
            )
        feeds = self.source.feeds
        if isinstance(processes, str):
            processes = Processes(processes, settings)
        self.processes = processes
        self.device = self.processes.device
        self.dtype = model.transformer.proj_out.weight.dtype
        torch.manual_seed(settings.seed)
        self.modules = networks(model, settings)
        set_recompute(model.transformer.blocks, settings.recompute, settings.recompute_every)
        if settings.compile:
            for block in model.transformer.blocks:
                block.compile()
        prompts: Prompts = model.text_encoder
        if "text_encoder" not in self.modules:
            known = {prompt for feed in feeds for prompt in feed.windows.prompts}
            with nullcontext() if features is None else processes.main_first():
                prompts = PromptTable(model.text_encoder, known, self.device, features)
        self.text_tokens = prompts.encode([""]).shape[1]
        frozen = not (settings.bf16 and self.device.type == "cuda")
        self.objective = Objective(model.transformer, prompts, settings)
        unused = not all(bool(feed.windows.has_action.any()) for feed in feeds)
        self.wrapped = processes.wrap(self.objective, lambda part: widen(part, frozen), unused)
        self.parameters = parameters(self.modules)
        self.optimizers = optimizers(self.parameters, settings)
        self.average = Average(self.parameters, settings.ema)
        in_memory = all(isinstance(feed.windows, LatentWindows) for feed in feeds)
        self.loader = Loader(self.source, processes.cut, 0 if in_memory else settings.workers)
        self.early = Early(model, feeds, settings)
        self.divergence = Divergence(settings.warmup)
        self.recent: list[dict[str, float]] = []
        self.step, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        self.evaluation: dict[str, float] = {}
        self.norms: dict[str, float] = {}
        self.record = RunRecord(
            "train", parameters=to_dict(settings), seed=settings.seed, device=str(self.device)
        )

    def run(self, resume: bool = False, progress: bool = True) -> RunRecord:
        """Train to ``settings.steps``; returns (and writes) the run record.

        Raises:
            UserError: diverged, a bad sample, a full disk; it names the last good checkpoint.
            Stopped: SIGINT or SIGTERM, after a checkpoint was written.
        """
        settings, main = self.settings, self.processes.main
        with self._troubles(), signals() as heard:
            if resume:
                restore(self)
            elif main:
                self.out.mkdir(parents=True, exist_ok=True)
                forget(self.out)
            half = in_bf16(settings.bf16, self.device)
            peak, origin = peak_flops(self.device, half)
            meter = Meter(peak, self.processes.count)
            began = time.monotonic() - self.seconds
            began_cpu = time.process_time() - self.cpu_seconds
            with (
                Log(self.out, settings, self.step, main, progress) as log,
                closing(self.loader),
                ThreadPoolExecutor(1, "batches") as pool,
            ):
                # Before the thread: a process is not to be forked in the middle of its work.
                self.loader.start(self.step, settings.steps)
                coming = pool.submit(self.prepare, self.step)
                while self.step < settings.steps:
                    with meter.waiting():
                        share = coming.result()
                    if self.step + 1 < settings.steps:
                        coming = pool.submit(self.prepare, self.step + 1)
                    values, stop = self.one_step(share, bool(heard))
                    meter.work(
                        *work_of(share, self.model.transformer.config, settings, self.text_tokens)
                    )
                    self.recent.append(values)
                    self.step += 1
                    self.seconds = time.monotonic() - began
                    self.cpu_seconds = time.process_time() - began_cpu
                    log.bar.update()
                    if self._speaks(self.step):
                        self._say(log, meter)
                    if stop or (self._due(settings.save_every) and self.step < settings.steps):
                        store(self)
                    if stop:
                        raise Stopped(
                            f"stopped by a signal at step {self.step}; {last_good(self.out)}; "
                            "--resume goes on from there",
                            heard[0] if heard else 0,
                        )
            self.record.notes |= {
                "processes": self.processes.count,
                "peak_flops": {"per_process": peak, "from": origin},
                "multiplied_in": "bfloat16" if half else "float32",
            }
            return self._finish(meter)

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.settings.steps

    def _speaks(self, step: int) -> bool:
        """Whether a log row is written after so many steps."""
        settings = self.settings
        return (
            step % settings.log_every == 0
            or step % settings.evaluate_every == 0
            or step == settings.steps
        )

    @contextmanager
    def _troubles(self) -> Iterator[None]:
        """One line for each way a run ends early, said by one process."""
        try:
            try:
                yield
            except OSError as error:
                raise trouble(error, self.out) from error
        except UserError:
            if not self.processes.main:
                raise SystemExit(2) from None
            raise

    def prepare(self, step: int) -> Share:
        """This process's share of a step; during ``run`` it is asked for one after the other."""
        per_block = self.model.transformer.config.frames_per_block
        return share_of(self.loader.take(step), self.settings, per_block, self.out)

    def one_step(self, share: Share, stop: bool = False) -> tuple[dict[str, float], bool]:
        """One step of all processes: losses and gradient norm, and whether any was told to stop."""
        settings, processes = self.settings, self.processes
        labels = [piece.labels for piece in share.pieces]
        all_labels, bad, stops = processes.total([sum(labels), share.problem is not None, stop])
        if bad:
            processes.raise_together(share.problem)
        factor = rate(self.step, settings)
        set_rate(self.optimizers, factor, settings)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(2, dtype=torch.float64)
        for i, piece in enumerate(share.pieces):
            batch, noise = piece.batch.to(self.device), piece.drawn.to(self.device)
            with processes.hold(self.wrapped, last=i + 1 == len(share.pieces)):
                video, action = self.wrapped(batch, noise, share.with_action)
                video = video * (len(noise.dropped) / share.rows)
                action = action * (labels[i] / max(all_labels, 1))
                # DDP and FSDP average gradients over processes; this loss is to be summed.
                ((video + settings.action_scale * action) * processes.count).backward()
            sums += torch.stack([video, action]).detach().double().cpu()
        values = dict(zip(("video", "action"), processes.total(sums.tolist()), strict=True))
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        values["gradient"] = norm_of(gradients).item()
        wrong = self.divergence.check(self.step, values)
        if wrong is not None:
            raise diverged(wrong, settings, last_good(self.out))
        if self._speaks(self.step + 1):
            self.norms = gradient_norms(self.parameters)
        shrink = settings.clip / (values["gradient"] + 1e-6)
        if shrink < 1:
            for gradient in gradients:
                gradient.mul_(shrink)
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update(self.step)
        return {"lr": factor, **values}, stops > 0

    def _say(self, log: Log, meter: Meter) -> None:
        """A log row; at an evaluation with its signals."""
        row = {**mean_of(self.recent), **self.norms, **meter.row()}
        row |= {"seconds": round(self.seconds, 2), "cpu_seconds": round(self.cpu_seconds, 2)}
        if self._due(self.settings.evaluate_every):
            self.evaluation = self.evaluate(log)
            row |= self.evaluation
        log.write(self.step, row)
        self.recent = []
        meter.reset()

    @torch.no_grad()
    def evaluate(self, log: Log | None = None) -> dict[str, float]:
        """Signals of the averaged weights on held-out windows, at fixed noise; see ``Early``."""
        with self.average.exchanged():
            row = self.early.loss(self.objective, self.processes)
            found, dreams = self.early.measure(self.objective, self.processes)
        if dreams and self.processes.main:
            path = save_strip(dreams, self.out / "dreams" / f"step-{self.step:08d}.png")
            if log is not None:
                log.picture("dream", path, self.step)
        return row | found

    def _finish(self, meter: Meter) -> RunRecord:
        store(self)
        evaluation = self.evaluation or self.evaluate()
        self.average.exchange()
        write_result(self)
        if self.processes.main:
            write_record(self, {**evaluation, **meter.totals()})
        return self.record
