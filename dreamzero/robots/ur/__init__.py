"""Universal Robots over Ethernet: RTDE without I/O, the driver, and an emulated controller.

The codec is ``protocol.py`` (packages) and ``variables.py`` (what they carry); ``arm.py`` is the driver,
``program.py`` with ``stream.script`` the program that it uploads, ``dashboard.py`` and ``gripper.py``
what stands beside it. ``controller.py``, ``running.py``, ``rtde_server.py`` and ``servers.py`` are
the other side.
"""
