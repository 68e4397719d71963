"""The Java client."""

from tests.clients.suite import Toolchain


class TestJava(Toolchain):
    name = "java"
