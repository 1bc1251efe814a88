"""Sweeps: the grid and its identities, resuming, failures, two at once, a cluster, the summary."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dreamzero.errors import UserError
from dreamzero.report import load, sweep
from dreamzero.report.notebooks import Notebook
from dreamzero.report.record import verify
from dreamzero.report.sweep import engines, summary
from dreamzero.report.sweep.grid import split_values
from dreamzero.report.sweep.job import FAILURE, Job, finished, run_job

Cli = Callable[..., tuple[int, str, str]]
PARAMETERS = """\
profile: str = "quick"  # quick, small or full
seed: int = 0  # of everything
device: str = "cpu"  # cpu or cuda
out_dir: str = ""  # where the report goes
rate: float = 1.0  # how steep
name: str = "coin"  # what is thrown
"""
BODY = """\
import os, pathlib, time
from dreamzero.errors import UserError
from dreamzero.report import NotebookReport
with open("ran.txt", "a") as log:
    log.write(f"{seed} {rate} {name} {os.environ['OMP_NUM_THREADS']}\\n")
if name == "slow":
    time.sleep(60)
if name == "fatal":
    import signal; os.kill(os.getppid(), signal.SIGKILL)
if name == "refused":
    raise UserError("data/x: no data set")
if pathlib.Path("broken").exists():
    assert seed != 1, "the second coin"
report = NotebookReport("00_coin", "Fair?", dict(
    profile=profile, seed=seed, device=device, out_dir=out_dir, rate=rate, name=name))
