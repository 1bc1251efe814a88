"""A model as people keep it: the networks and the robots they know, in a folder.

```text
DIR/transformer/     DreamZeroTransformer      (diffusers layout, safetensors)
DIR/vae/             video codec: ours, or Wan's
DIR/text_encoder/    word encoder, or UMT5 with DIR/tokenizer/ beside it
DIR/image_encoder/   CLIP, where the transformer reads its features
DIR/embodiment.json  card and statistics of every robot the model was trained on
DIR/metrics.json     how it was made (``dreamzero train``)
DIR/release.json     where it came from (``dreamzero checkpoint import``)
```
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..data.normalize import Normalizer, Statistics
from ..embodiments import Embodiment
from ..errors import UserError
from . import codecs, encoders
from .checkpoints import robots as robot_files
from .checkpoints.configs import STEMS
from .checkpoints.loading import load_component
from .checkpoints.shards import DTYPES, open_indexed
from .transformer import DreamZeroTransformer

if TYPE_CHECKING:
    from .codecs.base import Codec
    from .encoders.image import ImageEncoder


@dataclass
class WorldActionModel:
    """Everything that has to travel together for a policy to mean what it was trained to mean.

    Attributes:
        transformer, codec: networks that every model has.
        text_encoder: WordEncoder (small models; trained with the transformer) or UMT5TextEncoder.
        robots: embodiment name -> (card, statistics).
        image_encoder: CLIP for the first frame, or None.
        negative_prompt: what the second branch of guidance reads. DreamZero was released with Wan's
            default one, which its checkpoints do not hold; set it to reproduce guided results.
    """

    transformer: DreamZeroTransformer
    codec: Codec
    text_encoder: Any
    robots: dict[str, tuple[Embodiment, Statistics]] = field(default_factory=dict)
    image_encoder: ImageEncoder | None = None
    negative_prompt: str = ""

    def card(self, name: str | None = None) -> Embodiment:
        """The card of that name, or of the only robot with actions when no name is given."""
        return self._robot(name)[0]

    def normalizer(self, name: str | None = None) -> Normalizer:
        """Scaling of that robot's states and actions."""
        return Normalizer(*self._robot(name))

    def _robot(self, name: str | None) -> tuple[Embodiment, Statistics]:
        acting = [n for n, (card, _) in self.robots.items() if card.has_action]
        if not acting:
            raise UserError(
                "this model knows no robot with actions: it has to be fine-tuned on one"
            )
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
        modules: dict[str, torch.nn.Module] = {
            "transformer": self.transformer,
            "text_encoder": self.text_encoder,
        }
        if self.image_encoder is not None:
            modules["image_encoder"] = self.image_encoder
        for name, module in modules.items():
            stored: Any = (
                module if dtype is None else torch.nn.Module.to(copy.deepcopy(module), dtype)
            )
            stored.save_pretrained(path / name)
        self.codec.save_pretrained(path / "vae")
        for config in path.glob("*/config.json"):
            # Where a part was read from says nothing, and may be nobody's business.
            kept = json.loads(config.read_text())
            kept.pop("_name_or_path", None)
            config.write_text(json.dumps(kept, indent=2) + "\n")
        robots = {
            name: {"card": card.to_json(), "statistics": statistics.to_json()}
            for name, (card, statistics) in self.robots.items()
        }
        (path / "embodiment.json").write_text(json.dumps(robots, indent=1) + "\n")

    @classmethod
    def load(
        cls,
        path: Path | str,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        progress: bool | None = False,
    ) -> WorldActionModel:
        """Read a folder that ``save`` or ``import_checkpoint`` wrote, tensor by tensor.

        Args:
            device: where the weights go; beside them this takes the memory of one tensor.
            dtype: of all weights. By default those of an imported folder stay in the dtype that they
                are stored in, and small models become float32.
            progress: True shows a bar for each network, None one on a terminal only.

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
            if (path / "adapter.json").is_file():
                raise UserError(
                    f"{path} is an adapter: merge it with its base first (`dreamzero checkpoint "
                    f"merge-lora BASE --adapter {path} --out DIR`)"
                )
            what = "has no " + ", ".join(missing) if path.is_dir() else "does not exist"
            raise UserError(
                f"{path} {what}: give the --out folder of `dreamzero train` or of "
                "`dreamzero checkpoint import`"
            )
        robots = robot_files.load(path / "embodiment.json")
        small = encoders.kind_of(path / "text_encoder", "text encoder") == "WordEncoder"

        def component(name: str) -> Any:
            kept = torch.float32 if small else _stored_dtype(path, name)
            return load_component(
                path, name, device=device, dtype=dtype or kept, progress=progress
            ).requires_grad_(False)

        text_encoder: Any
        if small:
            text_encoder = encoders.load_text(path / "text_encoder")
            text_encoder.to(device)
        else:
            from .encoders.text import UMT5TextEncoder, load_tokenizer

            tokenizer = load_tokenizer(path / "tokenizer")
            text_encoder = UMT5TextEncoder(component("text_encoder"), tokenizer)
        try:
            transformer = component("transformer")
        except UserError as error:
            raise UserError(f"{path}: weights do not fit their config.json: {error}") from error
        image_encoder = None
        if (path / "image_encoder").is_dir():
            from .encoders.image import ImageEncoder

            image_encoder = ImageEncoder(component("image_encoder"))
        codec: Any
        if encoders.kind_of(path / "vae", "codec") == "AutoencoderKLWan":
            from .codecs.wan import WanCodec

            codec = WanCodec(component("vae"))
        else:
            codec = codecs.load(path / "vae", dtype or torch.float32)
        codec.to(device).eval().requires_grad_(False)
        return cls(transformer, codec, text_encoder, robots, image_encoder)


def _stored_dtype(path: Path, component: str) -> torch.dtype | None:
    """The dtype of most of a network's numbers; all of them get it, since they are multiplied."""
    weights = open_indexed(path / component, STEMS[component])
    if weights is None:
        return None  # load_component says what is missing
    counts: dict[torch.dtype, int] = {}
    for entry in weights.entries.values():
        kept = DTYPES[entry.dtype]
        if kept.is_floating_point:
            counts[kept] = counts.get(kept, 0) + entry.count
    return max(counts, key=lambda kept: counts[kept], default=None)
