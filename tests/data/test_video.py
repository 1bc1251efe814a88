"""Frames by number, whatever lies between; what a header says is what the file holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamzero.data.encode import Copier, Cut, Encoder
from dreamzero.data.frames import FrameCache
from dreamzero.data.video import Clip
from dreamzero.errors import UserError

from .recordings import cut_off, numbered, read_numbers, real_data


def b_frames(path: Path, frames: int = 60) -> None:
    """H.264 as x264 makes it by default: frames stored in another order than they are shown."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=15)
        stream.width, stream.height, stream.pix_fmt = 80, 32, "yuv420p"
        stream.codec_context.gop_size = 20
        stream.codec_context.max_b_frames = 3
        for image in numbered(range(frames), 32).repeat(2, axis=2):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def plain(path: Path, frames: int = 60) -> None:
    encoder = Encoder(path, 15, (16, 40))
    encoder.write(numbered(range(frames)))
    encoder.close()


def test_the_header_says_what_the_packets_say(tmp_path: Path) -> None:
    plain(tmp_path / "a.mp4")
    clip = Clip(tmp_path / "a.mp4")
    header = clip._from_header()
    assert header and sorted(header) == sorted(clip._from_packets())
    assert clip.keys == [0, 16, 32, 48] and clip.ordered and not clip.truncated
    b_frames(tmp_path / "b.mp4")
    mixed = Clip(tmp_path / "b.mp4")
    assert not mixed.ordered and mixed._from_header() == []
    np.testing.assert_allclose(mixed.times_s, np.arange(60) / 15, atol=1e-6)


@pytest.mark.parametrize("kind", [plain, b_frames])
def test_frames_in_any_order(tmp_path: Path, kind: object) -> None:
    kind(tmp_path / "a.mp4")  # type: ignore[operator]
    clip = Clip(tmp_path / "a.mp4")

    @settings(max_examples=30)
    @given(st.lists(st.integers(0, 59), max_size=8))
    def check(indices: list[int]) -> None:
        assert read_numbers(clip.read(indices)).tolist() == indices

    check()


def test_as_few_seeks_as_keyframes_allow(tmp_path: Path) -> None:
    plain(tmp_path / "a.mp4")
    clip = Clip(tmp_path / "a.mp4")
    clip.read(np.arange(60))
    assert clip.seeks == 1
    clip.seeks = 0
    clip.read([3, 5, 9, 50, 59])
    assert clip.seeks == 2  # to the start, and over two groups
    clip.read([58, 59])
    assert clip.seeks == 3


def test_small_pictures(tmp_path: Path) -> None:
    plain(tmp_path / "a.mp4")
    clip = Clip(tmp_path / "a.mp4")
    small = clip.read([7, 3], (4, 10))
    assert small.shape == (2, 4, 10, 3)
    whole = clip.read([7, 3]).astype(float).reshape(2, 4, 4, 10, 4, 3).mean((2, 4))
    assert np.abs(small - whole).mean() < 6


@pytest.mark.parametrize("name", ["g1_inspire", "franka_usb"])
def test_real_files_read_alike_from_front_to_back_and_at_random(name: str) -> None:
    """AV1 jumps from keyframe to keyframe without emptying the decoder; B-frames do not."""
    clip = Clip(next((real_data(name) / "videos").rglob("*.mp4")))
    whole = clip.read(np.arange(60), (60, 80))
    rng = np.random.default_rng(0)
    for _ in range(3):
        chosen = rng.permutation(60)[:9]
        np.testing.assert_array_equal(clip.read(chosen, (60, 80)), whole[chosen])
    clip.seeks = 0
    np.testing.assert_array_equal(clip.read(np.arange(0, 60, 6), (60, 80)), whole[::6])
    assert clip.seeks == 1


@pytest.mark.parametrize("kind", [plain, b_frames])
def test_copies_are_byte_for_byte(tmp_path: Path, kind: object) -> None:
    kind(tmp_path / "a.mp4")  # type: ignore[operator]
    clip = Clip(tmp_path / "a.mp4")
    middle = clip.keys[1], clip.keys[2]
    assert clip.separable(*middle) and not clip.separable(middle[0] + 1, middle[1])
    copier = Copier(tmp_path / "b.mp4")
    for first, stop in (middle, (0, 60), middle):
        assert copier.accepts(Cut(clip, first, stop))
        copier.write(Cut(clip, first, stop))
    copier.close()
    joined = Clip(tmp_path / "b.mp4")
    length = middle[1] - middle[0]
    assert len(joined) == copier.frames == 60 + 2 * length
    assert copier.seconds == pytest.approx(len(joined) / 15)
    np.testing.assert_allclose(np.diff(joined.times_s), 1 / 15, atol=1e-6)
    for first, stop, at in ((*middle, 0), (0, 60, length), (*middle, 60 + length)):
        assert joined.digest(at, at + stop - first) == clip.digest(first, stop)
    again = read_numbers(joined.read(np.arange(len(joined))))
    numbers = [*range(*middle), *range(60), *range(*middle)]
    assert again.tolist() == numbers
    other = Encoder(tmp_path / "c.mp4", 15, (32, 80))
    other.write(numbered(range(4), 32).repeat(2, axis=2))
    other.close()
    assert not copier.accepts(Cut(Clip(tmp_path / "c.mp4"), 0, 4))


def test_a_digest_is_that_of_the_frames(tmp_path: Path) -> None:
    plain(tmp_path / "a.mp4")
    clip = Clip(tmp_path / "a.mp4")
    assert clip.digest(0, 60) == Clip(tmp_path / "a.mp4").digest(0, 60)
    found = {clip.digest(0, 59), clip.digest(16, 32), clip.digest(17, 32), clip.digest(0, 60)}
    assert len(found) == 4 and all(len(d) == hashlib.sha256().digest_size * 2 for d in found)
    # Reading goes on where it was.
    assert read_numbers(clip.read([20, 21])).tolist() == [20, 21]


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    plain(path)
    cut_off(path, 2 / 3)
    clip = Clip(path)
    assert clip.truncated and 10 < len(clip) < 59
    assert read_numbers(clip.read([len(clip) - 2])).tolist() == [len(clip) - 2]


def test_frames_are_remembered_within_their_budget() -> None:
    decoded: list[list[int]] = []

    def decode(rows: np.ndarray) -> list[np.ndarray]:
        decoded.append(rows.tolist())
        return [np.full((1, 256, 1024, 1), row % 256, np.uint8) for row in rows]

    cache = FrameCache(budget_mb=1)
    got = cache.read("a", np.array([3, 1, 3]), decode)
    assert got[:, 0, 0, 0].tolist() == [3, 1, 3] and decoded == [[1, 3]]
    cache.read("a", np.array([1, 2]), decode)
    assert decoded == [[1, 3], [2]]
    cache.read("b", np.array([5, 6]), decode)  # too much: the view used least lately goes
    cache.read("a", np.array([1]), decode)
    assert decoded[-2:] == [[5, 6], [1]] and (cache.decoded, cache.asked) == (6, 8)


def test_refusals(tmp_path: Path) -> None:
    plain(tmp_path / "a.mp4")
    with pytest.raises(UserError, match="has 60 frames; frame 60..60 asked for"):
        Clip(tmp_path / "a.mp4").read([60])
    with pytest.raises(UserError, match="is missing"):
        Clip(tmp_path / "b.mp4")
    (tmp_path / "c.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match="not a readable video"):
        Clip(tmp_path / "c.mp4")
