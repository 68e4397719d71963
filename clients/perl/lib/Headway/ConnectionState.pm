package Headway::ConnectionState;

# Knows whether the server answers, and when to try again if it does not.
#
# The retry delay grows from 0.1 to 5 s while the server is unreachable, and to 0.5 s while somebody waits for delivery.
# A slow try (to a host that drops packets) makes later delays longer, so that all tries together cost a worker at most
# 2 % of its time.

use 5.016;
use strict;
use warnings;

use Headway::Ids qw(chance now);

my ( $FIRST_RETRY_DELAY, $MAX_RETRY_DELAY, $MAX_RETRY_DELAY_WHILE_AWAITED ) = ( 0.1, 5.0, 0.5 );
my $SHARE  = 50;
my $QUICK  = 0.02;
my $CREDIT = 1.25;

sub new {
    my ( $class, $address, $warn_at ) = @_;
    return bless {
        address  => $address,
        down     => 0,
        retry_at => 0,
        tries    => 0,
        waiting  => 0,
        spent    => 0,
        quick    => 0,
        since    => now(),
        warn_at  => $warn_at,
    }, $class;
}

sub down     { return $_[0]{down} }
sub retry_at { return $_[0]{retry_at} }
sub paused   { return now() < $_[0]{retry_at} }

# A caller that waits anyway may ask at once. That costs nothing if the last try was refused at once.
sub again {
    my ($self) = @_;
    $self->{retry_at} = 0 if $self->{quick};
    return;
}

# One line for people. A program with fatal warnings must not die of this one.
sub warn_user {
    my ( $self, $text ) = @_;
    local $@;
    eval { warn "headway: $text\n"; 1 } or return;
    return;
}

# Adds to the number of callers that wait for delivery; a negative number removes some.
sub add_waiting {
    my ( $self, $more ) = @_;
    $self->{waiting} += $more;
    my $soon = now() + $MAX_RETRY_DELAY_WHILE_AWAITED;
    $self->{retry_at} = $soon if $self->{waiting} && $self->{retry_at} > $soon;
    return;
}

sub reached {
    my ($self) = @_;
    $self->warn_user("$self->{address} answers again") if $self->{tries} >= $self->{warn_at};
    @{$self}{qw(down tries retry_at)} = ( 0, 0, 0 );
    return;
}

# The server did not answer; the worker has waited so many seconds for that.
sub failed {
    my ( $self, $error, $took ) = @_;
    my $now = now();
    $self->{down}  = 1;
    $self->{quick} = $took < $QUICK && $error->code ne 'DEADLINE_EXCEEDED';
    my $longest = $self->{waiting} ? $MAX_RETRY_DELAY_WHILE_AWAITED : $MAX_RETRY_DELAY;
    my $pause   = $FIRST_RETRY_DELAY * 2**( $self->{tries} < 10 ? $self->{tries} : 10 );
    $pause = $longest if $pause > $longest;
    $self->{retry_at} = $now + $pause * chance( 0.5, 1.0 );

    if ( !$self->{waiting} ) {
        $self->{spent} += $took;
        my $paid = $self->{since} + $SHARE * ( $self->{spent} - $CREDIT );
        $self->{retry_at} = $paid if $self->{retry_at} < $paid;
    }
    $self->{tries}++;

    # A server that only restarts is back before the second failure, which by default causes the warning.
    $self->warn_user( "$self->{address} does not answer (" . $error->log_text . '); the work goes on' )
        if $self->{tries} == $self->{warn_at};
    return;
}

1;
