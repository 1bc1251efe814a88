"""The command line: help, mistakes in one line with exit status 2, doctor, run and report."""

from __future__ import annotations

import errno
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dreamzero.cli
from dreamzero import __version__, doctor
from dreamzero.cli import VERBS, available_verbs, build_parser, main
from dreamzero.errors import UserError

Cli = Callable[..., tuple[int, str, str]]


def test_help_lists_every_verb(cli: Cli) -> None:
    status, out, err = cli("--help")
    assert (status, err) == (0, "")
    for verb in available_verbs():
        assert re.search(rf"^\s+{verb}\s+{re.escape(VERBS[verb])}$", out, re.MULTILINE)
    assert {"doctor", "run", "report"} <= set(available_verbs())
    assert cli()[0] == 0


def test_version(cli: Cli) -> None:
    assert cli("--version")[1].strip() == f"dreamzero {__version__}"


@pytest.mark.parametrize("verb", available_verbs())
def test_every_verb_has_help(cli: Cli, verb: str) -> None:
    status, out, err = cli(verb, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: dreamzero {verb}")


def test_every_verb_module_is_listed(root: Path) -> None:
    modules = {path.stem for path in (root / "dreamzero" / "cli").glob("[!_]*.py")}
    assert modules == set(available_verbs())


def test_commands_in_the_documents_parse(root: Path) -> None:
    """Every `dreamzero` and `make` line of a code block is one that the project understands."""
    targets = re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.MULTILINE)
    seen = 0
    for name in ("README.md", "CONTRIBUTING.md", "notebooks/README.md"):
        text = (root / name).read_text(encoding="utf-8")
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["make"]:
                    assert set(words[1:]) <= set(targets), f"{name}: {line}"
                elif words[:1] == ["dreamzero"]:
                    _, rest = build_parser(words[1]).parse_known_args(words[1:])
                    assert not rest, f"{name}: {line}: {rest}"
                seen += words[:1] in (["make"], ["dreamzero"])
    assert seen >= 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rnu"], "did you mean run"),
        (["xyzzy"], "choose from doctor, run, sweep, report"),
        (["--verbose"], "unknown argument '--verbose'"),
        (["run", "3", "--profil", "quick"], "did you mean --profile"),
        (["run", "3", "--profile", "quik"], "did you mean quick"),
        (["run", "3", "--device", "tpu"], "did you mean cpu"),
        (["run", "3", "-p", "seed"], "-p/--parameter: expected 2 arguments"),
        (["run", "3", "--seed", "x"], "invalid int value: 'x'"),
        (["report", "extra"], "unknown 'extra': choose from compare"),
        (["doctor", "--jsn"], "did you mean --json"),
    ],
)
def test_mistakes_are_one_line(cli: Cli, arguments: list[str], says: str) -> None:
    status, out, err = cli(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("dreamzero: ") and err.count("\n") == 1
    assert says in err


@pytest.mark.parametrize(
    ("raised", "status", "says"),
    [
        (UserError("data/x: no data set\nhere"), 2, "dreamzero: data/x: no data set here"),
        (KeyboardInterrupt(), 130, "dreamzero: interrupted"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/model"),
            2,
            "dreamzero: the disk is full while writing out/model: free some space",
        ),
    ],
)
def test_what_a_verb_raises(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, raised: BaseException, status: int, says: str
) -> None:
    def fail(arguments: list[str]) -> int:
        raise raised

    monkeypatch.setattr(dreamzero.cli, "_run", fail)
    got, out, err = cli("doctor")
    assert (got, out, err.count("\n")) == (status, "", 1)
    assert err.startswith(says)


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: list[str]) -> int:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(dreamzero.cli, "_run", fail)
    with pytest.raises(PermissionError):
        main([])


def test_help_and_import_are_quick() -> None:
    """Bounds of the project: 0.3 s to import, 0.5 s for help (the best of three: shared cores)."""

    def best(*arguments: str) -> float:
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    assert best("-c", "import dreamzero") < 0.3
    assert best("-m", "dreamzero", "--help") < 0.5


