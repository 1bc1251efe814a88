"""What this machine can do, and the fix for what it cannot.

Every check returns a `Check`; none of them raises. What could crash or hang the process (creating
a GL context, importing a broken wheel) runs in a process of its own.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dreamzero.report.machine import cores, multiplies_bf16, processor

Status = Literal["ok", "warn", "fail"]

# glibc gives large blocks back to the system at every free; keeping them saves the page faults of
# the next allocation (up to 1.5 times faster training on two cores).
ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
GL_PACKAGES = "libegl1 libgl1-mesa-dri"
INSTALL = "pip install -e '.[all]' -c constraints.txt"

_RENDER = """
import mujoco
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 2"/><geom type="box" size=".1 .1 .1"/></worldbody></mujoco>'
)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 64, 64) as renderer:
    renderer.update_scene(data)
    assert renderer.render().max() > 0, 'the picture is black'
"""


@dataclass(frozen=True)
class Check:
    """One line of the doctor's answer.

    Attributes:
        name: what was looked at.
        status: "ok"; "warn" (something optional is missing); "fail" (the quick profile cannot run).
        detail: what was found.
        fix: the command or step that mends it; empty when there is nothing to mend.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""


def examine() -> list[Check]:
    """All checks, in the order in which a newcomer meets what they check (about 5 s)."""
    checks: list[Callable[[], Check]] = [
        python, torch, gpu, triton, rendering, video, tables, serial_port, punctuality, server, jupyter,
        machine, memory, disk, threads, allocator,
    ]  # fmt: skip
    return [check() for check in checks]


def python() -> Check:
    """The interpreter, and whether it stands in a virtual environment."""
    version = platform.python_version()
    inside = sys.prefix != sys.base_prefix
    return Check("python", "ok", f"{version}, {'virtual' if inside else 'system'} environment")


def torch() -> Check:
    """PyTorch imports."""
    status, output = _python("import torch; print(torch.__version__)")
    if status:
        return Check("torch", "fail", output, "pip install torch -c constraints.txt")
    return Check("torch", "ok", output)


def gpu() -> Check:
    """A CUDA device that PyTorch sees; optional."""
    code = (
        "import torch\nif torch.cuda.is_available():\n p = torch.cuda.get_device_properties(0)\n"
        " print(f'{p.name}, {p.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}')"
    )
    status, output = _python(code)
    if status == 0 and output:
        return Check("gpu", "ok", output)
    if shutil.which("nvidia-smi"):
        fix = "this torch has no CUDA: install the build for your driver from pytorch.org"
        return Check("gpu", "warn", "a driver is here, but torch sees no GPU", fix)
    return Check("gpu", "ok", "none: quick runs on the CPU, small and full want one")


def triton() -> Check:
    """Triton, which compiles the kernels; optional."""
    found = _version("triton")
    fix = "pip install triton -c constraints.txt"
    return Check(
        "triton", "ok" if found else "warn", found or "not installed", "" if found else fix
    )


def rendering() -> Check:
    """MuJoCo draws one frame without a display."""
    version = _version("mujoco")
    if not version:
        return Check("rendering", "fail", "mujoco is not installed", INSTALL)
    backend = os.environ.get("MUJOCO_GL") or ("egl" if sys.platform == "linux" else "")
    environment = {"MUJOCO_GL": backend} if backend else {}
    status, output = _python(_RENDER, environment)
    if status:
        where = f"mujoco {version} cannot draw with MUJOCO_GL={backend or 'default'} ({output})"
        return Check("rendering", "fail", where, f"apt-get install -y {GL_PACKAGES}")
    return Check("rendering", "ok", f"mujoco {version}, {backend or 'default'} draws off screen")


def video() -> Check:
    """PyAV, for reading and writing MP4; it brings its own FFmpeg."""
    return _package("video", "av", "fail")


def tables() -> Check:
    """pyarrow, for LeRobot's parquet files."""
    return _package("tables", "pyarrow", "fail")


