"""Windows as codec latents, encoded once and kept in memory (and in a file beside the run)."""

from __future__ import annotations

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
) -> LatentWindows:
    """Decode and encode every window once.

    Args:
        action_dim, state_dim: the model's widths, to which actions and states are zero-padded.
    """
    from tqdm.auto import tqdm

    from ..model.codecs import to_float

    rows: dict[str, list[Tensor]] = {name: [] for name in LatentWindows._TENSORS}
    prompts: dict[str, int] = {}
    starts = range(0, len(windows), batch)
    for start in tqdm(starts, desc="encode windows", disable=not progress):
        chunk = [windows[i] for i in range(start, min(start + batch, len(windows)))]
        video = torch.stack([to_float(w.video) for w in chunk])
        rows["latents"].append(codec.encode(video).half())
        rows["action"].append(_pad([w.action for w in chunk], action_dim))
        rows["state"].append(_pad([w.state for w in chunk], state_dim))
        rows["action_mask"].append(_pad([w.action_mask for w in chunk], action_dim))
        rows["has_action"].append(torch.tensor([w.has_action for w in chunk]))
        rows["episode"].append(torch.tensor([w.dataset * 10**6 + w.episode for w in chunk]))
        ids = [prompts.setdefault(w.prompt, len(prompts)) for w in chunk]
        rows["prompt"].append(torch.tensor(ids))
    tensors = {name: torch.cat(parts) for name, parts in rows.items()}
    return LatentWindows(**tensors, prompts=list(prompts), embodiment=windows.card.name)
