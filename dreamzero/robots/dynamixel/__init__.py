"""Dynamixel X servos: Protocol 2.0 without I/O, the control table, the bus, arms, and emulated servos."""