def serial_port() -> Check:
    """pyserial, and the right to open serial devices (for a real arm)."""
    check = _package("serial", "pyserial", "fail")
    if check.status != "ok" or sys.platform != "linux":
        return check
    import grp

    try:
        group = grp.getgrnam("dialout").gr_gid
    except KeyError:
        return Check("serial", "ok", f"{check.detail}, no dialout group on this system")
    if os.geteuid() == 0 or group in os.getgroups():
        return Check("serial", "ok", f"{check.detail}, may open /dev/ttyACM* and /dev/ttyUSB*")
    detail = f"{check.detail}, but you are not in the group dialout (real arms only)"
    return Check("serial", "warn", detail, "sudo usermod -aG dialout $USER, then log in again")


def punctuality() -> Check:
    """The right to real-time scheduling, which keeps a control loop on time on a busy machine."""
    if not hasattr(os, "sched_setscheduler"):
        return Check("real time", "warn", "this system schedules no program in real time")
    import resource

    most = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
    if os.geteuid() == 0 or most >= 10 or most == resource.RLIM_INFINITY:
        return Check("real time", "ok", "control loops may run before other programs")
    fix = (
        'echo "$USER - rtprio 20" | sudo tee /etc/security/limits.d/rtprio.conf, then log in again'
    )
    return Check("real time", "warn", "no right to real-time scheduling (real arms only)", fix)


def server() -> Check:
    """websockets, for `dreamzero serve`."""
    return _package("serve", "websockets", "warn")


def jupyter() -> Check:
    """papermill, nbconvert and a kernel of this interpreter."""
    missing = [name for name in ("papermill", "nbconvert", "ipykernel") if not _version(name)]
    if missing:
        return Check("jupyter", "fail", f"missing: {', '.join(missing)}", INSTALL)
    return Check("jupyter", "ok", f"papermill {_version('papermill')}, kernel of this Python")


def machine() -> Check:
    """Cores this process may use."""
    count = cores()
    products = "bfloat16" if multiplies_bf16() else "float32 (it would emulate bfloat16)"
    detail = f"{count} cores, {processor()}, trains in {products}"
    if count < 2:
        return Check(
            "cores", "warn", detail, "notebooks are timed for two cores; expect twice that"
        )
    return Check("cores", "ok", detail)


def memory() -> Check:
    """Free memory; quick needs under 4 GB."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return Check("memory", "ok", "unknown on this system")
    free = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}["MemAvailable"]
    detail = f"{free / 1e9:.1f} GB available"
    if free < 4e9:
        return Check("memory", "warn", detail, "close other programs: quick takes up to 4 GB")
    return Check("memory", "ok", detail)


def disk() -> Check:
    """Free space in the current directory; quick writes under 1 GB."""
    free = shutil.disk_usage(".").free
    detail = f"{free / 1e9:.0f} GB free here"
    if free < 1e9:
        return Check("disk", "fail", detail, "free at least 1 GB, or run from another disk")
    return Check("disk", "ok", detail)


def threads() -> Check:
    """OMP_NUM_THREADS fits the cores."""
    wanted, count = os.environ.get("OMP_NUM_THREADS", ""), cores()
    if wanted.isdigit() and int(wanted) > count:
        detail = f"OMP_NUM_THREADS={wanted} on {count} cores"
        return Check("threads", "warn", detail, f"export OMP_NUM_THREADS={count}")
    return Check("threads", "ok", f"OMP_NUM_THREADS={wanted or 'unset'} on {count} cores")


def allocator() -> Check:
    """glibc's allocator keeps what it has (speed only; `dreamzero run` sets this by itself)."""
    if platform.libc_ver()[0] != "glibc" or all(name in os.environ for name in ALLOCATOR):
        return Check("allocator", "ok", "set" if "MALLOC_TOP_PAD_" in os.environ else "not glibc")
    export = "export " + " ".join(f"{name}={value}" for name, value in ALLOCATOR.items())
    return Check("allocator", "ok", "default; for long CPU training, up to 1.5x faster:", export)


def _package(name: str, package: str, missing: Status) -> Check:
    version = _version(package)
    if not version:
        return Check(name, missing, f"{package} is not installed", INSTALL)
    module = {"pyserial": "serial"}.get(package, package)
    status, output = _python(f"import {module}")
    if status:
        return Check(name, missing, f"{package} {version} does not import ({output})", INSTALL)
    return Check(name, "ok", f"{package} {version}")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _python(code: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit status and last line of output of ``python -c code``."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            check=False,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=120,
        )
    except subprocess.TimeoutExpired:
        return 1, "no answer within 120 s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode, lines[-1] if lines else ""
