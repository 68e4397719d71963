package Headway::JobState;

# The engine's record of one job: what it still has to send to the server, in order.
#
# A pending call is a call that a job still has to make. Without a method it marks a point: the reports before it go
# first.
#
#   method, request   the call
#   after_reports     it waits for what the meters have to say
#   sampled           all that is known; what changes later comes too late for it
#   release           the job is left alone after it
#   instead           what to do if it is refused: given the error, a further \$ => pending => $, or nothing, which means to go on
#   done, tried       settled; or it is known that the server does not answer now
#   error, answer     what the server said

use 5.016;
use strict;
use warnings;

use Headway::Cancelled ();
use Headway::Meter     ();
use Headway::Reporter  ();

my %ENDS = map { $_ => 1 } qw(FinishJob FailJob);

sub new {
    my ( $class, %about ) = @_;
    my $never = 9**9**9;
    my $self  = bless {
        session   => undef,     # a Headway::Session
        passing   => 0,         # whether the engine forgets it when it has no pending calls
        job       => undef,     # as the server last described it; before it did, as the worker did
        heartbeat => -1,        # seconds; 0 = never LOST, below 0 = not even a question now and then
        started   => 1,         # whether reports may flow: not before the job is created, or while it is PENDING
        engine    => undef,
        error     => undef,     # why the server wants no more reports, once it does not
        over      => 0,
        cancelled => 0,
        unwanted  => 0,
        due       => 0,
        beat_at   => 0,
        retry_at  => 0,
        reporters => [],
        round     => undef,
        pending   => [],
        at_once   => 0,         # when an unjoined job is due: with its first change
        never     => \$never,
        %about,
    }, $class;
    $self->{attempt} = $self->{job}{attempt} || 0;
    return $self;
}

sub id { return $_[0]{job}{id} }

# The attempt of this worker. Reading a job that another has taken over does not take it back.
sub attempt { return $_[0]{attempt} }

# The meter of a part; the same one for the same name.
sub part {
    my ( $self, $name ) = @_;
    for my $reporter ( @{ $self->{reporters} } ) {
        return $reporter->meter if $reporter->meter->part_name eq $name;
    }
    my $progress = $self->{job}{parts}{$name} || 0;
    my $meter    = Headway::Meter->new( $name, $progress );
    push @{ $self->{reporters} }, Headway::Reporter->new( $meter, $progress, $self->{job}{size} );
    @{$meter}{qw(job_state due)} = ( $self, $self->_clock );
    return $meter;
}

# The due time for the meters: a job that was only fetched is reported from its first change on.
sub _clock {
    my ($self) = @_;
    return $self->{over} ? $self->{never} : $self->{engine}->has($self) ? $self->{engine}->clock : \$self->{at_once};
}

sub set_clocks {
    my ($self) = @_;
    my $clock = $self->_clock;
    $_->meter->{due} = $clock for @{ $self->{reporters} };
    return;
}

sub look {
    my ($self) = @_;
    $self->{engine}->submit($self);
    return;
}

sub add_call {
    my ( $self, $pending ) = @_;
    if ( $self->{over} ) {
        @{$pending}{qw(done tried error)} = ( 1, 1, $self->{error} );
    }
    else {
        push @{ $self->{pending} }, $pending;

        # Meters that this round has sampled already may have changed since.
        $self->{round}{complete} = 0 if $self->{round};
    }
    return;
}

# The call to make now; undef if reports go first.
sub next_pending {
    my ($self) = @_;
    my $pending = $self->{pending}[0];
    return $pending && !$pending->{after_reports} ? $pending : undef;
}

# Whether reports are next, or the call that waits for them.
sub reporting {
    my ($self) = @_;
    return q{} if $self->{over};
    my $pending = $self->{pending}[0];
    return $pending ? $pending->{after_reports} : $self->{started}
        && ( $self->{heartbeat} >= 0 || @{ $self->{reporters} } );
}

# Whether to send more without waiting for the next report interval.
sub urgent {
    my ($self) = @_;
    return @{ $self->{pending} } || $self->{round} || grep { $_->busy } @{ $self->{reporters} };
}

sub _about {
    my ( $self, $attempt ) = @_;
    return { session_id => $self->{session}, job_id => $self->id, $attempt ? ( attempt => 0 + $attempt ) : () };
}

