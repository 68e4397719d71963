package Headway::Course;

# One job on its way: what it still has to tell the server, in order.
#
# A step is a call that a job has to make, or with no method the point up to which its reports shall go out:
#
#   method, request   the call
#   after_reports     it waits for what the meters have to say
#   sampled           all that is known; what changes later comes too late for it
#   release           the job is left alone after it
#   instead           what to do if it is refused: given the error, a further step, or nothing, which means to go on
#   done, tried       settled; or it is known that the server does not answer now
#   error, answer     what the server said

use 5.016;
use strict;
use warnings;

use Headway::Cancelled ();
use Headway::Meter     ();
use Headway::Report    ();

my %ENDS = map { $_ => 1 } qw(FinishJob FailJob);

sub new {
    my ( $class, %about ) = @_;
    my $never = 9**9**9;
    my $self  = bless {
        session   => undef,     # a Headway::Session
        passing   => 0,         # whether the engine forgets it when it has no steps
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
        steps     => [],
        at_once   => 0,         # when an unjoined job is due: with its first change
        never     => \$never,
        %about,
    }, $class;
    $self->{attempt} = $self->{job}{attempt} || 0;
    return $self;
}

sub id { return $_[0]{job}{id} }

# Which attempt this worker's is: to look at a job that another has taken over does not take it back.
sub attempt { return $_[0]{attempt} }

# The meter of a part; the same one for the same name.
sub part {
    my ( $self, $name ) = @_;
    for my $reporter ( @{ $self->{reporters} } ) {
        return $reporter->meter if $reporter->meter->part_name eq $name;
    }
    my $progress = $self->{job}{parts}{$name} || 0;
    my $meter    = Headway::Meter->new( $name, $progress );
    push @{ $self->{reporters} }, Headway::Report->new( $meter, $progress, $self->{job}{size} );
    @{$meter}{qw(course due)} = ( $self, $self->_clock );
    return $meter;
}

# When the meters call `look`: a job that was only fetched is reported from its first change on.
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

sub add_step {
    my ( $self, $step ) = @_;
    if ( $self->{over} ) {
        @{$step}{qw(done tried error)} = ( 1, 1, $self->{error} );
    }
    else {
        push @{ $self->{steps} }, $step;

        # What this round has asked for already may have changed since.
        $self->{round}{complete} = 0 if $self->{round};
    }
    return;
}

# The step whose turn it is, unless reports come first.
sub next_step {
    my ($self) = @_;
    my $step = $self->{steps}[0];
    return $step && !$step->{after_reports} ? $step : undef;
}

# Whether it is the turn of reports, or of the step that waits for them.
sub reporting {
    my ($self) = @_;
    return q{} if $self->{over};
    my $step = $self->{steps}[0];
    return $step ? $step->{after_reports} : $self->{started} && ( $self->{heartbeat} >= 0 || @{ $self->{reporters} } );
}

# Whether more should go out without waiting for the next turn.
sub urgent {
    my ($self) = @_;
    return @{ $self->{steps} } || $self->{round} || grep { $_->busy } @{ $self->{reporters} };
}

sub _about {
    my ( $self, $attempt ) = @_;
    return { session_id => $self->{session}, job_id => $self->id, $attempt ? ( attempt => 0 + $attempt ) : () };
}

# The next report of this round, with whose it is, one part after the other. None, at the end of the round: then the turn of
# a step that waited, or a heartbeat, which is nobody's.
sub next_report {
    my ( $self, $now ) = @_;
    my $step  = $self->{steps}[0];
    my $fresh = !$step || !$step->{sampled};
    my $about = $self->_about( $self->attempt );
    my $round = $self->{round} ||=
        { left => $self->{started} ? [ @{ $self->{reporters} } ] : [], silent => 1, complete => 1 };
    while ( my $reporter = shift @{ $round->{left} } ) {
        $round->{complete} = 0 if $reporter->unsettled;
        $reporter->number_above( $self->{job}{last_sequence} || 0 );
        my $report = $reporter->report( $about, $fresh ) or next;
        $round->{silent} = 0;
        return ( $report, $reporter );
    }
    $self->{round} = undef;
    if ($step) {

        # A step waits for what was there when it came, and not for ever.
        $step->{sampled} ||= $round->{complete};
        $step->{after_reports} &&= !$round->{silent} || !$round->{complete};
        return;
    }
    return $about if $round->{silent} && $self->{heartbeat} >= 0 && $now >= $self->{beat_at};
    return;
}

