"""Watching a policy at work: where a chunk's time goes, and what every evaluation saw and said.

    with Probe(policy) as probe:
        policy.observe(...); policy.act()
    probe.milliseconds()          # {"encode": ..., "KV write": ..., "evaluations": ..., ...}

The model's own methods are wrapped while the block lasts; nothing is computed differently.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..inference import WorldActionPolicy
    from ..model.blocks import ContextKV
    from ..model.cache import KVCache
    from ..model.transformer import DreamZeroTransformer

PARTS = ("encode", "KV write", "evaluations", "decode", "rest")


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of the model: the noisy latents it saw and the sample it believed in.

    Attributes:
        sigma: of the video; noisy, clean: ``[1, c, f, h, w]``; clean = noisy - sigma * velocity.
    """

    sigma: float
    noisy: Tensor
    clean: Tensor


@dataclass
class Probe:
    """Wraps a policy's parts for the length of a ``with`` block.

    Args:
        policy: any ``WorldActionPolicy``; both branches of guidance run in one evaluation.
        keep: keep every evaluation of the first branch in ``evaluations``.

    Attributes:
        seconds: part -> seconds spent in it, one entry a call.
        total_s: seconds inside ``observe`` and ``act``, one entry a call of ``act``.
    """

    policy: WorldActionPolicy
    keep: bool = False
    seconds: dict[str, list[float]] = field(default_factory=dict, init=False)
    total_s: list[float] = field(default_factory=list, init=False)
    evaluations: list[Evaluation] = field(default_factory=list, init=False)
    _pending_s: float = field(default=0.0, init=False)
    _inside: bool = field(default=False, init=False)

    def __enter__(self) -> Self:
        self.seconds = {part: [] for part in PARTS[:-1]}
        codec, session = self.policy.model.codec, self.policy.session
        self._restore = [
            wrap(codec, "encode_next", self._timed("encode")),
            wrap(codec, "decode_next", self._timed("decode")),
            wrap(session, "write", self._timed("KV write")),
            wrap(session, "evaluate", self._evaluate),
            wrap(self.policy, "observe", self._outer(ends_chunk=False)),
            wrap(self.policy, "act", self._outer(ends_chunk=True)),
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for restore in self._restore:
            restore()

    def milliseconds(self) -> dict[str, float]:
        """Milliseconds a chunk of every part: median call times calls a chunk. "rest" is what is left
        of the median chunk: scheduler, noise, normalising."""
        calls = self.calls()
        parts = {p: 1e3 * calls[p] * float(np.median(s or [0.0])) for p, s in self.seconds.items()}
        return parts | {"rest": max(0.0, 1e3 * self.chunk_s - sum(parts.values()))}

    def calls(self) -> dict[str, float]:
        """Mean number of calls a chunk."""
        n = max(len(self.total_s), 1)
        return {part: len(spent) / n for part, spent in self.seconds.items()}

    @property
    def chunk_s(self) -> float:
        """Median seconds of a chunk, observing included."""
        return float(np.median(self.total_s or [0.0]))

    def _timed(self, part: str) -> Callable[..., Any]:
        def wrapper(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
            started = _now(self.policy.device)
            out = call(*args, **options)
            if self._inside:  # others may use the codec meanwhile
                self.seconds[part].append(_now(self.policy.device) - started)
            return out

        return wrapper

    def _evaluate(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        out = self._timed("evaluations")(call, *args, **options)
        if self.keep:
            noisy, timestep = args[0].video, args[0].timestep
            sigma = timestep / 1000
            clean = noisy - sigma * out[0][:1]
            self.evaluations.append(Evaluation(sigma, noisy.clone(), clean))
        return out

    def _outer(self, ends_chunk: bool) -> Callable[..., Any]:
        def wrapper(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
            started = _now(self.policy.device)
            self._inside = True
            out = call(*args, **options)
            self._inside = False
            self._pending_s += _now(self.policy.device) - started
            if ends_chunk:
                self.total_s.append(self._pending_s)
                self._pending_s = 0.0
            return out

        return wrapper


@dataclass(frozen=True)
class Comparison:
    """One evaluation against the cache, and the same after recomputing all that it holds.

    Attributes:
        cached_s, recomputed_s: seconds, float ``[n]``, measured in turn.
        difference: largest absolute difference of the velocities.
        cached_tokens, new_tokens: what attention sees besides, and what is computed.
    """

    cached_s: np.ndarray
    recomputed_s: np.ndarray
    difference: float
    cached_tokens: int
    new_tokens: int

    @property
    def ratio(self) -> float:
        """How many times as long recomputing takes (medians)."""
        return float(np.median(self.recomputed_s) / np.median(self.cached_s))


@torch.inference_mode()
def compare_cache(
    transformer: DreamZeroTransformer,
    context: list[ContextKV],
    latents: Tensor,
    repeats: int = 20,
    seed: int = 0,
) -> Comparison:
    """Time one evaluation with and without the cache, in turn, on the same noise.

    Args:
        latents: ``[1, c, f, h, w]``, what was observed: a first frame and whole blocks. Without a
            cache all of it goes through the model again (block by block, as causal attention
            wants) before every evaluation.
    """
    config, device = transformer.config, latents.device
    per_block = config.frames_per_block
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    size = (latents.shape[3], latents.shape[4])
    video = noise(1, latents.shape[1], per_block, *size)
    action, state = noise(1, config.horizon, config.action_dim), noise(1, 1, config.state_dim)
    times = torch.full((1, per_block), 999.0, device=device)
    action_times = torch.full((1, config.horizon), 999.0, device=device)
    kept, scratch = transformer.new_cache(size), transformer.new_cache(size)

    def fill(cache: KVCache) -> None:
        cache.reset()
        for piece in latents.split([1] + [per_block] * ((latents.shape[2] - 1) // per_block), 2):
            zeros = torch.zeros(1, piece.shape[2], device=device)
            transformer.step(piece, zeros, context, cache)

    def evaluate(cache: KVCache) -> tuple[Tensor, Tensor | None]:
        return transformer.step(video, times, context, cache, action, action_times, state)

    fill(kept)
    rows, difference = [], 0.0
    for _ in range(repeats):
        started = _now(device)
        fast = evaluate(kept)
        middle = _now(device)
        fill(scratch)
        slow = evaluate(scratch)
        rows.append((middle - started, _now(device) - middle))
        for a, b in zip(fast, slow, strict=True):
            assert a is not None and b is not None
            difference = max(difference, float((a - b).abs().max()))
    frame = kept.length // kept.frames
    seconds = np.array(rows)
    return Comparison(
        seconds[:, 0],
        seconds[:, 1],
        difference,
        kept.length,
        per_block * frame + config.horizon + 1,
    )


def wrap(owner: Any, name: str, wrapper: Callable[..., Any]) -> Callable[[], None]:
    """Put ``wrapper(call, ...)`` in place of a method; returns what takes it away again."""
    call = getattr(owner, name)

    def replaced(*args: Any, **options: Any) -> Any:
        return wrapper(call, *args, **options)

    # On the instance, past nn.Module's own __setattr__; removing it uncovers the class's method.
    object.__setattr__(owner, name, replaced)
    return lambda: object.__delattr__(owner, name)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