# The next report of this round and its reporter, one part after the other. At the end of the round: nothing, so that a
# waiting call goes ahead, or a heartbeat, which has no reporter.
sub next_report {
    my ( $self, $now ) = @_;
    my $pending = $self->{pending}[0];
    my $fresh   = !$pending || !$pending->{sampled};
    my $about   = $self->_about( $self->attempt );
    my $round   = $self->{round} ||=
        { left => $self->{started} ? [ @{ $self->{reporters} } ] : [], silent => 1, complete => 1 };
    while ( my $reporter = shift @{ $round->{left} } ) {
        $round->{complete} = 0 if $reporter->unsettled;
        $reporter->number_above( $self->{job}{last_sequence} || 0 );
        my $report = $reporter->report( $about, $fresh ) or next;
        $round->{silent} = 0;
        return ( $report, $reporter );
    }
    $self->{round} = undef;
    if ($pending) {

        # A call waits only for what was there when it was queued.
        $pending->{sampled} ||= $round->{complete};
        $pending->{after_reports} &&= !$round->{silent} || !$round->{complete};
        return;
    }
    return $about if $round->{silent} && $self->{heartbeat} >= 0 && $now >= $self->{beat_at};
    return;
}

# All calls that are left to make, in order: pairs of a method and a request.
sub undelivered {
    my ($self) = @_;
    my @left;

    # A job whose creation is unanswered begins with its first attempt.
    my ( $started, $fresh, $attempt ) = ( $self->{started}, 1, $self->attempt || 1 );
    for my $pending ( @{ $self->{pending} } ) {
        $fresh &&= !$pending->{sampled};
        my $method = $pending->{method} or next;
        $started = !$pending->{request}{pending} if $method eq 'CreateJob';
        if ( $ENDS{$method} && !$pending->{aside} ) {
            push @left, $self->_drain( $fresh, $attempt ) if $started && $pending->{after_reports};
            return ( @left, [ $method, { %{ $pending->{request} }, attempt => $attempt } ] );
        }
        push @left, [ $method, $pending->{request} ];
    }
    push @left, $self->_drain( $fresh, $attempt ) if $started;
    return @left;
}

sub _drain {
    my ( $self, $fresh, $attempt ) = @_;
    my $about = $self->_about($attempt);
    $_->number_above( $self->{job}{last_sequence} || 0 ) for @{ $self->{reporters} };
    return map { [ ReportProgress => $_ ] } map { $_->drain( $about, $fresh ) } @{ $self->{reporters} };
}

# A call is done; with the job as the answer describes it, if it does.
sub answered {
    my ( $self, $pending, $job ) = @_;
    shift @{ $self->{pending} };
    $self->{retry_at} = 0;
    $self->heard_of($job) if $job;
    $self->stop           if $pending->{release} || $ENDS{ $pending->{method} // q{} } && !$pending->{aside};
    @{$pending}{qw(done tried answer)} = ( 1, 1, $job );
    return;
}

sub heard_of {
    my ( $self, $job ) = @_;
    $self->{job} = $job;

    # The server does not know yet what the worker has changed meanwhile.
    for my $pending ( grep { ( $_->{method} // q{} ) eq 'UpdateJob' } @{ $self->{pending} } ) {
        my $field = $pending->{request}{update_mask};
        $job->{$field} = $pending->{request}{job}{$field};
    }

    # The creator of a job is its first worker, even if another worker took the job over before the answer came.
    $self->{attempt} ||= 1;
    $self->{started} = $job->{status} ne 'PENDING';
    $self->cancel( $job->{cancellation} ) if $job->{cancellation} && $job->{cancellation}{requested};
    return;
}

# In a forked child: only the parent reports what it has counted.
sub adopt {
    my ($self) = @_;
    $self->{pending} = [
        map  { { method => $_->{method}, request => $_->{request} } }
        grep { ( $_->{method} // q{} ) eq 'CreateJob' } @{ $self->{pending} }
    ];
    @{$self}{qw(retry_at heartbeat round)} = ( 0, -1, undef );
    my @meters = map { $_->meter } @{ $self->{reporters} };
    $_->adopt for @meters;
    $self->{reporters} = [ map { Headway::Reporter->new($_) } @meters ];
    return;
}

# The server reports that the job is to end early.
sub cancel {
    my ( $self, $cancellation ) = @_;
    $self->{job}{cancellation} = $cancellation;
    @{$self}{qw(cancelled unwanted)} = ( 1, 1 );
    return;
}

sub die_if_cancelled {
    my ($self) = @_;
    return if !$self->{cancelled};
    my $cancellation = $self->{job}{cancellation} || {};
    Headway::Cancelled->throw( @{$cancellation}{qw(reason deadline)} );
    return;
}

# Only a decision of somebody ends the work. Other reasons why the job is not tracked any more do not.
sub die_if_unwanted {
    my ($self) = @_;
    $self->die_if_cancelled;
    die $self->{error} if $self->{error} && $self->{error}->reason =~ /\A(?:JOB_ENDED|STALE_ATTEMPT)\z/;
    return;
}

# Nothing more is sent for this job.
sub stop {
    my ( $self, $error ) = @_;
    $self->{over}  = 1;
    $self->{error} = $error;
    $self->{unwanted} ||= defined $error;
    while ( my $pending = shift @{ $self->{pending} } ) {
        @{$pending}{qw(done tried error)} = ( 1, 1, $error ) if !$pending->{done};
    }
    $self->set_clocks;
    return;
}

1;
