"""The checkpoint that comes with the package, and the command that made it.

    python -m dreamzero.shipped --out DIR          hours on two cores; --quick for minutes

records the tabletop from committed seeds, trains the codec and the world action model on it, rolls
it out on scenes it never saw, and writes the folder that ``load_policy("tiny_so101")`` finds.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UserError

if TYPE_CHECKING:
    from .report.record import RunRecord

FOLDER = Path(__file__).parent / "shipped_models"
NAME = "tiny_so101"
STEPS = 14_000
SUITES = ("seen", "unseen-combination", "unseen-look")


def shipped(name: str) -> Path | None:
    """Folder of a shipped model, None if there is none of that name."""
    path = FOLDER / name
    return path if (path / "embodiment.json").exists() else None


def find(spec: Path | str) -> Path:
    """A model folder by path, or a shipped one by name.

    Raises:
        UserError: neither.
    """
    path = Path(spec)
    if path.is_dir():
        return path
    known = shipped(str(spec))
    if known is None:
        names = sorted(p.parent.name for p in FOLDER.glob("*/embodiment.json"))
        raise UserError(
            f"{spec}: no such model folder; give the --out folder of `dreamzero train`, or a "
            f"shipped model: {', '.join(names)}"
        )
    return known


def make(out: Path, quick: bool = False, threads: int = 1, resume: bool = False) -> None:
    """Record, train, evaluate, and write the model folder to ``out / NAME``.

    Args:
        quick: the same code in minutes, for a test; the model is good for nothing.
        resume: keep recordings, codec and training state that are in ``out`` already.
    """
    import torch

    from .data.reader import Dataset
    from .data.windows import WindowDataset
    from .embodiments import get
    from .model.bundle import WorldActionModel
    from .model.codecs import load as load_codec
    from .report.record import RunRecord
    from .sim import record
    from .train.codec import CodecTraining, train_codec
    from .train.config import Source, TrainSettings
    from .train.run import clips, train

    torch.set_num_threads(threads)
    run = RunRecord("shipped", parameters={"quick": quick, "name": NAME}, seed=0, device="cpu")
    recordings, codec, refined = out / "recordings", out / "codec", out / "codec-refined"
    if not (resume and recordings.exists()):
        episodes = 64 if quick else 8000
        record(recordings, "so101", episodes, seed=0, noise=0.5, midway=0.6, workers=threads)
    if not (resume and refined.exists()):
        windows = WindowDataset(Dataset.open(recordings), get("tabletop_so101"))
        footage = clips(windows, most=800)
        training = CodecTraining(steps=40 if quick else 2400)
        train_codec(footage, training, codec)
        # The latents stay as the model learns them; the decoder is made better at what moves.
        training = replace(
            training,
            steps=20 if quick else 1500,
            moving_weight=25.0,
            lr=1e-3,
            matrix_lr=0.01,
        )
        measured = train_codec(footage, training, refined, start=codec)
        for name in ("psnr", "psnr_moving", "psnr_changed"):
            run.add(f"codec/{name}", measured[name], unit="dB", n=measured["held_out_clips"])
    first = Source(blocks=1, batch=48, idle=0.02)
    settings = TrainSettings(steps=STEPS, first=first, action_scale=4.0, compile=True)
    if quick:
        settings = replace(settings, steps=60, warmup=10, evaluate_every=30, compile=False)
    trained = train([recordings], out / "run", "tiny", settings, codec=codec, resume=resume)
    for name, metric in trained.metrics.items():
        run.metrics[f"train/{name}"] = metric
    model = WorldActionModel.load(out / "run")
    model.codec = load_codec(refined)
    model.save(out / NAME, dtype=torch.float16)
    shutil.copy2(out / "run" / "log.jsonl", out / NAME / "log.jsonl")
    measure(out / NAME, run, episodes=16 if quick else 400, workers=threads)
    run.save(out / NAME)
    print(f"model: {out / NAME}")


def measure(model: Path, run: RunRecord, episodes: int = 400, workers: int = 2) -> None:
    """Closed-loop success of a model folder on every suite, by verb, into a run record."""
    from .evaluate import evaluate

    for suite in SUITES:
        result = evaluate(model, suite, episodes, workers=workers)
        rates = {"success": result.success, "progress": result.progress}
        rates |= {f"success_{verb}": rate for verb, rate in result.by_verb().items()}
        for name, rate in rates.items():
            run.add(f"{suite}/{name}", rate.value, n=rate.n, low=rate.low, high=rate.high)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dreamzero.shipped", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="the same in minutes, for a test")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    make(args.out, args.quick, args.threads, args.resume)


if __name__ == "__main__":
    main()
