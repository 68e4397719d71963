package Headway::Safely;

# Runs the client's code in the middle of the worker's. It keeps $@ and the like, is not interrupted by an exception
# that is meant for the worker, and does not touch the worker's standard input and output.

use 5.016;
use strict;
use warnings;

use Exporter qw(import);
use POSIX    qw(O_RDONLY SIG_BLOCK SIG_SETMASK sigprocmask);

our @EXPORT_OK = qw(beyond_standard safely);

my $ALL = POSIX::SigSet->new;
$ALL->fillset;

# Runs the code; returns its exception, or undef. Signals wait until it is done: a handler that dies, as with alarm(),
# must die in the worker's code, and not here. So the code must be quick.
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

# Runs code that opens something. In a program that has closed STDIN, STDOUT or STDERR, as daemons do, the system would
# reuse that number. A command that the program starts would then print into the opened file.
sub beyond_standard {
    my ($open) = @_;
    my @held;
    while ( defined( my $number = POSIX::open( '/dev/null', O_RDONLY ) ) ) {
        push @held, 0 + $number;
        last if $number > 2;
    }
    my $opened = eval { $open->() };
    my $fault  = $@;
    POSIX::close($_) for @held;
    die $fault if !$opened;
    return $opened;
}

1;
