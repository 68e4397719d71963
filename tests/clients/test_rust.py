"""The Rust client."""

from tests.clients.suite import Toolchain


class TestRust(Toolchain):
    name = "rust"
