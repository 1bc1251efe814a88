"""What notebook 03 measures of speed: one optimisation after the other, and how near the machine's limits.

``climb`` times whole chunks, from the newest camera frames to actions, at the last position of the
window. Every way takes its turn in every round, so that a busy machine slows all of them alike, and
starts from the same frames and noise. ``limits`` says what single parts cost beside the best that
this machine was measured to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ..flow import STEP_MASKS, Reuse, SamplerConfig, sample
from ..inference import Engine, EngineConfig, WorldActionPolicy
from ..inference.ceilings import Ceilings, Work
from ..inference.reference import Reference, Seen
from ..model import conditioning
from ..model.bundle import WorldActionModel
from ..model.codecs import to_float

PLAIN, KEPT, ENGINE = "plain path", "keys and values kept", "the engine"
UNGUIDED, MASKED, DYNAMIC = "guidance off", "step cache, 8 of 16", "step cache, dynamic"
FEW, BF16 = "4 steps instead of 16", "bfloat16"


@dataclass(frozen=True)
class Rung:
    """One way to make a chunk.

    Attributes:
        seconds: float ``[n]``, of whole chunks.
        evaluations, branches, kv_writes: what one chunk held; KV writes of one branch.
        tier: what the engine calls it: "exact" and "numeric" are beside the plain path with the same
            sampler, "approximate" leaves evaluations out.
        difference, step: relative difference of its actions (normalised) from the first rung's, and
            from those of the rung before it.
    """

    label: str
    seconds: np.ndarray
    evaluations: int
    branches: int
    kv_writes: int
    tier: str
    difference: float
    step: float

    @property
    def ms(self) -> float:
        """Median milliseconds a chunk."""
        return 1e3 * float(np.median(self.seconds))

    @property
    def rate_hz(self) -> float:
        """Chunks a second."""
        return 1e3 / self.ms

    @property
    def held(self) -> str:
        """What one chunk held, in words."""
        writes = f"{self.kv_writes} KV write{'' if self.kv_writes == 1 else 's'}"
        return f"{self.evaluations} x {self.branches} evaluations, {writes}"


def ratio(before: Rung, after: Rung) -> float:
    """How many times as long ``before`` takes: median of the ratios of each round."""
    return float(np.median(before.seconds / after.seconds))


@dataclass(frozen=True)
class Climb:
    """All rungs, in the order of ``climb``."""

    rungs: tuple[Rung, ...]

    def __getitem__(self, label: str) -> Rung:
        return next(rung for rung in self.rungs if rung.label == label)

    def gain(self, label: str) -> float:
        """How many times as fast a rung is as the plain path."""
        return ratio(self.rungs[0], self[label])

    def line(self, label: str) -> str:
        """A rung beside the one before it, for readers."""
        rung = self[label]
        made = f"{rung.ms:.1f} ms, {rung.rate_hz:.1f} chunks/s ({rung.held})"
        place = self.rungs.index(rung)
        if not place:
            return f"{label}: {made}"
        before = self.rungs[place - 1]
        return (
            f"{label}: {made}\n{ratio(before, rung):.2f} x as fast as '{before.label}', "
            f"{self.gain(label):.1f} x the plain path\n{rung.tier}: actions differ by {rung.step:.0e} "
            f"from the bar before, by {rung.difference:.0e} from the plain path"
        )

    def rows(self) -> list[dict[str, Any]]:
        """Rows of a table."""
        return [
            {
                "": rung.label,
                "ms a chunk": round(rung.ms, 1),
                "chunks/s": round(rung.rate_hz, 1),
                "faster than plain": f"{self.gain(rung.label):.1f} x",
                "a chunk holds": rung.held,
                "tier": rung.tier,
                "actions differ by": f"{rung.difference:.1e}",
            }
            for rung in self.rungs
        ]

    @property
    def steps(self) -> tuple[Rung, ...]:
        """Rungs for the chart: without bfloat16 where it is no faster than what is before it."""
        *others, last = self.rungs
        return self.rungs if ratio(others[-1], last) > 1 else tuple(others)


@torch.inference_mode()
def climb(
    model: WorldActionModel,
    views: Mapping[str, np.ndarray],
    state: np.ndarray,
    instruction: str,
    rounds: int = 8,
    seed: int = 0,
    guidance: float = 5.0,
) -> Climb:
    """Time a chunk behind a full window in ever faster ways.

    Args:
        views: view name -> uint8 ``[1 + n * frames a block, h, w, 3]``, what was observed; n is
            one less than the blocks of the window.
        state: float32 ``[s]`` after it.
        rounds: of all ways in turn; one more comes first and is not counted.
    """
    guided = SamplerConfig(steps=16, guidance=guidance)
    plain = SamplerConfig(steps=16, guidance=1.0)
    engine = Engine(model.transformer)
    half = Engine(model.transformer, EngineConfig(precision="bf16"))
    four = SamplerConfig(steps=4, guidance=1.0)
    ours = {
        ENGINE: (guided, engine),
        UNGUIDED: (plain, engine),
        MASKED: (SamplerConfig(steps=16, guidance=1.0, step_mask=STEP_MASKS[8]), engine),
        DYNAMIC: (SamplerConfig(steps=16, guidance=1.0, reuse=Reuse()), engine),
        FEW: (four, engine),
        BF16: (four, half),
    }
    runs = {label: _observed(model, *how, views, state, instruction) for label, how in ours.items()}
    window = _Window(runs[ENGINE], views, state, seed)
    ways: dict[str, Callable[[], Tensor]] = {
        PLAIN: window.reference(Reference(model.transformer, guided)),
        KEPT: window.reference(Reference(model.transformer, guided, keep=True)),
        **{label: window.engine(policy) for label, policy in runs.items()},
    }
    actions = {label: way() for label, way in ways.items()}
    times: dict[str, list[float]] = {label: [] for label in ways}
    for _ in range(rounds):
        for label, way in ways.items():
            times[label].append(_timed(way, engine.device))
    wanted = before = actions[PLAIN]
    rungs = []
    for label, spent in times.items():
        found = runs.get(label)
        evaluations = guided.evaluations if found is None else found.session.evaluations
        writes = guided.evaluations * window.pieces if label == PLAIN else 1
        branches = 2 if found is None else found.sampler.branches
        tier = "exact" if found is None else found.session.engine.tier(found.sampler)
        apart, step = _apart(actions[label], wanted), _apart(actions[label], before)
        before = actions[label]
        rungs.append(Rung(label, np.array(spent), evaluations, branches, writes, tier, apart, step))
    return Climb(tuple(rungs))


def _observed(
    model: WorldActionModel,
    sampler: SamplerConfig,
    engine: Engine,
    views: Mapping[str, np.ndarray],
    state: np.ndarray,
    instruction: str,
) -> WorldActionPolicy:
    """A policy that has seen all of it, with a window as long as it can be."""
    most = model.card().blocks - 1
    policy = WorldActionPolicy(model, sampler=sampler, engine=engine, memory_blocks=most)
    policy.reset(instruction)
    policy.observe({v: frames[:1] for v, frames in views.items()}, state)
    per_block = policy.card.frames_per_block
    for start in range(1, len(next(iter(views.values()))), per_block):
        policy.observe({v: f[start : start + per_block] for v, f in views.items()}, state)
    return policy


class _Window:
    """The same chunk for every way: what was seen, the newest frames, and the noise."""

    def __init__(
        self,
        policy: WorldActionPolicy,
        views: Mapping[str, np.ndarray],
        state: np.ndarray,
        seed: int,
    ) -> None:
        session, model, config = policy.session, policy.model, policy.model.transformer.config
        self.codec, self.device = model.codec, policy.device
        canvas = to_float(policy._canvas(views)).unsqueeze(0).to(self.device)
        per_block = policy.card.frames_per_block
        latents, past = self.codec.encode_next(canvas[:, :, :1])
        found = [latents]
        for piece in canvas[:, :, 1:].split(per_block, 2):
            self.newest, self.past = piece, past
            latents, past = self.codec.encode_next(piece, past)
            found.append(latents)
        self.pieces = len(found)
        normal = torch.from_numpy(policy.normalizer.state(state))
        self.state = torch.zeros(1, 1, config.state_dim)
        self.state[0, 0, : len(normal)] = normal
        image = conditioning.image_features(model, canvas[:, :, :1])
        self.seen = Seen(
            session.cast(torch.cat(found, 2)), session.texts, session.cast(self.state),
            None if image is None else session.cast(image), session.first,
        )  # fmt: skip
        generator = torch.Generator().manual_seed(seed)

        def noise(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(self.device)

        self.video = noise(1, config.out_channels, config.frames_per_block, *session.size)
        self.action = noise(1, policy.card.horizon, config.action_dim)

    def reference(self, path: Reference) -> Callable[[], Tensor]:
        """The plain path; with ``keep`` it writes the newest block once a chunk."""
        path.prepare(self.seen)

        def way() -> Tensor:
            self.encode()
            path.renew(self.seen)
            return path.chunk(self.seen, self.video, self.action)[1]

        return way

    def engine(self, policy: WorldActionPolicy) -> Callable[[], Tensor]:
        """A session whose window ends with the newest block, which is written again."""
        session = policy.session

        def way() -> Tensor:
            latents = self.encode()
            session.cache.rewind(latents.shape[2])
            session.write(session.cast(latents))
            return sample(session.chunk(self.state), self.video, self.action, session.sampler)[1]

        return way

    def encode(self) -> Tensor:
        """Latents of the newest block."""
        return self.codec.encode_next(self.newest, self.past)[0]


@dataclass(frozen=True)
class Part:
    """One part of a chunk: what it has to do, and how long it took (median)."""

    label: str
    work: Work
    seconds: float

    @property
    def intensity(self) -> float:
        """Floating-point operations for every byte that has to move."""
        return self.work.flops / self.work.bytes


@dataclass(frozen=True)
class Limits:
    """Parts of a chunk beside this machine's measured ceilings."""

    ceilings: Ceilings
    parts: tuple[Part, ...]

    def percent(self, label: str) -> float:
        """Of the ceiling that binds a part: of products, or of the bandwidth where that is lower."""
        part = next(p for p in self.parts if p.label == label)
        return max(self.ceilings.percent(part.work, part.seconds))

    def rows(self) -> list[dict[str, Any]]:
        """Rows of a table."""
        out = []
        for part in self.parts:
            products, bandwidth = self.ceilings.percent(part.work, part.seconds)
            out.append(
                {
                    "part": part.label,
                    "ms": round(1e3 * part.seconds, 2),
                    "MFLOP": round(part.work.flops / 1e6, 1),
                    "MB": round(part.work.bytes / 1e6, 2),
                    "FLOP a byte": round(part.intensity, 1),
                    "of the products' ceiling": f"{products:.0f} %",
                    "of the bandwidth": f"{bandwidth:.0f} %",
                }
            )
        return out


