package Headway::Engine;

# The part of the client behind all its jobs. It runs when a worker's update finds that something is due, or while
# somebody waits. It then reads an answer that has arrived, sends the next call, and lets the worker go on. At most one
# call is in flight. What was not acknowledged is repeated. Sequence numbers and ids chosen by the client make repeats
# count once.

use 5.016;
use strict;
use warnings;

use Scalar::Util qw(weaken);
use Time::HiRes  qw(sleep);

use Headway::ConnectionState ();
use Headway::Error           ();
use Headway::Http            ();
use Headway::Ids             qw(now);
use Headway::SpoolSender     ();
use Headway::Safely          qw(safely);

use parent 'Headway::EngineAnswers';

# The process of all engines: any other process is a forked child of it.
our $PROCESS = $$;

# Seconds that the engine waits for an answer before the connection counts as broken; and that a worker that waits for
# nothing may lose on connecting, on sending, and on the rest of an answer that has begun.
my ( $ANSWER_TIMEOUT, $MAX_BLOCKING ) = ( 10.0, 0.25 );

my $DEFAULT_REPORT_INTERVAL = 0.25;

# The first and the longest delay (s) before it looks for an answer.
my ( $FIRST_ANSWER_CHECK, $MAX_ANSWER_CHECK ) = ( 0.001, 0.05 );

my $NEVER = 9**9**9;
my %engines;

sub new {
    my ( $class, $target, $warn_at ) = @_;
    my $self = bless {
        target      => $target,
        warn_at     => $warn_at // 2,
        jobs        => [],
        due         => $NEVER,
        turning     => 0,
        waits_until => 0
        },
        $class;
    $self->_begin_anew;
    weaken( $engines{ 0 + $self } = $self );
    return $self;
}

sub _begin_anew {
    my ($self) = @_;
    $self->{http}             = Headway::Http->new( $self->{target} );
    $self->{connection_state} = Headway::ConnectionState->new( $self->{target}->address, $self->{warn_at} );
    $self->{report_interval}  = $DEFAULT_REPORT_INTERVAL;
    $self->{spool_senders}    = [];
    @{$self}{qw(sent looked)} = ( undef, 0 );
    return;
}

sub DESTROY {
    my ($self) = @_;
    delete $engines{ 0 + $self };
    return;
}

sub target           { return $_[0]{target} }
sub connection_state { return $_[0]{connection_state} }

# When the engine next has something to do: a reference, for the meters to read.
sub clock { return \$_[0]{due} }

# In a forked child: the connection and the counts belong to the parent.
sub forked {
    $PROCESS = $$;
    for my $self ( grep { defined } values %engines ) {
        $self->_begin_anew;
        $_->adopt for $self->jobs;
        $self->{due} = 0;
    }
    return;
}

# The jobs that may have something to send.
sub jobs {
    my ($self) = @_;
    return grep { !$_->{over} } @{ $self->{jobs} };
}

sub has {
    my ( $self, $job_state ) = @_;
    return !!grep { $_ == $job_state } @{ $self->{jobs} };
}

# Takes charge of a job, queues calls for it, and runs.
sub submit {
    my ( $self, $job_state, @calls ) = @_;
    $self->forked if $$ != $PROCESS;
    if ( !$job_state->{over} && !$self->has($job_state) ) {
        push @{ $self->{jobs} }, $job_state;
        $job_state->{beat_at} = now() + $self->_turn_of($job_state);
        $job_state->set_clocks;
    }
    for my $pending (@calls) {
        $job_state->add_call($pending);
        $pending->{tried} = 1 if $self->{connection_state}->down;
    }
    $job_state->{due} = 0 if @calls || $job_state->{due} > now() + $self->_turn_of($job_state);
    $self->turn;
    return;
}

# Runs the engine. It takes a millisecond at most, unless the server is unreachable.
sub turn {
    my ($self) = @_;
    $self->forked if $$ != $PROCESS;
    return        if $self->{turning};
    local $self->{turning} = 1;
    my $fault = safely( sub { $self->_take_turn } ) or return;

    # A fault of the client stops nothing. It counts as an outage, so that it is not repeated at once.
    safely( sub { $self->_outage( Headway::Error->from_fault($fault), 0 ) } );
    $self->{due} = $self->{connection_state}->retry_at;
    return;
}

# Waits for the condition, at most so many seconds. Returns whether it is met.
sub await {
    my ( $self, $seconds, $done ) = @_;
    my $end = now() + $seconds;
    local ( $@, $! );
    local $self->{waits_until} = $end;
    while (1) {
        $self->turn;
        return 1 if $done->();
        my $left = $end - now();
        return q{} if $left <= 0;
        $self->rest($left);
    }
}

