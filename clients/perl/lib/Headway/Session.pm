package Headway::Session;

# A session id. It is a secret, so it lies behind a closure, where neither a dump nor a stack trace shows it; only JSON for
# the server, and the spool, has it.

use 5.016;
use strict;
use warnings;

sub new {
    my ( $class, $text ) = splice @_;
    return bless sub { $text }, $class;
}

sub text    { return $_[0]->() }
sub TO_JSON { return $_[0]->() }

1;
