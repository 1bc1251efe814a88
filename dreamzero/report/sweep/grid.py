"""The grid of a sweep: which runs it has, what each is called, and when two are the same run.

A run is its notebook's code and all its parameters, defaults among them, each as the type that the
notebook gives it: the order on the command line, a default that is written out, `1e-3` for `0.001`
make no other run. What a parameter points to (a data set's content) and the package's own code are
not part of it; the summary names the commits.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import UserError
from .. import paths
from ..notebooks import Notebook
from ..parameters import Parameter, read_parameters, typed

SEED = "seed"
_LONGEST = 80  # of the readable part of a folder's name; the identity keeps the names apart


@dataclass(frozen=True)
class Run:
    """One point of the grid: folder name, all parameters but ``out_dir``, and those that vary."""

    name: str
    parameters: dict[str, Any]
    swept: dict[str, Any]

    @property
    def identity(self) -> str:
        """Twelve hexadecimal digits of the notebook's code and the parameters."""
        return self.name.rpartition("-")[2]


@dataclass(frozen=True)
class Grid:
    """All runs of a sweep, and the parameters that vary: name -> values, in the notebook's order."""

    notebook: Notebook
    runs: list[Run]
    axes: dict[str, list[Any]]

    @property
    def name(self) -> str:
        """Folder of the summary: what varies, and an identity of these runs in this order."""
        together = hashlib.sha256("".join(run.identity for run in self.runs).encode())
        return f"sweep-{'_'.join(self.axes) or 'one'}-{together.hexdigest()[:8]}"


def grid(
    notebook: Notebook,
    pairs: Iterable[tuple[str, str]],
    fixed: Mapping[str, Any] | None = None,
) -> Grid:
    """Every combination of the values in ``pairs``.

    Args:
        pairs: (parameter, "0,1,2"); one that is named twice has the values of both.
        fixed: further parameters, typed already (profile, device).

    Raises:
        UserError: an unknown parameter or a value of another type, ``out_dir``, or a parameter that
            ``fixed`` has too.
    """
    known = read_parameters(notebook.path)
    values: dict[str, list[Any]] = {}
    for name, text in pairs:
        if name == "out_dir":
            raise UserError("parameter out_dir: use --out, the folder that holds the sweep")
        if name in (fixed or {}):
            raise UserError(f"{name} is given twice: by --{name} and by -p {name}")
        kept = values.setdefault(name, [])
        for item in split_values(text, known.get(name)):
            value = typed(known, [(name, item)])[name]
            if value not in kept:
                kept.append(value)
    for kept in values.values():
        if all(isinstance(value, (int, float)) for value in kept):
            kept.sort()  # words stay in their order: "tiny, small" is one too
    for profile in values.get("profile", []):
        paths.check_profile(profile)
    axes = {name: values[name] for name in known if len(values.get(name, [])) > 1}
    defaults = {n: p.default for n, p in known.items() if n != "out_dir"} | dict(fixed or {})
    order = [name for name in known if name in values]
    runs = []
    for point in itertools.product(*(values[name] for name in order)):
        chosen = dict(zip(order, point, strict=True))
        parameters = defaults | chosen
        swept = {name: chosen[name] for name in axes}
        runs.append(Run(_name(notebook, known, parameters), parameters, swept))
    return Grid(notebook, runs, axes)


def split_values(text: str, parameter: Parameter | None = None) -> list[str]:
    """``"0,1,2"`` -> its values; a comma inside double quotes belongs to the value.

    For a parameter that is a list or a tuple itself, the values are parted by ``;``.

    Raises:
        UserError: an empty value between two commas.
    """
    if parameter is not None and isinstance(parameter.default, (list, tuple)):
        return [item.strip() for item in text.split(";")]
    (items,) = list(csv.reader([text], skipinitialspace=True)) or [[""]]
    items = [item.strip() for item in items] or [""]
    if len(items) > 1 and "" in items and '""' not in text:
        name = parameter.name if parameter else "parameter"
        raise UserError(f'-p {name} {text}: a value is missing; write "" for an empty one')
    return items


def code_of(notebook: Notebook) -> str:
    """Digest of the notebook's code cells, without the parameters cell (its values count instead)."""
    data = json.loads(notebook.path.read_text(encoding="utf-8"))
    cells = [
        "".join(cell["source"])
        for cell in data["cells"]
        if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", [])
    ]
    return hashlib.sha256("\0".join(cells).encode()).hexdigest()


def _name(notebook: Notebook, known: Mapping[str, Parameter], parameters: dict[str, Any]) -> str:
    # The type counts: 1 and 1.0 and True are equal to Python, and not to a notebook.
    content = [notebook.name, code_of(notebook), sorted(parameters.items())]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    changed = [
        f"{name}-{re.sub(r'[^A-Za-z0-9.+]+', '_', str(value)) or 'empty'}"
        for name, value in parameters.items()
        if value != known[name].default
    ]
    readable = "_".join(changed)[:_LONGEST].rstrip("-_.") or "defaults"
    return f"{readable}-{digest}"