# Sleeps until there is something to do, at most so many seconds.
sub rest {
    my ( $self, $left ) = @_;
    my $sent  = $self->{sent};
    my $pause = ( $sent ? $sent->{by} : $self->{due} ) - now();
    $pause = $left if $pause > $left;
    $pause = 0     if $pause < 0;
    if   ($sent) { $self->{http}->ready($pause) }
    else         { sleep $pause }
    return;
}

# Waits until everything of these jobs is stored. Returns the jobs that have something left.
sub wait_delivered {
    my ( $self, $seconds, @jobs ) = @_;
    my @waiting = map { [ $_, { after_reports => 1 } ] } grep { !$_->{over} } @jobs;
    $self->{connection_state}->add_waiting(1);
    my $fault;
    {
        local $@;
        $fault = $@ if !eval {
            $self->submit( @{$_} ) for @waiting;
            $self->await(
                $seconds,
                sub {
                    !grep { !$_->[1]{done} } @waiting;
                }
            );
            1;
        };
    }
    $self->{connection_state}->add_waiting(-1);
    die $fault if defined $fault;
    return map { $_->[0] } grep { !$_->[1]{done} } @waiting;
}

# Sends what earlier processes left in the spool for this server, or for one job. Returns the counts.
sub send_spool {
    my ( $self, $seconds, $job_id ) = @_;
    my $spool_sender = Headway::SpoolSender->new( $self->{target}, $job_id );
    push @{ $self->{spool_senders} }, $spool_sender;
    $self->{due} = 0;
    $self->await( $seconds, sub { $spool_sender->over } );
    $spool_sender->stop;
    return $spool_sender->counts;
}

sub _take_turn {
    my ($self) = @_;
    my $connection_state = $self->{connection_state};
    $self->_look_for_answer;
    @{ $self->{jobs} } = grep { !$_->{over} && !( $_->{passing} && !@{ $_->{pending} } ) } @{ $self->{jobs} };
    while ( !$self->{sent} && now() >= $connection_state->retry_at ) {
        $self->_send_next( now() ) or last;
    }
    $self->{due} = $self->_next_moment;
    return;
}

sub _next_moment {
    my ($self) = @_;
    return $self->{sent}{look_at} if $self->{sent};
    my $next = grep( { !$_->over } @{ $self->{spool_senders} } ) ? 0 : $NEVER;
    for my $job_state ( @{ $self->{jobs} } ) {
        my $moment =
              $job_state->next_pending                   ? $job_state->{retry_at}
            : !$job_state->reporting                     ? $NEVER
            : $job_state->{due} > $job_state->{retry_at} ? $job_state->{due}
            :                                              $job_state->{retry_at};
        $next = $moment if $moment < $next;
    }
    my $retry_at = $self->{connection_state}->retry_at;
    return $next < $retry_at ? $retry_at : $next;
}

# Whether something was sent or done.
sub _send_next {
    my ( $self, $now ) = @_;
    for my $job_state ( sort { $a->{due} <=> $b->{due} } @{ $self->{jobs} } ) {
        next if $job_state->{over} || $job_state->{retry_at} > $now;
        if ( my $pending = $job_state->next_pending ) {
            $self->_call( $job_state, $pending );
            return 1;
        }
        next if !$job_state->reporting || $job_state->{due} > $now;
        my ( $report, $reporter ) = $job_state->next_report($now);
        if ( !$report ) {
            my $urgent = $job_state->urgent;
            $job_state->{due} = $urgent ? $now : $now + $self->_turn_of($job_state);
            return 1 if $urgent;
            next;
        }
        $job_state->{beat_at} = $now + $self->_turn_of($job_state);
        $self->_send( ReportProgress => $report, sub { $self->_reported( $job_state, $reporter, @_ ) } );
        return 1;
    }
    my ($spool_sender) = @{ $self->{spool_senders} } or return q{};
    my ( $method, $request ) = $spool_sender->next_call;
    if ($method) {
        $self->_send( $method => $request, sub { $self->_spool_answered( $spool_sender, @_ ) } );
    }
    else {
        shift @{ $self->{spool_senders} };
    }
    return 1;
}

sub _turn_of {
    my ( $self, $job_state ) = @_;
    my $third = $job_state->{heartbeat} / 3;
    return $third > 0 && $third < $self->{report_interval} ? $third : $self->{report_interval};
}

