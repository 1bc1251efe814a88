"""The paper's claims against the cells of ``dreamzero experiment``: what was asked, found, and concluded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dreamzero.errors import UserError
from dreamzero.evaluate.statistics import Contrast, Rate
from dreamzero.experiments.claims import grid
from dreamzero.experiments.results import Measure, Results
from dreamzero.experiments.runner import Runner
from dreamzero.sim.splits import SUITES

Verdict = Literal["shown", "not shown", "opposite", "not run"]
UNSEEN = tuple(f"so101/{suite}" for suite in SUITES if suite.startswith("unseen"))
NEAR = ("so101/seen", "so101/unseen-combination")
PLANS = ("so101/seen:shove", "so101/seen:chain")


@dataclass(frozen=True)
class Claim:
    """A sentence that a ratio of two methods decides.

    Attributes:
        key: short name; sentence: what is claimed, for people.
        a, b: "group/method" of the grid; the ratio is a over b in the same scenes.
        places: "robot/suite" that are pooled; those of b where they differ.
        goal: the ratio that is to be reached by the whole interval.
    """

    key: str
    sentence: str
    a: str
    b: str
    places: tuple[str, ...]
    goal: float
    of: Measure = "success"

    def judge(self, results: Results) -> Found:
        """What the results say of it."""
        if self.a not in results.methods or self.b not in results.methods:
            return Found(self, "not run", None)
        contrast = results.contrast(self.a, self.b, *self.places, of=self.of)
        trainings = len(set(results[self.a].seeds) & set(results[self.b].seeds))
        return Found(self, verdict(contrast.ratio, self.goal), contrast, trainings)


@dataclass(frozen=True)
class Found:
    """A claim with its evidence, of so many pairs of trainings."""

    claim: Claim
    verdict: Verdict
    contrast: Contrast | None
    trainings: int = 0

    def row(self) -> dict[str, Any]:
        """Of a table."""
        ratio = self.contrast.ratio if self.contrast else None
        return {
            "claim": self.claim.sentence,
            "ratio": "" if ratio is None else f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]",
            "goal": f">= {self.claim.goal:g}",
            "n": 0 if ratio is None else ratio.n,
            "trainings": self.trainings,
            "verdict": self.verdict,
        }  # fmt: skip


def verdict(ratio: Rate, goal: float) -> Verdict:
    """Shown where the whole interval reaches the goal; opposite where all of it lies on the other side
    of 1 (for a goal below 1, where a may lose a little: below the goal)."""
    if ratio.low >= goal:
        return "shown"
    return "opposite" if ratio.high < min(goal, 1.0) else "not shown"


def claims(usual: int) -> tuple[Claim, ...]:
    """The claims of a grid whose usual number of labels is this."""
    wam, shipped = f"labels/wam-{usual}", "runtime/steps-4"
    guided = f"labels/wam-guided-{usual}"
    objects = ("so101/unseen-object",)
    franka = ("franka/seen", "franka/unseen-combination")
    return (
        Claim("recipe", "Video pretraining and joint training double the success of action-only training "
              "from the same labels, on unseen tasks", guided, f"labels/action-only-{usual}", UNSEEN, 2.0),
        Claim("dream", "Dreaming helps beyond what the same video trunk gives an action-only policy, on "
              "unseen tasks", guided, f"labels/action-only-trunk-{usual}", UNSEEN, 1.0),
        Claim("guidance", "Guiding the dream by the instruction helps, on unseen tasks", guided, wam, UNSEEN,
              1.0),
        Claim("diverse", "Diverse labels beat repetitive ones of equal length, on unseen tasks",
              wam, "data/repetitive", UNSEEN, 1.0),
        Claim("size", "The larger model is better, on unseen tasks", wam, "size/micro", UNSEEN, 1.0),
        Claim("autoregressive", "Block by block is better than all blocks at once",
              "blocks/autoregressive", "blocks/bidirectional", NEAR, 1.0),
        Claim("two-latents", "Two latent frames a block are better than one", wam, "blocks/k1", NEAR, 1.0),
        Claim("shared-times", "Shared noise levels are better than independent ones", wam,
              "ways/independent-times", UNSEEN, 1.0),
        Claim("transfer-arm", "20 minutes of another arm's video teach blocks without actions (progress)",
              "transfer/arm", "transfer/none", objects, 1.42, "progress"),
        Claim("transfer-hand", "20 minutes of a bare hand's video teach blocks without actions (progress)",
              "transfer/hand", "transfer/none", objects, 1.42, "progress"),
        Claim("plans", "Dreaming helps where there are several ways, or a longer task", "plans/wam",
              "plans/action-only", PLANS, 1.0),
        Claim("new-arm-colours", "30 minutes with two of four colours bring a new arm to 80 % of its specialist",
              "new-arm/two-colours", "new-arm/specialist", franka, 0.8),
        Claim("kept-colours", "and keep 90 % of what the old arm could", "new-arm/two-colours", shipped,
              NEAR, 0.9),
        Claim("new-arm", "30 minutes of play without instructions bring a new arm to 80 % of its specialist",
              "new-arm/play", "new-arm/specialist", franka, 0.8),
        Claim("kept", "and keep 90 % of what the old arm could", "new-arm/play", shipped, NEAR, 0.9),
        Claim("flash", "Flash keeps 90 % of four steps' success in one", "runtime/flash", shipped, NEAR, 0.9),
    )  # fmt: skip


def cells(results: Results, methods: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each method and place: success, progress, trainings."""
    for name in methods:
        if name not in results.methods:
            continue
        result = results[name]
        for place in result.outcomes:
            yield {
                "cell": name,
                "where": place,
                "success": str(result.success(place)),
                "by training": ", ".join(f"{100 * x:.0f}" for x in result.by_seed(place)),
                "progress": f"{100 * result.mean_progress(place).value:.0f} %",
            }


