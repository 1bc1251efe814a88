"""Wrong data put into good recordings is found: where it is, and nowhere else.

The good ones are a simulated arm before two cameras and a real Franka; every defect is one that loss does
not show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dreamzero import embodiments
from dreamzero.data import cards
from dreamzero.data.check import NAMES, Finding, check, grouped
from dreamzero.data.check.video import Look, look
from dreamzero.data.check.views import check_views
from dreamzero.data.columns import vectors
from dreamzero.data.encode import Encoder
from dreamzero.data.reader import Dataset
from dreamzero.data.video import Clip

from .recordings import cut_off, real_data

CARD = embodiments.get("tabletop_so101")
FRONT, SIDE = "observation.images.front", "observation.images.side"
Copy = Callable[[Path], Path]


def errors(root: Path, **options: bool) -> list[Finding]:
    dataset = Dataset.open(root)
    card = cards.choose(dataset, None)
    found = check(dataset, card if card.name != "makeshift" else None, **options)
    assert {f.name for f in found} - {n.partition(":")[0] for n in dataset.notes} <= set(NAMES)
    return [f for f in found if f.level == "error"]


def warnings(root: Path) -> list[Finding]:
    return [f for f in check(Dataset.open(root), CARD) if f.level == "warning"]


def video_of(root: Path, view: str, episode: int) -> Path:
    return Dataset.open(root).episode(episode).videos[view].path


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Encode a video again after a change to its frames."""
    clip = Clip(path)
    frames = change(clip.read(np.arange(len(clip))))
    encoder = Encoder(path.with_suffix(".new.mp4"), clip.fps, frames.shape[1:3])
    encoder.write(frames)
    encoder.close()
    path.with_suffix(".new.mp4").replace(path)


