package Headway;

use 5.016;
use strict;
use warnings;

use Carp         qw(croak);
use Scalar::Util qw(blessed);

use Headway::JobState ();
use Headway::Engine   ();
use Headway::Error    ();
use Headway::Http     ();
use Headway::Ids      qw(chance now uuid7);
use Headway::Job      ();
use Headway::Json     qw(clean job_state perlish size_of span);
use Headway::Session  ();
use Headway::Spool    ();
use Headway::Target   ();

our $VERSION = '0.1.0';

# Timeouts in seconds: for delivery, for a call that a caller waits for, for a new job, for a job that another worker
# may have begun (without the answer this worker would do all that work again), and for one long poll.
my ( $EXIT_TIMEOUT, $CALL_TIMEOUT, $CREATE_TIMEOUT, $FIND_TIMEOUT, $POLL ) = ( 10, 10, 1, 5, 30 );

# The minimum delay (s) before an overloaded server is asked again.
my $FIRST_RETRY_DELAY = 0.1;

# Limits, in characters.
my %LENGTH       = ( name => 256, invoker => 256, unit => 32 );
my $LABEL_LENGTH = 256;

my %ENDED = map { $_ => 1 } qw(COMPLETED FAILED CANCELLED);
my %open;

sub connect {    ## no critic (ProhibitBuiltinHomonyms)
    my ( $class, %about ) = splice @_;
    my $target = Headway::Target->new( map { $_ => $about{$_} } qw(target token ca) );
    my $engine = Headway::Engine->new( $target, $about{warn_at} );
    my $given  = $about{session};
    my $self   = bless {
        engine       => $engine,
        target       => $target,
        http         => Headway::Http->new($target),
        exit_timeout => $about{exit_timeout} // $EXIT_TIMEOUT,
        call_timeout => $about{call_timeout} // $CALL_TIMEOUT,
        session      => sub { $given // $ENV{HEADWAY_SESSION} },
    }, $class;
    $open{ 0 + $engine } = [ $engine, $self->{exit_timeout} ];
    return $self;
}

sub engine       { return $_[0]{engine} }
sub exit_timeout { return $_[0]{exit_timeout} }

sub create {
    my ( $self, %about ) = splice @_;
    my $id      = $about{job_id};
    my $begun   = length( $about{key} // q{} ) || length( $about{continues} // q{} );
    my $end     = now() + ( $begun ? $FIND_TIMEOUT : $CREATE_TIMEOUT );
    my $session = $self->_session( \%about );
    my %request = ( session_id => $session, job_id => $id || uuid7() );
    $request{$_}             = clean( $about{$_}, $LENGTH{$_} ) for grep { defined $about{$_} } qw(name invoker unit);
    $request{$_}             = clean( $about{$_} )              for grep { defined $about{$_} } qw(key continues);
    $request{size}           = size_of( $about{size} ) if defined $about{size};
    $request{pending}        = JSON::PP::true()        if $about{pending};
    $request{"${_}_timeout"} = span( $about{"${_}_timeout"} )
        for grep { defined $about{"${_}_timeout"} } qw(heartbeat stall);
    $request{retention} = span( $about{retention} ) if defined $about{retention};
    my $labels = $about{labels} || {};
    $request{labels} = { map { clean($_) => clean( $labels->{$_}, $LABEL_LENGTH ) } keys %{$labels} } if %{$labels};
    $self->{engine}->send_spool( $CREATE_TIMEOUT, $id ) if $id && Headway::Spool::waiting_files( $self->{target}, $id );

    if ($begun) {
        my $found = $self->_find_or_create( $session, \%request, $end );
        return $found if $found;

        # The server did not answer in time. The worker begins, and its work becomes a job of its own.
        $request{key_if_free} = JSON::PP::true();
    }
    my $job_state = Headway::JobState->new(
        session   => $session,
        engine    => $self->{engine},
        heartbeat => $about{heartbeat_timeout} || 0,
        started   => 0,
        job       => {
            id     => $request{job_id},
            status => $about{pending} ? 'PENDING' : 'RUNNING',
            ( map { $_ => $request{$_} // q{} } qw(name invoker unit) ),
            size => $request{size} || 0,
        },
    );
    my $job     = Headway::Job->new( $self, $job_state );
    my $pending = { method => 'CreateJob', request => \%request };
    $self->{engine}->submit( $job_state, $pending );
    $self->{engine}->await( _left($end), sub { $pending->{tried} } );
    die $pending->{error} if $pending->{error};
    return $job;
}

sub resume {
    my ( $self, $id, %how ) = splice @_;
    my $session = $self->_session( \%how );
    my $new_id  = uuid7();
    while (1) {
        $self->{engine}->send_spool( $EXIT_TIMEOUT, $id ) if Headway::Spool::waiting_files( $self->{target}, $id );
        my $state = _unless( 'JOB_ENDED', sub { $self->_take_over( $session, $id ) } );
        $state //= _unless( 'JOB_ALREADY_CONTINUED',
            sub { job_state( $self->_call( CreateJob => $session, { job_id => $new_id, continues => $id } ) ) } );
        return $self->_attach( $session, $state ) if $state;
        $id = $self->get( $id, session => $session )->{continued_by};
    }
}

sub _left {
    my ($end) = @_;
    return $end > now() ? $end - now() : 0;
}

# Finds the job by its key, or creates it. It waits for the answer, since the worker must know the job's progress before
# it begins. Returns nothing if the server does not answer in time. It first sends the whole spool: only the server can
# tell which job has the key.
sub _find_or_create {
    my ( $self, $session, $request, $end ) = @_;
    $self->{engine}->send_spool($FIND_TIMEOUT) if Headway::Spool::waiting_files( $self->{target} );
    while (1) {
        local ( $@, $SIG{__DIE__} ) = ( q{}, 'DEFAULT' );
        my $job;
        return $job if eval {
            my $state = job_state( $self->_call( CreateJob => $session, $request, _left($end) ) );
            $state = $self->_take_over( $session, $state->{id}, _left($end) )
                if !$request->{pending} && $state->{id} ne $request->{job_id};
            $job = $self->_attach( $session, $state );
            1;
        };
        my $fault = $@;
        die $fault if !blessed $fault || !$fault->isa('Headway::Error');

        # The job may have ended just now. An overloaded server is asked again.
        next       if $fault->reason eq 'JOB_ENDED';
        die $fault if $fault->error_policy =~ /\A(?:STOP|DROP)\z/;
        my $pause = $fault->retry_after || 0;
        $pause = $FIRST_RETRY_DELAY if $pause < $FIRST_RETRY_DELAY;
        return if $fault->error_policy ne 'RETRY' || $pause >= _left($end);
        $self->_sleep( $pause, $end );
    }
    return;
}

sub _take_over {
    my ( $self, $session, $id, $seconds ) = @_;
    return job_state(
        $self->_call( StartJob => $session, { job_id => $id, take_over => JSON::PP::true() }, $seconds ) );
}

# The call's result; nothing if the server refuses it for this reason.
sub _unless {
    my ( $reason, $call ) = @_;
    local ( $@, $SIG{__DIE__} ) = ( q{}, 'DEFAULT' );
    my $given;
    return $given if eval { $given = $call->(); 1 };
    die $@        if !blessed $@ || !$@->isa('Headway::Error') || $@->reason ne $reason;
    return;
}

# Begins the work on a job that the server has given to this worker.
sub _attach {
    my ( $self, $session, $state ) = @_;
    my $variables = $self->variables( $state->{id}, session => $session );
    my $job_state = Headway::JobState->new(
        session   => $session,
        engine    => $self->{engine},
        heartbeat => $state->{heartbeat_timeout},
        job       => $state,
        $state->{status} eq 'PENDING' ? ( started => 0 ) : (),
    );
    my $job = Headway::Job->new( $self, $job_state )->knows($variables);
    $self->{engine}->submit($job_state);
    return $job;
}

sub fetch {
    my ( $self, $id, %how ) = splice @_;
    my $session = $self->_session( \%how );
    my $state   = do {
        local $SIG{__DIE__} = 'DEFAULT';
        eval { $self->get( $id, session => $session ) }
    };
    if ( !$state ) {
        return if _is( $@, 'NOT_FOUND' );
        die $@;
    }
    my $job_state = Headway::JobState->new(
        session => $session,
        engine  => $self->{engine},
        started => $state->{status} ne 'PENDING',
        job     => $state,
    );
    $job_state->heard_of($state);
    my $job = Headway::Job->new( $self, $job_state );
    $job->results( $self->results( $id, session => $session ) ) if $state->{status} eq 'COMPLETED';
    return $job;
}

sub get {
    my ( $self, $id, %how ) = splice @_;
    return job_state( $self->_call( GetJob => $self->_session( \%how ), { job_id => $id } ) );
}

sub list {
    my ( $self, %filters ) = splice @_;
    my $session = $self->_session( \%filters );
    my %request = map { $_ => $filters{$_} } grep { defined $filters{$_} } qw(name invoker labels page_size);
    $request{statuses} = [ map { "JOB_STATUS_$_" } @{ $filters{statuses} } ]      if $filters{statuses};
    $request{stalled}  = $filters{stalled} ? JSON::PP::true() : JSON::PP::false() if defined $filters{stalled};
    my @jobs;
    while (1) {
        my $page = $self->_call( ListJobs => $session, \%request );
        push @jobs, map { job_state($_) } @{ $page->{jobs} || [] };
        $request{page_token} = $page->{nextPageToken};
        return @jobs if !length( $request{page_token} // q{} );
    }
}

sub watch {
    my ( $self, $id, %how ) = splice @_;
    my $session = $self->_session( \%how );
    my $end     = defined $how{timeout} ? now() + $how{timeout} : undef;
    my ( $revision, $over ) = ( $how{after_revision} || 0, 0 );
    return sub {
        while ( !$over ) {
            my $state = $self->_newer( $session, $id, $revision, $end );
            next if $state->{revision} <= $revision && !$ENDED{ $state->{status} };
            ( $revision, $over ) = ( $state->{revision}, $ENDED{ $state->{status} } );
            return $state;
        }
        return;
    };
}

# The job when it is newer, or as it is after a while. An unreachable server is asked again, for as long as it takes.
sub _newer {
    my ( $self, $session, $id, $revision, $end ) = @_;
    my $tries = 0;
    while (1) {
        my $left = defined $end ? $end - now() : $POLL;
        $left = 0 if $left < 0;
        my $wait  = $left < $POLL ? $left : $POLL;
        my $state = do {
            local $SIG{__DIE__} = 'DEFAULT';
            eval {
                $self->_call(
                    GetJob => $session,
                    { job_id => $id, $revision ? ( after_revision => $revision, wait => span($wait) ) : () },
                    $wait + $self->{call_timeout}
                );
            };
        };
        my $fault = $state ? undef : $@;
        $state = job_state($state) if $state;
        return $state if $state         && ( $state->{revision} > $revision || $ENDED{ $state->{status} } );
        die $fault    if defined $fault && !_is( $fault, qw(UNAVAILABLE CANCELLED DEADLINE_EXCEEDED) );
        die Headway::Error->new( code => 'DEADLINE_EXCEEDED', message => 'the job has not ended in time' )
            if defined $end && now() >= $end;
        return $state if $state;
        $tries++      if $tries < 6;
        $self->_sleep( 0.1 * 2**$tries * chance( 0.5, 1.0 ), $end );
    }
}

# Whether it is an error of this library with one of these codes.
sub _is {
    my ( $fault, @codes ) = @_;
    return blessed $fault && $fault->isa('Headway::Error') && grep { $fault->code eq $_ } @codes;
}

sub _sleep {
    my ( $self, $seconds, $end ) = @_;
    $seconds = 5            if $seconds > 5;
    $seconds = $end - now() if defined $end && $seconds > $end - now();
    $self->{engine}->await( $seconds > 0 ? $seconds : 0, sub { q{} } );
    return;
}

sub wait {    ## no critic (ProhibitBuiltinHomonyms)
    my ( $self, $id, %how ) = splice @_;
    my $next = $self->watch( $id, %how );
    my $last;
    while ( my $state = $next->() ) { $last = $state }
    return $last;
}

sub results {
    my ( $self, $id, %how ) = splice @_;
    return perlish( $self->_call( GetResults => $self->_session( \%how ), { job_id => $id } )->{results} );
}

sub variables {
    my ( $self, $id, %how ) = splice @_;
    my %names = $how{names} ? ( names => [ map { clean($_) } @{ $how{names} } ] ) : ();
    return perlish( $self->_call( GetVariables => $self->_session( \%how ), { job_id => $id, %names } )->{variables}
            || {} );
}

sub record_errors {
    my ( $self, $id, %how ) = splice @_;
    my $told  = $self->_call( ListRecordErrors => $self->_session( \%how ), { job_id => $id } );
    my %found = ( total => 0 + ( $told->{total} // 0 ) );
    for my $end (qw(first last)) {
        $found{$end} = [ map { { record => $_->{record}, code => $_->{code} // q{}, message => $_->{message} // q{} } }
                @{ $told->{$end} || [] } ];
    }
    return \%found;
}

sub cancel {
    my ( $self, $id, %how ) = splice @_;
    my %request = ( job_id => $id );
    $request{reason}       = clean( $how{reason}, 1_024 ) if defined $how{reason};
    $request{grace_period} = span( $how{grace} )          if defined $how{grace};
    return job_state( $self->_call( CancelJob => $self->_session( \%how ), \%request ) );
}

sub clear {
    my ( $self, $id, %how ) = splice @_;
    $self->_call( ClearJob => $self->_session( \%how ), { job_id => $id, allow_missing => JSON::PP::true() } );
    return;
}

sub flush_spool {
    my ($self) = @_;
    return $self->{engine}->send_spool( 9**9**9 );
}

sub tick {
    my ($self) = @_;
    $self->{engine}->turn;
    return;
}

sub close {    ## no critic (ProhibitBuiltinHomonyms)
    my ($self) = @_;
    delete $open{ 0 + $self->{engine} } or return;
    _deliver( $self->{engine}, $self->{exit_timeout} );
    $self->{http}->drop;
    return;
}

# Waits until everything is stored, then saves the rest in the spool and warns.
sub _deliver {
    my ( $engine, $seconds ) = @_;
    my $end = now() + $seconds;
    for my $job_state ( $engine->wait_delivered( $seconds, $engine->jobs ) ) {
        my @left  = $job_state->undelivered or next;
        my $place = eval { Headway::Spool::write_file( $engine->target, $job_state->{job}, \@left )->path };
        chomp( my $why = $place ? q{} : $@ );
        $engine->connection_state->warn_user(
            sprintf '%s has not answered in time; the last state of job %s is not delivered%s',
            $engine->target->address,
            $job_state->id,
            $place
            ? " yet, and waits in $place for headway-flush or the next run"
            : ", and can't be written down: $why"
        );
    }
    $_->stop for $engine->jobs;
    my $left = $end - now();
    $engine->wait_for_spool($left) if $left > 0;
    return;
}

END {
    local ( $@, $!, $? );
    Headway::Scope->leave_all;
    my $begin = now();
    for ( values %open ) {
        my ( $engine, $seconds ) = @{$_};
        my $left = $begin + $seconds - now();
        eval { _deliver( $engine, $left > 0 ? $left : 0 ); 1 } or warn $@;
    }
    %open = ();
}

# Removes a given session from @_ at once: it must be in no stack trace.
sub _session {
    my ( $self, $how ) = @_;
    my $session = $how->{session} // $self->{session}->();
    return $session                                      if blessed $session && $session->isa('Headway::Session');
    croak 'No session: give one, or set HEADWAY_SESSION' if !length( $session // q{} );
    return Headway::Session->new($session);
}

sub _call {
    my ( $self, $method, $session, $request, $seconds ) = @_;
    my $engine = $self->{engine};
    return $self->{http}->call(
        $method,
        { session_id => $session, %{$request} },
        $seconds // $self->{call_timeout},

        # Meanwhile the jobs of this process are reported.
        sub { $engine->turn; my $pause = ${ $engine->clock } - now(); return $pause > 0 ? $pause : 0 }
    );
}

1;

__END__

=encoding utf8

=head1 NAME

Headway - tells a Headway server how far long-running work has come

=head1 SYNOPSIS

    use Headway;

    my $client = Headway->connect;    # HEADWAY_TARGET, HEADWAY_SESSION
    my $job    = $client->create( name => 'Import', unit => 'records' );
    $job->run(
        sub {
            my $next = $job->track( \@records );
            while ( my ($record) = $next->() ) {
                $job->die_if_cancelled;
                import_record($record);
            }
        }
    );

=head1 DESCRIPTION

A connection to one server, over its HTTP transport. It creates, reads and watches jobs; L<Headway::Job> is a job as its
worker sees it. Core modules only; https:// needs IO::Socket::SSL.

=head2 When something is sent

Updates only touch memory. There are no threads: an update reads the clock. If the server wants a report of the job, the
update sends one short request, without waiting. A later update reads the answer. So nothing is sent while the program
does not call this client. The last update arrives with the next call, with the end of the job, or at the end of the
program. A program that waits for other things calls C<tick> now and then.

While the server is unreachable, the delays between the tries grow, so that they cost the work at most 2 % of its time.

=head2 Forks

A forked child that works on a job reports a part of its own, named after its process, from 0, over a connection of its
own. Only the parent reports what it has counted. A child that leaves by C<POSIX::_exit> calls C<close> before.

=head1 METHODS

Methods that ask the server wait C<call_timeout> seconds at most, and die with a L<Headway::Error>. All take
C<< session => $id >>; the default is that of C<connect>, else HEADWAY_SESSION.

=head2 connect(%options)

C<target>: C<http://host:port>, C<https://host:port> or C<host:port>; else HEADWAY_HTTP_TARGET, else HEADWAY_TARGET, else
http://127.0.0.1:8080. C<token>: else HEADWAY_TOKEN. C<ca>: a PEM file, else HEADWAY_CA; it means TLS. C<session>: the
default of all methods. C<exit_timeout>: seconds to wait at most at the end of a job and of the connection, 10 by default.
C<call_timeout>: seconds, 10 by default. Nothing is sent before it is used. Dies if the target is malformed.

=head2 create(%options)

Creates a job and begins to work on it. If the server does not answer, which takes a refused connection or at most a second,
the work begins all the same, and the job is created later, under the id that it has already.

C<name>, C<invoker> (at most 256 characters), C<size> (0 = not known yet), C<unit> (at most 32 characters), C<labels> (at most
64), C<stall_timeout>, C<retention> (seconds), C<pending> (it waits for a worker, who calls C<resume>), C<job_id> (32
hexadecimal digits of one's own). C<heartbeat_timeout>: seconds without contact after which it counts as LOST. By default it
never does: a Perl program gives no sign of life while it calls nothing of this client. Set it if the work calls it often
enough, three times as often at least.

C<key>: finds the unfinished job of the session that has this key, and takes it over from its worker; if there is none, the job
is created with it. So C<create> can be called at every start: C<nightly-2026-11>; at most 256 characters. A key is no lock: a
former worker that is still at work is refused from then on (see C<stopped>). C<continues>: the id of a job that has ended, or is
LOST; the new one begins with its name, invoker, size, unit, labels, progress, counters and variables, the checkpoint; what is
given here wins. If the server does not answer within 5 seconds, such a job begins anew, without the key if an unfinished job has that.

Dies if the server answers at once that this can not be.

=head2 resume($id)

Carries a job on. One that goes on is taken over from a worker that is gone, a PENDING one is started; reports of the former
worker are refused from now on. One that has ended is continued by a new job, as by C<create> with C<continues>; if it was
continued already, the last of those that continue it is carried on. The progress goes on where it stood, and the variables, the
checkpoint, can be read with C<get>.

=head2 fetch($id)

The L<Headway::Job>, to read it, to change it, or to report a part of it; undef if it is not in this session. It gives no
heartbeats, and what it says is as of now: C<refresh> renews it.

=head2 get($id)

The job as it stands: see L</"JOBS AS THE SERVER SEES THEM">.

=head2 list(%filters)

The jobs of the session that pass all filters, newest first: C<statuses> (a reference to a list), C<name>, C<invoker>,
C<labels>, C<stalled>. C<page_size>: how many are fetched at once, 50 by default, at most 1,000.

=head2 watch($id, timeout => $seconds)

    my $next = $client->watch($id);
    while ( my $state = $next->() ) { ... }

An iterator over the job as it stands, then each newer state, until it has ended. A connection that breaks is taken up again
where it broke off (C<after_revision>), for as long as it takes. C<DEADLINE_EXCEEDED> after C<timeout> seconds in all.

=head2 wait($id, timeout => $seconds)

Waits until the job has ended, and gives its final state.

=head2 results($id), variables($id, names => \@names), record_errors($id)

What came of it, undef unless it is COMPLETED with results. The variables, or those of these names, as a reference to a hash.
The first and the last 100 record errors and how many there were: C<< { first => [...], last => [...], total => 7 } >>.

=head2 cancel($id, reason => $text, grace => $seconds)

Asks the job's worker to end early, and ends the job after C<grace> seconds (60 by default; 0 = at once). Gives its state.

=head2 clear($id)

Removes the job with all that belongs to it; one that is not there is no error.

=head2 tick

Gives the client its turn: for programs that wait, for example in an event loop, several times a second.

=head2 flush_spool

Sends what earlier processes could not deliver to this server, and counts: C<< { sent => 2, refused => 0, waiting => 0 } >>.
This happens by itself at the first answer. See L<headway-flush>.

=head2 close

Waits until all is delivered, at most C<exit_timeout> seconds; then writes what is left to the spool, with a warning. Jobs
that have not ended are let go as they are. Can be called twice, and is called at the end of the program.

=head2 engine, exit_timeout

For this library.

=head1 JOBS AS THE SERVER SEES THEM

A reference to a hash with the names of job.proto: C<id>, C<name>, C<invoker>, C<size>, C<progress>, C<unit>, C<status>,
C<message>, C<labels>, C<parts>, C<counters>, C<error_count>, C<error> (C<< { code => 'CANCELLED', message => ... } >>),
C<cancellation>, C<attempt>, C<history>, C<revision>, C<stalled>, C<estimate> and times. Numbers are numbers, spans are
seconds, moments are text (RFC 3339, UTC).

=head1 ENVIRONMENT

HEADWAY_HTTP_TARGET, HEADWAY_TARGET, HEADWAY_TOKEN, HEADWAY_CA, HEADWAY_SESSION; HEADWAY_SPOOL, a folder for what could not be
delivered (in its folder C<http>), else C<headway/spool> in the user's state folder; empty = off.

=cut
