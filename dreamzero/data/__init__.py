"""Recordings in and out: LeRobot datasets, video, canvas, windows, normalisation.

    in and out    lerobot (names, paths, tables), meta, reader, columns, gear, video, encode,
                  layouts, writer, existing, convert, stats
    for training  resample (clock), canvas, normalize, frames, windows, mixture, order,
                  recorded, loader, benchmark
    to look at    check, published (statistics), cards, draft

Import the module you need: this package itself imports nothing, so that a machine without av can use
the rest.
"""
