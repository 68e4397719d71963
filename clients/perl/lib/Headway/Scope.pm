package Headway::Scope;

# Ends a job as FAILED if it is destroyed before the job has ended: see Headway::Job.

use 5.016;
use strict;
use warnings;

use Scalar::Util qw(weaken);

my %live;

sub new {
    my ( $class, $job ) = @_;
    my $self = bless { job => $job }, $class;
    weaken( $live{ 0 + $self } = $self );
    return $self;
}

sub DESTROY {
    my ($self) = @_;
    delete $live{ 0 + $self };
    $self->leave;
    return;
}

sub leave {
    my ($self) = @_;

    # Not $?: it holds the exit status if exit() leaves the scope.
    local ( $@, $! );
    my $job = delete $self->{job};
    $job->end_with('The work ended early.') if $job;
    return;
}

# At the end of the program: ends the jobs of scopes that still exist.
sub leave_all {
    $_->leave for grep { defined } values %live;
    return;
}

1;