def test_only_the_chosen_verb_is_imported() -> None:
    code = (
        "import sys; from dreamzero.cli import main, VERBS\n"
        "try: main(['doctor', '--help'])\nexcept SystemExit: pass\n"
        "print([v for v in VERBS if f'dreamzero.cli.{v}' in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['doctor']"


def test_unknown_notebooks_and_parameters(cli: Cli, coin: Path) -> None:
    status, _, err = cli("run", "7", "--notebooks", coin.parent)
    assert status == 2 and "unknown notebook '7'" in err and "00_coin" in err
    status, _, err = cli("run", "0", "-p", "sed", "1", "--notebooks", coin.parent)
    assert status == 2 and "did you mean seed" in err and "trials (coin throws)" in err
    status, _, err = cli("run", "0", "-p", "out_dir", "x", "--notebooks", coin.parent)
    assert status == 2 and "use --out" in err


def test_run_needs_the_device_that_is_asked_for(
    cli: Cli, coin: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for choice in (("--device", "cuda"), ("-p", "device", "cuda:1")):
        out = ("--notebooks", coin.parent, "--out", tmp_path / "out")
        status, _, err = cli("run", "0", *choice, *out)
        assert (status, err.count("\n")) == (2, 1) and "torch sees no GPU here; use cpu" in err
    assert not (tmp_path / "out").exists()


def test_run_lists_notebooks_and_parameters(cli: Cli, coin: Path) -> None:
    assert cli("run", "--notebooks", coin.parent)[1] == "00_coin\n"
    status, out, _ = cli("run", "coin", "--parameters", "--notebooks", coin.parent)
    assert status == 0 and "trials = 50  # coin throws" in out


@pytest.mark.notebook
def test_run_and_report(cli: Cli, coin: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    common = ("--notebooks", coin.parent, "--out", "out")
    status, out, _ = cli("run", "0", "-p", "trials", "9", "--seed", "3", *common)
    assert status == 0 and out.splitlines()[-1] == "out/00_coin/report.md"
    assert "n = 9" in out
    written = json.loads(Path("out/00_coin/metrics.json").read_text())
    assert (written["seed"], written["parameters"]["trials"]) == (3, 9)
    status, out, _ = cli("report", "--render", *common)
    assert (status, out) == (0, "out/index.html\n")
    assert "seed = 3" in Path("out/00_coin/index.html").read_text()


@pytest.fixture
def coin(tmp_path: Path) -> Path:
    """The notebook of tests/report/conftest.py, less its figures."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    parameters = (
        'profile = "quick"  # quick, small or full\nseed = 0  # of everything\n'
        'device = "cpu"  # cpu or cuda\nout_dir = ""  # empty: the default\n'
        "trials = 50  # coin throws"
    )
    body = (
        "from dreamzero.report import NotebookReport\n"
        'report = NotebookReport("00_coin", "Fair?", dict(profile=profile, seed=seed, '
        "device=device, out_dir=out_dir, trials=trials))\n"
        'report.metric("heads", 0.5, n=trials)\nreport.answer("Yes.")\nreport.save()'
    )
    cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]}), new_code_cell(body)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "notebooks" / "00_coin.ipynb"
    path.parent.mkdir()
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def test_doctor_here(cli: Cli) -> None:
    status, out, _ = cli("doctor", "--json")
    answer = json.loads(out)
    by_name = {check["name"]: check for check in answer["checks"]}
    assert status == int(not answer["ok"])
    assert {"python", "torch", "rendering", "video", "serial", "jupyter", "disk"} <= set(by_name)
    for check in answer["checks"]:
        assert check["status"] in ("ok", "warn", "fail") and check["detail"]
        assert check["status"] == "ok" or check["fix"], f"{check['name']} offers no fix"


def test_doctor_says_how_to_mend(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert "export OMP_NUM_THREADS=" in doctor.threads().fix
    monkeypatch.setattr(doctor, "_RENDER", "raise RuntimeError('no EGL')")
    check = doctor.rendering()
    assert check.status == "fail" and "no EGL" in check.detail
    assert check.fix == "apt-get install -y libegl1 libgl1-mesa-dri"
    monkeypatch.setattr(doctor, "examine", lambda: [check])
    status, out, _ = cli("doctor")
    assert status == 1 and "fix: apt-get install -y libegl1" in out
    assert out.splitlines()[-1] == "quick cannot run here yet"
    monkeypatch.setattr(doctor, "_version", lambda package: "")
    assert [c().status for c in (doctor.video, doctor.jupyter, doctor.triton)] == [
        "fail", "fail", "warn",
    ]  # fmt: skip


def test_the_parser_is_whole() -> None:
    """Two verbs of one name, or a help text that does not format, would raise here."""
    for verb in available_verbs():
        assert build_parser(verb).format_help()
