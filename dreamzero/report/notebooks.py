"""Find the numbered notebooks and run them through papermill.

    notebook = find("3")
    out = run(notebook, profile="quick", out=Path("runs/report/quick"), parameters={"seed": 1})

A run is written beside its place and moved there when the notebook has ended well: a failed or
interrupted one leaves the earlier report as it was.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamzero.config import closest
from dreamzero.doctor import ALLOCATOR
from dreamzero.errors import UserError, make_folder
from dreamzero.report import paths
from dreamzero.report.machine import cores, describe_device, git_state, versions
from dreamzero.report.parameters import read_parameters
from dreamzero.report.record import FILE_NAME, write_json, write_text

EXECUTED = "executed.ipynb"
_NAME = re.compile(r"(\d\d)_\w+")


class NotebookFailed(Exception):
    """A notebook raised: which cell, what, and where its executed copy lies."""


@dataclass(frozen=True)
class Notebook:
    """One notebook of the laboratory: ``number`` "03", ``name`` "03_inference"."""

    path: Path

    @property
    def name(self) -> str:
        """File name without its ending: "03_inference"."""
        return self.path.stem

    @property
    def number(self) -> str:
        """The two digits in front: "03"."""
        return self.name[:2]


def notebooks_dir() -> Path:
    """``notebooks/`` of the checkout."""
    return paths.repository_root() / "notebooks"


def all_notebooks(directory: str | Path | None = None) -> list[Notebook]:
    """The notebooks named ``NN_name.ipynb``, by number.

    Raises:
        UserError: the folder holds none (they come with the repository, not with the wheel).
    """
    folder = Path(directory) if directory is not None else notebooks_dir()
    found = [Notebook(p) for p in sorted(folder.glob("*.ipynb")) if _NAME.fullmatch(p.stem)]
    if not found:
        raise UserError(f"{paths.shown(folder)}: no notebooks here; run this in the repository")
    return found


def find(text: str, directory: str | Path | None = None) -> Notebook:
    """The notebook called "3", "03", "inference", "03_inference" or by its path.

    Raises:
        UserError: there is none of that name; the message lists those there are.
    """
    known = all_notebooks(directory)
    wanted = Path(text).stem if text.endswith(".ipynb") else text
    number = wanted.zfill(2) if wanted.isdigit() else None
    for notebook in known:
        if number == notebook.number or wanted in (notebook.name, notebook.name[3:]):
            return notebook
    raise UserError(closest(text, [notebook.name for notebook in known], "notebook"))


def run(
    notebook: Notebook,
    profile: str = "quick",
    out: str | Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    progress: bool = True,
    name: str | None = None,
    keep_refused: bool = False,
) -> Path:
    """Execute a notebook and return the folder of its report, ``<out>/<name>``.

    Args:
        profile: "quick", "small" or "full"; becomes the notebook's parameter of that name.
        out: folder that holds the reports; default `paths.reports_dir` of the profile.
        parameters: further parameters, already typed (see `parameters.typed`).
        progress: show papermill's bar, one step a cell.
        name: of the report's folder; default the notebook's. One that fails leaves ``<name>.failed``.
        keep_refused: keep ``<name>.failed`` also when the notebook raised a UserError.

    Raises:
        UserError: unknown profile or parameter, no such device, a longer result is in the way, or
            the notebook itself raised a UserError.
        NotebookFailed: the notebook raised anything else, or wrote no record.
    """
    paths.check_profile(profile)
    known = read_parameters(notebook.path)
    given = {"profile": profile, **(parameters or {})}
    for key in (*given, "out_dir"):
        if key not in known:
            raise UserError(f"{notebook.name}: {closest(key, known, 'parameter')}")
    if str(given.get("device", "cpu")).startswith("cuda"):
        need_gpu(str(given["device"]))
    folder = Path(out) if out is not None else paths.reports_dir(profile)
    name = name or notebook.name
    target, staging, failed = (folder / n for n in (name, f".{name}.partial", f"{name}.failed"))
    paths.refuse_downgrade(target, profile)
    shutil.rmtree(staging, ignore_errors=True)
    make_folder(staging)
    try:
        _execute(notebook, staging, {**given, "out_dir": paths.shown(staging)}, progress)
    except NotebookFailed as error:
        _keep(staging, failed)
        raise NotebookFailed(
            f"{error}; its cells are in {paths.shown(failed / EXECUTED)}"
        ) from None
    except BaseException as error:
        if keep_refused and isinstance(error, UserError):
            _keep(staging, failed)
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _tidy(staging, target)
    shutil.rmtree(failed, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    staging.rename(target)
    return target


def _keep(staging: Path, failed: Path) -> None:
    """What a notebook left when it failed, in place of what an earlier failure left."""
    shutil.rmtree(failed, ignore_errors=True)
    _tidy(staging, failed)
    staging.rename(failed)


def need_gpu(device: str) -> None:
    """Raise UserError where torch sees no GPU."""
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            f"device {device}: torch sees no GPU here; use cpu (`dreamzero doctor` says more)"
        )


def _execute(notebook: Notebook, staging: Path, parameters: dict[str, Any], progress: bool) -> None:
    with kernel_environment(), tempfile.TemporaryDirectory(prefix="dreamzero-") as sockets:
        import papermill
        from nbclient.exceptions import DeadKernelError
        from traitlets.config import Config

        try:
            papermill.execute_notebook(
                str(notebook.path),
                str(staging / EXECUTED),
                parameters=parameters,
                kernel_name="python3",
                # Sockets in the file system: no open port, and nothing for the kernel to warn of.
                # In a folder of their own: two runs from one directory would share Jupyter's.
                config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}}),
                progress_bar={"desc": notebook.name, "file": sys.stderr} if progress else False,
            )
        except papermill.PapermillExecutionError as error:
            if error.ename == "UserError":
                raise UserError(f"{notebook.name}: {error.evalue}") from None
            what = f"{error.ename}: {error.evalue}".splitlines()[0]
            raise NotebookFailed(f"{notebook.name}: cell {error.cell_index}: {what}") from None
        except DeadKernelError:
            why = "its kernel died (killed for memory, or a crash in a library)"
            raise NotebookFailed(f"{notebook.name}: {why}") from None
    if not (staging / FILE_NAME).is_file():
        raise NotebookFailed(f"{notebook.name}: it ended without report.save()")


@contextmanager
def kernel_environment() -> Iterator[None]:
    """Environment of the kernels started inside: this interpreter, its threads, headless GL."""
    wanted = {
        "JUPYTER_PREFER_ENV_PATH": "1",
        "OMP_NUM_THREADS": str(cores()),
        "TOKENIZERS_PARALLELISM": "false",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        **(ALLOCATOR | {"MUJOCO_GL": "egl"} if sys.platform == "linux" else {}),
    }
    added = [name for name in wanted if name not in os.environ]
    os.environ.update({name: wanted[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _tidy(staging: Path, target: Path) -> None:
    """Take this machine's paths out of what will be shared, and name the final folder in it."""
    import nbformat

    swaps = {
        paths.shown(staging): paths.shown(target),
        str(staging.resolve()): paths.shown(target),
        sys.prefix: "venv",
        str(Path.cwd().resolve()): ".",
    }
    if len(str(Path.home())) > 1:
        swaps[str(Path.home())] = "~"
    if (staging / EXECUTED).is_file():
        from nbconvert.preprocessors.coalescestreams import CoalesceStreamsPreprocessor

        # A progress bar is a thousand lines, each overwriting the last: keep the last.
        notebook = nbformat.read(str(staging / EXECUTED), as_version=4)
        notebook, _ = CoalesceStreamsPreprocessor(enabled=True)(notebook, {})
        for key in ("input_path", "output_path"):
            notebook.metadata.get("papermill", {}).pop(key, None)
        notebook.metadata["dreamzero"] = _provenance(staging)
        write_json(staging / EXECUTED, _swap(notebook, swaps))
    if (staging / FILE_NAME).is_file():
        data = json.loads((staging / FILE_NAME).read_text(encoding="utf-8"))
        write_json(staging / FILE_NAME, _swap(data, swaps))
    if (staging / "report.md").is_file():
        text = (staging / "report.md").read_text(encoding="utf-8")
        write_text(staging / "report.md", _swap(text, swaps))


def _provenance(staging: Path) -> dict[str, Any]:
    """What the executed copy says of its run, also when there is no record: commit and machine."""
    if (staging / FILE_NAME).is_file():
        record = json.loads((staging / FILE_NAME).read_text(encoding="utf-8"))
        return {key: record[key] for key in ("git", "versions", "device", "parameters")}
    return {"git": git_state(), "versions": versions(), "device": describe_device("cpu")}


def _swap(value: Any, swaps: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        # Pictures are base64, in which a short path could occur by chance.
        return {k: v if k.startswith("image/") else _swap(v, swaps) for k, v in value.items()}
    if isinstance(value, list):
        return [_swap(item, swaps) for item in value]
    if isinstance(value, str) and "base64," not in value:
        for old, new in swaps.items():
            value = value.replace(old, new)
    return value
