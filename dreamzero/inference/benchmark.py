"""Measuring the engine beside the plain path, in one run, interleaved, on this machine.

A row says what was timed, at which position of the window, by which path, and what a chunk of it
holds. ``Report.speedups`` is empty unless every comparison of numbers in the same run held.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..flow import sample
from ..model import conditioning
from .ceilings import Ceilings, Work
from .compiled_ops import CompiledOps
from .network import Inputs, Network
from .policy import WorldActionPolicy
from .reference import Reference, Seen, newest

Pair = tuple[Tensor, Tensor]
# Relative error allowed between the engine and the plain path, by the dtype both compute in.
BARS = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
ROUNDED = 0.2


@dataclass(frozen=True)
class Row:
    """One timing: median, 5 % and 95 % quantiles of ``n``.

    Attributes:
        what: "chunk" (the newest frames written, all evaluations), "whole chunk" (from camera frames
            to actions), "evaluation", "KV write", "canvas", ...; path: who computed it.
        cached_frames: latent frames in the window before it, None where that does not matter.
        evaluations, branches, kv_writes: what one chunk held, for whole chunks.
        matmul_percent, bandwidth_percent: of what this machine was measured to do.
    """

    what: str
    path: str
    cached_frames: int | None
    ms: float
    low_ms: float
    high_ms: float
    n: int
    tier: str
    evaluations: int | None = None
    branches: int | None = None
    kv_writes: int | None = None
    matmul_percent: float | None = None
    bandwidth_percent: float | None = None


@dataclass
class Report:
    """All rows, and what allows or forbids to compare them.

    Attributes:
        disagreements: position -> relative error above the bar, where there is one.
        errors: largest relative error of velocities and actions by path, beside the plain path.
        unmeasured: what this run does not say, in words.
    """

    rows: list[Row] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)
    disagreements: list[str] = field(default_factory=list)
    unmeasured: list[str] = field(default_factory=list)
    ceilings: Ceilings | None = None
    memory_gib: dict[str, float] = field(default_factory=dict)

    def find(self, what: str, path: str) -> list[Row]:
        """Rows of one thing by one path, in the order of the window."""
        return [row for row in self.rows if (row.what, row.path) == (what, path)]

    def speedups(self, what: str, path: str = "engine") -> dict[str, list[float]]:
        """Other path -> how many times as long it takes: over all positions together, then at each.
        Empty after a disagreement."""
        if self.disagreements:
            return {}
        ours = {row.cached_frames: row.ms for row in self.find(what, path)}
        found: dict[str, list[float]] = {}
        for other in dict.fromkeys(row.path for row in self.rows if row.what == what):
            pairs = [(r.ms, ours[r.cached_frames]) for r in self.find(what, other)]
            if other != path:
                whole = sum(a for a, _ in pairs) / sum(b for _, b in pairs)
                found[other] = [whole, *(a / b for a, b in pairs)]
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


class Bench:
    """Times one policy's engine against the plain path at every position of the window.

    Args:
        policy: remembers as many blocks as fit (``memory_blocks=None`` of a card that keeps all).
        repeats: timings of each thing.
        seed: of frames, latents and noise.
    """

    def __init__(self, policy: WorldActionPolicy, repeats: int = 10, seed: int = 0) -> None:
        self.repeats = repeats
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.use(policy)
        self.report = Report(ceilings=Ceilings.measure(self.device, self.engine.dtype))

    def use(self, policy: WorldActionPolicy) -> Bench:
        """Go on with another policy; its rows join the same report."""
        self.policy, self.engine = policy, policy.session.engine
        self.device = self.engine.device
        return self

    def fill(self) -> Bench:
        """Bring the session to the last position of the window, with random latents."""
        session = self.policy.session
        latents = self._begin()
        session.write(latents[:, :, :1])
        for piece in latents[:, :, 1:].split(self.engine.transformer.config.frames_per_block, 2):
            session.write(piece)
        return self

    def _begin(self) -> Tensor:
        """An empty window, and latents to fill it with but for its last block."""
        policy, config = self.policy, self.engine.transformer.config
        policy.reset("push the red block to the left")
        policy.observe({v: self._frames()[:1] for v in policy.card.views}, self._zeros())
        policy.session.begin(self._features(), policy.session.first)
        frames = 1 + (policy.card.blocks - 1) * config.frames_per_block
        return self._noise(1, config.out_channels, frames, *policy.session.size)

    @torch.inference_mode()
    def positions(self, compiled: bool) -> Report:
        """Chunks and evaluations of every path, and the engine's stages, at every position.

        Args:
            compiled: also the engine with torch.compile in place of kernels (at the last position:
                it compiles for each).
        """
        policy, session, config = self.policy, self.policy.session, self.engine.transformer.config
        per_block, blocks = config.frames_per_block, policy.card.blocks
        latents = self._begin()
        session.write(latents[:, :, :1])
        for block in range(blocks):
            frames = 1 + block * per_block
            if block:
                session.write(latents[:, :, frames - per_block : frames])
            seen = Seen(
                session.cast(latents[:, :, :frames]),
                session.texts,
                session.cast(self._noise(1, 1, config.state_dim)),
                self._features(),
                session.first,
            )
            self._compare(seen, compiled and block == blocks - 1)
            self._stages()
        if not compiled:
            self.report.unmeasured.append("torch.compile (compiling takes minutes): give --all")
        return self.report

    def chunks(self, label: str, count: int) -> Row:
        """Whole chunks through the policy (canvas, encoding, write, denoising, denormalising)."""
        policy, session = self.policy, self.policy.session
        views, state = {v: self._frames() for v in policy.card.views}, self._zeros()
        policy.reset("push the red block to the left")
        policy.observe({v: x[:1] for v, x in views.items()}, state)
        info: dict[str, Any] = {}

        def chunk() -> None:
            policy.observe(views, state)
            info.update(policy.act().info)

        for _ in range(policy.card.blocks + 1):
            chunk()  # every position of the window once
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        times = [self._timed(chunk) for _ in range(count)]
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device) / 2**30
            self.report.memory_gib[label] = peak
        row = self._row(
            "whole chunk", label, None, times, info["tier"],
            evaluations=info["evaluations"], branches=session.sampler.branches, kv_writes=1,
        )  # fmt: skip
        return row

    def evaluations(self, label: str) -> Row:
        """One evaluation of all branches at the position that ``fill`` went to."""
        given, branches = self._inputs(), self.policy.sampler.branches
        session = self.policy.session
        self._timed(lambda: session.evaluate(given, branches))
        times = [
            self._timed(lambda: session.evaluate(given, branches)) for _ in range(self.repeats)
        ]
        return self._row("evaluation", label, session.cache.frames, times, self._tier, self._work())

    def _compare(self, seen: Seen, compiled: bool) -> None:
        """Chunks and evaluations of all paths in turn; their numbers first."""
        session, sampler = self.policy.session, self.policy.sampler
        config, transformer = self.engine.transformer.config, self.engine.transformer
        video = self._noise(1, config.out_channels, transformer.dream_frames, *session.size)
        action = self._noise(1, session.horizon, config.action_dim)
        plain, kept = Reference(transformer, sampler), Reference(transformer, sampler, keep=True)
        kept.prepare(seen)
        piece = seen.latents[:, :, -newest(transformer, seen.latents) :]

        def chunk_kept() -> Pair:
            kept.renew(seen)
            return kept.chunk(seen, video, action)

        def chunk_ours() -> Pair:
            session.cache.rewind(piece.shape[2])
            session.write(piece)
            return sample(session.chunk(seen.state), video, action, sampler)

        chunks: dict[str, Callable[[], Pair]] = {
            "reference": lambda: plain.chunk(seen, video, action),
            "kept": chunk_kept,
            "engine": chunk_ours,
        }
        given = self._inputs(seen.state, video, action)
        branches = session.sampler.branches
        once: dict[str, Callable[[], Any]] = {
            "kept": lambda: kept.velocity(seen, video, action, 999, 999),
            "engine": lambda: session.evaluate(given, branches),
        }
        if compiled and self.engine.parallel is None:
            try:
                once["compiled"] = self._compiled(given)
            except Exception as error:  # noqa: BLE001  no compiler here, or none that can
                line = str(error).strip().splitlines()[0]
                self.report.unmeasured.append(f"torch.compile: {type(error).__name__}: {line}")
        frames, wanted = seen.latents.shape[2], chunks["reference"]()
        for path in ("kept", "engine"):
            self._agree(path, chunks[path](), wanted, frames)
        if "compiled" in once:
            self._agree("compiled", once["compiled"](), once["engine"](), frames)
        blocks = (frames - 1) // config.frames_per_block
        writes = {"reference": sampler.evaluations * (1 + blocks)}
        tiers = dict.fromkeys(("reference", "kept", "compiled"), "exact")
        for what, paths in (("chunk", chunks), ("evaluation", once)):
            times: dict[str, list[float]] = {name: [] for name in paths}
            for call in paths.values():
                call()
            for _ in range(self.repeats):
                for name, call in paths.items():
                    times[name].append(self._timed(call))
            for name, spent in times.items():
                whole = what == "chunk"
                self._row(
                    what, name, session.cache.frames, spent, tiers.get(name, self._tier),
                    None if whole else self._work(),
                    evaluations=sampler.evaluations if whole else None,
                    branches=branches,
                    kv_writes=writes.get(name, 1) if whole else None,
                )  # fmt: skip

    def _agree(self, path: str, got: Pair, wanted: Pair, frames: int) -> None:
        """Note how far a path's video and action are from the plain one's."""
        error = max(float((a - b).norm() / b.norm()) for a, b in zip(got, wanted, strict=True))
        self.report.errors[path] = max(self.report.errors.get(path, 0.0), error)
        rounds = path == "engine" and not self.engine.config.exact(self.engine.stored)
        if not error < (ROUNDED if rounds else BARS[self.engine.stored]):
            self.report.disagreements.append(
                f"{path} differs from the reference by {error:.1e} behind {frames} frames"
            )

    def _stages(self) -> None:
        """The engine's parts at this position; the window is left as it was."""
        policy, session, frames = self.policy, self.policy.session, self._frames()
        config, position = self.engine.transformer.config, session.cache.frames
        views = {view: frames for view in policy.card.views}
        video = torch.rand(1, 3, len(frames), *policy.card.canvas_px, generator=self.generator)
        video = (video * 2 - 1).to(self.device)
        _, past = policy.model.codec.encode_next(video[:, :, :1])
        latents = policy.model.codec.encode_next(video, past)[0]

        def write() -> None:
            session.write(session.cast(latents))
            session.cache.rewind(latents.shape[2])

        noise = self._noise(*latents.shape), self._noise(1, session.horizon, config.action_dim)

        def still(video: Tensor, action: Tensor, tv: int, ta: int) -> Pair:
            return video, action

        # As the engine's own velocity asks for it.
        still.fused = self.engine.config.uses("kernels", self.device)  # type: ignore[attr-defined]
        stages: dict[str, Callable[[], Any]] = {
            "canvas": lambda: policy._canvas(views),
            "encode": lambda: policy.model.codec.encode_next(video, past),
            "KV write": write,
            "scheduler": lambda: sample(still, *noise, policy.sampler),
            "decode": lambda: policy.model.codec.decode_next(latents),
        }
        for what, call in stages.items():
            call()
            times = [self._timed(call) for _ in range(self.repeats)]
            work = self._work(write=True) if what == "KV write" else None
            self._row(what, "engine", position, times, self._tier, work)

    def _compiled(self, given: Inputs) -> Callable[[], Any]:
        """The same network with Inductor's code between its products instead of kernels."""
        ops = CompiledOps(self.engine.transformer.config.eps)
        network, session = Network(self.engine.network.model, ops), self.policy.session
        modulation = network.modulation(999, 999)
        own = Inputs(given.video, given.action, given.base, given.state, modulation)
        at = network.layout(
            session.cache.frames, given.video.shape[2], session.size, session.horizon, 1
        )
        context = session._contexts[len(session.branches)]

        def run() -> Any:
            return network.evaluate(own, at, session.cache, context)

        run()
        return run

    def _inputs(
        self, state: Tensor | None = None, video: Tensor | None = None, action: Tensor | None = None
    ) -> Inputs:
        session, config = self.policy.session, self.engine.transformer.config
        if state is None or video is None or action is None:
            state = self._noise(1, 1, config.state_dim)
            frames = self.engine.transformer.dream_frames
            video = self._noise(1, config.out_channels, frames, *session.size)
            action = self._noise(1, session.horizon, config.action_dim)
        return session.chunk(state).inputs(video, action, 999, 999)

    @property
    def _tier(self) -> str:
        return self.engine.tier(self.policy.sampler)

    def _work(self, write: bool = False) -> Work:
        session, config = self.policy.session, self.engine.transformer.config
        at = self.engine.network.layout(
            session.cache.frames, config.frames_per_block, session.size,
            0 if write else session.horizon, 1,
        )  # fmt: skip
        return Work.of(self.engine, session, at)

    def _row(
        self, what: str, path: str, position: int | None, times: list[float], tier: str,
        work: Work | None = None, **holds: Any,
    ) -> Row:  # fmt: skip
        low, middle, high = (1e3 * float(q) for q in np.quantile(times, [0.05, 0.5, 0.95]))
        if work is not None and self.report.ceilings is not None:
            matmul, bandwidth = self.report.ceilings.percent(work, middle / 1e3)
            holds |= {"matmul_percent": matmul, "bandwidth_percent": bandwidth}
        row = Row(what, path, position, middle, low, high, len(times), tier, **holds)
        self.report.rows.append(row)
        return row

    def _timed(self, call: Callable[[], Any]) -> float:
        self._wait()
        started = time.perf_counter()
        call()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _noise(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(self.device)

    def _features(self) -> Tensor | None:
        frame = torch.zeros(1, 3, 1, *self.policy.card.canvas_px, device=self.device)
        features = conditioning.image_features(self.policy.model, frame)
        return None if features is None else self.policy.session.cast(features)

    def _frames(self) -> np.ndarray:
        height, width = self.policy.card.canvas_px
        shape = (self.policy.card.frames_per_block, height // 2, width // 2, 3)
        return self.rng.integers(0, 255, shape, dtype=np.uint8)

    def _zeros(self) -> np.ndarray:
        return np.zeros(self.policy.card.state_dim, dtype=np.float32)