report.work_dir.joinpath("mine").write_text(str(seed))
time.sleep(0.2)
assert report.work_dir.joinpath("mine").read_text() == str(seed), "another run's file"
report.metric("heads", rate + seed / 10, "of it", n=9, low=0.0, high=2.0)
report.answer("Yes.")
report.save()
"""


@pytest.fixture
def coin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A notebook in ``tmp_path/notebooks``; the current directory is ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DREAMZERO_WORK", str(tmp_path / "work"))
    return write(tmp_path)


def write(folder: Path, body: str = BODY, parameters: str = PARAMETERS, title: str = "#") -> Path:
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    cells = [
        new_markdown_cell(title),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        new_code_cell(body),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = folder / "notebooks" / "00_coin.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def names(path: Path, *pairs: tuple[str, str]) -> set[str]:
    return {run.name for run in sweep.grid(Notebook(path), pairs).runs}


def test_the_grid_has_every_combination_once(coin: Path) -> None:
    plan = sweep.grid(Notebook(coin), [("seed", "0,1,1"), ("name", 'a,"b, c"')], {"device": "cpu"})
    assert plan.axes == {"seed": [0, 1], "name": ["a", "b, c"]}
    assert [run.swept for run in plan.runs] == [
        {"seed": s, "name": n} for s in (0, 1) for n in ("a", "b, c")
    ]
    assert plan.runs[0].parameters == {
        "profile": "quick", "seed": 0, "device": "cpu", "rate": 1.0, "name": "a",
    }  # fmt: skip
    assert plan.runs[3].name.startswith("seed-1_name-b_c-")
    assert len({run.name for run in plan.runs}) == 4


def test_order_and_spelling_make_no_other_run(coin: Path) -> None:
    one = names(coin, ("rate", "1e-1,2"), ("seed", "0,1"))
    assert one == names(coin, ("seed", "1,0"), ("rate", "2.0,0.1"), ("name", "coin"))
    assert one == names(coin, ("seed", "0"), ("seed", "1"), ("rate", "0.10,2_0e-1"))
    assert sweep.grid(Notebook(coin), [("seed", "0,1")]).name == (
        sweep.grid(Notebook(coin), [("seed", "1,0"), ("name", "coin")]).name
    )
    assert names(coin) != names(coin, ("rate", "2"))


def test_a_run_is_its_code_and_parameters(coin: Path) -> None:
    before = names(coin)
    write(coin.parents[1], title="# Other words", parameters=PARAMETERS.replace("steep", "high"))
    assert names(coin) == before, "what is not code is no part of a run"
    write(coin.parents[1], BODY + "1 + 1\n")
    assert names(coin) != before


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ([("sed", "0")], "did you mean seed"),
        ([("seed", "0,x")], "parameter seed must be an integer, got 'x'"),
        ([("seed", "0,,1")], "a value is missing"),
        ([("out_dir", "x")], "use --out"),
        ([("profile", "quick,huge")], "must be one of quick, small, full"),
        ([("device", "cpu")], "given twice"),
    ],
)
def test_mistakes_in_a_grid(coin: Path, pairs: list[tuple[str, str]], says: str) -> None:
    with pytest.raises(UserError, match=says):
        sweep.grid(Notebook(coin), pairs, {"device": "cpu"})


def test_values_are_split_at_commas_outside_quotes() -> None:
    assert split_values("0, 1,2") == ["0", "1", "2"]
    assert split_values('"touch it, now",push') == ["touch it, now", "push"]
    assert split_values('"",tiny') == ["", "tiny"]
    assert split_values("") == [""]


@pytest.mark.notebook
def test_a_sweep_goes_on_where_it_stopped(cli: Cli, coin: Path) -> None:
    Path("broken").touch()
    command = ("sweep", "0", "-p", "seed", "0,1", "-p", "rate", "1,2", "--jobs", "2",
               "--notebooks", "notebooks", "--out", "out")  # fmt: skip
    status, out, err = cli(*command)
    assert status == 1 and "2 of 4 runs finished, 2 failed." in out
    assert err.count("\n  cell 3: AssertionError: the second coin\n") == 2
    (executed,) = Path("out/00_coin/runs").glob("seed-1_rate-2.0-*.failed/executed.ipynb")
    assert f"  {executed}" in err, "where its cells are"
    noted = json.loads((executed.parent / FAILURE).read_text())
    assert noted["parameters"]["rate"] == 2.0 and noted["git"] and noted["device"]
    assert len(Path("ran.txt").read_text().splitlines()) == 4
    assert not list(Path("work").iterdir()), "work folders are gone"

    Path("broken").unlink()
    status, out, err = cli(*command)
    assert status == 0 and "4 of 4 runs finished." in out
    ran = Path("ran.txt").read_text().splitlines()
    assert [line.split()[0] for line in ran[4:]] == ["1", "1"], "only what had failed"
    assert not list(Path("out/00_coin/runs").glob("*.failed"))
    page = Path(out.splitlines()[-1])
    assert "1.05 [1, 1.1]" in out and "| 1.0 | 1.05 [1, 1.1] | 2 |" in page.read_text()

    rows = list(csv.DictReader((page.parent / summary.CSV).read_text().splitlines()))
    assert [(r["seed"], r["rate"], r["heads"]) for r in rows] == [
        ("0", "1.0", "1.0"), ("0", "2.0", "2.0"), ("1", "1.0", "1.1"), ("1", "2.0", "2.1"),
    ]  # fmt: skip
    assert all(r["status"] == "done" and r["commit"] and "cores" in r["device"] for r in rows)
    record = load(page.parent)
    mean = record.metrics["rate = 1.0/heads"]
    assert (mean.value, mean.n, mean.unit) == (pytest.approx(1.05), 2, "of it")
    assert mean.low == pytest.approx(1.05 - 12.706 * 0.05, abs=1e-3)
    assert set(record.artifacts) == {summary.CSV, summary.FIGURE}
    assert record.parameters["seed"] == [0, 1] and record.parameters["name"] == "coin"

    status, out, _ = cli(*command, "--metric", "head")
    assert status == 2 and len(Path("ran.txt").read_text().splitlines()) == 6
    status, out, _ = cli(*command, "--list")
    assert status == 0 and out.count("done  ") == 4
    figure = next(Path("out/00_coin/runs").glob("seed-1_rate*/metrics.json"))
    figure.write_text("{}")
    assert cli(*command, "--list")[1].count("open  ") == 1, "a broken record is no result"


@pytest.mark.notebook
def test_two_sweeps_in_one_folder_share_their_runs(coin: Path) -> None:
    results = []

    def start(*pairs: tuple[str, str]) -> None:
        with engines.local(2) as engine:
            plan = sweep.grid(Notebook(coin), pairs)
            results.append(sweep.run(plan, "out", engine, progress=False))

    threads = [
        threading.Thread(target=start, args=[("seed", "1,2"), ("rate", "1")]),
        threading.Thread(target=start, args=[("rate", "1.0"), ("seed", "2,1")]),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.failures for result in results] == [{}, {}]
    ran = [line.split()[0] for line in Path("ran.txt").read_text().splitlines()]
    assert sorted(ran) == ["1", "2"], "each run once"
    records = [summary.write(result).to_dict() for result in results]
    (folder,) = Path("out/00_coin").glob("sweep-*")
    assert records[0] == records[1] and verify(load(folder), folder) == []


@pytest.mark.notebook
def test_what_dies_or_is_refused_is_a_failure_with_a_reason(coin: Path) -> None:
    plan = sweep.grid(Notebook(coin), [("name", "fatal,refused")])
    with engines.local(2) as engine:
        result = sweep.run(plan, "out", engine, progress=False)
    fatal, refused = (result.failures[run.name] for run in plan.runs)
    assert fatal.startswith("its process ended with status -9 (killed, perhaps for memory)")
    assert refused == "data/x: no data set"
    assert result.executed(plan.runs[0].name).name == FAILURE
    assert result.executed(plan.runs[1].name).name == "executed.ipynb"
    record = summary.write(result)
    assert "2 failed" in record.notes["answer"] and not record.metrics


@pytest.mark.notebook
def test_an_interrupted_sweep_leaves_nothing_half_done(coin: Path) -> None:
    command = [
        sys.executable, "-m", "dreamzero", "sweep", "0", "-p", "name", "slow,coin", "--notebooks",
        "notebooks", "--out", "out",
    ]  # fmt: skip
    root = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    deadline = time.monotonic() + 60
    while not Path("ran.txt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.splitlines()[-1] == "dreamzero: interrupted"
    assert not [p for p in Path("out/00_coin/runs").iterdir() if p.name != ".locks"]
    assert not list(Path("out/00_coin").glob(".stop-*")) and not list(Path("work").iterdir())
    assert "coin" not in Path("ran.txt").read_text(), "the other run was not begun"


def test_cores_are_shared_and_the_folder_must_be_seen(
    coin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamzero.report.sweep import job as module

    started = []
    monkeypatch.setattr(module, "cores", lambda: 8)
    monkeypatch.setattr(module, "_start", lambda job, lock, threads: started.append(threads))
    job = Job(str(coin), "x-1", {}, str(Path("out").resolve()), str(Path.cwd()), "stop")
    for share in (1, 3, 20):
        run_job(job, share)
    assert started == [8, 2, 1]
    missing = Job("/nowhere/00_x.ipynb", "x-1", {}, "/nowhere", "/nowhere", "stop")
    assert "the folder must be shared" in run_job(missing).why
    assert not finished("out", "x-1")
    with pytest.raises(UserError, match="--jobs 0"), engines.local(0):
        pass


@pytest.mark.notebook
def test_a_cluster_of_two_workers(cli: Cli, coin: Path) -> None:
    pytest.importorskip("distributed", reason="the cluster extra is not installed")
    status, out, err = cli("sweep", "0", "-p", "seed", "0,1", "--cluster", "local:2",
                           "--notebooks", "notebooks", "--out", "out")  # fmt: skip
    assert status == 0, err
    assert "2 of 2 runs finished." in out and "2 at a time on 2 workers" in err
    assert Path(out.splitlines()[-1]).with_name(summary.FIGURE).is_file()
    status, _, err = cli("sweep", "0", "-p", "seed", "0", "--cluster", "here",
                         "--notebooks", "notebooks", "--out", "out")  # fmt: skip
    assert status == 2 and "must be local:N or a scheduler's address" in err
