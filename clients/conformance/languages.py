"""The clients: their folders, how to run their drivers, and what their builds need."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Language:
    """One client."""

    name: str
    """The name of its folder in clients/."""
    title: str
    sample: str = ""
    """The file of the worker in docs/clients.md, within its folder."""
    transport: str = "grpc"
    """The server's port that it uses: "grpc" or "http"."""
    tools: tuple[str, ...] = ()
    """Programs that it needs to build and run."""
    at_a_time: int = 6
    """How many of its cases run at the same time; they mostly wait."""
    library: tuple[str, ...] = ()
    """A command that succeeds if the packages of its MARC import are installed; its last word names them."""
    interpreter: tuple[str, ...] = ()
    """The command that runs that file directly, if it is not built as bin/worker."""
    python: str = ""
    """The Python that runs its driver.py and bench.py, in place of bin/driver and bin/bench."""

    @property
    def folder(self) -> Path:
        return ROOT / "clients" / self.name

    @property
    def driver(self) -> list[str]:
        """The command that starts its driver, in the project's own folder."""
        return self._program("driver")

    @property
    def bench(self) -> list[str]:
        """The command of its benchmark."""
        return self._program("bench")

    @property
    def missing(self) -> list[str]:
        """Tools that are missing on this machine."""
        return [tool for tool in self.tools if shutil.which(tool) is None]

    @property
    def worker(self) -> list[str]:
        """The command that runs the worker of docs/clients.md."""
        return [*self.interpreter, str(self.folder / self.sample)] if self.interpreter else self._program("worker")

    def _program(self, name: str) -> list[str]:
        return [self.python, str(self.folder / f"{name}.py")] if self.python else [str(self.folder / "bin" / name)]

    @property
    def missing_for_import(self) -> list[str]:
        """The command that runs its MARC import."""
        lacks = (
            not self.missing
            and self.library
            and subprocess.run(self.library, capture_output=True, check=False).returncode
        )
        return [self.library[-1]] if lacks else self.missing

    def build(self) -> None:
        """Builds its programs if they are missing or stale. RuntimeError with the build's output."""
        if not self.python:
            made = subprocess.run(
                ["make", "-C", str(self.folder), "build"], capture_output=True, text=True, check=False
            )
            if made.returncode:
                raise RuntimeError(
                    f"make -C clients/{self.name} build failed:\n{made.stdout[-4000:]}{made.stderr[-4000:]}"
                )


LANGUAGES = {
    language.name: language
    for language in (
        Language("python", "Python", "samples/worker.py", interpreter=(sys.executable,), python=sys.executable),
        Language("go", "Go", "samples/worker/main.go", tools=("go",)),
        Language("node", "TypeScript", "samples/worker.ts", tools=("node", "npm")),
        Language("java", "Java", "tools/src/main/java/dev/headway/tools/Worker.java", tools=("java", "javac", "mvn")),
        Language("rust", "Rust", "samples/worker.rs", tools=("cargo",)),
        Language(
            "perl",
            "Perl",
            "samples/worker.pl",
            interpreter=("perl", "-I", str(ROOT / "clients/perl/lib")),
            transport="http",
            tools=("perl",),
            library=("perl", "-e", "require MARC::Batch; require MARC::Charset", "MARC::Batch and MARC::Charset"),
        ),
        # Each of its calls is a process that takes a tenth of a second.
        Language("shell", "Shell", "samples/worker.sh", interpreter=("bash",), tools=("bash", "jq"), at_a_time=3),
    )
}
