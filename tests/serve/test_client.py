"""A remote policy: the chunks of a local one, and every mishap as one line that names the server."""

from __future__ import annotations

import gc
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamzero import embodiments
from dreamzero.errors import UserError
from dreamzero.flow import SamplerConfig
from dreamzero.inference import load_policy
from dreamzero.serve import RemotePolicy, ServeConfig, open_policy, serving, source
from dreamzero.types import ActionChunk, Policy

from .conftest import Start
from .spy import DROID, Spies

TABLETOP = embodiments.get("tabletop_so101")
STATE = np.linspace(-0.4, 0.5, 6, dtype=np.float32)
POSE = np.linspace(-1, 1, 8, dtype=np.float32)


def frames(count: int, seed: int = 0, side: int = 96) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"front": rng.integers(0, 255, (count, side, side, 3), dtype=np.uint8)}


def views(count: int) -> dict[str, np.ndarray]:
    return {view: np.full((count, 90, 160, 3), 7, np.uint8) for view in DROID.views}


def drive(policy: Policy) -> list[ActionChunk]:
    """Two episodes: whole blocks, a part of one, and more blocks than the window holds."""
    chunks = []
    for prompt, counts in (
        ("push the red block to the left", (1, 8, 1, 8, 8, 8, 8)),
        ("touch the blue block", (1,)),
    ):
        policy.reset(prompt)
        for seed, count in enumerate(counts):
            policy.observe(frames(count, seed), STATE + seed / 50)
            chunks.append(policy.act())
    return chunks


@pytest.mark.parametrize("memory", [None, 3])
def test_the_same_chunks_as_here(start: Start, memory: int | None) -> None:
    """Bit for bit, from the shipped model, by two robots at once: without memory as it ships, and with
    all it can have, dreaming too."""
    options: dict[str, Any] = {"memory_blocks": memory, "dream": memory is not None, "seed": 3}
    options["sampler"] = SamplerConfig(steps=2, guidance=1.0)
    local = load_policy("tiny_so101", **options)
    wanted = drive(local)
    address = start(source("tiny_so101", **options))
    remote = [RemotePolicy(address.uri, TABLETOP) for _ in range(2)]
    assert isinstance(remote[0], Policy) and remote[0].card == local.card
    with ThreadPoolExecutor(2) as pool:
        for chunks in pool.map(drive, remote):
            for got, want in zip(chunks, wanted, strict=True):
                np.testing.assert_array_equal(got.actions, want.actions)
                assert got.actions.dtype == np.float32 and got.rate_hz == want.rate_hz
                assert (got.video is None) == (want.video is None)
                if got.video is not None:
                    np.testing.assert_array_equal(got.video, want.video)
                assert got.info["cached_frames"] == want.info["cached_frames"]
                assert got.info["round_trip_s"] > 0 and got.info["tier"] == want.info["tier"]


def test_what_goes_over_the_wire(start: Start, spies: Spies) -> None:
    """A block in pieces is a block; anything else is its newest frame; resets are told."""
    policy = RemotePolicy(start(spies.source).uri, DROID)
    for counts in ((3,), (8,), (4, 4), (5,), (8, 8), (1,)):
        if counts == (3,):
            policy.reset("lift")
        for count in counts:
            policy.observe(views(count), POSE)
        chunk = policy.act()
        np.testing.assert_array_equal(chunk.actions[0], POSE)
    policy.reset("drop")
    policy.observe(views(1), POSE)
    policy.act()
    assert spies.calls == [["lift", 1, 8, 8, 1, 1, 1, "drop", 1]]
    assert chunk.info["context"] == "restarted" and chunk.info["why"] == "one frame"


def test_frames_are_those_of_their_time(start: Start, spies: Spies) -> None:
    policy = RemotePolicy(start(spies.source).uri, DROID)
    policy.reset("lift")
    reused = views(1)
    policy.observe(reused, POSE)
    for clip in reused.values():
        clip[:] = 99  # a camera's buffer is filled again before act
    policy.act()
    assert {int(clip.max()) for clip in spies.made[0].frames.values()} == {7}


def test_misuse_is_told_here(start: Start, spies: Spies) -> None:
    policy = RemotePolicy(start(spies.source).uri, DROID)
    with pytest.raises(UserError, match="observe before reset"):
        policy.observe(views(1), POSE)
    policy.reset("lift")
    for given, state, says in (
        (views(1), POSE[:5], "state must be 8 finite numbers for droid"),
        (views(1), POSE * np.nan, "state must be 8 finite"),
        ({}, POSE, "lacks view 'observation.images.exterior_1_left'"),
        ({view: np.zeros((4, 4, 3)) for view in DROID.views}, POSE, "is float64"),
        (views(1) | {DROID.views[0]: np.zeros((2, 4, 4, 3), np.uint8)}, POSE, "differ in frames"),
    ):
        with pytest.raises(UserError, match=says):
            policy.observe(given, state)
    with pytest.raises(UserError, match="act before observe"):
        policy.act()
    policy.observe(views(1), POSE)
    policy.act()
    with pytest.raises(UserError, match="has not seen anything new"):
        policy.act()


