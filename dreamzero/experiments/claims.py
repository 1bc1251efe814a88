"""What each group of cells asks; the paper's claims, and questions the paper leaves open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..sim.splits import split
from .cells import Use
from .grid import ACTION_ONLY, SCALES, SHIPPED, Grid, Maker
from .recordings import Recording

GUIDED = {"guidance": 5.0}  # of the video alone, as the paper's model is sampled (MODEL.md 5)
# What a policy can be measured on without leaving what it was trained for.
NEAR = ("seen", "unseen-combination")


def labels(make: Maker) -> None:
    """What video pretraining and dreaming are worth, over the number of labelled episodes.

    "wam": trunk and joint training; "wam-guided": the same, its dream guided by the instruction;
    "action-only-trunk": the fairest rival, the same trunk without dream; "action-only": the same labels
    alone.
    """
    for count in make.scale.labels:
        for seed in make.scale.seeds:
            wam = make.trained("labels", f"wam-{count}", seed, count)
            make.evaluated("labels", f"wam-guided-{count}", seed, wam.name, sampler=GUIDED)
            make.trained(
                "labels",
                f"action-only-trunk-{count}",
                seed,
                count,
                watched=(),
                settings=ACTION_ONLY,
            )
            make.trained(
                "labels", f"action-only-{count}", seed, count, "", (), settings=ACTION_ONLY
            )
    make.evaluated("labels", "hold", 0, "hold")


# Way to learn to act from the usual labels: settings, start, whether it goes on watching video.
WAYS: Mapping[str, tuple[Mapping[str, Any], str | None, bool]] = {
    "apart": ({"dream": "apart"}, None, True),
    "independent-times": ({"timesteps": "independent"}, None, True),
    "no-more-video": ({}, None, False),
    "wam-scratch": ({}, "", False),
    "regression": (ACTION_ONLY | {"objective": "regression"}, "", False),
    "diffusion": (ACTION_ONLY | {"objective": "diffusion"}, "", False),
}


def ways(make: Maker) -> None:
    """What each part of the recipe is worth at the usual number of labels.

    "apart": actions do not see the dream; "independent-times": noise of video and actions drawn apart;
    "no-more-video": joint training on the labels alone; "longer": action-only for as long as the world
    action model takes.
    """
    for seed in make.scale.seeds:
        for way, (settings, start, watches) in WAYS.items():
            watched = None if watches else ()
            make.trained("ways", way, seed, start=start, watched=watched, settings=settings)
        longer = ACTION_ONLY | {"steps": round(1.5 * make.scale.steps)}
        make.trained("ways", "action-only-trunk-longer", seed, watched=(), settings=longer)


def data(make: Maker) -> None:
    """Diverse against repetitive labels: as many frames of 4 of the 16 tasks."""
    few = ("reach-red", "push-green-right", "push-blue-away", "push-yellow-left")
    make.record(repetitive=Recording("so101", make.scale.usual, 512, only=few))
    for seed in make.scale.seeds:
        uses = make.batched(Use("repetitive", weight=3.0), *make.watched)
        make.trained("data", "repetitive", seed, uses=uses)


def size(make: Maker) -> None:
    """A third of the parameters, with a trunk of its own, at equal steps."""
    smaller = make.trunk("micro", "micro")
    for seed in make.scale.seeds:
        make.trained("size", "micro", seed, start=smaller, preset="micro")


def blocks(make: Maker) -> None:
    """Block by block against all at once, and one latent frame a block against two.

    "autoregressive" predicts the next block behind up to three observed ones; "bidirectional" predicts
    all four at once; both execute one block. "k1" has one latent frame and four actions a block.
    """
    long, many = {"latent_frames": 8, "horizon": 32, "blocks": 1}, make.scale.batch
    for seed in make.scale.seeds:
        full = (Use("labels", episodes=make.scale.usual, batch=many // 4, blocks=4),)
        make.trained("blocks", "autoregressive", seed, uses=full, memory_blocks=3, suites=NEAR)
        whole = (Use("labels", episodes=make.scale.usual, batch=many // 4),)
        make.trained(
            "blocks", "bidirectional", seed, uses=whole, card=long, execute_steps=8, suites=NEAR
        )
        single = (Use("labels", episodes=make.scale.usual, batch=many),)
        make.trained(
            "blocks", "k1", seed, uses=single, card={"latent_frames": 1, "horizon": 4}, suites=NEAR
        )


# Whose video of a task there is besides the rest: name and body.
OTHERS = (("none", ""), ("arm", "ur5e"), ("hand", "hand"), ("self", "so101"))


def transfer(make: Maker) -> None:
    """Blocks that the arm has no actions for, from 20 minutes of another body's video.

    From the shipped model, which knows neither the words purple and cyan nor blocks of these colours.
    "none": the usual labels and footage, without them; "arm", "hand": and video of another arm, or a
    bare hand, that reaches for and pushes such blocks; "self": of the arm itself.
    """
    tasks = tuple(task.key for task in split("unseen-object"))
    _from_video(make, "transfer", "zone purple cyan", ("seen", "unseen-object"), only=tasks)


def zones(make: Maker) -> None:
    """A verb that the arm has no actions for, from 20 minutes of another body's video.

    As "transfer", but onto zones: a push whose end the picture says, not the sentence.
    """
    _from_video(make, "zones", "zone", ("seen", "unseen-verb"), verbs=("zone",))


def _from_video(
    make: Maker,
    group: str,
    without: str,
    suites: tuple[str, ...],
    verbs: tuple[str, ...] = (),
    only: tuple[str, ...] = (),
) -> None:
    plain = tuple(replace(use, without=without) for use in make.whole)
    for who, body in OTHERS:
        watched = plain
        if body:
            name = f"{group}-{body}"
            make.record(**{name: Recording(body, make.scale.transfer, 541, verbs, only=only)})
            watched = (*plain, Use(name, labels=False, weight=2.0))
        for seed in make.scale.seeds[: 1 if group == "zones" else None]:
            make.trained(
                group, who, seed, start=SHIPPED, watched=watched, preset="tiny", suites=suites
            )


def plans(make: Maker) -> None:
    """Tasks with several valid ways (shove, whichever way), and longer ones (push onto a zone, then touch).

    Both from the shipped model, which has labels of neither, and the usual number of labels of both.
    """
    verbs = ("shove", "chain")
    make.record(plans=Recording("so101", make.scale.usual, 513, verbs))
    for seed in make.scale.seeds:
        for method, settings in (("wam", {}), ("action-only", ACTION_ONLY)):
            make.trained(
                "plans", method, seed, start=SHIPPED, preset="tiny", settings=settings,
                uses=(Use("plans"),), suites=tuple(f"seen:{verb}" for verb in verbs),
            )  # fmt: skip


def new_arm(make: Maker) -> None:
    """An arm that the shipped model never saw, from 30 minutes of its own.

    "play" is without instructions; "two-colours" with them, but of red and blue blocks alone, which
    leaves tasks for zero shots; "specialist" has instructed labels of all of them. The first two are
    rolled out on the old arm too: what it kept of "runtime/steps-4", with some of its labels repeated.
    """
    some = tuple(t.key for t in split("seen") if t.colour in ("red", "blue"))
    make.record(
        play=Recording("franka", make.scale.play, 531, ("play",)),
        two_colours=Recording("franka", make.scale.play, 533, only=some),
        specialist=Recording("franka", make.scale.specialist, 532),
    )
    again = Use("labels", episodes=make.scale.usual, weight=1.0)
    for seed in make.scale.seeds:
        for method, recording in (("play", "play"), ("two-colours", "two_colours")):
            make.trained(
                "new-arm", method, seed, start=SHIPPED, preset="tiny",
                uses=(Use(recording, weight=3.0), again), robots=("franka", "so101"), suites=NEAR,
            )  # fmt: skip
        make.trained(
            "new-arm", "specialist", seed, start=SHIPPED, preset="tiny",
            uses=(Use("specialist", weight=3.0), again), robots=("franka",), suites=NEAR,
        )  # fmt: skip


def runtime(make: Maker) -> None:
    """What cheaper sampling costs the shipped model in success: steps, step cache, guidance, Flash."""
    samplers: Mapping[str, Mapping[str, Any]] = {
        "steps-1": {"steps": 1},
        "steps-4": {"steps": 4},
        "steps-16": {"steps": 16},
        "steps-16-cached": {"steps": 16, "mask": 6},
        "steps-4-guided": {"steps": 4, "guidance": 2.0},
    }
    suites = (*NEAR, "unseen-look")
    for seed in make.scale.seeds:
        for name, sampler in samplers.items():
            make.evaluated("runtime", name, seed, SHIPPED, sampler=sampler, suites=suites)
        make.trained(
            "runtime", "flash", seed, make.scale.usual, SHIPPED, (), preset="tiny",
            settings={"stage": "flash"}, sampler={"flash": True}, suites=suites,
        )  # fmt: skip
        for steps in (1, 4):
            make.evaluated(
                "runtime", f"flash-plain-{steps}", seed, f"runtime/flash-s{seed}",
                sampler={"steps": steps}, suites=suites,
            )  # fmt: skip


CLAIMS: Mapping[str, Callable[[Maker], None]] = {
    "labels": labels,
    "ways": ways,
    "data": data,
    "size": size,
    "blocks": blocks,
    "transfer": transfer,
    "zones": zones,
    "plans": plans,
    "new-arm": new_arm,
    "runtime": runtime,
}


def grid(profile: str) -> Grid:
    """All cells of a profile ("quick" or "small")."""
    maker = Maker(SCALES[profile])
    for claim in CLAIMS.values():
        claim(maker)
    return maker.grid
