"""Windows as codec latents, encoded once and kept in memory (and in a file beside the run)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import UserError
from ..model.conditioning import first_frame_latents
from ..types import Batch

if TYPE_CHECKING:
    from ..data.windows import Window, WindowDataset
    from ..model.codecs.base import Codec
    from ..model.encoders.image import ImageEncoder

# Episodes a recording may have, at most, in the numbering of ``LatentWindows.episode``.
EPISODES = 10**6
# Video that is encoded at a time: 32 full windows of 64 x 64, one of 352 x 640.
PIXELS = 32 * 33 * 64 * 64


@dataclass(eq=False)
class LatentWindows:
    """All windows of one embodiment at one length.

    Attributes:
        latents: float16 ``[N, c, f, h, w]``; action ``[N, n * k, a]``; state ``[N, n, s]``;
            action_mask bool like action; has_action bool ``[N]``; episode int64 ``[N]``;
            prompt int64 ``[N]`` into ``prompts``; row int64 ``[N]``, where each begins.
        recordings: folders, by the number that ``episode`` holds in units of ``EPISODES``.
        first_frame: float16 like latents, of [first frame, grey ...], where the model reads them.
        image_features: float16 ``[N, 257, d]`` of the first frames, where the model reads them.

    At 352 x 640 a full window of the 14B model takes 2.7 MB: a thousand episodes fit into memory,
    recordings of DROID's size do not.
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

    _TENSORS = ("latents", "action", "state", "action_mask", "has_action", "episode", "prompt")
    _OPTIONAL = ("first_frame", "image_features", "row")

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By name, without those that the model does not read."""
        found = {name: getattr(self, name) for name in (*self._TENSORS, *self._OPTIONAL)}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

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

    def save(self, path: Path) -> None:
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        metadata = {"embodiment": self.embodiment, "prompts": "\n".join(self.prompts)}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".partial")
        save_file(tensors, temporary, metadata)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> LatentWindows:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        prompts = metadata["prompts"].split("\n")
        return cls(prompts=prompts, embodiment=metadata["embodiment"], **cast("Any", tensors))

    @classmethod
    def join(cls, parts: Sequence[LatentWindows]) -> LatentWindows:
        """The windows of several recordings of one robot, one after the other."""
        prompts: dict[str, int] = {}
        joined = {
            name: torch.cat([part.tensors[name] for part in parts])
            for name in parts[0].tensors
            if name != "prompt"
        }
        ids = []
        for part in parts:
            own = torch.tensor([prompts.setdefault(p, len(prompts)) for p in part.prompts])
            ids.append(own[part.prompt])
        return cls(
            **cast("Any", joined),
            prompt=torch.cat(ids),
            prompts=list(prompts),
            embodiment=parts[0].embodiment,
        )


def _read(windows: WindowDataset, index: int) -> Window:
    """One window; UserError with its place where it cannot be read or holds what is no number."""
    which, episode, start = windows.place(index)
    place = f"{windows.datasets[which].root}, episode {episode}, at {start:.2f} s"
    try:
        found = windows[index]
    except (UserError, MemoryError):
        raise
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{place}: cannot be read ({line}); mend or leave out the episode"
        ) from error
    for name in ("action", "state"):
        if not np.isfinite(getattr(found, name)).all():
            raise UserError(
                f"{place} (frame {found.start_row}): {name} is not finite; mend or leave out the "
                "episode"
            )
    return found


def _pad(x: Sequence[np.ndarray], width: int) -> Tensor:
    stacked = torch.from_numpy(np.stack(x))
    return torch.nn.functional.pad(stacked, (0, width - stacked.shape[-1]))


@torch.no_grad()
def encode_windows(
    windows: WindowDataset,
    codec: Codec,
    action_dim: int,
    state_dim: int,
    progress: bool = True,
    which: Sequence[int] | None = None,
    first_frame: bool = False,
    image_encoder: ImageEncoder | None = None,
) -> LatentWindows:
    """Decode and encode windows once, where the codec and the image encoder are.

    Args:
        action_dim, state_dim: the model's widths, to which actions and states are zero-padded.
        which: numbers of the windows; all by default.
        first_frame: also encode [first frame, grey ...].
        image_encoder: also keep its features of the first frames.
    """
    from tqdm.auto import tqdm

    from ..model.codecs import to_float

    assert isinstance(codec, torch.nn.Module)
    device = next(codec.parameters()).device
    height, width = windows.card.canvas_px
    frames = 1 + windows.blocks * windows.card.frames_per_block
    batch = min(32, max(1, PIXELS // (frames * height * width)))
    rows: dict[str, list[Tensor]] = {}
    prompts: dict[str, int] = {}
    numbers = range(len(windows)) if which is None else which
    starts = range(0, len(numbers), batch)
    for start in tqdm(starts, desc="encode windows", disable=not progress):
        chunk = [_read(windows, i) for i in numbers[start : start + batch]]
        video = torch.stack([to_float(w.video) for w in chunk]).to(device)
        ids = [prompts.setdefault(w.prompt, len(prompts)) for w in chunk]
        latents = codec.encode(video)
        found = {
            "latents": latents.half().cpu(),
            "action": _pad([w.action for w in chunk], action_dim),
            "state": _pad([w.state for w in chunk], state_dim),
            "action_mask": _pad([w.action_mask for w in chunk], action_dim),
            "has_action": torch.tensor([w.has_action for w in chunk]),
            "episode": torch.tensor([w.episode for w in chunk]),
            "row": torch.tensor([w.start_row for w in chunk]),
            "prompt": torch.tensor(ids),
        }
        if first_frame:
            alone = first_frame_latents(codec, video[:, :, :1], latents.shape[2])
            found["first_frame"] = alone.half().cpu()
        if image_encoder is not None:
            found["image_features"] = image_encoder.encode(video[:, :, 0]).half().cpu()
        for name, tensor in found.items():
            rows.setdefault(name, []).append(tensor)
    tensors = {name: torch.cat(parts) for name, parts in rows.items()}
    return LatentWindows(
        prompts=list(prompts), embodiment=windows.card.name, **cast("Any", tensors)
    )


def encode_cached(
    windows: WindowDataset,
    codec: Codec,
    action_dim: int,
    state_dim: int,
    folder: Path,
    progress: bool = True,
    first_frame: bool = False,
    image_encoder: ImageEncoder | None = None,
) -> LatentWindows:
    """As ``encode_windows``, with one file a recording in ``folder`` that is found again.

    A file's name holds a digest of all that its content depends on (recording, card, statistics,
    window length and stride, codec, image encoder), so that no stale one is ever taken. Episodes of recording i
    are numbered from ``EPISODES * i`` on.
    """
    card = windows.card.to_json()
    del card["memory_blocks"]  # the policy's alone
    shared: dict[str, Any] = {
        "card": card,
        "statistics": windows.normalizer and windows.normalizer.statistics.to_json(),
        "cut": [windows.blocks, windows.stride, windows.idle, action_dim, state_dim],
        "codec": _digest(codec),
        "format": 2,  # with rows
    }
    if first_frame or image_encoder is not None:
        image = None if image_encoder is None else _digest(image_encoder)
        shared["first_frame"] = {"channels": first_frame, "image_encoder": image}
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
                windows,
                codec,
                action_dim,
                state_dim,
                progress,
                which,
                first_frame,
                image_encoder,
            )
            part.save(path)
        part.episode += EPISODES * number
        parts.append(part)
    joined = parts[0] if len(parts) == 1 else LatentWindows.join(parts)
    joined.recordings = [str(dataset.root) for dataset in windows.datasets]
    return joined


def _digest(network: object) -> str:
    """Of a network's weights."""
    assert isinstance(network, torch.nn.Module)
    found = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(
            tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return found.hexdigest()
