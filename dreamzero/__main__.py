"""``python -m dreamzero``: the same as the ``dreamzero`` command."""

import sys

from dreamzero.cli import main

sys.exit(main())