def change_rows(root: Path, episode: int, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Change state, action or timestamp of one episode of a v2 dataset."""
    dataset = Dataset.open(root)
    path, rows = dataset.episode(episode).data, dataset.rows(episode)
    change(rows)
    table = pq.read_table(path)
    for column, name in (("observation.state", "state"), ("action", "action")):
        place = table.schema.get_field_index(column)
        table = table.set_column(place, column, vectors(rows[name]))
    place = table.schema.get_field_index("timestamp")
    stamps = pa.array(rows["timestamp"].astype(np.float32))
    pq.write_table(table.set_column(place, "timestamp", stamps), path)


def shifted(rows: int) -> Callable[[np.ndarray], np.ndarray]:
    """Frames late by ``rows`` (the first one held), early where negative."""

    def change(frames: np.ndarray) -> np.ndarray:
        return frames[np.clip(np.arange(len(frames)) - rows, 0, len(frames) - 1)]

    return change


def few(root: Path) -> Path:
    """Of a copy the first four episodes, to be quick."""
    for path in root.rglob("episode_0000*.parquet"):
        if int(path.stem.removeprefix("episode_")) > 3:
            path.unlink()
    return root


@pytest.mark.parametrize("name", ["tabletop", "g1_inspire"])  # test_real has the Franka
def test_good_recordings_have_no_error(tabletop: Path, name: str) -> None:
    root = tabletop if name == "tabletop" else real_data(name)
    assert errors(root) == []


# --- frames against rows ---


def test_a_video_that_is_late(tabletop_v2: Path, copied: Copy) -> None:
    root = copied(tabletop_v2)
    rewrite(video_of(root, FRONT, 2), shifted(6))
    found = errors(root)
    assert [(f.name, f.episode, f.view) for f in found] == [("misaligned", 2, FRONT)]
    assert "rows (0.4" in found[0].text and "after the rows do" in found[0].text


def test_every_video_is_a_little_late(tabletop_v2: Path, copied: Copy) -> None:
    """Three rows are too few to tell in one short episode; all together they show."""
    root = copied(tabletop_v2)
    for episode in range(10):
        rewrite(video_of(root, FRONT, episode), shifted(3))
    found = [f for f in errors(root) if f.episode is None]
    assert [(f.name, f.view) for f in found] == [("misaligned", FRONT)]
    assert "3 rows (0.20 s) after" in found[0].text


def test_rows_of_another_episode(tabletop_v2: Path, copied: Copy) -> None:
    """The files of two episodes were exchanged: each is sound, but it is not that of the video."""
    root = copied(tabletop_v2)
    one, two = (Dataset.open(root).episode(e).data for e in (1, 4))
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    found = [f for f in check(Dataset.open(root), CARD) if f.name == "episode-index"]
    assert [(f.level, f.episode) for f in found] == [("error", 1), ("error", 4)]


def test_a_real_video_that_is_late(copied: Copy) -> None:
    root = few(copied(real_data("franka_usb")))
    view = "observation.images.right_cam"
    rewrite(video_of(root, view, 3), shifted(9))
    found = errors(root)
    assert [(f.name, f.episode, f.view) for f in found] == [("misaligned", 3, view)]


def test_a_video_that_stands_still(tabletop_v2: Path, copied: Copy) -> None:
    root = copied(tabletop_v2)

    def freeze(frames: np.ndarray) -> np.ndarray:
        frames[5:30] = frames[5]
        return frames

    rewrite(video_of(root, SIDE, 7), freeze)
    found = errors(root)
    assert [(f.name, f.episode, f.view) for f in found] == [("video-frozen", 7, SIDE)]
    assert found[0].row in (4, 5, 6)


def test_a_video_of_half_the_rate(tabletop_v2: Path, copied: Copy) -> None:
    root = copied(tabletop_v2)
    for episode in range(10):
        rewrite(video_of(root, FRONT, episode), lambda frames: frames[::2].repeat(2, 0)[:65])
    found = [f for f in warnings(root) if f.name == "repeated-frames"]
    assert {f.view for f in found} == {FRONT} and len(found) >= 5


def test_a_video_that_is_cut_off(tabletop_v2: Path, copied: Copy) -> None:
    root = copied(tabletop_v2)
    rewrite(video_of(root, FRONT, 6), lambda frames: frames[:40])
    found = errors(root)
    assert [(f.name, f.episode, f.row) for f in found] == [("video-short", 6, 41)]


def test_a_file_that_was_not_copied_to_its_end(tabletop_v2: Path, copied: Copy) -> None:
    root = copied(tabletop_v2)
    cut_off(video_of(root, SIDE, 1), 0.8)
    found = errors(root)
    assert {(f.name, f.episode, f.view) for f in found} == {
        ("video-truncated", 1, SIDE),
        ("video-short", 1, SIDE),
    }
    assert all(f.row is not None and 30 < f.row < 64 for f in found)


def test_damage_inside_a_video(tabletop_v2: Path, copied: Copy) -> None:
    root = copied(tabletop_v2)
    path = video_of(root, FRONT, 8)
    whole = path.read_bytes()
    start = whole.index(b"mdat") + (len(whole) - whole.index(b"mdat")) // 3
    path.write_bytes(whole[:start] + bytes(400) + whole[start + 400 :])
    found = [f for f in errors(root) if f.name == "video-damaged"]
    assert [(f.episode, f.view) for f in found] == [(8, FRONT)]
    assert found[0].row is not None and 5 < found[0].row < 60


# --- cameras ---

FLIPS = {
    "left to right": lambda frames: frames[:, :, ::-1],
    "top to bottom": lambda frames: frames[:, ::-1],
    "turned by 180": lambda frames: frames[:, ::-1, ::-1],
}


@pytest.fixture(scope="module")
def franka() -> tuple[Dataset, list[Look]]:
    """A real recording and small pictures of all of it."""
    dataset = Dataset.open(real_data("franka_usb"))
    looks = [look(dataset, e.index, view)[0] for e in dataset.episodes for view in dataset.views]
    return dataset, [seen for seen in looks if seen is not None]


def test_real_cameras_as_they_are(franka: tuple[Dataset, list[Look]]) -> None:
    assert list(check_views(*franka)) == []


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("view", ["right_cam", "wrist_cam"])
def test_a_flipped_real_camera(franka: tuple[Dataset, list[Look]], flip: str, view: str) -> None:
    dataset, looks = franka
    name = f"observation.images.{view}"
    for wrong in ((5,), (1, 6)):
        changed = [
            replace(seen, pictures=FLIPS[flip](seen.pictures))
            if seen.view == name and seen.episode in wrong
            else seen
            for seen in looks
        ]
        found = list(check_views(dataset, changed))
        assert [(f.name, f.episode, f.view) for f in found] == [
            ("camera-flipped", episode, name) for episode in wrong
        ]
        assert all(flip in f.text for f in found)


def test_swapped_real_cameras(copied: Copy) -> None:
    root = few(copied(real_data("franka_usb")))
    views = [f"observation.images.{v}" for v in ("right_cam", "wrist_cam")]
    one, two = (video_of(root, v, 2) for v in views)
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    found = [f for f in errors(root) if f.name == "camera-swapped"]
    assert [(f.episode, f.view) for f in found] == [(2, v) for v in views]
    assert "looks like wrist_cam" in found[0].text


def test_a_flipped_and_a_swapped_simulated_camera(tabletop_v2: Path, copied: Copy) -> None:
    root = copied(tabletop_v2)
    rewrite(video_of(root, SIDE, 4), FLIPS["top to bottom"])
    one, two = (video_of(root, v, 7) for v in (FRONT, SIDE))
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    found = {(f.name, f.episode, f.view) for f in errors(root)}
    assert ("camera-flipped", 4, SIDE) in found
    assert ("camera-swapped", 7, FRONT) in found
    assert {episode for _, episode, _ in found} == {4, 7}


# --- rows ---


def test_actions_shifted_in_one_episode(tabletop_v2: Path, copied: Copy) -> None:
    root = copied(tabletop_v2)

    def late(rows: dict[str, np.ndarray]) -> None:
        rows["action"] = np.concatenate([rows["action"][:1].repeat(4, 0), rows["action"][:-4]])

    change_rows(root, 3, late)
    found = errors(root)
    assert [(f.name, f.episode) for f in found] == [("action-late", 3)]


def test_action_is_state_in_one_episode(tabletop_v2: Path, copied: Copy) -> None:
    root = copied(tabletop_v2)
    change_rows(root, 6, lambda rows: rows.update(action=rows["state"]))
    assert [(f.name, f.episode) for f in errors(root)] == [("action-is-state", 6)]


def test_actions_shifted_everywhere(tabletop_v2: Path, copied: Copy) -> None:
    root = copied(tabletop_v2)
    for episode in range(10):
        change_rows(
            root,
            episode,
            lambda rows: rows.update(
                action=np.concatenate([rows["action"][:1], rows["action"][:-1]])
            ),
        )
    found = [f for f in warnings(root) if f.name == "action-not-ahead"]
    assert len(found) == 1 and found[0].episode is None


def test_an_idle_stretch_and_a_jump_have_their_row(tabletop_v2: Path, copied: Copy) -> None:
    root = copied(tabletop_v2)
    before = {(f.name, f.episode) for f in warnings(root)}

    def rest(rows: dict[str, np.ndarray]) -> None:
        rows["state"] = np.concatenate([rows["state"][:10], rows["state"][10:11].repeat(55, 0)])

    def jump(rows: dict[str, np.ndarray]) -> None:
        rows["state"][33:, 0] += 1.5

    change_rows(root, 1, rest)
    change_rows(root, 5, jump)
    found = {(f.name, f.episode): f.row for f in warnings(root)}
    assert found["idle-stretch", 1] == 10 and found["jump", 5] == 33
    fresh = {key for key in found if key not in before and key[0] != "stats-foreign"}
    assert fresh <= {("idle-stretch", 1), ("jump", 5)}


def test_another_rate_in_one_episode(tabletop_v2: Path, copied: Copy) -> None:
    root = copied(tabletop_v2)
    change_rows(root, 4, lambda rows: rows.update(timestamp=rows["timestamp"] * 2))
    found = [f for f in errors(root) if f.name == "rate-differs"]
    assert [(f.episode, "0.1333 s" in f.text) for f in found] == [(4, True)]


def test_states_of_half_the_rate(tabletop_v2: Path, copied: Copy) -> None:
    root = copied(tabletop_v2)
    change_rows(root, 2, lambda rows: rows.update(state=rows["state"][::2].repeat(2, 0)[:65]))
    found = [f for f in warnings(root) if f.name == "repeated-rows"]
    assert [f.episode for f in found] == [2] and "recorded at 7.5 Hz" in found[0].text


def test_degrees_and_a_wrong_clock(tabletop_v2: Path, copied: Copy) -> None:
    root = copied(tabletop_v2)
    change_rows(root, 0, lambda rows: rows.update(state=np.degrees(rows["state"])))
    names = {f.name for f in errors(root) if f.episode == 0}
    assert {"out-of-range", "too-fast"} <= names
    # Everything recorded ten times as fast as it says.
    for episode in range(10):
        change_rows(root, episode, lambda rows: rows.update(timestamp=rows["timestamp"] / 10))
    assert len([f for f in errors(root) if f.name == "too-fast"]) >= 9


def test_rows_that_were_lost(tabletop_v2: Path, copied: Copy) -> None:
    root = copied(tabletop_v2)
    path = Dataset.open(root).episode(2).data
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table.slice(0, 20), table.slice(23)]), path)
    found = {f.name: (f.episode, f.row) for f in warnings(root)}
    assert found["frame-index"] == found["time-gap"] == (2, 20)


def test_missing_files_are_listed(tabletop_v2: Path, copied: Copy) -> None:
    root = copied(tabletop_v2)
    video_of(root, SIDE, 3).unlink()
    Dataset.open(root).episode(5).data.unlink()
    found = [f for f in warnings(root) if f.name == "file-missing"]
    assert [f.episode for f in found] == [3, 5]
    assert f"{SIDE}/episode_000003.mp4 missing" in found[0].text
    assert errors(root) == []


# --- how findings are told ---


def test_every_finding_has_its_meaning(root: Path) -> None:
    code = [p for p in (root / "dreamzero/data/check").glob("*.py") if p.name != "findings.py"]
    text = "".join(path.read_text() for path in code)
    assert [name for name in NAMES if f'"{name}"' not in text] == []


def test_findings_of_one_kind_are_told_in_one_line() -> None:
    found = [
        Finding("warning", "jump", "it jumps", episode, row)
        for episode, row in ((7, 3), (2, 120), *((i, 0) for i in range(10, 20)))
    ]
    found += [Finding("error", "video-frozen", "it stands", 1, 5, FRONT)]
    found += [Finding("note", "codec", text) for text in ("front is av1", "side is av1")]
    told = grouped(found)
    assert [(f.name, places) for f, places in told] == [
        ("video-frozen", "front: episode 1 (row 5)"),
        (
            "jump",
            "episodes 2 (row 120), 7 (row 3), 10 (row 0), 11 (row 0), 12 (row 0), 13 (row 0) and 6 more",
        ),
        ("codec", "dataset"),
        ("codec", "dataset"),
    ]
    assert found[0].where == "episode 7, row 3" and found[-1].where == "dataset"
    assert set(found[0].to_json()) == {"level", "name", "episode", "row", "view", "text"}
