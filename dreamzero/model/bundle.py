"""A model as people keep it: transformer, codec, text encoder and the robots it knows, in a folder.

DIR/transformer/   DreamZeroTransformer      (diffusers layout, safetensors)
DIR/vae/           video codec
DIR/text_encoder/  word encoder
DIR/embodiment.json  card and statistics of every robot the model was trained on
DIR/metrics.json   how it was made
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..data.normalize import Normalizer, Statistics
from ..embodiments import Embodiment
from ..errors import UserError
from . import codecs
from .text import WordEncoder
from .transformer import DreamZeroTransformer

if TYPE_CHECKING:
    from .codecs.base import Codec


@dataclass
class WorldActionModel:
    """Everything that has to travel together for a policy to mean what it was trained to mean.

    Attributes:
        transformer, codec, text_encoder: the three networks.
        robots: embodiment name -> (card, statistics).
    """

    transformer: DreamZeroTransformer
    codec: Codec
    text_encoder: WordEncoder
    robots: dict[str, tuple[Embodiment, Statistics]] = field(default_factory=dict)

    def card(self, name: str | None = None) -> Embodiment:
        """The card of that name, or of the only robot with actions when no name is given."""
        return self._robot(name)[0]

    def normalizer(self, name: str | None = None) -> Normalizer:
        """Scaling of that robot's states and actions."""
        return Normalizer(*self._robot(name))

    def _robot(self, name: str | None) -> tuple[Embodiment, Statistics]:
        acting = [n for n, (card, _) in self.robots.items() if card.has_action]
        if name is None and len(acting) == 1:
            name = acting[0]
        if name is None:
            raise UserError(f"this model knows several robots, name one of: {', '.join(acting)}")
        if name not in self.robots:
            raise UserError(f"this model was not trained on {name!r}; it knows {', '.join(acting)}")
        return self.robots[name]

    def latent_size(self, name: str | None = None) -> tuple[int, int]:
        """Height and width of one latent frame of that robot's canvas."""
        height, width = self.card(name).canvas_px
        return height // self.codec.spatial_factor, width // self.codec.spatial_factor

    def save(self, path: Path | str, dtype: torch.dtype | None = None) -> None:
        """Write the folder; weights in ``dtype`` (as they are by default)."""
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        for name, module in (
            ("transformer", self.transformer),
            ("text_encoder", self.text_encoder),
        ):
            stored = module if dtype is None else torch.nn.Module.to(copy.deepcopy(module), dtype)
            stored.save_pretrained(path / name)
        self.codec.save_pretrained(path / "vae")
        robots = {
            name: {"card": card.to_json(), "statistics": statistics.to_json()}
            for name, (card, statistics) in self.robots.items()
        }
        (path / "embodiment.json").write_text(json.dumps(robots, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu") -> WorldActionModel:
        """Read a folder that ``save`` wrote; weights become float32 on ``device``.

        Raises:
            UserError: not such a folder, or a part of it is missing.
        """
        path = Path(path)
        missing = [
            part
            for part in ("transformer", "vae", "text_encoder", "embodiment.json")
            if not (path / part).exists()
        ]
        if missing:
            what = "has no " + ", ".join(missing) if path.is_dir() else "does not exist"
            raise UserError(f"{path} {what}: give the --out folder of `dreamzero train`")
        robots = {}
        for name, entry in json.loads((path / "embodiment.json").read_text()).items():
            card = Embodiment.from_json(entry["card"])
            robots[name] = (card, Statistics.from_json(entry["statistics"]))
        try:
            transformer = DreamZeroTransformer.from_pretrained(
                path / "transformer", torch_dtype=torch.float32
            )
            text_encoder = WordEncoder.from_pretrained(
                path / "text_encoder", torch_dtype=torch.float32
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"{path}: weights do not fit their config.json: {error}") from error
        model = cls(transformer, codecs.load(path / "vae"), text_encoder, robots)
        for module in (model.transformer, model.text_encoder, model.codec):
            assert isinstance(module, torch.nn.Module)
            module.to(device).eval().requires_grad_(False)
        return model
