"""The wheel, and the files that must say the same: pyproject, constraints, environment, README."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dreamzero import __version__

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def requirements() -> list[Requirement]:
    """Dependencies and all extras, without `all`, which only names the others."""
    lines = PROJECT["dependencies"] + [line for extra in EXTRAS.values() for line in extra]
    return [r for r in map(Requirement, lines) if r.name != "dreamzero"]


def constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pins}


def test_all_names_every_extra_but_those_of_developers() -> None:
    (line,) = EXTRAS["all"]
    assert Requirement(line).extras == set(EXTRAS) - {"all", "dev", "docs"}
    assert "dreamzero[docs]" in EXTRAS["dev"], "a test builds the reference"


def test_environment_yml_holds_what_pyproject_asks() -> None:
    data: Any = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = [entry for entry in data["dependencies"] if isinstance(entry, str)]
    assert [re.split(r"[>=<]", entry)[0] for entry in conda] == ["python", "pip"]
    (section,) = [entry["pip"] for entry in data["dependencies"] if isinstance(entry, dict)]
    assert section[0] == "--constraint constraints.txt"
    names = {canonicalize_name(Requirement(line).name) for line in section[1:]}
    assert names == {canonicalize_name(r.name) for r in requirements()}


def test_constraints_pin_what_is_asked_for() -> None:
    pins = constraints()
    for requirement in requirements():
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"constraints.txt lacks {requirement.name}"
        (only,) = pin.specifier
        assert only.operator == "=="
        assert requirement.specifier.contains(only.version), f"{pin} is outside {requirement}"
    assert str(pins["torch"].specifier) == "==2.13.0"
    assert str(pins["triton"].specifier) == "==3.7.1"


def test_every_import_is_declared() -> None:
    """What the package imports comes with a dependency or an extra (or with one of those)."""
    known = {canonicalize_name(name) for name in constraints()}
    modules = {
        "serial": "pyserial", "scservo-sdk": "feetech-servo-sdk", "huggingface-hub":
        "huggingface-hub", "ipython": "ipython", "yaml": "pyyaml", "pil": "pillow",
    }  # fmt: skip
    pattern = re.compile(r"^\s*(?:import|from)\s+([A-Za-z_]\w*)", re.MULTILINE)
    for path in [*ROOT.glob("dreamzero/**/*.py"), *ROOT.glob("kernels/**/*.py")]:
        for name in pattern.findall(_code(path)):
            if name in sys.stdlib_module_names or name in ("dreamzero", "dreamzero_kernels"):
                continue
            package = canonicalize_name(name)
            assert modules.get(package, package) in known, f"{path}: {name} is not declared"


def _code(path: Path) -> str:
    """The file without its string literals, whose lines may look like imports."""
    return re.sub(r'"""[\s\S]*?"""', '""', path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


def test_wheel_holds_the_two_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(f"dreamzero-{__version__}.dist-info/METADATA").decode()
    assert {name.split("/")[0] for name in names} == {
        "dreamzero", "dreamzero_kernels", f"dreamzero-{__version__}.dist-info",
    }  # fmt: skip
    assert {"dreamzero/report/site/style.css", "dreamzero/robots/ur/stream.script"} <= set(names)
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata


def test_wheel_installs_and_imports(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True, capture_output=True)
    # -S and no site: neither the editable install nor its path file is seen.
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        "import importlib.util as u, dreamzero\n"
        "spec = u.find_spec('dreamzero_kernels')\n"
        "print(dreamzero.__version__, dreamzero.__file__, spec.origin, u.find_spec('kernels'))\n"
        "from dreamzero.cli import main; main(['--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    version, package, kernels, shadow = done.stdout.splitlines()[0].split()
    assert version == __version__
    assert Path(package).is_relative_to(target) and Path(kernels).is_relative_to(target)
    assert shadow == "None"
    assert "doctor" in done.stdout


def test_kernels_folder_is_no_package() -> None:
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_make_targets_are_one_line_and_explained() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = dict(re.findall(r"^([a-z-]+):.*## .*\n((?:\t.*\n)*)", text, re.MULTILINE))
    wanted = ["help", "setup", "report", "test", "test-gpu", "bench", "lint", "docs", "notebooks",
              "clean"]  # fmt: skip
    assert list(targets) == wanted
    for name, recipe in targets.items():
        assert recipe.count("\n") == 1, f"make {name} is more than one line"
    done = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split()[1] for line in done.stdout.splitlines()] == wanted


@pytest.mark.parametrize("script", ["scripts/setup.sh", ".ci/run"])
def test_scripts_parse_and_may_be_run(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="the check is for Linux")
@pytest.mark.parametrize("there", [True, False])
def test_setup_names_what_rendering_lacks(tmp_path: Path, there: bool) -> None:
    """As an ordinary user, in a folder where everything else is set up already."""
    for name in ("pyproject.toml", "constraints.txt", "scripts/setup.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    digest = "cat pyproject.toml constraints.txt scripts/setup.sh | sha256sum | cut -d' ' -f1"
    fakes = tmp_path / "bin"
    fakes.mkdir()
    for name, body in {"id": "echo 1000", "ldconfig": "echo libEGL.so.1" if there else ":"}.items():
        (fakes / name).write_text(f"#!/bin/sh\n{body}\n")
        (fakes / name).chmod(0o755)
    script = f"mkdir .venv && {digest} > .venv/.setup && scripts/setup.sh"
    environment = {**os.environ, "PATH": f"{fakes}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    vendors = [*Path("/usr/share/glvnd").glob("egl*/*.json"), *Path("/etc/glvnd").glob("e*/*.json")]
    if there and vendors:
        assert done.stderr == ""
    else:
        assert "run once: sudo apt-get install -y" in done.stderr
        assert "libegl1 libgl1-mesa-dri" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="apt-get is Linux's")
@pytest.mark.parametrize("there", [True, False])
def test_setup_names_the_browser_that_the_notebooks_test_lacks(tmp_path: Path, there: bool) -> None:
    for name in ("pyproject.toml", "constraints.txt", "scripts/setup.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    tools = tmp_path / "bin"  # all that is on the PATH
    tools.mkdir()
    for name in ("bash", "cat", "sha256sum", "cut", "dirname", "uname", "grep", "mkdir"):
        (tools / name).symlink_to(str(shutil.which(name)))
    fakes = {"id": "echo 1000", "ldconfig": "echo libEGL.so.1"} | (
        {"chromedriver": ":"} if there else {}
    )
    for name, body in fakes.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    digest = "cat pyproject.toml constraints.txt scripts/setup.sh | sha256sum | cut -d' ' -f1"
    done = subprocess.run(
        ["bash", "-c", f"mkdir .venv && {digest} > .venv/.setup && bash scripts/setup.sh browser"],
        cwd=tmp_path,
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    told = [line for line in done.stderr.splitlines() if "JupyterLab" in line]
    if there:
        assert told == []
    else:
        (line,) = told
        assert "install chromium" in line.replace("-y --no-install-recommends ", "") or (
            "no chromedriver" in line
        )


def test_the_citation_has_the_version() -> None:
    data: Any = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert data["version"] == __version__
    assert data["license"] == "Apache-2.0"
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
