package Headway::Session;

# A session id. It is a secret, so a closure holds it, where neither a dump nor a stack trace shows it. Only JSON for
# the server and the spool contain it.

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
