"""The engine: one model on one device, made ready once, and the sessions that share it."""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError
from ..flow import SamplerConfig, sample
from ..model.transformer import DreamZeroTransformer
from .config import FAST, EngineConfig, Tier
from .network import Inputs, Network
from .ops import Ops, PlainOps
from .parallel import Parallel, Share
from .session import Session

GIB = 2**30
# Tokens that cross-attention keeps a prompt: UMT5's longest prompt and CLIP's image.
TEXT_TOKENS, IMAGE_TOKENS = 512, 257


@dataclass(frozen=True)
class Errors:
    """Relative errors (||a - b|| / ||b||) of an engine that rounds, on a seeded random window.

    Attributes:
        video, action: velocities of one evaluation; decoded: actions at the end of a chunk.
    """

    video: float
    action: float
    decoded: float


class Engine:
    """Makes a transformer ready once; every session keeps its own window.

    Args:
        transformer: on the device to run on.
        config: how to compute.
        parallel: the processes that compute together (``parallel.start``), each with this model.

    Raises:
        UserError: options that this device does not have.
    """

    def __init__(
        self,
        transformer: DreamZeroTransformer,
        config: EngineConfig | None = None,
        parallel: Parallel | None = None,
    ) -> None:
        self.config, self.parallel = config or EngineConfig(), parallel
        self.transformer = transformer
        weight = transformer.proj_out.weight
        self.device, self.stored = weight.device, weight.dtype
        self.dtype = self.config.computes_in(self.stored)
        # What crosses between processes is not captured.
        self.graphs = self.config.uses("graphs", self.device) and parallel is None
        self.sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self.errors: Errors | None = None
        self._seen: int | None = None
        self.refresh()

    @torch.inference_mode()
    def refresh(self) -> None:
        """Make the weights ready again if they changed since (training goes on beside a policy)."""
        if self._seen is not None and (self._seen == self._fingerprint() or self._offloads):
            return
        source = self.transformer
        if self.dtype != self.stored:
            # diffusers' own ``to`` warns of layers to be kept in float32; there are none.
            source = torch.nn.Module.to(copy.deepcopy(source), self.dtype)
        eps = self.transformer.config.eps
        ops: Ops = PlainOps(eps)
        if self.config.uses("kernels", self.device):
            from .kernel_ops import KernelOps

            ops = KernelOps(eps)
        exact = self.config.exact(self.stored)
        wanted = None if exact else _answers(Network(self.transformer, PlainOps(eps)))
        fp8 = self.config.precision == "fp8"
        self.network = Network(source, ops, fp8, offload=self._offloads)
        if wanted is not None:
            got = _answers(self.network)
            self.errors = Errors(*(_relative(a, b) for a, b in zip(got, wanted, strict=True)))
        self._seen = self._fingerprint()

    @property
    def _offloads(self) -> bool:
        return self.config.precision == "fp8" and not self.config.keep_originals

    def _fingerprint(self) -> int:
        weights = self.transformer.parameters()
        # Tensors made in inference mode have no version: nothing can be said of changes in place.
        return hash(tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in weights))

    def tier(self, sampler: SamplerConfig) -> Tier:
        """What a chunk of this sampler may be called."""
        return self.config.tier(sampler, self.stored)

    def share(self, branches: int) -> Share:
        """What this process computes of a session: everything, unless others compute with it."""
        if self.parallel is None:
            return Share()
        return self.parallel.share(branches, self.transformer.config.num_heads)

    def session_bytes(self, size: tuple[int, int], branches: int) -> int:
        """Device memory of one session, estimated: window, prompt, and an evaluation's activations.

        Args:
            size: latent height and width.
        """
        config, share = self.transformer.config, self.share(branches)
        branches = branches if share.branch is None else 1
        patch = config.patch_size
        frame = size[0] // patch[1] * (size[1] // patch[2])
        own = frame * config.frames_per_block + config.horizon + 1
        window = (1 + config.window_blocks * config.frames_per_block) * frame + config.horizon + 1
        prompt = TEXT_TOKENS + (IMAGE_TOKENS if config.image_dim else 0)
        window //= 1 if share.tokens is None else share.tokens.size
        kept = 2 * config.num_layers * (window + prompt) * config.dim
        working = own * (8 * config.dim + 2 * config.ffn_dim)
        return branches * self.dtype.itemsize * (kept + working)

    def free_bytes(self) -> int:
        """Memory that new sessions may still take."""
        if self.config.memory_gib is not None:
            taken = sum(session.bytes for session in self.sessions)
            return int(self.config.memory_gib * GIB) - taken
        if self.device.type == "cuda":
            idle = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(
                self.device
            )
            return torch.cuda.mem_get_info(self.device)[0] + idle
        import psutil

        return int(psutil.virtual_memory().available)

    def close(self) -> None:
        """End all sessions and let go of the weights; the engine is over."""
        for session in list(self.sessions):
            session.close()
        del self.network

    def open(
        self,
        size: tuple[int, int],
        sampler: SamplerConfig = FAST,
        horizon: int | None = None,
    ) -> Session:
        """A session with a window of its own; it ends with ``close`` or when it is forgotten.

        Args:
            size: latent height and width.
            horizon: action steps a chunk; None takes the transformer's.

        Raises:
            UserError: a canvas that does not fit the patches, or no memory left.
        """
        config = self.transformer.config
        if any(n < p or n % p for n, p in zip(size, config.patch_size[1:], strict=True)):
            raise UserError(
                f"engine: latents of {size[0]} x {size[1]} do not divide into patches of "
                f"{config.patch_size[1]} x {config.patch_size[2]}: another canvas is needed"
            )
        grid = tuple(n // p for n, p in zip(size, config.patch_size[1:], strict=True))
        if config.position_grid is not None and grid != tuple(config.position_grid):
            raise UserError(
                f"engine: latents of {size[0]} x {size[1]} are {grid[0]} x {grid[1]} patches; this "
                f"model has places for {' x '.join(map(str, config.position_grid))}: another canvas "
                "is needed"
            )
        needs, free = self.session_bytes(size, sampler.branches), self.free_bytes()
        if needs > free:
            raise UserError(
                f"engine: a session takes {needs / GIB:.2f} GiB ({sampler.branches} branches) and "
                f"{max(free, 0) / GIB:.2f} GiB are left beside {len(self.sessions)} others: close "
                "one, switch guidance off, or raise memory_gib"
            )
        session = Session(self, size, sampler, horizon or config.horizon, needs)
        self.sessions.add(session)
        return session


@torch.inference_mode()
def _answers(network: Network) -> tuple[Tensor, Tensor, Tensor]:
    """First velocities and final actions of a chunk on seeded random input, behind one frame."""
    model, config = network.model, network.config
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(network.device)

    grid = config.position_grid or (4, 4)
    size = (grid[0] * config.patch_size[1], grid[1] * config.patch_size[2])
    frames = model.dream_frames
    text = noise(1, 16, config.text_dim).to(network.dtype)
    image = None
    if config.image_dim is not None:
        image = noise(1, IMAGE_TOKENS, config.image_dim).to(network.dtype)
    extra = config.in_channels - config.out_channels
    first = noise(1, extra, 1 + frames, *size) if extra else None
    context = network.prepare(network.context(text, image))
    cache = model.new_cache(size)
    latents = noise(1, config.out_channels, 1, *size)
    at = network.layout(0, 1, size, 0, 1)
    base = network.base(at, None if first is None else first[:, :, :1])
    network.write(latents, base, at, cache, context)
    state = network.state(noise(1, 1, config.state_dim))
    velocities: list[tuple[Tensor, Tensor]] = []

    def velocity(video: Tensor, action: Tensor, tv: int, ta: int) -> tuple[Tensor, Tensor]:
        modulation = network.modulation(tv, ta)
        at = network.layout(1, frames, size, config.horizon, modulation.rows)
        base = network.base(at, None if first is None else first[:, :, 1:])
        given = Inputs(video, action, base, state, modulation)
        velocities.append(network.evaluate(given, at, cache, context))
        return velocities[-1]

    video = noise(1, config.out_channels, frames, *size)
    _, actions = sample(velocity, video, noise(1, config.horizon, config.action_dim), FAST)
    return (*velocities[0], actions)


def _relative(actual: Tensor, wanted: Tensor) -> float:
    return float((actual - wanted).norm() / wanted.norm())
