"""Off-screen pictures. The GL platform must be chosen before mujoco is first imported."""

from __future__ import annotations

import atexit
import importlib
import os
import sys
import weakref
from contextlib import suppress
from functools import cache

import numpy as np

from ..errors import UserError

if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")


def _no_gl(error: Exception) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(
        f"the simulator cannot draw: no working OpenGL for "
        f"MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} ({reason}); on Debian or Ubuntu install "
        "libegl1 and libgl1-mesa-dri and leave MUJOCO_GL unset (`dreamzero doctor` checks it)"
    )


try:
    import mujoco
except ModuleNotFoundError:
    raise
except Exception as error:  # what a missing libEGL raises depends on the platform
    raise _no_gl(error) from error

_OPEN: weakref.WeakSet[Camera] = weakref.WeakSet()


def _close_all() -> None:
    for camera in list(_OPEN):
        camera.close()


@cache
def _load_triton() -> None:
    """Triton's library must be loaded before Mesa draws: both bring an LLVM, and the other way round
    importing it (as diffusers does) ends the process with a segmentation fault."""
    with suppress(ImportError):
        importlib.import_module("triton._C.libtriton")


class Camera:
    """Draws one model at one size; ``oversample`` times finer, then averaged, against jagged edges.

    Raises UserError where the machine has no usable OpenGL.
    """

    def __init__(self, model: mujoco.MjModel, size_px: int, oversample: int = 2) -> None:
        self._oversample = oversample
        self._size = size_px
        side = size_px * oversample
        _load_triton()
        try:
            self._renderer = mujoco.Renderer(model, side, side, max_geom=200)
        except Exception as error:
            raise _no_gl(error) from error
        if not _OPEN:
            # Contexts must go before mujoco's own exit handler, which the first of them registered,
            # ends EGL: the last registered runs first.
            atexit.unregister(_close_all)
            atexit.register(_close_all)
        _OPEN.add(self)
        flags = self._renderer.scene.flags
        for flag in (
            mujoco.mjtRndFlag.mjRND_SHADOW,
            mujoco.mjtRndFlag.mjRND_REFLECTION,
            mujoco.mjtRndFlag.mjRND_SKYBOX,
            mujoco.mjtRndFlag.mjRND_HAZE,
        ):
            flags[flag] = 0

    def draw(self, data: mujoco.MjData, view: str) -> np.ndarray:
        """uint8 ``[size_px, size_px, 3]`` RGB of a camera of the model."""
        self._renderer.update_scene(data, view)
        picture = self._renderer.render()
        n = self._oversample
        if n == 1:
            return picture
        fine = picture.reshape(self._size, n, self._size, n, 3).astype(np.uint16)
        return ((fine.sum((1, 3)) + n * n // 2) // (n * n)).astype(np.uint8)

    def close(self) -> None:
        """Frees the GL context."""
        self._renderer.close()
