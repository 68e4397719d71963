package Headway::Contact;

# Whether the server answers, and when to try it again if it does not.
#
# Pauses grow from 0.1 to 5 s while the server is away, to half a second if somebody waits for it. A try that takes long
# (a host that swallows packets) is paid for by longer pauses, so that all of them together cost a worker at most 2 % of its
# time.

use 5.016;
use strict;
use warnings;

use Headway::Ids qw(chance now);

my ( $FIRST_PAUSE, $LONGEST_PAUSE, $LONGEST_IN_HASTE ) = ( 0.1, 5.0, 0.5 );
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

# Somebody who waits anyway wants to know. That costs nothing where the last try was refused at once.
sub again {
    my ($self) = @_;
    $self->{retry_at} = 0 if $self->{quick};
    return;
}

# One line for people. A program whose warnings are fatal does not die of this one.
sub notice {
    my ( $self, $text ) = @_;
    local $@;
    eval { warn "headway: $text\n"; 1 } or return;
    return;
}

# So many more, or fewer, wait until all is delivered.
sub hurry {
    my ( $self, $more ) = @_;
    $self->{waiting} += $more;
    my $soon = now() + $LONGEST_IN_HASTE;
    $self->{retry_at} = $soon if $self->{waiting} && $self->{retry_at} > $soon;
    return;
}

sub heard {
    my ($self) = @_;
    $self->notice("$self->{address} answers again") if $self->{tries} >= $self->{warn_at};
    @{$self}{qw(down tries retry_at)} = ( 0, 0, 0 );
    return;
}

# It did not answer; the worker has waited so many seconds for that.
sub lost {
    my ( $self, $error, $took ) = @_;
    my $now = now();
    $self->{down}  = 1;
    $self->{quick} = $took < $QUICK && $error->code ne 'DEADLINE_EXCEEDED';
    my $longest = $self->{waiting} ? $LONGEST_IN_HASTE : $LONGEST_PAUSE;
    my $pause   = $FIRST_PAUSE * 2**( $self->{tries} < 10 ? $self->{tries} : 10 );
    $pause = $longest if $pause > $longest;
    $self->{retry_at} = $now + $pause * chance( 0.5, 1.0 );

    if ( !$self->{waiting} ) {
        $self->{spent} += $took;
        my $paid = $self->{since} + $SHARE * ( $self->{spent} - $CREDIT );
        $self->{retry_at} = $paid if $self->{retry_at} < $paid;
    }
    $self->{tries}++;

    # A server that only restarts is back before the second failure, which is when most want to be warned.
    $self->notice( "$self->{address} does not answer (" . $error->in_words . '); the work goes on' )
        if $self->{tries} == $self->{warn_at};
    return;
}

1;
