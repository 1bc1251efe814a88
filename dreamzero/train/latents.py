"""Windows as codec latents, all in memory, for recordings small enough."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data.mixture import EPISODES, Ready
from ..types import Batch
from .features import FeatureEncoder

if TYPE_CHECKING:
    from ..data.windows import WindowDataset
    from ..model.codecs.base import Codec
    from ..model.encoders.image import ImageEncoder


@dataclass(eq=False)
class LatentWindows(Ready):
    """All windows of one embodiment at one length.

    Attributes:
        latents: float16 ``[N, c, f, h, w]``; action ``[N, n * k, a]``; state ``[N, n, s]``;
            action_mask bool like action; has_action bool ``[N]``; episode int64 ``[N]``, those of
            recording i numbered from ``EPISODES * i`` on; prompt int64 ``[N]`` into ``prompts``; row
            int64 ``[N]``, where each begins.
        recordings: their folders, in order.
        first_frame: float16 like latents, of [first frame, grey ...], where the model reads them.
        image_features: float16 ``[N, 257, d]`` of the first frames, where the model reads them.

    At 352 x 640 a full window of the 14B model takes 2.7 MB: a thousand episodes fit into memory,
    recordings of DROID's size do not (``CachedWindows`` reads them from disk).
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
    first_frame: Tensor | None = None
    image_features: Tensor | None = None
    row: Tensor | None = None
    recordings: Sequence[str] = ()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By name, without those that the model does not read."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    def __len__(self) -> int:
        return len(self.latents)

    def where(self, index: int) -> str:
        """Recording, episode and frame of a window, for people."""
        recording, episode = divmod(int(self.episode[index]), EPISODES)
        name = self.recordings[recording] if recording < len(self.recordings) else "recording"
        frame = "" if self.row is None else f", frame {int(self.row[index])}"
        return f"{name}, episode {episode}{frame}"

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
            first_frame=None if self.first_frame is None else self.first_frame[index].float(),
            image_features=(
                None if self.image_features is None else self.image_features[index].float()
            ),
        )

    @classmethod
    def collect(cls, windows: WindowDataset, batches: Iterable[Batch]) -> LatentWindows:
        """From batches that are all windows in their order."""
        prompts: dict[str, int] = {}
        ids: list[int] = []
        parts: dict[str, list[Tensor]] = {}
        for batch in batches:
            ids += [prompts.setdefault(p, len(prompts)) for p in batch.prompt]
            for name in ("action", "state", "action_mask", "has_action"):
                parts.setdefault(name, []).append(getattr(batch, name))
            for name in ("latents", "first_frame", "image_features"):
                if (features := getattr(batch, name)) is not None:
                    parts.setdefault(name, []).append(features.half().cpu())
        places = [windows.shard(i) for i in range(len(windows))]
        tensors: dict[str, Any] = {name: torch.cat(found) for name, found in parts.items()}
        return cls(
            **tensors,
            episode=torch.tensor([EPISODES * which + episode for which, episode in places]),
            prompt=torch.tensor(ids),
            row=torch.tensor([windows.start_row(i) for i in range(len(windows))]),
            recordings=[str(dataset.root) for dataset in windows.datasets],
            prompts=list(prompts),
            embodiment=windows.card.name,
        )


def encode_windows(
    windows: WindowDataset,
    codec: Codec,
    action_dim: int,
    state_dim: int,
    progress: bool = True,
    first_frame: bool = False,
    image_encoder: ImageEncoder | None = None,
) -> LatentWindows:
    """Decode and encode windows once, where the codec and the image encoder are."""
    from tqdm.auto import tqdm

    encoder = FeatureEncoder(codec, action_dim, state_dim, first_frame, image_encoder)
    starts = tqdm(range(0, len(windows), 32), desc="encode windows", disable=not progress)
    numbers = (range(i, min(i + 32, len(windows))) for i in starts)
    return LatentWindows.collect(windows, (encoder(windows.batch(n)) for n in numbers))
