"""Recordings in and out: LeRobot datasets, video, canvas, windows, normalisation.

``writer`` records LeRobot v3.0 (``lerobot`` holds its names), ``reader`` opens v2.0 to v3.0, ``video`` decodes by frame index, ``canvas``
puts views together, ``normalize`` maps states and actions to [-1, 1], ``windows`` cuts training samples,
``check`` finds what would make a training wrong. Import the module you need: this package itself
imports nothing, so that a machine without av or torch can use the rest.
"""