# All calls that are left to make, in order: pairs of a method and a request.
sub remains {
    my ($self) = @_;
    my @left;

    # A job that nobody has answered for yet begins with its first attempt.
    my ( $started, $fresh, $attempt ) = ( $self->{started}, 1, $self->attempt || 1 );
    for my $step ( @{ $self->{steps} } ) {
        $fresh &&= !$step->{sampled};
        my $method = $step->{method} or next;
        $started = !$step->{request}{pending} if $method eq 'CreateJob';
        if ( $ENDS{$method} && !$step->{aside} ) {
            push @left, $self->_drain( $fresh, $attempt ) if $started && $step->{after_reports};
            return ( @left, [ $method, { %{ $step->{request} }, attempt => $attempt } ] );
        }
        push @left, [ $method, $step->{request} ];
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

# A step is done; the job as the answer describes it, if it does.
sub answered {
    my ( $self, $step, $job ) = @_;
    shift @{ $self->{steps} };
    $self->{retry_at} = 0;
    $self->heard_of($job) if $job;
    $self->stop           if $step->{release} || $ENDS{ $step->{method} // q{} } && !$step->{aside};
    @{$step}{qw(done tried answer)} = ( 1, 1, $job );
    return;
}

sub heard_of {
    my ( $self, $job ) = @_;
    $self->{job} = $job;

    # What the worker has set meanwhile, the server does not know yet.
    for my $step ( grep { ( $_->{method} // q{} ) eq 'UpdateJob' } @{ $self->{steps} } ) {
        my $field = $step->{request}{update_mask};
        $job->{$field} = $step->{request}{job}{$field};
    }

    # Who creates a job is its first worker, whoever has taken it over before the answer came.
    $self->{attempt} ||= 1;
    $self->{started} = $job->{status} ne 'PENDING';
    $self->cancel( $job->{cancellation} ) if $job->{cancellation} && $job->{cancellation}{requested};
    return;
}

# In a forked child: what the parent has counted is the parent's to report.
sub adopt {
    my ($self) = @_;
    $self->{steps} = [
        map  { { method => $_->{method}, request => $_->{request} } }
        grep { ( $_->{method} // q{} ) eq 'CreateJob' } @{ $self->{steps} }
    ];
    @{$self}{qw(retry_at heartbeat round)} = ( 0, -1, undef );
    my @meters = map { $_->meter } @{ $self->{reporters} };
    $_->adopt for @meters;
    $self->{reporters} = [ map { Headway::Report->new($_) } @meters ];
    return;
}

# The server says that the job shall end early.
sub cancel {
    my ( $self, $wish ) = @_;
    $self->{job}{cancellation} = $wish;
    @{$self}{qw(cancelled unwanted)} = ( 1, 1 );
    return;
}

sub die_if_cancelled {
    my ($self) = @_;
    return if !$self->{cancelled};
    my $wish = $self->{job}{cancellation} || {};
    Headway::Cancelled->throw( @{$wish}{qw(reason deadline)} );
    return;
}

# That a job is not tracked any more for another reason than somebody's decision is no reason to end the work.
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
    while ( my $step = shift @{ $self->{steps} } ) {
        @{$step}{qw(done tried error)} = ( 1, 1, $error ) if !$step->{done};
    }
    $self->set_clocks;
    return;
}

1;
