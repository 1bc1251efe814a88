"""A small notebook that keeps the rules of the real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

PARAMETERS = """\
profile: str = "quick"  # quick, small or full
seed: int = 0  # everything random is drawn from this
device: str = "cpu"  # cpu or cuda
out_dir: str = ""  # where the report goes; empty: runs/report/quick or reports
trials: int = 50  # coin throws
name = "coin"  # what is thrown
"""
BODY = """\
import numpy as np
from matplotlib import pyplot as plt
from dreamzero.report import NotebookReport, style

style.use()
report = NotebookReport(
    "{name}", question="Is the coin fair?",
    parameters=dict(profile=profile, seed=seed, device=device, out_dir=out_dir, trials=trials),
)
heads = np.random.default_rng(seed).random(trials) < 0.5
figure, axis = plt.subplots()
axis.plot(np.cumsum(heads) / np.arange(1, trials + 1))
axis.set(xlabel="throw", ylabel="share of heads")
report.figure(figure, "share", "Share of heads so far.")
report.table("counts", [dict(side="heads", n=int(heads.sum()))], "What was thrown.")
"""
END = """\
report.metric("heads", heads.mean(), n=trials, low=0.3, high=0.7)
report.answer("It looks fair.", not_shown="Any other coin.")
assert 0 < heads.mean() < 1
report.save()
"""
BAR = """\
from tqdm import tqdm
for _ in tqdm(range(40), mininterval=0):
    pass
"""


@pytest.fixture
def make_notebook(tmp_path: Path) -> Callable[..., Path]:
    """Write ``tmp_path/notebooks/<name>.ipynb``; ``extra`` is a last cell (for failures)."""

    def make(name: str, extra: str = "", end: str = END) -> Path:
        import nbformat
        from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

        cells = [
            new_markdown_cell(f"# {name}\n\nIs the coin fair?"),
            new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
            new_code_cell(BODY.replace("{name}", name)),
            new_code_cell(end),
            new_code_cell(BAR),
            *([new_code_cell(extra)] if extra else []),
        ]
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
        return path

    return make
