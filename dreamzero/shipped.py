"""The checkpoint that comes with the package, and the command that made it.

    python -m dreamzero.shipped --out DIR          hours on two cores; --quick for minutes

records the tabletop from committed seeds, trains the codec and the world action model on it, lets the
expert take over from that model where it went, trains on both, rolls the result out on scenes it
never saw, and writes the folder that ``load_policy("tiny_so101")`` finds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UserError

if TYPE_CHECKING:
    from .report.record import RunRecord

FOLDER = Path(__file__).parent / "shipped_models"
NAME = "tiny_so101"
# Steps of the two trainings: on demonstrations, then also on corrections of what that one did.
STEPS = (5000, 6000)
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
    from .evaluate import record_corrections
    from .report.record import RunRecord
    from .sim import record
    from .train.codec import CodecTraining, train_codec
    from .train.config import Source, TrainSettings
    from .train.run import clips, train

    torch.set_num_threads(threads)
    run = RunRecord("shipped", parameters={"quick": quick, "name": NAME}, seed=0, device="cpu")
    recordings, corrections = out / "recordings", out / "corrections"
    codec, refined, latents = out / "codec", out / "codec-refined", out / "latents"
    stages = (out / "first", out / "second")
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
            training, steps=20 if quick else 1500, moving_weight=25.0, lr=1e-3, matrix_lr=0.01
        )
        found = train_codec(footage, training, refined, start=codec)
        (refined / "measured.json").write_text(json.dumps(found))
    quality = json.loads((refined / "measured.json").read_text())
    for name in ("psnr", "psnr_moving", "psnr_changed"):
        run.add(f"codec/{name}", quality[name], unit="dB", n=quality["held_out_clips"])
    for stage, steps in zip(stages, (30, 30) if quick else STEPS, strict=True):
        second = stage is stages[1]
        if resume and (stage / "metrics.json").exists():
            continue
        settings = TrainSettings(
            steps=steps,
            full=Source(stride=16),
            first=Source(blocks=1, batch=48, idle=0.02),
            action_scale=4.0,
            matrix_lr=0.012 if second else 0.02,
            lr=1e-3 if second else 1.5e-3,
            compile=not quick,
            save_every=250,
        )
        if second and not (resume and corrections.exists()):
            count = 10 if quick else 2400
            record_corrections(corrections, stages[0], count, seed=0, workers=threads)
        train(
            [recordings, corrections] if second else [recordings],
            stage,
            "tiny",
            settings,
            codec=codec,
            init=stages[0] if second else None,
            latents=latents,
            resume=resume and (stage / "state.pt").exists(),
        )
    finish(out / NAME, stages, refined, run)
    measure(out / NAME, run, episodes=8 if quick else 400, workers=threads)
    run.save(out / NAME)
    print(f"model: {out / NAME}")


def finish(out: Path, stages: Sequence[Path], codec: Path, run: RunRecord) -> None:
    """Write the model of the last stage with its final decoder, and one log of all stages."""
    import torch

    from .model.bundle import WorldActionModel
    from .model.codecs import load as load_codec
    from .report.record import load

    model = WorldActionModel.load(stages[-1])
    model.codec = load_codec(codec)
    model.save(out, dtype=torch.float16)
    step, seconds, rows = 0, 0.0, []
    for stage in stages:
        for name, metric in load(stage).metrics.items():
            run.metrics[f"{stage.name}/{name}"] = metric
        log = [json.loads(line) for line in (stage / "log.jsonl").read_text().splitlines()]
        rows += [r | {"step": r["step"] + step, "seconds": r["seconds"] + seconds} for r in log]
        step, seconds = rows[-1]["step"], rows[-1]["seconds"]
    (out / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


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
