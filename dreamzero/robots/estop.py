"""An emergency stop that any process, and any shell, can press: a file that is there or not.

    dreamzero robot stop                     all arms of this machine
    touch /tmp/dreamzero-estop/all           the same without Python

Every arm looks for its files before each command (``Robot.act``), so it holds within one period of its
control loop. The stop latches: while the file is there the arm refuses to move, in this run and in
the next, until it is cleared. It is no substitute for a switch in the power line: it needs this
computer to work.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from ..errors import UserError
from .uri import Uri

# Not XDG_RUNTIME_DIR or TMPDIR: a stop must reach loops that were started with another environment,
# or by another user. The variable is for tests.
_FOLDER = "/tmp/dreamzero-estop"
_VARIABLE = "DREAMZERO_ESTOP"
ALL = "all"


def folder() -> Path:
    """Where the stops of this machine are."""
    return Path(os.environ.get(_VARIABLE, _FOLDER))


class EStop:
    """The stop of one arm (and that of all).

    Args:
        uri: address of the arm; its options do not matter, and a device is the same under each of
            its names. None is all arms.
    """

    def __init__(self, uri: Uri | None = None) -> None:
        place = folder()
        self._own = [str(place / name) for name in ([ALL] if uri is None else _names(uri))]
        self._all = uri is None
        self.paths = self._own if self._all else [*self._own, str(place / ALL)]

    def pressed(self) -> str:
        """Who pressed it and when, in words; empty while nobody has. Some microseconds."""
        for path in self.paths:
            if os.access(path, os.F_OK):
                return _read(path)
        return ""

    def press(self, reason: str = "") -> None:
        """Stop, also what starts later; UserError where the file cannot be made."""
        words = f"by process {os.getpid()} of user {os.getuid()} at {time.strftime('%X')}"
        for path in map(Path, self._own):
            try:
                if not path.parent.is_dir():
                    path.parent.mkdir(parents=True)
                    path.parent.chmod(0o1777)
                if not path.exists():
                    path.write_text(f"{words}{': ' if reason else ''}{reason}\n")
            except OSError as error:
                raise UserError(
                    f"cannot press the stop {path} ({error.strerror}): cut the arm's power"
                ) from error

    def clear(self) -> list[str]:
        """Let arms move again; names of the stops that were cleared, of all arms if this is for all.

        Raises:
            UserError: another user pressed it and you may not clear that.
        """
        found = []
        for path in sorted(map(str, folder().glob("*"))) if self._all else self._own:
            try:
                with suppress(FileNotFoundError):
                    os.unlink(path)
                    found.append(os.path.basename(path))
            except OSError as error:
                raise UserError(
                    f"cannot clear the stop {path} ({error.strerror}); whoever pressed it can"
                ) from error
        return found


def _names(uri: Uri) -> list[str]:
    """File names for an arm: its address as given and, for a device, the device itself."""
    places = [uri.path]
    # A pseudo-terminal's number says nothing: it is another one's after the next replug.
    if uri.scheme == "serial" and not (real := os.path.realpath(uri.path)).startswith("/dev/pts/"):
        places.append(real)
    names = []
    for place in dict.fromkeys(places):
        address = f"{uri.scheme}://{uri.host}:{uri.port}{place}"
        plain = re.sub(r"[^A-Za-z0-9.-]+", "_", f"{uri.scheme}-{uri.host}{place}")
        names.append(f"{plain[-60:].strip('_')}-{sha256(address.encode()).hexdigest()[:8]}")
    return names


def _read(path: str) -> str:
    try:
        text = Path(path).read_text(errors="replace").strip()
    except OSError:
        text = ""
    return text or "by somebody"
