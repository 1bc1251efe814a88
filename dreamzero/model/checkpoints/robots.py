"""The robots of a public checkpoint: statistics from ``metadata.json``, order from ``conf.yaml``.

A robot read wrongly runs without a word and moves like another one, so everything is checked here:
tag, fields, quantiles, and how they were normalised.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import embodiments
from ...data.normalize import FieldStatistics, Statistics, relative_to
from ...embodiments import FRAMES_PER_LATENT, Embodiment, Field
from ...errors import UserError

VIDEO_HZ = 5.0
_CARDS = {"oxe_droid": "droid"}
_ORDERS = ("video_concat_order", "state_concat_order", "action_concat_order")
Robots = dict[str, tuple[Embodiment, Statistics]]


@dataclass(frozen=True)
class Geometry:
    """What the cards take from the transformer: steps a block, blocks, (height, width) of the canvas,
    latent frames a block."""

    horizon: int
    blocks: int
    canvas_px: tuple[int, int] | None = None
    latent_frames: int = 2


def read(
    folder: Path,
    geometry: Geometry,
    tags: Sequence[str] = (),
    prompt: str | None = None,
    allow_constant: bool = False,
) -> Robots:
    """Card and statistics of every robot in ``folder/experiment_cfg``.

    Args:
        folder: of the checkpoint.
        geometry: of its transformer.
        tags: only these; by default all that metadata.json has statistics of.
        prompt: template with ``{instruction}`` for all of them; by default that of the built-in
            card, or the instruction alone.
        allow_constant: take dimensions with q01 == q99 as constants.

    Raises:
        UserError: a file is missing or unreadable, an unknown tag, fields without statistics.
    """
    metadata_path = folder / "experiment_cfg" / "metadata.json"
    conf_path = folder / "experiment_cfg" / "conf.yaml"
    for path, what in ((metadata_path, "statistics"), (conf_path, "order of the fields")):
        if not path.is_file():
            raise UserError(
                f"{path} is missing, and with it the {what}: without it actions mean nothing"
            )
    metadata = _json(metadata_path)
    known = [tag for tag, entry in metadata.items() if isinstance(entry, Mapping)]
    for tag in tags:
        if tag not in known:
            raise UserError(
                f"{metadata_path} has no embodiment {tag!r}; it knows {', '.join(known) or 'none'}"
            )
    conf = _yaml(conf_path)
    robots = {}
    for tag in tags or known:
        robot = _Robot(tag, metadata[tag], conf, metadata_path, conf_path)
        robots[tag] = robot.build(geometry, prompt, allow_constant)
    if not robots:
        raise UserError(f"{metadata_path} has statistics of no embodiment")
    return robots


def load(path: Path) -> Robots:
    """Read ``embodiment.json``; UserError if it is something else."""
    try:
        return {
            tag: (Embodiment.from_json(entry["card"]), Statistics.from_json(entry["statistics"]))
            for tag, entry in _json(path).items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no cards and statistics ({error!r})") from error


@dataclass(frozen=True)
class _Robot:
    tag: str
    metadata: Mapping[str, Any]
    conf: Mapping[str, Any]
    metadata_path: Path
    conf_path: Path

    def build(
        self, geometry: Geometry, prompt: str | None, allow_constant: bool
    ) -> tuple[Embodiment, Statistics]:
        order = self._order()
        statistics = Statistics(
            *(
                {key: self._field(kind, key, allow_constant) for key in order[kind]}
                for kind in ("state", "action")
            )
        )
        relative = self._relative(order["action"])
        known = {"state": statistics.state, "action": statistics.action}
        fields: dict[str, list[Field]] = {"state": [], "action": []}
        for kind, numbers in known.items():
            at = 0
            for key in order[kind]:
                width = len(numbers[key].q01)
                unit = "1" if "gripper" in key else "rad"
                is_relative = kind == "action" and key in relative
                fields[kind].append(Field(key, at, at + width, is_relative, unit))
                at += width
        card = self._card(geometry, order["video"], fields)
        relative_to(card.action, card.state)  # every relative action has its state
        return card if prompt is None else card.with_(prompt=_checked(prompt)), statistics

    def _card(
        self, geometry: Geometry, views: list[str], fields: dict[str, list[Field]]
    ) -> Embodiment:
        state, action = tuple(fields["state"]), tuple(fields["action"])
        span_s = geometry.latent_frames * FRAMES_PER_LATENT / VIDEO_HZ
        rates = {
            "name": self.tag,
            "video_hz": VIDEO_HZ,
            "action_hz": geometry.horizon / span_s,
            "horizon": geometry.horizon,
            "latent_frames": geometry.latent_frames,
            "blocks": geometry.blocks,
            "canvas_px": geometry.canvas_px or self._canvas(len(views)),
        }
        built_in = _CARDS.get(self.tag)
        if built_in is not None:
            card = embodiments.get(built_in).with_(**rates)
            if (card.state, card.action, len(card.views)) == (state, action, len(views)):
                return card
        return Embodiment(
            robot=self.tag,
            views=tuple(f"observation.images.{view}" for view in views),
            layout="single" if len(views) == 1 else "grid",
            state=state,
            action=action,
            has_action=bool(action),
            **rates,  # type: ignore[arg-type]
        )

    def _order(self) -> dict[str, list[str]]:
        """Fields of "video", "state" and "action" as they are concatenated, without their prefix."""
        found = next(
            (
                node
                for scope in self._scopes()
                for node in mappings(scope)
                if any(name in node for name in _ORDERS)
            ),
            None,
        )
        if found is None:
            raise UserError(
                f"{self.conf_path} has no concat order for embodiment {self.tag!r}: the order of "
                "its fields cannot be known without it"
            )
        order = {}
        for name in _ORDERS:
            kind = name.partition("_")[0]
            keys = found.get(name) or []
            if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
                raise UserError(f"{self.conf_path}: {name} of {self.tag} is no list of names")
            order[kind] = [key.removeprefix(f"{kind}.") for key in keys]
        return order

    def _scopes(self) -> Iterator[Any]:
        """Where conf.yaml keeps the transforms of this robot, the one used in training first."""
        for node in mappings(self.conf):
            transforms = node.get("all_transforms")
            if isinstance(transforms, Mapping) and self.tag in transforms:
                yield transforms[self.tag]
        for node in mappings(self.conf):
            if f"transform_{self.tag}" in node:
                yield node[f"transform_{self.tag}"]

    def _field(self, kind: str, key: str, allow_constant: bool) -> FieldStatistics:
        where = f"{self.metadata_path}: {self.tag}.statistics.{kind}.{key}"
        try:
            numbers = self.metadata["statistics"][kind][key]
            q01, q99 = (np.asarray(numbers[name], np.float64) for name in ("q01", "q99"))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{where} is missing or lacks q01 and q99: actions need them"
            ) from error
        if q01.ndim > 1 or q01.shape != q99.shape or not np.isfinite([q01, q99]).all():
            raise UserError(f"{where}: q01 and q99 should be lists of the same length, of numbers")
        statistics = Statistics.from_json({kind: {key: numbers}})
        for i, (low, high) in enumerate(zip(np.atleast_1d(q01), np.atleast_1d(q99), strict=True)):
            if low > high:
                raise UserError(f"{where}[{i}]: q01 = {low:g} is above q99 = {high:g}")
            if low == high and not allow_constant:
                raise UserError(
                    f"{where}[{i}]: q01 == q99 == {low:g}, which nothing can be scaled by; if that "
                    "dimension never moves, say --allow-constant"
                )
        self._check_mode(kind, key)
        return getattr(statistics, kind)[key]  # type: ignore[no-any-return]

    def _check_mode(self, kind: str, key: str) -> None:
        for node in mappings(next(self._scopes(), {})):
            modes = node.get("normalization_modes")
            mode = modes.get(f"{kind}.{key}") if isinstance(modes, Mapping) else None
            if mode not in (None, "q99"):
                raise UserError(
                    f"{self.conf_path}: {kind}.{key} of {self.tag} is normalised by {mode!r}; only "
                    "q99 is known here"
                )

    def _relative(self, action: list[str]) -> set[str]:
        if not self._setting("relative_action", False):
            return set()
        keys = self._setting("relative_action_keys", None)
        if keys is None:
            return {key for key in action if "gripper" not in key}
        return {str(key).removeprefix("action.") for key in keys}

    def _canvas(self, views: int) -> tuple[int, int]:
        height = self._setting("image_resolution_height", 176)
        width = self._setting("image_resolution_width", 320)
        return (height, width) if views == 1 else (2 * height, 2 * width)

    def _setting(self, key: str, default: Any) -> Any:
        """First value of that key anywhere in conf.yaml, interpolations followed."""
        for node in mappings(self.conf):
            if key in node:
                value = _resolve(node[key], self.conf)
                return default if value is None else value
        return default


def _resolve(value: Any, root: Mapping[str, Any], depth: int = 0) -> Any:
    """Follow an interpolation ``${a.b}`` from the root; None where it leads nowhere."""
    found = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    if found is None:
        return value
    node: Any = root
    for part in found[1].split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return None if depth > 8 else _resolve(node, root, depth + 1)


def mappings(node: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping below a node, the outer ones first."""
    queue = deque([node])
    while queue:
        node = queue.popleft()
        if isinstance(node, Mapping):
            yield node
            queue.extend(node.values())
        elif isinstance(node, list):
            queue.extend(node)


def _checked(prompt: str) -> str:
    try:
        if "{instruction}" in prompt and prompt.format(instruction="x"):
            return prompt
    except (KeyError, IndexError, ValueError):
        pass
    raise UserError(f"--prompt {prompt!r} should have {{instruction}} in it, and no other braces")


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no JSON ({error}): download it again") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} holds a {type(data).__name__} where an object belongs")
    return data


def _yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is no YAML ({error}): download it again") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} holds a {type(data).__name__} where a mapping belongs")
    return data
