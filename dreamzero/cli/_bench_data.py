"""``dreamzero bench data``: windows a second against one seek a frame, and what a training waits."""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from ..data.reader import Dataset
    from ..data.windows import WindowDataset
    from ..embodiments import Embodiment
    from ..report.record import RunRecord

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
    """Share of a `tiny` training's steps that waits, from video and from cached features."""
    import torch

    from ..data.benchmark import waiting
    from ..data.loader import Loader, VideoSource
    from ..data.mixture import Mixture, Part
    from ..data.windows import WindowBatch, WindowDataset
    from ..model.bundle import WorldActionModel
    from ..shipped import find
    from ..train.cache import FeatureCache
    from ..train.config import TrainSettings
    from ..train.features import FeatureEncoder

    settings = TrainSettings(bf16=False)
    model = WorldActionModel.load(find("tiny_so101"))
    config = model.transformer.config
    encoder = FeatureEncoder(model.codec, config.action_dim, config.state_dim)
    cache, statistics = FeatureCache(folder / "features"), model.robots[card.name][1]
    cuts: list[tuple[WindowDataset, int]] = []
    for source in (settings.full, settings.first):
        windows = WindowDataset(dataset, card, statistics, blocks=source.blocks, stride=4)
        cuts.append((windows, source.batch))
    cached = [cache.precompute(windows, encoder, progress=False) for windows, _ in cuts]
    train = _step(model, settings)

    def mixture() -> Mixture:
        return Mixture([Part.of(windows, batch) for windows, batch in cuts])

    def step(item: tuple[int, Any]) -> None:
        batch = item[1]
        train(encoder(batch) if isinstance(batch, WindowBatch) else batch)

    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    for name, sources, workers in (
        ("video", [VideoSource(windows) for windows, _ in cuts], 1),
        ("features", cached, 0),
    ):
        loader = Loader(mixture(), sources, workers)
        share = waiting(loader, step, steps=8)
        loader.close()
        record.add(f"waiting/{name}", share, n=8)


def _step(model: Any, settings: Any) -> Callable[[Any], None]:
    """One optimiser step of the tiny model on a batch."""
    from ..train.objective import draw, generators, training_loss
    from ..train.optim import optimizers
    from ..train.trained import networks, parameters

    own = parameters(networks(model, settings))
    found = optimizers(own, settings)
    frames = model.transformer.config.frames_per_block

    def step(batch: Any) -> None:
        chance = generators(settings.seed, 0, range(len(batch.prompt)))
        noise = draw(batch, settings, frames, chance)
        loss = training_loss(model.transformer, model.text_encoder, batch, noise, settings)
        loss.total.backward()
        for optimizer in found:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step


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
