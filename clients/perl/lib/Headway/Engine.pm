package Headway::Engine;

# What is behind all jobs of one client. It has its turn when a worker's update finds that something is due, or when somebody
# waits; then it fetches the answer that has come meanwhile, sends the next call off, and lets the worker go on. One call is
# under way at most. What was not acknowledged is repeated: sequences and chosen ids make that count once.

use 5.016;
use strict;
use warnings;

use Scalar::Util qw(weaken);
use Time::HiRes  qw(sleep);

use Headway::Contact ();
use Headway::Error   ();
use Headway::Http    ();
use Headway::Ids     qw(now);
use Headway::Postman ();
use Headway::Safely  qw(safely);

use parent 'Headway::Outcome';

# The process that all engines belong to: another one is a forked child of it.
our $PROCESS = $$;

# Seconds that the server has for an answer before the connection counts as broken; and that a worker who waits for nothing
# may wait for the connection, for sending, and for the rest of an answer that has begun.
my ( $PATIENCE, $MOMENT ) = ( 10.0, 0.25 );

my $FIRST_PACE = 0.25;

# How soon to look for an answer, at first and at last.
my ( $FIRST_LOOK, $LAST_LOOK ) = ( 0.001, 0.05 );

my $NEVER = 9**9**9;
my %engines;

