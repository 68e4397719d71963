"""The Go client."""

from tests.clients.suite import Toolchain


class TestGo(Toolchain):
    name = "go"
