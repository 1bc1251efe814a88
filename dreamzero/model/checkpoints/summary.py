"""``inspect``: what a checkpoint holds and what it lacks, from headers alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import UserError
from . import robots as robot_files
from .configs import read_config, transformer
from .importer import geometry
from .layouts import CODERS, Kind, Layout, adapter_facts, open_layout
from .names import COMPONENTS, EXTRA, canonical, pieces
from .peft_names import MERGED, WrappedWeights

KINDS: dict[str, str] = {
    "release": "public DreamZero layout",
    "wan": "original Wan repository",
    "diffusers": "Wan in the Diffusers layout",
    "lora": "LoRA save of the release",
    "ours": "folder of this project",
    "adapter": "imported adapter",
}


@dataclass(frozen=True)
class Row:
    """One component: ``bytes`` are those of its tensors, ``dtypes`` count tensors."""

    component: str
    tensors: int
    parameters: int
    dtypes: dict[str, int]
    bytes: int


@dataclass(frozen=True)
class Robot:
    """One embodiment that the checkpoint has statistics of."""

    tag: str
    views: list[str]
    state: dict[str, int]
    action: dict[str, int]
    action_hz: float
    horizon: int
    relative: list[str]


@dataclass
class Summary:
    """What ``inspect --json`` prints.

    Attributes:
        missing: what a policy needs and this does not bring, each with what follows from that.
        notes: what is unusual.
    """

    path: str
    layout: Kind
    components: list[Row]
    files: int
    robots: list[Robot] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def tensors(self) -> int:
        """Number of tensors."""
        return sum(row.tensors for row in self.components)

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(row.parameters for row in self.components)

    @property
    def bytes(self) -> int:
        """Size of the weights, bytes."""
        return sum(row.bytes for row in self.components)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, with the totals."""
        totals = {"tensors": self.tensors, "parameters": self.parameters, "bytes": self.bytes}
        return {**asdict(self), **totals}


def inspect_checkpoint(path: str | Path, revision: str | None = None) -> Summary:
    """Read the headers and configurations of any layout (see ``layouts``).

    Args:
        path: folder, or ``owner/name`` of a snapshot in the Hub's cache (nothing is downloaded).
        revision: branch or commit of that snapshot.

    Raises:
        UserError: see ``open_layout``.
    """
    layout = open_layout(path, revision, fetch=False)
    rows: dict[str, list[Any]] = {name: [] for name in (*COMPONENTS, EXTRA, "adapter")}
    for component, entry in layout.tensors():
        rows[component].append(entry)
    components = []
    for component, entries in rows.items():
        dtypes: dict[str, int] = {}
        for entry in entries:
            dtypes[entry.dtype] = dtypes.get(entry.dtype, 0) + 1
        if entries:
            sizes = (sum(e.count for e in entries), dtypes, sum(e.nbytes for e in entries))
            components.append(Row(component, len(entries), *sizes))
    files = sum(len(part.weights.files) for part in layout.parts)
    summary = Summary(str(path), layout.kind, components, files)
    _robots(layout, summary)
    if layout.kind in ("lora", "adapter"):
        _adapter(layout, summary)
    else:
        _missing(layout, rows, summary)
    return summary


def _robots(layout: Layout, summary: Summary) -> None:
    try:
        for tag, (card, _) in _read_robots(layout).items():
            summary.robots.append(
                Robot(
                    tag,
                    list(card.views),
                    {f.key: f.width for f in card.state},
                    {f.key: f.width for f in card.action},
                    card.action_hz,
                    card.horizon,
                    [f.key for f in card.action if f.relative],
                )
            )
    except UserError as error:
        summary.notes.append(f"robots: {error}")


