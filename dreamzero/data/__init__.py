"""Recordings in and out: LeRobot datasets, video, canvas, windows, normalisation.

    IN AND OUT                                     FOR TRAINING
    lerobot    names, paths and tables             resample   the recording's clock to the card's
    meta       what a dataset says of itself       canvas     views on one picture
    reader     opens v2.0, v2.1 and v3.0           normalize  to [-1, 1] and back
    columns    parquet columns as arrays           frames     decoded frames, kept for a while
    gear       GEAR's additions                    windows    training samples
    video      decodes by frame index              mixture    which windows a step sees
    encode     encodes, or copies as encoded       order      shuffles by episode
    layouts    files of the three versions         recorded   windows as a training asks for them
    writer     records                             loader     steps read ahead, by workers
    convert    from version to version             benchmark  how fast all that is
    stats      statistics as LeRobot has them      TO LOOK AT
                                                   check      what would make a training wrong
                                                   published  theirs against the rows
                                                   cards      which card fits; draft makes one

Import the module you need: this package itself imports nothing, so that a machine without av can use
the rest.
"""