sub new {
    my ( $class, $target, $warn_at ) = @_;
    my $self = bless {
        target      => $target,
        warn_at     => $warn_at // 2,
        courses     => [],
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
    $self->{http}    = Headway::Http->new( $self->{target} );
    $self->{contact} = Headway::Contact->new( $self->{target}->address, $self->{warn_at} );
    $self->{pace}    = $FIRST_PACE;
    $self->{postmen} = [];
    @{$self}{qw(sent looked)} = ( undef, 0 );
    return;
}

sub DESTROY {
    my ($self) = @_;
    delete $engines{ 0 + $self };
    return;
}

sub target  { return $_[0]{target} }
sub contact { return $_[0]{contact} }

# When the next turn is due: a reference, for the meters to look at.
sub clock { return \$_[0]{due} }

# In a forked child. The parent's connection is the parent's, and so is what it has counted.
sub forked {
    $PROCESS = $$;
    for my $self ( grep { defined } values %engines ) {
        $self->_begin_anew;
        $_->adopt for $self->jobs;
        $self->{due} = 0;
    }
    return;
}

# The jobs of which something may be left to say.
sub jobs {
    my ($self) = @_;
    return grep { !$_->{over} } @{ $self->{courses} };
}

sub has {
    my ( $self, $course ) = @_;
    return !!grep { $_ == $course } @{ $self->{courses} };
}

# Takes a job in charge and queues steps for it; then it is the engine's turn.
sub submit {
    my ( $self, $course, @steps ) = @_;
    $self->forked if $$ != $PROCESS;
    if ( !$course->{over} && !$self->has($course) ) {
        push @{ $self->{courses} }, $course;
        $course->{beat_at} = now() + $self->_turn_of($course);
        $course->set_clocks;
    }
    for my $step (@steps) {
        $course->add_step($step);
        $step->{tried} = 1 if $self->{contact}->down;
    }
    $course->{due} = 0 if @steps || $course->{due} > now() + $self->_turn_of($course);
    $self->turn;
    return;
}

# Gives the engine its turn; it takes a millisecond at most, unless the server can't be reached.
sub turn {
    my ($self) = @_;
    $self->forked if $$ != $PROCESS;
    return        if $self->{turning};
    local $self->{turning} = 1;
    my $fault = safely( sub { $self->_take_turn } ) or return;

    # What should not happen stops nothing, and is not tried again at once.
    safely( sub { $self->_outage( Headway::Error->from_fault($fault), 0 ) } );
    $self->{due} = $self->{contact}->retry_at;
    return;
}

# Waits until that is so, at most so many seconds; whether it is.
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

# Waits until all that these jobs have to say is stored, and gives back those of which something is left.
sub linger {
    my ( $self, $seconds, @courses ) = @_;
    my @waiting = map { [ $_, { after_reports => 1 } ] } grep { !$_->{over} } @courses;
    $self->{contact}->hurry(1);
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
    $self->{contact}->hurry(-1);
    die $fault if defined $fault;
    return map { $_->[0] } grep { !$_->[1]{done} } @waiting;
}

# Sends what earlier processes left to say for this server, or of one job there; how many letters there were of each kind.
sub deliver_letters {
    my ( $self, $seconds, $job_id ) = @_;
    my $postman = Headway::Postman->new( $self->{target}, $job_id );
    push @{ $self->{postmen} }, $postman;
    $self->{due} = 0;
    $self->await( $seconds, sub { $postman->over } );
    $postman->stop;
    return $postman->counts;
}

sub _take_turn {
    my ($self) = @_;
    my $contact = $self->{contact};
    $self->_look_for_answer;
    @{ $self->{courses} } = grep { !$_->{over} && !( $_->{passing} && !@{ $_->{steps} } ) } @{ $self->{courses} };
    while ( !$self->{sent} && now() >= $contact->retry_at ) {
        $self->_send_next( now() ) or last;
    }
    $self->{due} = $self->_next_moment;
    return;
}

sub _next_moment {
    my ($self) = @_;
    return $self->{sent}{look_at} if $self->{sent};
    my $next = grep( { !$_->over } @{ $self->{postmen} } ) ? 0 : $NEVER;
    for my $course ( @{ $self->{courses} } ) {
        my $moment =
              $course->next_step                   ? $course->{retry_at}
            : !$course->reporting                  ? $NEVER
            : $course->{due} > $course->{retry_at} ? $course->{due}
            :                                        $course->{retry_at};
        $next = $moment if $moment < $next;
    }
    my $retry_at = $self->{contact}->retry_at;
    return $next < $retry_at ? $retry_at : $next;
}

# Whether something was sent, or at least done.
sub _send_next {
    my ( $self, $now ) = @_;
    for my $course ( sort { $a->{due} <=> $b->{due} } @{ $self->{courses} } ) {
        next if $course->{over} || $course->{retry_at} > $now;
        if ( my $step = $course->next_step ) {
            $self->_call( $course, $step );
            return 1;
        }
        next if !$course->reporting || $course->{due} > $now;
        my ( $report, $reporter ) = $course->next_report($now);
        if ( !$report ) {
            my $urgent = $course->urgent;
            $course->{due} = $urgent ? $now : $now + $self->_turn_of($course);
            return 1 if $urgent;
            next;
        }
        $course->{beat_at} = $now + $self->_turn_of($course);
        $self->_send( ReportProgress => $report, sub { $self->_reported( $course, $reporter, @_ ) } );
        return 1;
    }
    my ($postman) = @{ $self->{postmen} } or return q{};
    my ( $method, $request ) = $postman->next_call;
    if ($method) {
        $self->_send( $method => $request, sub { $self->_posted( $postman, @_ ) } );
    }
    else {
        shift @{ $self->{postmen} };
    }
    return 1;
}

sub _turn_of {
    my ( $self, $course ) = @_;
    my $third = $course->{heartbeat} / 3;
    return $third > 0 && $third < $self->{pace} ? $third : $self->{pace};
}

sub _call {
    my ( $self, $course, $step ) = @_;
    if ( !$step->{method} ) {
        $course->answered($step);
        return;
    }
    $step->{request}{attempt} = $course->attempt if $step->{method} =~ /\AF/ && !$step->{aside} && $course->attempt;
    $self->_send( @{$step}{qw(method request)}, sub { $self->_stepped( $course, $step, @_ ) } );
    if ( $self->{sent} ) {
        $self->{sent}{step} = $step;
        $step->{tried} = 0;
    }
    return;
}

# Whether the step is under way just now.
sub sending {
    my ( $self, $step ) = @_;
    return $self->{sent} && $self->{sent}{step} && $self->{sent}{step} == $step;
}

# Somebody has found that the server is away, and has waited so many seconds for that.
sub unreachable {
    my ( $self, $error, $seconds ) = @_;
    safely( sub { $self->_outage( $error, $seconds ) } );
    return;
}

# Waits until earlier processes' letters are sent, as long as the server answers.
sub clear_post {
    my ( $self, $seconds ) = @_;
    $self->await( $seconds, sub { !@{ $self->{postmen} } } );
    return;
}

# Sends a call off; `then` gets its answer or an error.
sub _send {
    my ( $self, $method, $request, $then ) = @_;
    my $now = now();
    my $fault;
    for my $try ( 1 .. 2 ) {
        $fault =
            eval { $self->{http}->begin( $method, $request, $self->_patience ); 1 }
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
        by      => $now + $PATIENCE,
        pause   => $FIRST_LOOK,
        look_at => $now + $FIRST_LOOK,
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
        $sent->{pause} *= 2 if $sent->{pause} < $LAST_LOOK;
        $sent->{look_at} = $now + $sent->{pause};
        return;
    }
    $self->{sent} = undef;
    my $answer;
    my $fault =
        eval { $answer = $self->{http}->answer( $self->_patience ); 1 } ? undef : Headway::Error->from_fault($@);
    if ( $fault && $self->{http}->stale($fault) && $sent->{call}[0] ne 'StartJob' ) {
        $self->_send_again($sent);
        return;
    }

    # It was well-formed when it was sent. If the server finds so a second time, it is what was said.
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
    $self->{sent} = { %{ $self->{sent} }, step => $sent->{step}, %more } if $self->{sent};
    return;
}

# Seconds that the connection may take now: a worker that waits waits for it, another one for a moment only.
sub _patience {
    my ($self) = @_;
    my $left = $self->{waits_until} - now();
    return $left < $MOMENT ? $MOMENT : $left > $PATIENCE ? $PATIENCE : $left;
}

sub _heard {
    my ($self) = @_;
    $self->{contact}->heard;
    return if $self->{looked}++;
    my $postman = Headway::Postman->new( $self->{target} );
    push @{ $self->{postmen} }, $postman if !$postman->over;
    return;
}

# The server does not answer; the worker has waited so many seconds for that.
sub _outage {
    my ( $self, $error, $took ) = @_;
    $self->{http}->drop;
    $self->{sent} = undef;
    $self->{contact}->lost( $error, $took );
    $_->stop for splice @{ $self->{postmen} };
    for my $course ( @{ $self->{courses} } ) {
        @{$course}{qw(due round)} = ( 0, undef );
        $_->{tried} = 1 for @{ $course->{steps} };
    }
    return;
}

1;