def test_a_server_that_was_restarted_between_episodes(spies: Spies) -> None:
    with serving(spies.source, ServeConfig(port=0)) as address:
        policy = RemotePolicy(address.uri, DROID)
        policy.reset("lift")
        policy.observe(views(1), POSE)
        policy.act()
    with serving(Spies().source, ServeConfig(port=address.port)):
        policy.reset("lift")
        policy.observe(views(1), POSE)
        assert policy.act().info["context"] == "begun"
    with pytest.raises(UserError, match="nobody listens there"):
        policy.reset("lift")


def test_a_server_that_ends_in_the_middle(spies: Spies) -> None:
    with serving(spies.source, ServeConfig(port=0)) as address:
        policy = RemotePolicy(address.uri, DROID)
        policy.reset("lift")
        policy.observe(views(1), POSE)
        policy.act()
        policy.observe(views(8), POSE)
    with pytest.raises(UserError, match=f"^{address.uri}: the connection is lost .*1001"):
        policy.act()
    with pytest.raises(UserError, match=r"reset\(\) makes it anew"):
        policy.act()


def test_what_the_server_says_is_passed_on(start: Start, spies: Spies) -> None:
    address = start(spies.source)
    policy = RemotePolicy(address.uri, DROID)
    spies.made[0].fault = UserError("the gripper is of another make")
    policy.reset("lift")
    policy.observe(views(1), POSE)
    with pytest.raises(UserError, match=f"{address.uri}: answered: the gripper is of another make"):
        policy.act()


def test_tokens(start: Start, spies: Spies, tmp_path: Path) -> None:
    address = start(spies.source, token="s3cret")
    right, wrong, empty = (tmp_path / name for name in ("right", "wrong", "empty"))
    right.write_text("s3cret\n"), wrong.write_text("guess\n"), empty.write_text("\n")
    RemotePolicy(address.uri, DROID, token_file=right).reset("lift")
    with pytest.raises(UserError, match=r"dreamzero/\S+ refused with HTTP 401: a wrong token"):
        RemotePolicy(address.uri, DROID, token_file=wrong)
    with pytest.raises(UserError, match="should hold one line"):
        RemotePolicy(address.uri, DROID, token_file=empty)
    with pytest.raises(UserError, match="cannot be read"):
        open_policy(f"{address.uri}?token-file={tmp_path}/none", DROID)
    assert isinstance(open_policy(f"{address.uri}?token-file={right}&timeout=9", DROID), Policy)
    with pytest.raises(UserError, match="unknown option 'tokenfile'"):
        open_policy(f"{address.uri}?tokenfile={right}", DROID)


def test_another_robot(start: Start, spies: Spies) -> None:
    address = start(spies.source)
    with pytest.raises(UserError, match=r"dreamzero \S+ serves droid there, whose cameras"):
        RemotePolicy(address.uri, TABLETOP)
    other = DROID.with_(action=DROID.action[:1])
    with pytest.raises(UserError, match="whose actions .* are not those of droid"):
        RemotePolicy(address.uri, other)
    # The same robot under the tag of a checkpoint, at other rates.
    assert RemotePolicy(address.uri, DROID.with_(name="oxe_droid", horizon=12)).card == DROID


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match="nobody listens there; start it with `dreamzero serve"):
            RemotePolicy(f"ws://127.0.0.1:{port}", DROID)
        taken.listen()
        with pytest.raises(UserError, match=r"nobody answers in 0.2 s"):
            RemotePolicy(f"ws://127.0.0.1:{port}", DROID, connect_s=0.2)
    with pytest.raises(UserError, match="cannot connect .*"):
        RemotePolicy("ws://no-such-host.invalid:1", DROID)
    for address in ("ws://", "http://x", "ws://h:99999"):
        with pytest.raises(UserError, match="right would be"):
            RemotePolicy.open(address, DROID)


def test_a_forgotten_policy_leaves_nothing_behind(start: Start, spies: Spies) -> None:
    address = start(spies.source)
    before = threading.active_count()
    policy = RemotePolicy(address.uri, DROID)
    policy.reset("lift")
    assert threading.active_count() > before
    del policy
    gc.collect()
    assert threading.active_count() == before


def test_over_tls(start: Start, spies: Spies) -> None:
    from dreamzero.serve.files import server_tls

    folder = Path(__file__).parent / "tls"
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    address = start(spies.source, tls=server_tls(certificate, key))
    uri = address.uri.replace("127.0.0.1", "localhost")
    assert uri.startswith("wss://")
    policy = open_policy(f"{uri}?ca={certificate}", DROID)
    policy.reset("lift")
    policy.observe(views(1), POSE)
    np.testing.assert_array_equal(policy.act().actions[0], POSE)
    with pytest.raises(UserError, match="self.signed certificate; give its certificate with ca="):
        RemotePolicy(uri, DROID)
    with pytest.raises(UserError, match="mismatch"):
        RemotePolicy(address.uri, DROID, ca=certificate)
    plain = start(Spies().source)
    with pytest.raises(UserError, match="no TLS there"):
        RemotePolicy(plain.uri.replace("ws", "wss"), DROID, ca=certificate)
    with pytest.raises(UserError, match="holds no certificates"):
        RemotePolicy(uri, DROID, ca=__file__)
    with pytest.raises(UserError, match="is for wss:// addresses"):
        RemotePolicy(plain.uri, DROID, ca=certificate)
    with pytest.raises(UserError, match="belong together"):
        server_tls(certificate, None)
    with pytest.raises(UserError, match="no certificate and its key"):
        server_tls(key, certificate)
