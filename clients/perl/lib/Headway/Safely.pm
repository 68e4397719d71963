package Headway::Safely;

# Code of ours in the midst of the worker's: it leaves $@ and the like as they are, and is not left by an exception that
# is meant for the worker.

use 5.016;
use strict;
use warnings;

use Exporter qw(import);
use POSIX    qw(SIG_BLOCK SIG_SETMASK sigprocmask);

our @EXPORT_OK = qw(safely);

my $ALL = POSIX::SigSet->new;
$ALL->fillset;

# Runs the code; its exception, or undef. Signals wait until it is done: a handler that dies, as with alarm(), dies in the
# worker's code, and does not get lost in here. So the code must be quick.
sub safely {
    my ($code) = @_;
    my $before = POSIX::SigSet->new;
    sigprocmask( SIG_BLOCK, $ALL, $before );
    my $fault;
    {
        local ( $@, $!, $? );
        local $SIG{__DIE__} = 'DEFAULT';
        $fault = eval { $code->(); 1 } ? undef : $@ || 'an unknown fault';
    }
    sigprocmask( SIG_SETMASK, $before );
    return $fault;
}

1;
