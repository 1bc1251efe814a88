"""``dreamzero evaluate``: closed-loop success of a policy on the tabletop."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..errors import UserError


def add(subparsers: Any) -> None:
    """Add the verb to the command line."""
    from ..embodiments import tabletop

    parser = subparsers.add_parser(
        "evaluate",
        help="closed-loop success of a policy on the simulated tabletop",
        description=(
            "Rolls a policy out in fixed scenes and prints success with its 95 % Wilson interval. "
            "Scenes depend on (suite, seed) alone, so two policies meet the same ones."
        ),
        epilog="example: dreamzero evaluate --policy runs/mine --suite seen --episodes 200",
    )
    parser.add_argument(
        "--policy", required=True, help="model folder, ws://HOST:PORT, or hold, replay, expert"
    )
    parser.add_argument(
        "--suite",
        action="append",
        help="seen, unseen-combination, unseen-object, unseen-verb or unseen-look (default seen); "
        "may be repeated; SUITE:VERB,VERB for other verbs than its own, as seen:shove,chain",
    )
    parser.add_argument("--episodes", type=int, default=200, help="scenes a suite (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="first scene (default 0)")
    arms = [card.robot for card in tabletop.CARDS if card.has_action]
    parser.add_argument(
        "--robot", default="so101", help=f"arm of the tabletop: {', '.join(arms)} (default so101)"
    )
    parser.add_argument("--steps", type=int, default=4, help="denoising steps (default 4)")
    parser.add_argument(
        "--guidance", type=float, default=1.0, help="guidance on video (default 1: none)"
    )
    parser.add_argument(
        "--negative-prompt",
        metavar="TEXT",
        help="what guidance leads away from; imported models were released with Wan's default one",
    )
    parser.add_argument(
        "--execute-steps", type=int, help="actions of a chunk to execute (default: the whole chunk)"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument(
        "--together",
        type=int,
        default=32,
        metavar="N",
        help="scenes of a process that share a model's forward pass (default %(default)s); 1 acts "
        "as a robot would, and makes the chunk rate one robot's",
    )
    parser.add_argument("--out", type=Path, help="folder for metrics.json")
    parser.add_argument("--json", action="store_true", help="print the run record")
    parser.set_defaults(function=run)


def run(args: argparse.Namespace) -> int:
    """Roll the policy out, print the rates, and write the record where ``--out`` says."""
    from ..errors import make_folder
    from ..evaluate import BASELINES, evaluate
    from ..flow import SamplerConfig
    from ..report.record import RunRecord
    from ..serve.policies import is_remote

    suites = args.suite or ["seen"]
    remote = is_remote(args.policy)
    ours = args.policy not in BASELINES and not remote
    if ours:
        check_guidance(args)
    if remote and (args.steps, args.guidance, args.negative_prompt) != (4, 1.0, None):
        raise UserError(f"{args.policy}: steps and guidance are its server's: give them there")
    if args.out is not None:
        make_folder(args.out)
    sampler = SamplerConfig(steps=args.steps, guidance=args.guidance)
    parameters = {k: v for k, v in vars(args).items() if k not in ("function", "json")}
    record = RunRecord("evaluate", parameters=parameters, seed=args.seed, device="cpu")
    for suite in suites:
        options: dict[str, Any] = {}
        if ours:
            options = {"sampler": sampler, "negative_prompt": args.negative_prompt}
        result = evaluate(
            args.policy,
            suite,
            args.episodes,
            args.seed,
            args.robot,
            args.workers,
            args.together,
            execute_steps=args.execute_steps,
            progress=not args.json,
            **options,
        )
        for name, rate in {
            "success": result.success,
            "progress": result.progress,
            **{f"success_{verb}": rate for verb, rate in result.by_verb().items()},
        }.items():
            record.add(f"{suite}/{name}", rate.value, n=rate.n, low=rate.low, high=rate.high)
            if not args.json:
                print(f"{suite:20} {name:14} {rate}")
        record.add(f"{suite}/chunk_rate", result.chunk_rate_hz, unit="Hz")
    if args.out is not None:
        record.save(args.out)
    if args.json:
        print(json.dumps(record.to_dict(), indent=1))
    return 0


def check_guidance(args: argparse.Namespace) -> None:
    """Raise UserError where guidance would lead away from a prompt that nobody chose."""
    from ..model.encoders import kind_of
    from ..shipped import find

    if args.negative_prompt is not None and args.guidance == 1.0:
        raise UserError(
            "--negative-prompt is read with guidance only: give --guidance, or leave it"
        )
    folder = find(args.policy) / "text_encoder"
    if args.guidance == 1.0 or args.negative_prompt is not None or not folder.is_dir():
        return
    # Small models are trained with empty prompts, imported ones were guided by a sentence.
    if kind_of(folder, "text encoder") != "WordEncoder":
        raise UserError(
            f"--guidance {args.guidance:g} of an imported model needs --negative-prompt TEXT: the "
            "release used Wan's default one, which its checkpoints do not hold ('' for none)"
        )
