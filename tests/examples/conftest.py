"""The real records, fetched once."""

from pathlib import Path

import pytest

from examples.marc_import.data import NoDataError, fetch


@pytest.fixture(scope="session")
def real_files() -> list[Path]:
    """The 20 small files of pymarc's source distribution, and last the large one."""
    try:
        return fetch()
    except NoDataError as error:
        pytest.skip(str(error))