sub _call {
    my ( $self, $job_state, $pending ) = @_;
    if ( !$pending->{method} ) {
        $job_state->answered($pending);
        return;
    }
    $pending->{request}{attempt} = $job_state->attempt
        if $pending->{method} =~ /\AF/ && !$pending->{aside} && $job_state->attempt;
    $self->_send( @{$pending}{qw(method request)}, sub { $self->_called( $job_state, $pending, @_ ) } );
    if ( $self->{sent} ) {
        $self->{sent}{pending} = $pending;
        $pending->{tried} = 0;
    }
    return;
}

# Whether this call is in flight.
sub sending {
    my ( $self, $pending ) = @_;
    return $self->{sent} && $self->{sent}{pending} && $self->{sent}{pending} == $pending;
}

# A caller has found that the server is unreachable, and has waited so many seconds for that.
sub unreachable {
    my ( $self, $error, $seconds ) = @_;
    safely( sub { $self->_outage( $error, $seconds ) } );
    return;
}

# Waits until the spool files of earlier processes are sent, as long as the server answers.
sub wait_for_spool {
    my ( $self, $seconds ) = @_;
    $self->await( $seconds, sub { !@{ $self->{spool_senders} } } );
    return;
}

# Sends a call; `then` receives its answer or an error.
sub _send {
    my ( $self, $method, $request, $then ) = @_;
    my $now = now();
    my $fault;
    for my $try ( 1 .. 2 ) {
        $fault =
            eval { $self->{http}->begin( $method, $request, $self->_timeout ); 1 }
            ? undef
            : Headway::Error->from_fault($@);
        last if !$fault || !$self->{http}->stale($fault);
    }
    if ($fault) {
        $fault->reason ? $then->( undef, $fault ) : $self->_outage( $fault, now() - $now );
        return;
    }
    $self->{sent} = {
        call    => [ $method, $request, $then ],
        by      => $now + $ANSWER_TIMEOUT,
        pause   => $FIRST_ANSWER_CHECK,
        look_at => $now + $FIRST_ANSWER_CHECK,
    };
    return;
}

sub _look_for_answer {
    my ($self) = @_;
    my $sent   = $self->{sent} or return;
    my $now    = now();
    if ( !$self->{http}->ready ) {
        if ( $now >= $sent->{by} ) {
            $self->_outage( Headway::Error->new( code => 'DEADLINE_EXCEEDED', message => 'no answer' ), 0 );
            return;
        }
        $sent->{pause} *= 2 if $sent->{pause} < $MAX_ANSWER_CHECK;
        $sent->{look_at} = $now + $sent->{pause};
        return;
    }
    $self->{sent} = undef;
    my $answer;
    my $fault =
        eval { $answer = $self->{http}->answer( $self->_timeout ); 1 } ? undef : Headway::Error->from_fault($@);
    if ( $fault && $self->{http}->stale($fault) && $sent->{call}[0] ne 'StartJob' ) {
        $self->_send_again($sent);
        return;
    }

    # It was well-formed when it was sent. If the server refuses it a second time, the call itself is at fault.
    if ( $fault && $fault->reason eq 'MALFORMED_MESSAGE' && !$sent->{again} ) {
        $self->_send_again( $sent, again => 1 );
        return;
    }
    if ( $fault && !$fault->reason ) {
        $self->_outage( $fault, now() - $now );
        return;
    }
    $sent->{call}[2]->( $answer, $fault );
    return;
}

sub _send_again {
    my ( $self, $sent, %more ) = @_;
    $self->{http}->drop;
    $self->_send( @{ $sent->{call} } );
    $self->{sent} = { %{ $self->{sent} }, \$= > pending => $= > $sent->{pending}, %more } if $self->{sent};
    return;
}

# Seconds that the connection may take now: until the end of the worker's wait, else only a moment.
sub _timeout {
    my ($self) = @_;
    my $left = $self->{waits_until} - now();
    return $left < $MAX_BLOCKING ? $MAX_BLOCKING : $left > $ANSWER_TIMEOUT ? $ANSWER_TIMEOUT : $left;
}

sub _heard {
    my ($self) = @_;
    $self->{connection_state}->reached;
    return if $self->{looked}++;
    my $spool_sender = Headway::SpoolSender->new( $self->{target} );
    push @{ $self->{spool_senders} }, $spool_sender if !$spool_sender->over;
    return;
}

# The server does not answer; the worker has waited so many seconds for that.
sub _outage {
    my ( $self, $error, $took ) = @_;
    $self->{http}->drop;
    $self->{sent} = undef;
    $self->{connection_state}->failed( $error, $took );
    $_->stop for splice @{ $self->{spool_senders} };
    for my $job_state ( @{ $self->{jobs} } ) {
        @{$job_state}{qw(due round)} = ( 0, undef );
        $_->{tried} = 1 for @{ $job_state->{pending} };
    }
    return;
}

1;
