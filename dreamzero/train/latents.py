"""Windows as codec latents, encoded once and kept in memory (and in a file beside the run)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..types import Batch

if TYPE_CHECKING:
    from ..data.windows import WindowDataset
    from ..model.codecs.base import Codec

# Episodes a recording may have, at most, in the numbering of ``LatentWindows.episode``.
EPISODES = 10**6


@dataclass
class LatentWindows:
    """All windows of one embodiment at one length.

    Attributes:
        latents: float16 ``[N, c, f, h, w]``; action ``[N, n * k, a]``; state ``[N, n, s]``;
            action_mask bool like action; has_action bool ``[N]``; episode int64 ``[N]``;
            prompt int64 ``[N]`` into ``prompts``.
    """

    latents: Tensor
    action: Tensor
    state: Tensor
    action_mask: Tensor
    has_action: Tensor
    episode: Tensor
    prompt: Tensor
    prompts: list[str]
    embodiment: str

    _TENSORS = ("latents", "action", "state", "action_mask", "has_action", "episode", "prompt")

    def __len__(self) -> int:
        return len(self.latents)

    def batch(self, index: Tensor) -> Batch:
        """The windows at ``index [b]`` as float32 tensors."""
        return Batch(
            latents=self.latents[index].float(),
            action=self.action[index],
            state=self.state[index],
            action_mask=self.action_mask[index],
            has_action=self.has_action[index],
            prompt=[self.prompts[i] for i in self.prompt[index].tolist()],
            embodiment=self.embodiment,
        )

    def save(self, path: Path) -> None:
        tensors = {name: getattr(self, name).contiguous() for name in self._TENSORS}
        metadata = {"embodiment": self.embodiment, "prompts": "\n".join(self.prompts)}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".partial")
        save_file(tensors, temporary, metadata)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> LatentWindows:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in cls._TENSORS}
            metadata = file.metadata()
        prompts = metadata["prompts"].split("\n")
        return cls(**tensors, prompts=prompts, embodiment=metadata["embodiment"])

    @classmethod
    def join(cls, parts: Sequence[LatentWindows]) -> LatentWindows:
        """The windows of several recordings of one robot, one after the other."""
        prompts: dict[str, int] = {}
        joined = {
            name: torch.cat([getattr(part, name) for part in parts])
            for name in cls._TENSORS
            if name != "prompt"
        }
        ids = []
        for part in parts:
            own = torch.tensor([prompts.setdefault(p, len(prompts)) for p in part.prompts])
            ids.append(own[part.prompt])
        return cls(
            **joined,
            prompt=torch.cat(ids),
            prompts=list(prompts),
            embodiment=parts[0].embodiment,
        )


def _pad(x: Sequence[np.ndarray], width: int) -> Tensor:
    stacked = torch.from_numpy(np.stack(x))
    return torch.nn.functional.pad(stacked, (0, width - stacked.shape[-1]))


@torch.no_grad()
def encode_windows(
    windows: WindowDataset,
    codec: Codec,
    action_dim: int,
    state_dim: int,
    batch: int = 32,
    progress: bool = True,
    which: Sequence[int] | None = None,
) -> LatentWindows:
    """Decode and encode windows once.

    Args:
        action_dim, state_dim: the model's widths, to which actions and states are zero-padded.
        which: numbers of the windows; all by default.
    """
    from tqdm.auto import tqdm

    from ..model.codecs import to_float

    rows: dict[str, list[Tensor]] = {name: [] for name in LatentWindows._TENSORS}
    prompts: dict[str, int] = {}
    numbers = range(len(windows)) if which is None else which
    starts = range(0, len(numbers), batch)
    for start in tqdm(starts, desc="encode windows", disable=not progress):
        chunk = [windows[i] for i in numbers[start : start + batch]]
        video = torch.stack([to_float(w.video) for w in chunk])
        rows["latents"].append(codec.encode(video).half())
        rows["action"].append(_pad([w.action for w in chunk], action_dim))
        rows["state"].append(_pad([w.state for w in chunk], state_dim))
        rows["action_mask"].append(_pad([w.action_mask for w in chunk], action_dim))
        rows["has_action"].append(torch.tensor([w.has_action for w in chunk]))
        rows["episode"].append(torch.tensor([w.episode for w in chunk]))
        ids = [prompts.setdefault(w.prompt, len(prompts)) for w in chunk]
        rows["prompt"].append(torch.tensor(ids))
    tensors = {name: torch.cat(parts) for name, parts in rows.items()}
    return LatentWindows(**tensors, prompts=list(prompts), embodiment=windows.card.name)


def encode_cached(
    windows: WindowDataset,
    codec: Codec,
    action_dim: int,
    state_dim: int,
    folder: Path,
    progress: bool = True,
) -> LatentWindows:
    """As ``encode_windows``, with one file a recording in ``folder`` that is found again.

    A file's name holds a digest of all that its content depends on (recording, card, statistics,
    window length and stride, codec), so that no stale one is ever taken. Episodes of recording i
    are numbered from ``EPISODES * i`` on.
    """
    card = windows.card.to_json()
    del card["memory_blocks"]  # the policy's alone
    shared = {
        "card": card,
        "statistics": windows.normalizer and windows.normalizer.statistics.to_json(),
        "cut": [windows.blocks, windows.stride, windows.idle, action_dim, state_dim],
        "codec": _digest(codec),
    }
    parts = []
    for number, dataset in enumerate(windows.datasets):
        which = [i for i in range(len(windows)) if windows.place(i)[0] == number]
        if not which:
            continue
        files = sorted(p for p in dataset.root.rglob("*") if p.is_file())
        facts = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
        text = json.dumps(shared | {"recording": facts}, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        path = folder / f"{windows.card.name}-{windows.blocks}-{key}.safetensors"
        if path.exists():
            part = LatentWindows.load(path)
        else:
            part = encode_windows(
                windows, codec, action_dim, state_dim, progress=progress, which=which
            )
            part.save(path)
        part.episode += EPISODES * number
        parts.append(part)
    return parts[0] if len(parts) == 1 else LatentWindows.join(parts)


def _digest(codec: Codec) -> str:
    """Of a codec's weights."""
    assert isinstance(codec, torch.nn.Module)
    found = hashlib.sha256()
    for name, tensor in sorted(codec.state_dict().items()):
        found.update(name.encode())
        found.update(
            tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return found.hexdigest()
