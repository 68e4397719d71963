"""`python -m examples.patron_import --catalogue patrons.db [FILE…]`."""

import sys
from pathlib import Path

from examples.patron_import.patrons import PatronImport
from examples.worker import main

SAMPLE = Path(__file__).with_name("patrons.csv")

if __name__ == "__main__":
    sys.exit(main(PatronImport(), lambda _: [SAMPLE]))
