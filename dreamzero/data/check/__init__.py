"""What would make a training on a recording wrong, found before it is spent.

Loss falls on misaligned data as it does on good data (MODEL.md 7); only the robot notices.

    findings  what a finding is             rows      time, rate, jumps, idleness, limits
    actions   commands against states       video     frames against rows
    views     cameras swapped or mirrored
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...embodiments import Embodiment
from ...errors import UserError
from ..published import compare
from ..reader import Dataset
from ..resample import validate
from .actions import check_actions
from .findings import NAMES, Finding, Level, grouped, ordered
from .rows import check_rows
from .video import Alignment, Look, check_clock, look
from .views import check_views

__all__ = ["NAMES", "Finding", "check", "grouped"]

# Quirks of the files that a training should know of; the others are notes.
_WARNINGS = ("rate", "episodes-missing", "undescribed", "length", "image-columns", "no-timestamp")
LOOKED_AT = 32


def check(
    dataset: Dataset,
    card: Embodiment | None = None,
    thorough: bool = False,
    progress: bool = False,
) -> list[Finding]:
    """All findings, the worst first.

    Args:
        dataset: an opened dataset; every row is read.
        card: adds its demands (views, widths, joint limits and speeds).
        thorough: decode every episode; by default at most 32, spread over the dataset, and the last
            frame of each.
    """
    found = [*_of_notes(dataset), *_of_files(dataset), *_of_statistics(dataset, card)]
    found += _of_counters(dataset)
    if card is not None:
        misfits = list(_of_card(dataset, card))
        found += misfits
        card = None if any(f.name == "card" for f in misfits) else card
    found += check_rows(dataset, card)
    found += check_actions(dataset)
    found += _of_video(dataset, thorough, progress)
    return ordered(found)


def _of_notes(dataset: Dataset) -> Iterator[Finding]:
    for note in dataset.notes:
        name, _, text = note.partition(": ")
        level: Level = "warning" if name in _WARNINGS else "note"
        yield Finding(level, name, text)


def _of_files(dataset: Dataset) -> Iterator[Finding]:
    absent: dict[int, list[str]] = {}
    for episode, path in dataset.missing:
        absent.setdefault(episode, []).append(str(path.relative_to(dataset.root)))
    for episode, paths in absent.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        text = f"{paths[0]}{more} missing; the episode is left out"
        yield Finding("warning", "file-missing", text, episode)


def _of_counters(dataset: Dataset) -> Iterator[Finding]:
    """Rows that say they belong elsewhere (v2: files were exchanged), and rows that were lost."""
    for episode in dataset.episodes:
        table = dataset.table(episode.index)
        if dataset.version != "v3.0" and "episode_index" in table.column_names:
            own = table["episode_index"][0].as_py()
            if own != episode.index:
                text = f"{episode.data.name} holds the rows of episode {own}"
                yield Finding("error", "episode-index", text, episode.index)
        if "frame_index" in table.column_names:
            steps = np.diff(table["frame_index"].to_numpy())
            if (steps != 1).any():
                row = int(np.flatnonzero(steps != 1)[0]) + 1
                text = f"frame_index steps by {steps[row - 1]}: rows were lost or mixed"
                yield Finding("warning", "frame-index", text, episode.index, row)


def _of_card(dataset: Dataset, card: Embodiment) -> Iterator[Finding]:
    try:
        validate(dataset, card)
    except UserError as error:
        yield Finding("error", "card", str(error))
    for view in card.views:
        if view not in dataset.views:
            text = f"card {card.name} looks through it; it is not there"
            yield Finding("error", "view-missing", text, view=view)
    if card.has_action and not dataset.has_action:
        yield Finding("warning", "no-action", "no actions: it trains the video only")


def _of_statistics(dataset: Dataset, card: Embodiment | None) -> Iterator[Finding]:
    """Statistics of other data normalise silently wrong wherever they are used."""
    for row in compare(dataset, card):
        if not row.agrees:
            text = f"{row.file}: {row.feature}: {row.text}"
            yield Finding("warning", "stats-foreign", text, row.episode)


def _of_video(dataset: Dataset, thorough: bool, progress: bool) -> Iterator[Finding]:
    from tqdm.auto import tqdm

    numbers = [e.index for e in dataset.episodes]
    chosen = set(numbers)
    if not thorough and len(numbers) > LOOKED_AT:
        places = np.linspace(0, len(numbers) - 1, LOOKED_AT).astype(int)
        chosen = {numbers[i] for i in places}
    looks: list[Look] = []
    alignment = Alignment(dataset)
    for index in tqdm(numbers, desc="look at videos", disable=not progress):
        for view in dataset.views:
            clock = list(check_clock(dataset, index, view))
            yield from clock
            if index not in chosen or any(f.level == "error" for f in clock):
                continue
            seen, damage = look(dataset, index, view)
            yield from damage
            if seen is not None:
                looks.append(seen)
                yield from alignment.add(seen)
    yield from alignment.total()
    yield from check_views(dataset, looks)
