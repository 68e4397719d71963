package Headway::Safely;

# Code of ours in the midst of the worker's: it leaves $@ and the like as they are, is not left by an exception that is
# meant for the worker, and keeps away from the worker's standard input and output.

use 5.016;
use strict;
use warnings;

use Exporter qw(import);
use POSIX    qw(O_RDONLY SIG_BLOCK SIG_SETMASK sigprocmask);

our @EXPORT_OK = qw(beyond_standard safely);

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

# Runs code that opens something. In a program that has closed STDIN, STDOUT or STDERR, as daemons do, the system would give
# it that number, and what a command prints that the program starts would go there.
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
