"""Running a trained model: the closed-loop policy."""

from .policy import FAST, WorldActionPolicy, load_policy

__all__ = ["FAST", "WorldActionPolicy", "load_policy"]
