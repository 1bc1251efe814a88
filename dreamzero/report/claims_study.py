"""The paper's claims against the cells of ``dreamzero experiment``: what was asked, found, and concluded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dreamzero.evaluate.statistics import Contrast, Rate
from dreamzero.experiments.results import Measure, Results
from dreamzero.sim.splits import SUITES

Verdict = Literal["shown", "not shown", "opposite", "not run"]
UNSEEN = tuple(f"so101/{suite}" for suite in SUITES if suite.startswith("unseen"))
NEAR = ("so101/seen", "so101/unseen-combination")


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
        return Found(self, verdict(contrast.ratio, self.goal), contrast)


@dataclass(frozen=True)
class Found:
    """A claim with its evidence."""

    claim: Claim
    verdict: Verdict
    contrast: Contrast | None

    def row(self) -> dict[str, Any]:
        """Of a table."""
        ratio = self.contrast.ratio if self.contrast else None
        return {
            "claim": self.claim.sentence,
            "ratio": "" if ratio is None else f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]",
            "goal": f">= {self.claim.goal:g}",
            "n": 0 if ratio is None else ratio.n,
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
    verb = ("so101/unseen-verb",)
    franka = ("franka/seen", "franka/unseen-combination")
    return (
        Claim("recipe", "Video pretraining and joint training double the success of action-only training "
              "from the same labels, on unseen tasks", wam, f"labels/action-only-{usual}", UNSEEN, 2.0),
        Claim("dream", "Dreaming helps beyond what the same video trunk gives an action-only policy, on "
              "unseen tasks", wam, f"labels/action-only-trunk-{usual}", UNSEEN, 1.0),
        Claim("diverse", "Diverse labels beat repetitive ones of equal length, on unseen tasks",
              wam, "data/repetitive", UNSEEN, 1.0),
        Claim("size", "The larger model is better, on unseen tasks", wam, "size/micro", UNSEEN, 1.0),
        Claim("autoregressive", "Block by block is better than all blocks at once",
              "blocks/autoregressive", "blocks/bidirectional", NEAR, 1.0),
        Claim("two-latents", "Two latent frames a block are better than one", wam, "blocks/k1", NEAR, 1.0),
        Claim("shared-times", "Shared noise levels are better than independent ones", wam,
              "ways/independent-times", UNSEEN, 1.0),
        Claim("transfer-arm", "20 minutes of another arm's video teach a verb without actions (progress)",
              "transfer/arm", "transfer/none", verb, 1.42, "progress"),
        Claim("transfer-hand", "20 minutes of a bare hand's video teach a verb without actions (progress)",
              "transfer/hand", "transfer/none", verb, 1.42, "progress"),
        Claim("new-arm", "30 minutes of play bring a new arm to 80 % of its specialist",
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