def _read_robots(layout: Layout) -> robot_files.Robots:
    if layout.kind in ("ours", "adapter"):
        path = layout.path / "embodiment.json"
        return robot_files.load(path) if path.is_file() else {}
    if layout.kind == "release":
        given = read_config(layout.path)
        try:
            given = given["action_head_cfg"]["config"]["diffusion_model_cfg"]
        except (KeyError, TypeError) as error:
            raise UserError(f"config.json has no {error}") from error
        config = transformer(layout.shapes("transformer"), given, "config.json")
        return robot_files.read(layout.path, geometry(config))
    if layout.kind == "lora" and (layout.path / "experiment_cfg").is_dir():
        return robot_files.read(layout.path, robot_files.Geometry(24, 4))
    return {}


def _adapter(layout: Layout, summary: Summary) -> None:
    names = [entry.name for _, entry in layout.tensors()]
    pairs = sum(".lora_B." in name for name in names)
    summary.notes.append(f"{pairs} pairs of low rank, {len(names) - 2 * pairs} whole tensors")
    if layout.kind == "lora":
        summary.missing.append(
            "fingerprint of the base it belongs to (import --base DIR records it)"
        )
        return
    facts: Mapping[str, Any] = adapter_facts(layout)
    base = facts["base"]
    summary.notes.append(
        f"rank {facts['rank']}, alpha {facts['alpha']:g}; belongs to {base['name']} "
        f"(fingerprint {base['fingerprint'][:12]})"
    )
    if not summary.robots:
        summary.notes.append("robots are those of its base")


def _missing(layout: Layout, rows: Mapping[str, list[Any]], summary: Summary) -> None:
    if any(isinstance(part.weights, WrappedWeights) for part in layout.parts):
        summary.notes.append(MERGED)
    has = {component for component, entries in rows.items() if entries}
    part = next((p for p in layout.parts if p.component in (None, "transformer")), None)
    ours: set[str] = set()
    if part is not None:
        for name in part.weights:
            component = part.component
            found = [name] if part.ours else [p.name for p in _known(part.release_name(name))]
            ours |= {canonical(component or "transformer", item) for item in found}
    sees_image = any(".add_k_proj." in name for name in ours)
    needs = [
        ("transformer", True, "nothing to run"),
        ("vae", True, "no video in or out"),
        ("text_encoder", True, "prompts need embeddings made elsewhere"),
        ("image_encoder", sees_image, "the first frame's tokens need it"),
    ]
    for component, needed, why in needs:
        if needed and component not in has:
            summary.missing.append(f"{component}: {why}")
    if ours and not sees_image and not _word_encoder(layout):
        summary.missing.append(
            "image branch: text-to-video weights have none (CLIP keys and values, img_emb), so the "
            "first frame counts as the frame before the block alone; it runs, and may be fine-tuned"
        )
    if layout.tokenizer is None and not _word_encoder(layout):
        summary.missing.append(
            "tokenizer: that of google/umt5-xxl"
            + ("" if layout.kind == "ours" else "; import it with --tokenizer DIR")
        )
    if not any(name.startswith(CODERS) for name in ours):
        summary.missing.append("action and state coders: import initialises them from --seed")
    if not summary.robots:
        summary.missing.append("robots: no statistics, so it cannot act before it is fine-tuned")
    source = layout.path / "release.json"
    if layout.kind == "ours" and source.is_file():
        data = json.loads(source.read_text(encoding="utf-8"))
        summary.notes.append(f"from {data.get('source')} ({KINDS.get(data.get('layout'), '?')})")
        summary.notes += data.get("notes", [])
        if data.get("dtype"):
            summary.notes.append(f"converted to {data['dtype']}: export gives other bytes")


def _word_encoder(layout: Layout) -> bool:
    """Small models of this project have their own encoder, which needs no tokenizer."""
    folder = layout.path / "text_encoder"
    return (folder / "config.json").is_file() and (
        read_config(folder).get("_class_name") == "WordEncoder"
    )


def _known(name: str) -> list[Any]:
    try:
        return list(pieces(name))
    except UserError:
        return []
