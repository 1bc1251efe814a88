"""Where a picture holds the gripper's tip: an instrument for scoring dreams in centimetres.

A small network sees two frames, as latents of the codec that all small models share, and where the tip was
in the first; it says how far it moved. It never sees a model of ours, only demonstrations of the expert.
Its own error on episodes it did not learn from is kept with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import UserError

if TYPE_CHECKING:
    from ..sim import Tabletop

# Scenes that it learns from: far from those of recordings and of evaluations.
_SCENES = 500_000_000
_EVERY = 2  # rows of an episode between two frames that it may see
_SCALE_M, _MIDDLE_M, _SPREAD_M = 0.04, (0.06, 0.0, 0.06), 0.05  # of movements; of the tip's places


class MotionReader(nn.Module):
    """Movement of the tip between two frames, from their latents and where it was in the first.

    Args:
        channels: of a latent; side: tokens a row of it (8 at 64 px).
        width, hidden: of the two convolutions, and of the layer before the answer.

    Attributes:
        error_m: mean distance to the truth over held-out movements of a chunk; still_m: the same for
            the guess that nothing moved.
    """

    def __init__(
        self, channels: int = 24, side: int = 8, width: int = 64, hidden: int = 128
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2 * channels + 3, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width // 2, 1),
            nn.GELU(),
            nn.Flatten(),
            nn.Dropout(0.4),
            nn.Linear(width // 2 * side**2, hidden),
            nn.GELU(),
            nn.Linear(hidden, 3),
        )
        self.error_m = self.still_m = float("nan")

    def forward(self, before: Tensor, after: Tensor, start: Tensor) -> Tensor:
        """``before, after [n, c, side, side]``, ``start [n, 3]`` in m -> movement ``[n, 3]`` in m."""
        place = (start - start.new_tensor(_MIDDLE_M)) / _SPREAD_M
        spread = place[:, :, None, None].expand(-1, -1, *before.shape[2:])
        seen = torch.cat([before, after - before, spread], 1)
        moved: Tensor = self.layers(seen) * _SCALE_M
        return moved

    @torch.inference_mode()
    def read(
        self, codec: Any, before: np.ndarray, after: np.ndarray, start: np.ndarray
    ) -> np.ndarray:
        """Place of the tip in each second frame.

        Args:
            before, after: uint8 ``[n, h, w, 3]``; start: ``[n, 3]``, m, of the first.

        Returns:
            float64 ``[n, 3]``, m, in the frame of ``start``.
        """
        places = torch.as_tensor(start, dtype=torch.float32)
        moved = self(latents(codec, before), latents(codec, after), places)
        return np.asarray(start, np.float64) + moved.double().numpy()

    def save(self, path: Path | str) -> None:
        """One safetensors file in half precision, with its error."""
        facts = {"error_m": str(self.error_m), "still_m": str(self.still_m)}
        tensors = {n: x.half().contiguous() for n, x in self.state_dict().items()}
        save_file(tensors, str(path), metadata=facts)

    @classmethod
    def load(cls, path: Path | str) -> MotionReader:
        """What ``save`` wrote; UserError where it is not there."""
        if not Path(path).is_file():
            raise UserError(
                f"{path}: no such reader; `python -m dreamzero.evaluate.reader` makes one"
            )
        reader = cls()
        with safe_open(str(path), "pt") as file:
            reader.load_state_dict({n: file.get_tensor(n).float() for n in file.keys()})  # noqa: SIM118
            facts = file.metadata()
        reader.error_m, reader.still_m = float(facts["error_m"]), float(facts["still_m"])
        return reader.eval()


@torch.inference_mode()
def latents(codec: Any, frames: np.ndarray) -> Tensor:
    """Each frame's own latent: uint8 ``[n, h, w, 3]`` -> float32 ``[n, c, h/8, w/8]``."""
    from ..model.codecs import to_float

    pieces = np.array_split(frames, 1 + len(frames) // 256)
    return torch.cat([codec.encode(to_float(p[:, None]))[:, :, 0] for p in pieces])


def fit(
    env: Tabletop, codec: Any, episodes: int = 400, steps: int = 3000, seed: int = 0
) -> MotionReader:
    """A reader of the environment's arm; the first eighth of the episodes is held out for its error.

    Args:
        episodes: of the expert, disturbed and begun midway as in recordings; a tenth of a second each.
        steps: of AdamW, 128 pairs of frames each.
    """
    from ..sim import rollout_expert, sample_scene

    joints, pictures, tips = len(env.arm.joints), [], []
    for number in range(_SCENES, _SCENES + episodes):
        scene = sample_scene("seen", number)
        episode = rollout_expert(env, scene, number, noise=0.5, midway=0.4)
        pictures.append(latents(codec, next(iter(episode.frames.values()))[::_EVERY]))
        tips.append([env.solver.tip(s[:joints].astype(float)) for s in episode.state[::_EVERY]])
    seen, places = torch.stack(pictures), torch.tensor(np.array(tips), dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    held = max(1, episodes // 8)

    def pairs(low: int, high: int, count: int, gaps: tuple[int, int]) -> tuple[Tensor, ...]:
        which = torch.randint(low, high, (count,), generator=generator)
        first = torch.randint(0, seen.shape[1], (count,), generator=generator)
        second = first + torch.randint(*gaps, (count,), generator=generator)
        second = second.clamp(0, seen.shape[1] - 1)
        a, b = places[which, first], places[which, second]
        return seen[which, first].clone(), seen[which, second].clone(), a, b - a

    torch.manual_seed(seed)
    reader = MotionReader(seen.shape[2], seen.shape[3])
    optimizer = torch.optim.AdamW(reader.parameters(), 1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        before, after, start, moved = pairs(held, episodes, 128, (-6, 7))
        # Dreams are no exact latents of any frame.
        before += 0.1 * torch.randn(before.shape, generator=generator)
        after += 0.1 * torch.randn(after.shape, generator=generator)
        error = (reader(before, after, start) - moved).square().sum(1).mean() / _SCALE_M**2
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        schedule.step()
    reader.eval()
    with torch.inference_mode():
        before, after, start, moved = pairs(0, held, 2000, (4, 5))  # a chunk of eight actions
        reader.error_m = float((reader(before, after, start) - moved).norm(dim=1).mean())
        reader.still_m = float(moved.norm(dim=1).mean())
    return reader


def main() -> None:
    """Fit the reader of the SO-101 and write it where the notebooks look for it."""
    import argparse

    from ..model import codecs
    from ..shipped import find
    from ..sim import Tabletop

    parser = argparse.ArgumentParser(
        prog="python -m dreamzero.evaluate.reader", description=__doc__
    )
    parser.add_argument("--out", type=Path, default=Path("reports/experiments/reader.safetensors"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    reader = fit(Tabletop("so101"), codecs.load(find("tiny_so101") / "vae"))
    reader.save(given.out)
    print(f"{given.out}: {100 * reader.error_m:.2f} cm, of {100 * reader.still_m:.2f} cm moved")


if __name__ == "__main__":
    main()
