"""The optional modules are optional."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("library", ["tqdm", "celery", "rq"])
def test_the_library_is_named_if_it_is_missing(library: str) -> None:
    script = f"import sys\nsys.modules[{library!r}] = None\nimport headway.{library}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: headway.{library} needs {library}: pip install 'headway[{library}]'"
    )


def test_the_client_loads_none_of_the_libraries() -> None:
    script = (
        "import sys, headway, headway.client, headway.aio, headway.job\n"
        "assert not {'tqdm', 'celery', 'rq', 'redis'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
