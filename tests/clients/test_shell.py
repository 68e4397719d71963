"""The Shell client."""

from tests.clients.suite import Toolchain


class TestShell(Toolchain):
    name = "shell"
