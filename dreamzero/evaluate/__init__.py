"""Rollouts, baselines and the statistics of success."""

from .corrections import record_corrections
from .rollout import BASELINES, SCENE_OFFSET, Episode, Evaluation, evaluate, rollout
from .statistics import Rate, mean_interval, wilson

__all__ = [
    "BASELINES",
    "SCENE_OFFSET",
    "Episode",
    "Evaluation",
    "Rate",
    "evaluate",
    "mean_interval",
    "record_corrections",
    "rollout",
    "wilson",
]