def finished(profile: str, folder: Path, kept: Path | None = None) -> Results:
    """All cells of a grid that were run as they are defined now.

    Args:
        folder: of a runner; kept: committed results.

    Raises:
        UserError: there is none.
    """
    runner = Runner(grid(profile), folder, kept)
    found = [result for name in runner.grid.cells if (result := runner.result(name)) is not None]
    if not found:
        raise UserError(
            f"neither {folder} nor {kept} holds a cell of the grid {profile!r}: run "
            f"`dreamzero experiment run --profile {profile}`"
        )
    return Results(found)


@dataclass(frozen=True)
class Group:
    """Cells that one figure shows.

    Attributes:
        question: for people; methods: "group/method" -> what the figure calls it; places: legend ->
            "robot/suite" that are pooled; of: what is measured.
    """

    question: str
    methods: Mapping[str, str]
    places: Mapping[str, tuple[str, ...]]
    of: Measure = "success"


_SEEN = {"seen tasks": ("so101/seen",)}
_BOTH = _SEEN | {"unseen combinations": ("so101/unseen-combination",)}


def groups(usual: int) -> dict[str, Group]:
    """What is asked besides the number of labels, by the group's name."""
    wam, plain = f"labels/wam-{usual}", f"labels/action-only-trunk-{usual}"
    guided = f"labels/wam-guided-{usual}"
    reference = {
        wam: "world action model",
        guided: "its dream guided",
        plain: "action-only, same trunk",
    }
    unseen = _SEEN | {"unseen tasks and looks": UNSEEN}
    return {
        "ways": Group(
            "What is each part of the recipe worth?",
            {
                **reference,
                "ways/apart": "actions do not see the dream",
                "ways/independent-times": "independent noise levels",
                "ways/no-more-video": "no video beside the labels",
                "ways/wam-scratch": "world action model, no trunk",
                f"labels/action-only-{usual}": "action-only, no trunk",
                "ways/regression": "regression, no trunk",
                "ways/diffusion": "diffusion policy, no trunk",
                "ways/action-only-trunk-longer": "action-only, same time as the WAM",
            },
            unseen,
        ),
        "data": Group(
            "Diverse or repetitive labels, large or small models?",
            {wam: "16 tasks", "data/repetitive": "4 tasks, as many frames",
             "size/micro": "a third of the parameters"},
            unseen,
        ),
        "blocks": Group(
            "Block by block, or all at once; one latent frame a block, or two?",
            {wam: "one block, two latents", "blocks/k1": "one block, one latent",
             "blocks/autoregressive": "four blocks, in turn",
             "blocks/bidirectional": "four blocks, at once"},
            _BOTH,
        ),
        "transfer": Group(
            "Does video of another body teach blocks that the arm has no actions for?",
            {"transfer/none": "no video of them", "transfer/hand": "video of a bare hand",
             "transfer/arm": "video of another arm", "transfer/self": "video of the arm itself"},
            _SEEN | {"purple and cyan blocks": ("so101/unseen-object",)},
            "progress",
        ),
        "zones": Group(
            "And a verb, onto zones? (one training each)",
            {"zones/none": "no video of it", "zones/hand": "video of a bare hand",
             "zones/arm": "video of another arm", "zones/self": "video of the arm itself"},
            _SEEN | {"onto zones": ("so101/unseen-verb",)},
            "progress",
        ),
        "plans": Group(
            "Does dreaming help where there are several ways, or a longer task?",
            {"plans/wam": "world action model", "plans/action-only": "action-only"},
            {"several ways": PLANS[:1], "push, then touch": PLANS[1:]},
            "progress",
        ),
        "new-arm": Group(
            "What does a new arm do after half an hour, and what does the old one keep?",
            {"new-arm/play": "30 minutes of play, no instructions",
             "new-arm/two-colours": "30 minutes with two of four colours",
             "new-arm/specialist": "46 minutes with all of them", "runtime/steps-4": "before"},
            {"new arm": ("franka/seen", "franka/unseen-combination"), "old arm": NEAR},
        ),
        "runtime": Group(
            "What does cheaper sampling cost in success?",
            {"runtime/steps-16": "16 steps", "runtime/steps-16-cached": "16 steps, 6 evaluated",
             "runtime/steps-4-guided": "4 steps, guided", "runtime/steps-4": "4 steps",
             "runtime/steps-1": "1 step", "runtime/flash": "Flash, 1 step",
             "runtime/flash-plain-4": "trained for Flash, 4 plain steps",
             "runtime/flash-plain-1": "trained for Flash, 1 plain step"},
            _BOTH | {"unseen looks": ("so101/unseen-look",)},
        ),
    }  # fmt: skip
