"""The Python client."""

from tests.clients.suite import ClientSuite


class TestPython(ClientSuite):
    name = "python"
