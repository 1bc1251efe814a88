"""What a check finds, and how findings are put together for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        level: "error" (training on this would be wrong), "warning" (it works, know it) or "note".
        name: for programs, one of ``NAMES``.
        text: for people.
        episode: its number; None for the whole dataset.
        row: the row (0 is the first of the episode) where it begins; None where there is no such.
        view: the video feature it is about, or "".
    """

    level: Level
    name: str
    text: str
    episode: int | None = None
    row: int | None = None
    view: str = ""

    @property
    def where(self) -> str:
        """Episode, row and view in words."""
        parts = [self.view.rsplit(".", 1)[-1]] if self.view else []
        parts += [f"episode {self.episode}"] if self.episode is not None else []
        parts += [f"row {self.row}"] if self.row is not None else []
        return ", ".join(parts) or "dataset"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "level": self.level,
            "name": self.name,
            "episode": self.episode,
            "row": self.row,
            "view": self.view,
            "text": self.text,
        }


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first, then by name and place."""

    def key(f: Finding) -> tuple[Any, ...]:
        return (LEVELS.index(f.level), f.name, f.view, f.episode or 0, f.row or 0)

    return sorted(findings, key=key)


def grouped(findings: Sequence[Finding]) -> list[tuple[Finding, str]]:
    """One finding of each kind (the first) with the places of all: "episodes 3 (row 120), 7".

    What is said of the whole dataset stands alone.
    """
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for f in ordered(findings):
        groups.setdefault(
            (f.level, f.name, f.view, f.text if f.episode is None else ""), []
        ).append(f)
    return [(same[0], _places(same)) for same in groups.values()]


def _places(same: Sequence[Finding], most: int = 6) -> str:
    view = same[0].view.rsplit(".", 1)[-1]
    numbered = [f for f in same if f.episode is not None]
    if not numbered:
        return view or "dataset"
    shown = [
        str(f.episode) if f.row is None else f"{f.episode} (row {f.row})" for f in numbered[:most]
    ]
    more = f" and {len(numbered) - most} more" if len(numbered) > most else ""
    plural = "s" if len(numbered) > 1 else ""
    return (f"{view}: " if view else "") + f"episode{plural} {', '.join(shown)}{more}"


# Every finding there is, and what it means.
NAMES: dict[str, str] = {
    "action-is-next-state": "the action is the state one row later: no command was recorded",
    "action-is-state": "the action equals the state: nothing to learn from",
    "action-late": "actions follow the state: shifted by rows",
    "action-lead": "by how many rows actions lead the state",
    "action-not-ahead": "actions are at the state's time: shifted by a row, or not commands",
    "action-space": "actions are not in the state's space; how far they lead is not known",
    "alignment-unknown": "no view follows the joints closely enough to compare them in time",
    "camera-flipped": "a view is mirrored or upside down against the other episodes",
    "camera-swapped": "a view looks like another one does in the other episodes",
    "card": "the card does not fit",
    "constant": "dimensions that never vary",
    "episode-index": "a file holds the rows of another episode",
    "frame-index": "rows are not counted one by one: some were lost",
    "file-missing": "a file that meta describes is not there",
    "idle": "most rows are without motion",
    "idle-stretch": "a long time without motion",
    "jump": "the state jumps farther in a row than it can move",
    "misaligned": "frames and rows drift apart in time, or are shifted against each other",
    "no-action": "no actions: it trains the video only",
    "not-finite": "NaN or infinity",
    "out-of-range": "values outside the card's limits: another unit or another order",
    "rate-differs": "an episode has another rate than the others",
    "repeated-frames": "frames repeat while the robot moves: the video is slower than it says",
    "repeated-rows": "states repeat while the robot moves: they are slower than their timestamps",
    "stats-foreign": "statistics that came with the dataset are not those of its rows",
    "time-backwards": "timestamps do not increase",
    "time-gap": "rows are missing between timestamps",
    "time-jitter": "timestamps are uneven",
    "too-fast": "joints move faster than the card allows: a wrong rate or unit",
    "video-clock": "the video's clock has another rate than the rows; frames are counted",
    "video-damaged": "frames cannot be decoded",
    "video-frozen": "the picture stands still while the robot moves",
    "video-short": "the video ends before the rows do",
    "video-truncated": "the file is cut off",
    "view-missing": "the card looks through a view that is not there",
}
