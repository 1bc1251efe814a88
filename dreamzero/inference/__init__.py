"""Running a trained model: the engine, its sessions, and the closed-loop policy over them."""

from .config import FAST, EngineConfig
from .engine import Engine
from .policy import WorldActionPolicy, load_policy
from .session import Session

__all__ = ["FAST", "Engine", "EngineConfig", "Session", "WorldActionPolicy", "load_policy"]
