"""Recordings in and out: LeRobot datasets, video, canvas, windows, normalisation.

    writer      records LeRobot v3.0          lerobot    names, paths and tables of that format
    reader      opens v2.0 to v3.0            meta       what a dataset says of itself
    video       encodes, decodes by index     columns    parquet columns as arrays
    canvas      views on one picture          resample   the recording's clock to the card's
    normalize   to [-1, 1] and back           windows    training samples
    cards       which card fits               check      what would make a training wrong

Import the module you need: this package itself imports nothing, so that a machine without av can use
the rest.
"""
