"""The child of ``Emulator``: its configuration is the one argument."""

import sys

from .process import main

sys.exit(main(sys.argv[1]))
