"""``python -m dreamzero.sim.benchmark``: how often the experts succeed, and how fast the simulator is.

Successes of n for every robot and verb, with and without noise; control steps and frames a second on
one core. One JSON object a line.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from typing import Any

from . import arms
from .recording import rollout_expert
from .splits import sample_scene
from .tabletop import Tabletop
from .tasks import VERBS


def success(robot: str, verb: str, n: int, noise: float, seed: int = 0) -> dict[str, Any]:
    """In how many of ``n`` scenes (seeds from ``seed``) the expert does the task."""
    env = Tabletop(robot, views=())
    done = sum(
        rollout_expert(env, sample_scene("seen", s, verbs=(verb,)), s, noise).success
        for s in range(seed, seed + n)
    )
    return {
        "robot": robot,
        "verb": verb,
        "noise": noise,
        "n": n,
        "successes": done,
    }


def speed(robot: str, size_px: int, steps: int = 300) -> dict[str, Any]:
    """Steps and frames a second: physics alone, drawing alone, both."""
    env = Tabletop(robot, size_px=size_px)
    env.reset(seed=0)
    hold = env.state()
    rates: dict[str, Any] = {"robot": robot, "size_px": size_px}
    for name, parts in (("physics", "p"), ("drawing", "d"), ("both", "pd")):
        start = time.perf_counter()
        for _ in range(steps):
            if "p" in parts:
                env.advance(hold)
            if "d" in parts:
                env.render_views()
        rates[f"{name}_hz"] = steps / (time.perf_counter() - start)
    env.close()
    return rates


def main() -> None:
    """Prints one JSON line a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--robots", nargs="+", default=list(arms.ROBOTS), choices=arms.ROBOTS)
    parser.add_argument("--verbs", nargs="+", default=list(VERBS), choices=VERBS)
    parser.add_argument("-n", type=int, default=200, help="scenes a robot and verb")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(json.dumps({"machine": platform.machine(), "python": platform.python_version()}))
    for robot in arguments.robots:
        print(json.dumps(speed(robot, 64)), flush=True)
        for verb in arguments.verbs:
            for noise in (0.0, 1.0):
                figures = success(robot, verb, arguments.n, noise, arguments.seed)
                print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
