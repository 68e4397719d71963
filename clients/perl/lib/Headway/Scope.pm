package Headway::Scope;

# Ends a job as FAILED if it is destroyed before the job has ended: see Headway::Job.

use 5.016;
use strict;
use warnings;

sub new {
    my ( $class, $job ) = @_;
    return bless { job => $job }, $class;
}

sub DESTROY {
    my ($self) = @_;
    local ( $@, $!, $? );
    my $job = $self->{job};
    $job->end_with('The work ended early.') if $job;
    return;
}

1;
