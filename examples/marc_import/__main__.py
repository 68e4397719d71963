"""`python -m examples.marc_import --catalogue catalogue.db [FILE…]`."""

import sys
from pathlib import Path

from examples.marc_import.catalogue import MarcImport
from examples.marc_import.data import NoDataError, fetch, generate
from examples.worker import main


def sample(folder: Path) -> list[Path]:
    """Real records, or invented ones in `folder` where those can't be had."""
    try:
        return fetch()
    except NoDataError as error:
        print(f"{error}; importing invented records instead", file=sys.stderr)
        invented = folder / "invented.mrc"
        # Made once: another file would be another import.
        return [invented if invented.exists() else generate(invented, 40_000)]


if __name__ == "__main__":
    sys.exit(main(MarcImport(), sample))
