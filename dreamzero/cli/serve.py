"""``dreamzero serve``: a policy over a websocket."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .evaluate import check_guidance

if TYPE_CHECKING:
    from ..serve.config import Address, ServeConfig
    from ..serve.policies import Source

_DESCRIPTION = """\
Serves a policy to robots over a websocket, in the protocol of openpi and RoboArena: DROID clients work as
they are, and `--policy ws://HOST:PORT` of `dreamzero robot run` and `evaluate` is this server. The model is
loaded and warmed up before anybody is let in; then one line on stdout says where it listens, and one line
a connection goes to stderr.

On the same port plain HTTP answers: GET /healthz (ready, policy, sessions; 503 when not ready) and
GET /metrics (Prometheus: requests, errors by kind, latencies, queue, sessions, evaluations).
"""
_EPILOG = """\
examples:
  dreamzero serve --policy tiny_so101
      the shipped model at ws://127.0.0.1:8000, for this machine only
  dreamzero robot run --robot sim://so101 --policy ws://127.0.0.1:8000
      the simulated arm, driven by it
  dreamzero serve --policy weights/droid --device cuda --steps 16 --guidance 5 --negative-prompt '...' \\
      --set engine.precision=fp8 --set engine.keep_originals=no
      a DROID checkpoint with the release's sampler, the matrices in 8 bits
  dreamzero serve --policy hold --embodiment droid
      no model: answers with the pose it was shown, to try a client's wiring
  openssl rand -hex 32 > token && chmod 600 token
  dreamzero serve --policy weights/droid --host 0.0.0.0 --token-file token --tls-cert c.pem --tls-key k.pem
      for other machines; they say wss://HOST:8000?token-file=token
"""


@dataclass(frozen=True)
class _Settings:
    """What ``--set`` changes: a ``SamplerConfig`` and an ``EngineConfig`` (torch comes with both)."""

    sampler: Any
    engine: Any


def add(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "serve",
        help="serve a policy over a websocket",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    model = parser.add_argument_group("what")
    model.add_argument(
        "--policy", required=True, help="model folder, shipped name, hold, or replay:FILE.npy"
    )
    model.add_argument(
        "--embodiment", help="card of the robot (default: the only one the model knows)"
    )
    model.add_argument("--device", help="cpu or cuda (default: cuda if torch sees one)")
    model.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    model.add_argument("--steps", type=int, default=4, help="denoising steps (default 4)")
    model.add_argument("--guidance", type=float, default=1.0, help="on video (default 1: none)")
    model.add_argument("--negative-prompt", metavar="TEXT", help="what guidance leads away from")
    model.add_argument("--seed", type=int, default=0, help="of the noise (default 0)")
    model.add_argument(
        "--dream", action="store_true", help="send the predicted video too, to clients of ours"
    )
    model.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="GROUP.NAME=VALUE",
        help="any other setting of sampler or engine; may be repeated",
    )
    where = parser.add_argument_group("to whom")
    where.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    where.add_argument("--port", type=int, default=8000, help="8000; 0 takes a free one")
    where.add_argument("--token-file", type=Path, help="clients must send its line as Api-Key")
    where.add_argument("--tls-cert", type=Path, help="certificate chain (PEM), for wss")
    where.add_argument("--tls-key", type=Path, help="its key (PEM)")
    where.add_argument(
        "--protocol",
        default="roboarena",
        choices=["roboarena", "openpi"],
        help="how others than our clients are answered: an array, or openpi's map (roboarena)",
    )
    where.add_argument(
        "--client-clock",
        default="real",
        choices=["real", "simulated"],
        help="real: frames of a whole chunk that come sooner than it can have run are not believed",
    )
    limits = parser.add_argument_group("how much")
    limits.add_argument("--max-sessions", type=int, default=4, help="if the memory allows (4)")
    limits.add_argument("--max-connections", type=int, default=64, help="websockets (64)")
    limits.add_argument("--queue", type=int, default=16, help="requests that may wait (16)")
    limits.add_argument("--session-timeout", type=float, default=600.0, help="s idle (600)")
    limits.add_argument("--max-message-mib", type=int, default=64, help="of a request (64)")
    limits.add_argument("--grace", type=float, default=30.0, help="s to end answers under way (30)")
    parser.add_argument("--json", action="store_true", help="where it listens, as JSON")
    parser.add_argument("--json-log", action="store_true", help="the log as JSON lines")
    parser.set_defaults(function=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; 0 after a graceful end, 1 if a computation had to be left."""
    import asyncio
    import os

    from ..serve import Server
    from ..serve.config import bind
    from ..serve.log import write_to

    config = _config(args)
    bind(config)[0].close()  # a port that is taken is told before a model is loaded for minutes
    source = _source(args)
    write_to(sys.stderr, args.json_log)

    def ready(address: Address) -> None:
        if args.json:
            about = {"uri": address.uri, "host": address.host, "port": address.port}
            print(json.dumps(about | {"policy": source.name, "embodiment": source.card.name}))
        else:
            print(f"{source.name} ({source.card.name}) at {address.uri}")
        sys.stdout.flush()
        if not address.local and config.token is None:
            print(
                f"dreamzero: warning: anybody who reaches {address.host} can use this server: "
                "--token-file asks for a token",
                file=sys.stderr,
            )

    async def serve() -> bool:
        clean: bool = await Server(source, config).run(ready, _stop())
        return clean

    if not asyncio.run(serve()):
        # A thread still computes: an orderly exit would pull the libraries away beneath it.
        sys.stderr.flush()
        os._exit(1)
    return 0


def _stop() -> Any:
    """An event that SIGINT and SIGTERM set; a second signal does not wait for anybody."""
    import asyncio
    import os
    import signal

    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def end(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    return stop


def _config(args: argparse.Namespace) -> ServeConfig:
    from ..serve import ServeConfig
    from ..serve.files import read_token, server_tls

    config: ServeConfig = ServeConfig(
        host=args.host,
        port=args.port,
        dialect=args.protocol,
        token=None if args.token_file is None else read_token(args.token_file),
        tls=server_tls(args.tls_cert, args.tls_key),
        max_sessions=args.max_sessions,
        max_connections=args.max_connections,
        queue=args.queue,
        session_timeout_s=args.session_timeout,
        max_message=args.max_message_mib * 2**20,
        grace_s=args.grace,
        real_clock=args.client_clock == "real",
    )
    return config


def _source(args: argparse.Namespace) -> Source:
    from ..serve import source

    made: Source
    if args.policy == "hold" or args.policy.startswith(("replay:", "ws:", "wss:")):
        made = source(args.policy, args.embodiment)
        return made
    check_guidance(args)
    import torch

    from ..config import apply_overrides
    from ..flow import SamplerConfig
    from ..inference import EngineConfig

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {device}: torch sees no GPU here; leave it out to use the CPU")
    sampler = SamplerConfig(steps=args.steps, guidance=args.guidance)
    settings = apply_overrides(_Settings(sampler, EngineConfig()), args.set)
    made = source(
        args.policy,
        args.embodiment,
        device,
        threads=args.threads,
        sampler=settings.sampler,
        engine=settings.engine,
        seed=args.seed,
        dream=args.dream,
        negative_prompt=args.negative_prompt,
    )
    return made
