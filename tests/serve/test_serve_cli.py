"""``dreamzero serve`` as a process, and what ``--policy ws://`` means to the other verbs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamzero import embodiments
from dreamzero.serve import source
from dreamzero.serve.soak import soak

from .conftest import Start
from .peer import Peer, observation
from .spy import Spies

Cli = Callable[..., tuple[int, str, str]]
SERVE = [sys.executable, "-m", "dreamzero", "serve", "--port", "0"]


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    # A background job's children, as this test run may be one, have SIGINT ignored.
    command = ["env", "--default-signal=INT", *SERVE, *arguments]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_ends_gracefully(number: signal.Signals) -> None:
    with process("--policy", "hold", "--embodiment", "droid", "--json", "--json-log") as child:
        assert child.stdout is not None and child.stderr is not None
        said = json.loads(child.stdout.readline())
        assert said["port"] > 0 and said["uri"] == f"ws://127.0.0.1:{said['port']}"
        assert (said["policy"], said["embodiment"]) == ("hold", "droid")
        with Peer(said["uri"]) as peer:
            assert peer.ask(observation()).shape == (24, 8)
            child.send_signal(number)
            assert child.wait(20) == 0
        events = [json.loads(line) for line in child.stderr.read().splitlines()]
    assert [event["event"] for event in events] == ["ready", "connection", "ended"]
    assert events[1]["requests"] == 1 and events[1]["code"] == 1001


def test_a_server_for_others_without_a_token_warns() -> None:
    with process("--policy", "hold", "--embodiment", "droid", "--host", "0.0.0.0") as child:
        assert child.stdout is not None and child.stderr is not None
        line = child.stdout.readline()
        assert line.startswith("hold (droid) at ws://0.0.0.0:")
        warned = [child.stderr.readline() for _ in range(2)]
        assert any("anybody who reaches 0.0.0.0 can use this server" in text for text in warned)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--policy", "nowhere"], "nowhere: no such model folder; give"),
        (["--policy", "hold"], "for which robot? give --embodiment"),
        (["--policy", "hold", "--embodiment", "dog"], "unknown embodiment 'dog'"),
        (["--policy", "ws://127.0.0.1:1"], "that one is served already"),
        (["--policy", "replay:no.npy", "--embodiment", "droid"], "is no .npy file"),
        (["--policy", "tiny_so101", "--embodiment", "droid"], "was not trained on 'droid'"),
        (["--policy", "tiny_so101", "--device", "cuda"], "torch sees no GPU here"),
        (["--policy", "tiny_so101", "--set", "sampler.stepz=3"], "did you mean steps?"),
        (["--policy", "tiny_so101", "--threads", "0"], "--threads 0"),
        (["--policy", "tiny_so101", "--negative-prompt", "x"], "read with guidance only"),
        (["--policy", "hold", "--protocol", "opnpi"], "did you mean openpi"),
        (["--policy", "hold", "--token-file", "no/token"], "token file no/token cannot be read"),
        (["--policy", "hold", "--tls-cert", "c.pem"], "--tls-cert and --tls-key belong together"),
        (["--policy", "hold", "--port", "99999"], "port 99999 is not 0 to 65535"),
        (["--policy", "hold", "--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
        (["--policy", "hold", "--max-sessions", "0"], "max_sessions=0"),
    ],
)
def test_mistakes_are_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, out, err = cli("serve", "--port", "0", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1) and says in err


def test_a_port_in_use_is_told_before_the_model_is_loaded(
    cli: Cli, start: Start, spies: Spies, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*args: Any) -> None:
        pytest.fail("the model was loaded")

    monkeypatch.setattr("dreamzero.model.bundle.WorldActionModel.load", load)
    port = start(spies.source).port
    status, _, err = cli("serve", "--policy", "tiny_so101", "--port", port)
    assert status == 2 and "Address already in use" in err


def test_a_robot_is_driven_over_the_wire(cli: Cli, start: Start, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "actions.npy", rng.uniform(0, 0.2, (16, 6)).astype(np.float32))
    spec, card = f"replay:{tmp_path}/actions.npy", embodiments.get("tabletop_so101")
    address = start(source(spec, card))
    logs = []
    for policy in (spec, address.uri):
        status, out, err = cli(
            *("robot", "run", "--robot", "sim://so101?task=reach-red", "--chunks", 2, "--json"),
            *("--policy", policy, "--max-start", 9, "--out", tmp_path / "log.json"),
            "--no-record",
        )
        assert (status, err) == (0, "") and json.loads(out)["chunks"] == 2
        logs.append(json.loads((tmp_path / "log.json").read_text())["sent"])
    assert logs[0] == logs[1]


def test_evaluation_over_the_wire(cli: Cli, start: Start) -> None:
    address = start(source("hold", embodiments.get("tabletop_so101")))
    arguments = ("evaluate", "--episodes", 1, "--workers", 1, "--json")
    status, out, _ = cli(*arguments, "--policy", address.uri)
    assert status == 0 and json.loads(out)["metrics"]["seen/success"]["value"] == 0
    status, _, err = cli(*arguments, "--policy", address.uri, "--steps", 2)
    assert status == 2 and "steps and guidance are its server's" in err


def test_a_short_soak() -> None:
    report = soak(2.0, interval_s=0.2)
    assert report.exit_status == 0 and not report.errors, report.log
    assert len(report.latency_ms) > 10 and report.slow and len(report.mischief) > 3
    assert report.percentile_ms(50) <= report.percentile_ms(99)
    assert len(report.samples) >= 5 and report.samples[-1].rss_mib > 10
    assert report.samples[-1].tasks > 0 and report.samples[-1].sessions <= 16
    json.dumps(report.to_dict())


def test_growth_is_that_of_the_samples() -> None:
    from dreamzero.serve.soak import Report, Sample

    report = Report(samples=[Sample(i, 100 + (i > 3) + i / 10, 9, 3, 5, 1, 1) for i in range(20)])
    assert report.grown() == pytest.approx(1.2) and report.grown("fds") == 0
    assert np.isnan(Report().grown()) and np.isnan(Report().percentile_ms(50))


def test_serving_is_an_extra() -> None:
    """Without its packages the rest imports, and serving says what to install."""
    code = (
        "import sys\nfor name in ('websockets', 'msgpack', 'prometheus_client'):\n"
        " sys.modules[name] = None\n"
        "import dreamzero.cli.serve, dreamzero.serve.policies\n"
        "from dreamzero.cli import main\n"
        "sys.exit(main(['serve', '--policy', 'hold', '--embodiment', 'droid']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 2 and "pip install 'dreamzero[serve]'" in done.stderr
