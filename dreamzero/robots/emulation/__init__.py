"""Arms that are not there: real bytes on a wire, MuJoCo behind it, faults on request."""

from __future__ import annotations

from .device import ARMS, Device, Emulated, Wire
from .impairments import Impairments
from .process import Emulator
from .world import EmulatorConfig

__all__ = ["ARMS", "Device", "Emulated", "Emulator", "EmulatorConfig", "Impairments", "Wire"]
