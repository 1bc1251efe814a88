"""Pictures and videos inside a page: data addresses, sizes, thumbnails, a still for print."""

from __future__ import annotations

import base64
import io
import mimetypes
from pathlib import Path
from typing import Any

from ...errors import UserError
from .. import paths
from ..record import FILE_NAME, RunRecord

_THUMB_PX = 680  # twice the width at which it is shown


def address(data: bytes, kind: str) -> str:
    """The bytes as a ``data:`` address."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def size(data: bytes) -> tuple[int, int]:
    """Width and height of a picture in pixels."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        return picture.size


def thumbnail(path: Path) -> str:
    """A small PNG of the picture as a data address."""
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB")
        small.thumbnail((_THUMB_PX, _THUMB_PX))
        buffer = io.BytesIO()
        small.save(buffer, "PNG", optimize=True)
    return address(buffer.getvalue(), "image/png")


def still(path: Path) -> str:
    """A frame from the middle of a video as a data address; empty where it cannot be decoded."""
    try:
        import av

        with av.open(str(path)) as container:
            frames = list(container.decode(video=0))
        buffer = io.BytesIO()
        frames[len(frames) // 2].to_image().save(buffer, "JPEG", quality=88)
    except (ImportError, OSError, IndexError, ValueError):
        return ""
    return address(buffer.getvalue(), "image/jpeg")


def embedded(
    entries: list[dict[str, str]], record: RunRecord, folder: Path
) -> list[dict[str, Any]]:
    """The record's figures or videos for a template.

    Each has ``path, data, caption, alt`` and, for a picture, ``width, height`` as shown (half its
    pixels where it has them to spare).

    Raises:
        UserError: one is named in the record but is not there.
    """
    shown = []
    for entry in entries:
        path = folder / entry["path"]
        if entry["path"] not in record.artifacts or not path.is_file():
            raise UserError(
                f"{paths.shown(path)}: named in {FILE_NAME} but not there; run it again"
            )
        data = path.read_bytes()
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        item: dict[str, Any] = {
            "path": entry["path"],
            "data": address(data, kind),
            "caption": entry["caption"],
            "alt": entry.get("alt") or entry["caption"],
        }
        if kind.startswith("video/"):
            item["poster"] = still(path)
        elif kind in ("image/png", "image/jpeg"):
            width, height = size(data)
            scale = 2 if width > 900 else 1
            item |= {"width": width // scale, "height": height // scale}
        shown.append(item)
    return shown
