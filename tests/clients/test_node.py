"""The TypeScript client, on Node."""

from tests.clients.suite import Toolchain


class TestNode(Toolchain):
    name = "node"
