"""What the command lines of ustackd and ustack share; imports little, for ustack is to be quick."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

CONTROL_FOLDER = Path("/run/ustack")
"""Where control sockets live unless ``--socket`` says otherwise: TAP.sock."""


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line on stderr, exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and leave."""
        print(f"{self.prog}: {message} (see --help)", file=sys.stderr)
        sys.exit(2)