@torch.inference_mode()
def limits(
    model: WorldActionModel,
    views: Mapping[str, np.ndarray],
    state: np.ndarray,
    instruction: str,
    repeats: int = 20,
    seed: int = 0,
) -> Limits:
    """Measure the ceilings, and an evaluation, a KV write and an encoding behind a full window.

    Floating-point operations are those of products, attention and convolutions; bytes are weights,
    window and what goes in and comes out, read or written once.

    Args:
        views: view -> uint8 ``[t, h, w, 3]``, what a full window has seen; state: float32 ``[s]``.
    """
    sampler = SamplerConfig(steps=4, guidance=1.0)
    engine = Engine(model.transformer)
    policy = _observed(model, sampler, engine, views, state, instruction)
    window, session = _Window(policy, views, state, seed), policy.session
    latents = window.encode()
    frames = latents.shape[2]

    def write() -> None:
        session.cache.rewind(frames)
        session.write(session.cast(latents))

    given = session.chunk(window.state).inputs(window.video, window.action, 999, 999)
    calls: dict[str, Callable[[], Any]] = {
        "evaluation": lambda: session.evaluate(given, 1),
        "KV write": write,
        "encode": window.encode,
    }
    layout, cached = engine.network.layout, session.cache.frames
    work = {
        "evaluation": Work.of(
            engine, session, layout(cached, frames, session.size, session.horizon, 1)
        ),
        "KV write": Work.of(engine, session, layout(cached - frames, frames, session.size, 0, 1)),
        "encode": _encoding(window, latents),
    }
    times: dict[str, list[float]] = {label: [] for label in calls}
    for turn in range(repeats + 1):
        for label, call in calls.items():
            spent = _timed(call, engine.device)
            times[label] += [spent] if turn else []
    ceilings = Ceilings.measure(engine.device, engine.dtype)
    parts = (Part(label, work[label], float(np.median(times[label]))) for label in calls)
    return Limits(ceilings, tuple(parts))


def _encoding(window: _Window, latents: Tensor) -> Work:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        window.encode()
    # Codecs keep what turns pixels into latents in a module of this name.
    encoder = cast(torch.nn.Module, getattr(window.codec, "encoder"))  # noqa: B009
    moved: Sequence[Tensor] = [*encoder.parameters(), window.newest, latents]
    return Work(
        float(counter.get_total_flops()), float(sum(t.numel() * t.element_size() for t in moved))
    )


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def _timed(call: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
