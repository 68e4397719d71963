"""`python -m headway.cli`, where the script `headway` is not on the path."""

import sys

from headway.cli import main

if __name__ == "__main__":
    sys.exit(main())
