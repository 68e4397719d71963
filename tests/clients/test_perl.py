"""The Perl client."""

from tests.clients.suite import Toolchain


class TestPerl(Toolchain):
    name = "perl"
