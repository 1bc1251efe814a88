"""The layouts in which people keep these weights, and what each of their tensors is here.

- ``release``: model*.safetensors with names ``action_head.*``, config.json, experiment_cfg/; where a LoRA
  training saved everything, its changes count as merged
- ``wan``: diffusion_pytorch_model*.safetensors beside ``.pth`` files of T5, CLIP and VAE
- ``diffusers``: model_index.json, transformer/ vae/ text_encoder/ image_encoder/ tokenizer/
- ``lora``: model.safetensors with ``lora_A`` and ``lora_B``, under ``base_model.model.``
- ``ours``: what ``import`` writes (diffusers' folders and embodiment.json)
- ``adapter``: what ``import --base`` writes (adapter.json, adapter_model.safetensors)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ...errors import UserError
from .configs import STEMS
from .names import COMPONENTS, EXTRA, PREFIXES, Piece, canonical, pieces, split, unused
from .peft_names import WrappedWeights, scale_of
from .shards import Entry, PickledWeights, Weights, open_indexed

Kind = Literal["release", "wan", "diffusers", "lora", "ours", "adapter"]
CODERS = ("state_encoder.", "action_encoder.", "action_decoder.")
ADAPTER_WEIGHTS, ADAPTER_FACTS = "adapter_model.safetensors", "adapter.json"
_ACCEPTED = (
    "a DreamZero checkpoint (model.safetensors.index.json, config.json, experiment_cfg/), an original "
    "Wan repository (diffusion_pytorch_model*.safetensors, *.pth), Wan in the Diffusers layout "
    "(model_index.json), a LoRA save, or a folder that import wrote"
)
# Original Wan repositories: how the files of the three encoders begin.
_WAN_FILES = {"text_encoder": "models_t5_", "image_encoder": "models_clip_", "vae": "Wan2."}
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ("*.safetensors", "*.json", "*.pth", "*.yaml", "*.model", "*.txt")
_HUB_LEFT = ("tensorrt/*", "*.onnx", "*.trt", "*optimizer*", "global_step*", "xlm-roberta*")


@dataclass
class Part:
    """Some weights of a layout.

    Attributes:
        component: whose they are, or None where the release's prefixes tell.
        ours: names are already ours (the library's), not the release's.
    """

    weights: Weights
    component: str | None = None
    ours: bool = False

    def release_name(self, name: str) -> str:
        """The release's full name of one of the tensors (not for ``ours``)."""
        return name if self.component is None else PREFIXES[self.component] + name

    def pieces(self, name: str) -> list[Piece]:
        """What the tensor is here; empty for what no part of the model reads."""
        if not self.ours:
            return [] if unused(name) else pieces(self.release_name(name))
        assert self.component is not None
        if self.component == EXTRA:
            return [Piece(EXTRA, name)]
        return [Piece(self.component, canonical(self.component, name))]


@dataclass
class Layout:
    """A checkpoint on disk, opened: all headers read and checked, no weights.

    Attributes:
        kind: which of the layouts.
        parts: its weights.
        tokenizer: folder of tokenizer files, where it has one.
        stem: stem of the weight files' names (release and LoRA).
    """

    path: Path
    kind: Kind
    parts: list[Part] = field(default_factory=list)
    tokenizer: Path | None = None
    stem: str = "model"

    def tensors(self) -> Iterator[tuple[str, Entry]]:
        """(component, entry) of every tensor; component "adapter" for LoRA saves."""
        for part in self.parts:
            for name, entry in part.weights.entries.items():
                if self.kind in ("lora", "adapter"):
                    yield "adapter", entry
                else:
                    yield part.component or split(name)[0], entry

    def shapes(self, component: str) -> dict[str, tuple[int, ...]]:
        """Release name without prefix -> shape (layouts with the release's names only)."""
        return {
            part.release_name(name).removeprefix(PREFIXES[component]): entry.shape
            for part in self.parts
            if not part.ours
            for name, entry in part.weights.entries.items()
            if part.release_name(name).startswith(PREFIXES[component])
        }


def open_layout(path: str | Path, revision: str | None = None, fetch: bool = True) -> Layout:
    """Recognise a checkpoint and read its headers.

    Args:
        path: a folder, or ``owner/name`` on the Hub (downloaded into its cache; goes on where an
            earlier download stopped).
        revision: branch or commit on the Hub.
        fetch: download what the Hub's cache lacks; else only look there.

    Raises:
        UserError: no such folder, none of the layouts, a broken file, or the Hub cannot be reached.
    """
    folder = Path(path)
    # With a folder OWNER here, OWNER/NAME is a slip of the pen, not a name on the Hub.
    if not folder.exists() and _HUB_NAME.fullmatch(str(path)) and not folder.parent.is_dir():
        folder = download(str(path), revision, fetch)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {what}: give a folder or OWNER/NAME on the Hub")
    if (folder / ADAPTER_FACTS).is_file():
        weights = Weights.open(folder / ADAPTER_WEIGHTS)
        return Layout(folder, "adapter", [Part(weights, "transformer", ours=True)])
    if (folder / "model_index.json").is_file() or (folder / "embodiment.json").is_file():
        return _folders(folder)
    for stem in ("model", "adapter_model"):
        weights_or_none = open_indexed(folder, stem)
        if weights_or_none is not None:
            return _release(folder, weights_or_none, stem)
    transformer = open_indexed(folder, "diffusion_pytorch_model")
    if transformer is not None and (folder.parent / "model_index.json").is_file():
        raise UserError(f"{folder} is one component of {folder.parent}: give that folder")
    if transformer is not None:
        return _wan(folder, transformer)
    if (folder / "high_noise_model").is_dir():
        raise UserError(
            f"{folder} is Wan 2.2 A14B, two transformers by noise level; DreamZero starts from Wan "
            "2.1 14B or Wan 2.2 TI2V-5B"
        )
    raise UserError(f"{folder} is no checkpoint that is known here; known: {_ACCEPTED}")


def _release(folder: Path, weights: Weights, stem: str) -> Layout:
    if any(".base_layer." in name for name in weights):
        rank, alpha = scale_of(folder)
        weights = WrappedWeights(weights, alpha / rank)
    elif any(".lora_A." in name or ".lora_B." in name for name in weights):
        return Layout(folder, "lora", [Part(weights)], stem=stem)
    foreign = [name for name in weights if not name.startswith(tuple(PREFIXES.values()))]
    if foreign:
        raise UserError(
            f"{folder} holds {foreign[0]} ({len(foreign)} such names), which no DreamZero "
            f"checkpoint has; its names begin with {', '.join(PREFIXES.values())}"
        )
    return Layout(folder, "release", [Part(weights)], stem=stem)


def _wan(folder: Path, transformer: Weights) -> Layout:
    layout = Layout(folder, "wan", [Part(transformer, "transformer")])
    for component, begin in _WAN_FILES.items():
        found = sorted(folder.glob(f"{begin}*.pth"))
        if len(found) > 1:
            raise UserError(
                f"{folder} holds several {begin}*.pth: leave the one that belongs there"
            )
        if found:
            layout.parts.append(Part(PickledWeights(found[0]), component))
    tokenizer = folder / "google" / "umt5-xxl"
    layout.tokenizer = tokenizer if tokenizer.is_dir() else None
    return layout


def _folders(folder: Path) -> Layout:
    ours = (folder / "embodiment.json").is_file()
    layout = Layout(folder, "ours" if ours else "diffusers")
    for component in (*COMPONENTS, EXTRA):
        stem = STEMS.get(component, "model")
        weights = open_indexed(folder / component, stem)
        if weights is None and stem == "model":  # small models keep their own text encoder
            weights = open_indexed(folder / component, "diffusion_pytorch_model")
        if weights is not None:
            layout.parts.append(Part(weights, component, ours=True))
    if not layout.parts or layout.parts[0].component != "transformer":
        raise UserError(
            f"{folder}/transformer holds no {STEMS['transformer']}.safetensors: download it again"
        )
    tokenizer = folder / "tokenizer"
    layout.tokenizer = tokenizer if tokenizer.is_dir() else None
    return layout


def download(name: str, revision: str | None = None, fetch: bool = True) -> Path:
    """Snapshot of a Hub repository in the Hub's cache; goes on where an earlier one stopped.

    Args:
        fetch: False only looks into the cache.

    Raises:
        UserError: no such repository, no access, or no network and nothing in the cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(_HUB_FILES),
            ignore_patterns=list(_HUB_LEFT),
            local_files_only=not fetch,
        )
    except LocalEntryNotFoundError as error:
        if not fetch:
            raise UserError(
                f"{name}: no such folder, and not in the Hub's cache; looking at it would download "
                "all of it, which import does"
            ) from error
        raise UserError(
            f"{name}: no such folder, and the Hub cannot be reached while its cache holds nothing "
            "of that name: check the path, or the network (and HF_HUB_OFFLINE)"
        ) from error
    except HfHubHTTPError as error:
        raise UserError(
            f"{name}: no such folder, and the Hub refuses it ({type(error).__name__}): check the "
            "name, and for a private one log in with `hf auth login`"
        ) from error
    except Exception as error:
        # Transport errors come from httpx or httpx2, whichever this huggingface_hub was built on.
        network = type(error).__module__.partition(".")[0] in ("httpx", "httpx2")
        if not (network or isinstance(error, OSError | ValueError)):
            raise
        raise UserError(
            f"{name}: the download stopped ({type(error).__name__}: {error}); run it again and it "
            "goes on from there"
        ) from error
    return Path(found)


def adapter_facts(layout: Layout) -> dict[str, object]:
    """``adapter.json`` of an imported adapter.

    Raises:
        UserError: it is no JSON object.
    """
    path = layout.path / ADAPTER_FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(facts, dict) and isinstance(facts["base"], dict)
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise UserError(
            f"{path} does not say what the adapter belongs to: import it again"
        ) from error
    return facts
