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

from .errors import UserError

FOLDER = Path(__file__).parent / "shipped_models"
NAME = "tiny_so101"
STEPS = 5000
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
    """Record, train, evaluate, and write the model folder to ``out``."""
    import torch

    from .evaluate import evaluate
    from .report.record import RunRecord
    from .sim import record
    from .train.codec import CodecTraining
    from .train.config import TrainSettings
    from .train.run import train

    torch.set_num_threads(threads)
    run = RunRecord("shipped", parameters={"quick": quick, "name": NAME}, seed=0, device="cpu")
    episodes, recordings = (64 if quick else 4000), []
    for seed in (0, 1):
        path = out / "recordings" / str(seed)
        if not path.exists():
            record(path, robot="so101", episodes=episodes, seed=seed, noise=0.5, workers=threads)
        recordings.append(path)
    settings = replace(TrainSettings(), steps=STEPS, compile=not quick)
    codec = CodecTraining()
    if quick:
        settings = replace(settings, steps=60, warmup=10, evaluate_every=30)
        codec = replace(codec, steps=60)
    trained = train(recordings, out / "run", "tiny", settings, codec_training=codec, resume=resume)
    for name, metric in trained.metrics.items():
        run.metrics[f"train/{name}"] = metric
    for suite in SUITES:
        result = evaluate(out / "run", suite, 16 if quick else 400, workers=threads)
        for name, rate in {"success": result.success, **result.by_verb()}.items():
            run.add(f"{suite}/{name}", rate.value, n=rate.n, low=rate.low, high=rate.high)
    model = out / NAME
    for part in ("transformer", "vae", "text_encoder", "embodiment.json", "log.jsonl"):
        source = out / "run" / part
        if source.is_dir():
            shutil.copytree(source, model / part, dirs_exist_ok=True)
        else:
            shutil.copy2(source, model / part)
    run.save(model)
    print(f"model: {model}")


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
