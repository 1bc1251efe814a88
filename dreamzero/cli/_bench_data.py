"""``dreamzero bench data``: windows a second against one seek a frame, and what a training waits."""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from ..data.reader import Dataset
    from ..embodiments import Embodiment
    from ..report.record import RunRecord

# Of the training that waits, after the first.
_STEPS = 8
_DROID = ("exterior_image_1_left", "exterior_image_2_left", "wrist_image_left")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the loading benchmark."""
    parser.add_argument(
        "--data",
        nargs="+",
        metavar="PATH",
        help="recordings (default: the simulator's, and the real ones of DREAMZERO_REAL_DATA)",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="for each recording (default 20)"
    )


def run(args: argparse.Namespace) -> int:
    """Measure and print; the frames of both ways are compared on the way."""
    import torch
    import torch._dynamo  # optimisers import it, and triton; after EGL that crashes: two LLVMs

    from ..data.benchmark import loading
    from ..data.windows import WindowDataset
    from ..report.record import RunRecord, write_json

    if args.seconds <= 0 or args.threads < 1:
        raise UserError("--seconds must be above 0 and --threads at least 1")
    torch.set_num_threads(args.threads)
    record = RunRecord(
        "bench-data",
        parameters={"seconds": args.seconds, "threads": torch.get_num_threads()},
        seed=0,
        device="cpu",
    )
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        recordings = list(_recordings(args.data, Path(folder)))
        for name, dataset, card in recordings:
            for every, stride in (("block", card.horizon), ("quarter", max(card.horizon // 4, 1))):
                windows = WindowDataset(dataset, card, stride=stride)
                speed = loading(windows, seconds=args.seconds / 2)
                key = f"{name}/{every}"
                record.add(f"{key}/windows_per_second", speed.ours, unit="1/s", n=speed.windows)
                record.add(f"{key}/one_seek_a_frame", speed.plain, unit="1/s", n=speed.windows)
                record.add(f"{key}/ratio_wall", speed.ours / speed.plain, n=speed.windows)
                record.add(f"{key}/ratio_cpu", speed.ratio, n=speed.windows)
                record.add(f"{key}/frames_decoded_a_window", speed.decoded)
                rows.append([name, _codec(dataset), every, *_cells(speed)])
        _, dataset, card = recordings[0]
        if args.data is None:
            _wait(record, dataset, card, Path(folder))
    if args.out is not None:
        device = re.sub(r"[^a-z0-9]+", "-", record.device.lower()).strip("-")
        write_json(Path(args.out) / f"data-{device}.json", record.to_dict())
    if args.json:
        print(json.dumps(record.to_dict(), indent=1))
    else:
        _show(record, rows)
    return 0


def _recordings(paths: list[str] | None, folder: Path) -> Iterator[tuple[str, Dataset, Embodiment]]:
    from ..data import cards
    from ..data.benchmark import wrap_clips
    from ..data.draft import draft
    from ..data.reader import Dataset
    from ..report.data_study import find_real_data

    def opened(path: Path | str) -> tuple[Dataset, Embodiment]:
        dataset = Dataset.open(path)
        fitting = cards.fitting(dataset)
        return dataset, fitting[0] if fitting else draft(dataset)[0]

    if paths is not None:
        for path in paths:
            yield Path(path).name, *opened(path)
        return
    from ..sim import record

    yield "tabletop", *opened(record(folder / "tabletop", episodes=24, seed=0, progress=False))
    real = find_real_data()
    for name in ("g1_inspire", "franka_usb"):
        if real is not None and (real / name).is_dir():
            yield name, *opened(real / name)
    if real is not None and (real / "droid_clips").is_dir():
        from .. import embodiments

        card = embodiments.get("droid")
        files = {
            view: real / "droid_clips" / f"{name}.mp4"
            for view, name in zip(card.views, _DROID, strict=True)
        }
        yield "droid_clips", wrap_clips(folder / "droid", files, 15), card


def _codec(dataset: Dataset) -> str:
    view = next(iter(dataset.views))
    clip = dataset.clips.about(dataset.episodes[0].videos[view].path)
    height, width = clip.size_px
    return f"{clip.codec} {width} x {height}, keyframe every {len(clip) / len(clip.keys):.0f}"


def _cells(speed: Any) -> list[str]:
    return [
        f"{speed.ours:.1f}",
        f"{speed.plain:.2f}",
        f"{speed.ours / speed.plain:.1f}",
        f"{speed.ratio:.1f}",
        f"{speed.decoded:.1f}",
    ]


def _wait(record: RunRecord, dataset: Dataset, card: Embodiment, folder: Path) -> None:
    """Share of a tiny training's steps that waits, reading video and reading the feature cache."""
    import numpy as np
    import torch

    from ..data.mixture import Feed, Mixture
    from ..data.windows import WindowDataset
    from ..model.bundle import WorldActionModel
    from ..shipped import find
    from ..train.config import TrainSettings
    from ..train.distributed import Processes
    from ..train.features import FeatureEncoder
    from ..train.loop import Trainer
    from ..train.reading import open_windows

    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    base = TrainSettings(
        bf16=False, steps=1 + _STEPS, log_every=1, evaluate_every=2 + _STEPS, chunks=0, dreams=0,
        tensorboard=False, shuffle="episodes",
    )  # fmt: skip
    for settings in (replace(base, reading="video", workers=1), replace(base, reading="cache")):
        reading = settings.reading
        model, out = WorldActionModel.load(find("tiny_so101")), folder / reading
        config, statistics = model.transformer.config, model.robots[card.name][1]
        encoder = FeatureEncoder(model.codec, config.action_dim, config.state_dim)
        kinds = (settings.full, settings.first)
        sets = [WindowDataset(dataset, card, statistics, blocks=k.blocks, stride=4) for k in kinds]
        processes = Processes("cpu", settings)
        opened = open_windows(sets, encoder, settings, folder / "features", processes, False)
        feeds = [Feed(kind, windows) for kind, windows in zip(kinds, opened, strict=True)]
        mixture = Mixture(feeds, shuffle=settings.shuffle)
        Trainer(model, mixture, settings, out, processes).run(progress=False)
        log = (out / "log.jsonl").read_text(encoding="utf-8").splitlines()
        seconds, waits = zip(
            *((row["seconds"], row["data_wait"]) for row in map(json.loads, log)), strict=True
        )
        # Not the first step: workers start and networks warm up.
        spent = np.diff(seconds)
        record.add(f"waiting/{reading}", float(spent @ waits[1:] / spent.sum()), n=len(spent))


def _show(record: RunRecord, rows: list[list[str]]) -> None:
    from rich import box
    from rich.table import Table

    from ._data_tables import show

    table = Table(title=f"Loading on {record.device}", title_justify="left", box=box.SIMPLE_HEAD)
    names = ("recording", "video", "a window every", "windows/s", "one seek a frame")
    for name in (*names, "ratio", "ratio, CPU time", "frames decoded"):
        table.add_column(name, justify="left" if name in names[:3] else "right")
    for row in rows:
        table.add_row(*row)
    show(table)
    for name, metric in record.metrics.items():
        if name.startswith("waiting/"):
            share = 100 * float(metric.value or 0)
            print(
                f"a tiny training from {name.removeprefix('waiting/')} waits {share:.1f} % of its time"
            )
