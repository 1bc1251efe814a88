"""One run of a sweep in a process of its own: locked, out of the others' way, stopped when asked.

`run_job` is what a thread of this machine or a worker of a cluster calls. It starts
``python -m dreamzero.report.sweep.job`` with the job as JSON on its standard input; that process
executes the notebook. Everything passes through files in the sweep's folder, which the machines of a
cluster share.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from ...errors import UserError
from .. import notebooks, paths
from ..machine import cores, describe_device, git_state
from ..record import load, verify, write_json

FAILURE = "failure.json"
_PATIENCE_S = 20.0  # for a kernel to go after it was asked to

Status = Literal["done", "failed", "busy", "stopped"]


@dataclass(frozen=True)
class Job:
    """What a worker needs to know; plain values, so that it travels as JSON.

    Attributes:
        notebook: path of the notebook.
        name: folder of the run inside ``folder``.
        folder: holds all runs of this notebook, finished and failed.
        directory: where the process starts; relative paths in parameters mean what they mean here.
        stop: a file; when it appears, the run is interrupted.
    """

    notebook: str
    name: str
    parameters: dict[str, Any]
    folder: str
    directory: str
    stop: str


@dataclass(frozen=True)
class Outcome:
    """How it ended. ``busy``: another process is at this very run; ask again later."""

    name: str
    status: Status
    why: str = ""


def finished(folder: str | Path, name: str) -> bool:
    """Whether ``folder/name`` holds a whole result: its record, and the files the record names."""
    try:
        return not verify(load(Path(folder) / name), Path(folder) / name)
    except UserError:
        return False


def run_job(job: Job, share: int = 1) -> Outcome:
    """Run it unless it is finished; blocks until it has ended.

    Args:
        share: runs that this machine takes at a time; each has its part of the cores.
    """
    if not Path(job.directory).is_dir() or not Path(job.notebook).is_file():
        why = f"{socket.gethostname()} does not see {job.notebook}: the folder must be shared"
        return Outcome(job.name, "failed", why)
    locks = Path(job.folder) / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    # The process inherits the lock: it holds while the notebook runs, even if we are killed.
    with open(locks / job.name, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return Outcome(job.name, "busy")
        if finished(job.folder, job.name):
            return Outcome(job.name, "done")
        if Path(job.stop).exists():
            return Outcome(job.name, "stopped")
        return _start(job, lock.fileno(), max(1, cores() // share))


def _start(job: Job, lock: int, threads: int) -> Outcome:
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(threads, int(given)) if given.isdigit() and int(given) else threads
    # Notebooks name recordings and checkpoints after some of their parameters only: two runs that
    # share a work folder could take each other's.
    base = paths.work_base()
    base.mkdir(parents=True, exist_ok=True)
    work = tempfile.mkdtemp(prefix=f"sweep-{job.name.rpartition('-')[2]}-", dir=base)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "DREAMZERO_WORK": work}
    try:
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "dreamzero.report.sweep.job"],
                cwd=job.directory,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=subprocess.STDOUT,
                text=True,
                pass_fds=[lock],
                start_new_session=True,  # a Ctrl-C is for the sweep, which then asks its runs to end
            )
            assert process.stdin is not None
            process.stdin.write(json.dumps(asdict(job)))
            process.stdin.close()
            if not _wait(process, Path(job.stop)):
                return Outcome(job.name, "stopped")
            said.seek(0)
            return _judge(job, process.returncode, said.read())
    finally:
        shutil.rmtree(work, ignore_errors=True)
        # A process that was killed could not do this itself.
        shutil.rmtree(Path(job.folder) / f".{job.name}.partial", ignore_errors=True)


def _wait(process: subprocess.Popen[str], stop: Path) -> bool:
    """Wait for the end; False if it was interrupted because ``stop`` appeared."""
    while True:
        try:
            process.wait(timeout=0.5)
            return True
        except subprocess.TimeoutExpired:
            if not stop.exists():
                continue
        process.terminate()
        try:
            process.wait(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return False


def _judge(job: Job, status: int, said: str) -> Outcome:
    if status == 0 and finished(job.folder, job.name):
        return Outcome(job.name, "done")
    failed = Path(job.folder) / f"{job.name}.failed"
    if status == 1:
        why = json.loads((failed / FAILURE).read_text(encoding="utf-8"))["why"]
    else:
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
        killed = " (killed, perhaps for memory)" if status == -signal.SIGKILL else ""
        why = f"its process ended with status {status}{killed}{': ' + last if last else ''}"
        note_failure(job, why, said[-4000:])
    return Outcome(job.name, "failed", why)


def note_failure(job: Job, why: str, said: str = "") -> Path:
    """Write ``<run>.failed/failure.json``: the reason, the parameters, commit and machine."""
    failed = Path(job.folder) / f"{job.name}.failed"
    failed.mkdir(parents=True, exist_ok=True)
    data = {
        "why": why,
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
        "notebook": Path(job.notebook).stem,
        "parameters": job.parameters,
        "git": git_state(),
        "device": describe_device("cpu"),
        "host": socket.gethostname(),
        "said": said,
    }
    return write_json(failed / FAILURE, data)


def _interrupt(signum: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """The process of one run: exit status 0 done, 1 failed (and noted), 130 interrupted."""
    # Not SIGINT, which a shell makes its background jobs ignore, and theirs.
    signal.signal(signal.SIGTERM, _interrupt)
    job = Job(**json.load(sys.stdin))
    parameters = dict(job.parameters)
    profile = parameters.pop("profile")
    try:
        notebooks.run(
            notebooks.Notebook(Path(job.notebook)),
            profile,
            job.folder,
            parameters,
            progress=False,
            name=job.name,
            keep_refused=True,
        )
    except (notebooks.NotebookFailed, UserError) as error:
        # Which notebook, and where its cells are, the sweep says itself.
        why = str(error).removeprefix(f"{Path(job.notebook).stem}: ").split("; its cells are in")[0]
        note_failure(job, why)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
