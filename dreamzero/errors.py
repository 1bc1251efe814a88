"""The one exception that is shown to a user instead of a traceback."""

from pathlib import Path


class UserError(Exception):
    """A mistake its reader can mend: what is wrong, where, and what would be right, in one line.

    The command line prints it to stderr and exits with status 2; nothing is left half-written.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def make_folder(path: str | Path) -> Path:
    """Make the folder that ``--out`` names, with its parents; it may exist already.

    Raises:
        UserError: it cannot be made (no rights, a file in the way, no space).
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out {path}: cannot be made ({error.strerror}); give another folder"
        ) from None
    return Path(path)
