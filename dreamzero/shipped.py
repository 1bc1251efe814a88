"""The checkpoints that come with the package, and the commands that make them.

    python -m dreamzero.shipped --out DIR                       hours on two cores; --quick for minutes
    python -m dreamzero.shipped --model tiny_ur5e --out DIR     half an hour

The first records the tabletop from committed seeds, trains the codec and, stage by stage, the world
action model on it, rolls the result out on scenes it never saw, and writes the folder that
``load_policy("tiny_so101")`` finds. The second goes on from there with an arm of other joints.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UserError

if TYPE_CHECKING:
    from .report.record import RunRecord

FOLDER = Path(__file__).parent / "shipped_models"
NAME = "tiny_so101"
SECOND = "tiny_ur5e"


@dataclass(frozen=True)
class Recording:
    """One recording of the recipe: ``midway`` is the share of episodes that start in the middle."""

    name: str
    seed: int
    midway: float
    episodes: int = 8000


@dataclass(frozen=True)
class Stage:
    """One training of the recipe, from the weights of the one before.

    Attributes:
        steps: with a learning rate that falls to zero at the last.
        recordings: names of what it trains on.
        full_begin, first_begin: share of full and of one-block windows that begin an episode.
        rate: of the usual learning rates.
    """

    name: str
    steps: int
    recordings: tuple[str, ...]
    full_begin: float = 0.0
    first_begin: float = 0.0
    rate: float = 1.0


# Where the model of the stage before went, the expert takes over.
CORRECTIONS = "corrections"
RECORDINGS = (Recording("midway", 0, 0.6), Recording("starts", 1, 0.0))
STAGES = (
    Stage("motion", 4250, ("midway",)),
    Stage("plan", 2500, ("midway",), 0.5, 0.7),
    Stage("both", 5500, ("midway", "starts"), 0.7, 0.7),
    # Named three times they are drawn three times as often.
    Stage("corrected", 1500, ("midway", "starts", *3 * (CORRECTIONS,)), 0.4, 0.5, 0.6),
)
# Of the second model: one recording, one training from the first.
UR5E = Recording("labels", 31, 0.4, 1200)
UR5E_STAGE = Stage("transfer", 1000, (UR5E.name,), 0.6, 0.6)
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


def make(
    out: Path, quick: bool = False, threads: int = 1, resume: bool = False, episodes: int = 400
) -> None:
    """Record, train, evaluate, and write the model folder to ``out / NAME``.

    Args:
        quick: the same code in minutes, for a test; the model is good for nothing.
        episodes: scenes of each suite that the result is measured on.
        resume: keep recordings, codec and training state that are in ``out`` already.
    """
    import torch

    from .data.reader import Dataset
    from .data.windows import WindowDataset
    from .embodiments import get
    from .evaluate import record_corrections
    from .report.record import RunRecord
    from .sim import record
    from .train.checkpoint import latest
    from .train.codec import CodecTraining, train_codec
    from .train.config import Source, TrainSettings
    from .train.run import clips, train

    torch.set_num_threads(threads)
    run = RunRecord("shipped", parameters={"quick": quick, "name": NAME}, seed=0, device="cpu")
    codec, refined, latents = out / "codec", out / "codec-refined", out / "latents"
    for r in RECORDINGS:
        if not (resume and (out / r.name).exists()):
            count = 64 if quick else r.episodes
            record(
                out / r.name, "so101", count, r.seed, noise=0.5, midway=r.midway, workers=threads
            )
    if not (resume and (refined / "measured.json").exists()):
        windows = WindowDataset(Dataset.open(out / RECORDINGS[0].name), get("tabletop_so101"))
        footage = clips(windows, most=800)
        training = CodecTraining(steps=40 if quick else 2400)
        train_codec(footage, training, codec)
        # The latents stay as the model learns them; the decoder is made better at what moves.
        training = replace(
            training, steps=20 if quick else 1800, moving_weight=40.0, lr=1e-3, matrix_lr=0.01
        )
        found = train_codec(footage, training, refined, start=codec)
        (refined / "measured.json").write_text(json.dumps(found))
    quality = json.loads((refined / "measured.json").read_text())
    for name in ("psnr", "psnr_moving", "psnr_changed"):
        run.add(f"codec/{name}", quality[name], unit="dB", n=quality["held_out_clips"])
    previous = None
    for stage in STAGES:
        folder = out / stage.name
        if not (resume and (folder / "metrics.json").exists()):
            if CORRECTIONS in stage.recordings and not (resume and (out / CORRECTIONS).exists()):
                assert previous is not None
                count = 10 if quick else 1600
                record_corrections(
                    out / CORRECTIONS, previous, count, executions=(1, 10), workers=threads
                )
            settings = TrainSettings(
                steps=30 if quick else stage.steps,
                full=Source(stride=16, begin=stage.full_begin),
                first=Source(blocks=1, batch=48, idle=0.02, begin=stage.first_begin),
                action_scale=4.0,
                matrix_lr=0.02 * stage.rate,
                lr=1.5e-3 * stage.rate,
                validation=0.02,
                compile=not quick,
                save_every=250,
            )
            train(
                [out / name for name in stage.recordings],
                folder,
                "tiny",
                settings,
                codec=codec,
                init=previous,
                latents=latents,
                resume=resume and latest(folder) is not None,
            )
        previous = folder
    finish(out / NAME, [out / stage.name for stage in STAGES], refined, run)
    measure(out / NAME, run, episodes=8 if quick else episodes, workers=threads)
    run.save(out / NAME)
    print(f"model: {out / NAME}")


def make_second(
    out: Path, quick: bool = False, threads: int = 1, resume: bool = False, episodes: int = 100
) -> None:
    """Carry the first model to a UR5e and write the model folder to ``out / SECOND``; see ``make``."""
    import torch

    from .report.record import RunRecord
    from .sim import record, split
    from .train.checkpoint import latest
    from .train.config import Source, TrainSettings
    from .train.run import train

    torch.set_num_threads(threads)
    run = RunRecord("shipped", parameters={"quick": quick, "name": SECOND}, seed=0, device="cpu")
    recording, folder = out / UR5E.name, out / UR5E_STAGE.name
    if not (resume and recording.exists()):
        count = 16 if quick else UR5E.episodes
        options = {"noise": 0.5, "midway": UR5E.midway, "tasks": list(split("seen"))}
        record(recording, "ur5e", count, UR5E.seed, workers=threads, **options)  # type: ignore[arg-type]
    if not (resume and (folder / "metrics.json").exists()):
        settings = TrainSettings(
            steps=30 if quick else UR5E_STAGE.steps,
            full=Source(stride=16, batch=12, begin=UR5E_STAGE.full_begin),
            first=Source(blocks=1, batch=48, idle=0.02, begin=UR5E_STAGE.first_begin),
            action_scale=4.0,
            matrix_lr=0.012,
            lr=1e-3,
            validation=0.02,
            compile=not quick,
            save_every=200,
        )
        again = resume and latest(folder) is not None
        train([recording], folder, settings=settings, init=NAME, resume=again)
    finish(out / SECOND, [folder], None, run)
    measure(out / SECOND, run, 8 if quick else episodes, threads, "ur5e", ("seen",))
    run.save(out / SECOND)
    print(f"model: {out / SECOND}")


def finish(out: Path, folders: Sequence[Path], codec: Path | None, run: RunRecord) -> None:
    """Write the model of the last stage with its final decoder, and one log of all stages.

    Only the robots of that stage's recordings stay: of others it may have forgotten much.
    """
    import torch

    from .embodiments import get
    from .model.bundle import WorldActionModel
    from .model.codecs import load as load_codec
    from .report.record import load

    model = WorldActionModel.load(folders[-1])
    if codec is not None:
        model.codec = load_codec(codec)
    last = list(model.robots)[-1]
    model.robots = {last: (get(last), model.robots[last][1])}
    model.save(out, dtype=torch.float16)
    step, seconds, rows = 0, 0.0, []
    for folder in folders:
        kept = load(folder)
        run.notes[f"{folder.name}/git"] = kept.git
        for name, metric in kept.metrics.items():
            run.metrics[f"{folder.name}/{name}"] = metric
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        rows += [r | {"step": r["step"] + step, "seconds": r["seconds"] + seconds} for r in log]
        step, seconds = rows[-1]["step"], rows[-1]["seconds"]
    (out / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def measure(
    model: Path,
    run: RunRecord,
    episodes: int = 400,
    workers: int = 2,
    robot: str = "so101",
    suites: Sequence[str] = SUITES,
) -> None:
    """Closed-loop success of a model folder on every suite, by verb, into a run record."""
    from .evaluate import evaluate

    for suite in suites:
        result = evaluate(model, suite, episodes, robot=robot, workers=workers)
        found = {"success": result.success, "progress": result.progress}
        found |= {f"success_{verb}": rate for verb, rate in result.by_verb().items()}
        for name, rate in found.items():
            run.add(f"{suite}/{name}", rate.value, n=rate.n, low=rate.low, high=rate.high)
    if model.name != NAME:
        return
    # What memory of its own past does to it, and what acting as the release does: there the state's
    # token sees everything, though in training it saw itself alone.
    rates = {"with_memory": evaluate(model, "seen", episodes, workers=workers, memory_blocks=3)}
    with tempfile.TemporaryDirectory() as folder:
        other = shutil.copytree(model, Path(folder) / model.name)
        config = other / "transformer" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"state_sees_all": True}))
        rates["state_sees_all"] = evaluate(other, "seen", episodes, workers=workers)
    for name, result in rates.items():
        rate = result.success
        run.add(f"seen/success_{name}", rate.value, n=rate.n, low=rate.low, high=rate.high)


def main() -> None:
    """``python -m dreamzero.shipped``: make one of the two models."""
    parser = argparse.ArgumentParser(prog="python -m dreamzero.shipped", description=__doc__)
    parser.add_argument("--model", choices=(NAME, SECOND), default=NAME)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="the same in minutes, for a test")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--episodes", type=int, default=400, help="scenes a suite (default 400)")
    parser.add_argument("--resume", action="store_true", help="keep what is in --out already")
    args = parser.parse_args()
    make_it = make if args.model == NAME else make_second
    make_it(args.out, args.quick, args.threads, args.resume, args.episodes)


if __name__ == "__main__":
    main()
