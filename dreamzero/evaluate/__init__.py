"""Rollouts, baselines and the statistics of success."""

from .closed_loop import BASELINES, SCENE_OFFSET, TOGETHER, evaluate
from .corrections import record_corrections
from .episodes import Episode, Evaluation
from .rollout import rollout, rollout_together
from .statistics import Rate, mean_interval, wilson

__all__ = [
    "BASELINES",
    "SCENE_OFFSET",
    "TOGETHER",
    "Episode",
    "Evaluation",
    "Rate",
    "evaluate",
    "mean_interval",
    "record_corrections",
    "rollout",
    "rollout_together",
    "wilson",
]
