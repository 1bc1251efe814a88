"""The one exception that is shown to a user instead of a traceback."""


class UserError(Exception):
    """A mistake its reader can mend: what is wrong, where, and what would be right, in one line.

    The command line prints it to stderr and exits with status 2; nothing is left half-written.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
