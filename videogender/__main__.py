"""`python -m videogender` is the `videogender` command."""

import sys

from videogender.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
