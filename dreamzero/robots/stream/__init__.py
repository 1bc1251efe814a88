"""The project's own joint stream over UDP, for arms whose vendor's SDK runs on a companion computer.

    driver ── udp ── companion ── vendor's SDK ── arm

At the companion's end: ``Companion``, a ``Backend`` around the SDK, ``UdpServer``. At the
driver's end ``robots.open("udp://10.0.0.5:47800?key=arm.key", card)``. README.md in this folder is for
whoever writes either end in another language.
"""

from __future__ import annotations

from .backend import ArmFault, Backend, Rules
from .bodies import Fault, Flag
from .companion import Companion
from .server import UdpServer
from .session import load_key

__all__ = ["ArmFault", "Backend", "Companion", "Fault", "Flag", "Rules", "UdpServer", "load_key"]
