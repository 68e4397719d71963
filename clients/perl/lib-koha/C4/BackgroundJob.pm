package C4::BackgroundJob;

use 5.016;
use strict;
use warnings;

# Nothing is imported: an imported function could be called as a method.
use Carp         ();
use Digest::MD5  ();
use Scalar::Util ();

use Headway           ();
use Headway::JobState ();
use Headway::Error    ();
use Headway::Ids      ();
use Headway::Json     ();
use Headway::Safely   ();
use Headway::Session  ();

# Variables for values that have no field of their own in Headway.
my $OWN = 'C4::BackgroundJob';

# Seconds that a setter waits for the server, that one question of a fetch waits, and that the end of the program waits.
my ( $ANSWER_TIMEOUT, $ASKING, $LEAVING ) = ( 1, 5, 2 );

# The number of jobs whose last state is remembered.
my $KNOWN_AT_MOST = 100;

my $NAME_LIMIT = 256;
my $KEY_LIMIT  = 100;

my ( %clients, %job_states, %known, @known );

# A caller that polls an unreachable server waits for at most half of the time.
my $ask_again = 0;

# The session is a secret: a value that is removed from @_ is in no stack trace.
sub new {
    my ( $class, $session, $name, $invoker, $size ) = splice @_;
    my $self    = $class->_object( $session, Headway::Ids::uuid7(), name => $name, invoker => $invoker, size => $size );
    my %request = ( name => _short($name), invoker => _short($invoker), size => _count($size) // 0 );
    $self->_say( CreateJob => \%request );
    my %more = map { _own($_) => [ $self->{$_} ] } grep { !_tells_all( $_, $self->{$_} ) } qw(name invoker size);
    $self->_say( SetVariables => { variables => Headway::Json::plain( \%more ) } ) if %more;
    return $self;
}

sub _object {
    my ( $class, $session, $id, %fields ) = splice @_;
    return bless {
        sessionID => $session,
        jobID     => $id,
        name      => undef,
        invoker   => undef,
        size      => undef,
        progress  => 0,
        status    => 'running',
        results   => undef,
        values    => {},
        %fields,
        },
        ref $class || $class;
}

sub id     { return $_[0]{jobID} }
sub status { return $_[0]{status} }

sub name {
    my ( $self, @set ) = @_;
    return $self->_described( name => @set );
}

sub invoker {
    my ( $self, @set ) = @_;
    return $self->_described( invoker => @set );
}

sub progress {
    my ( $self, @set ) = @_;
    return $self->_counted( progress => @set );
}

sub size {
    my ( $self, @set ) = @_;
    return $self->_counted( size => @set );
}

sub results {
    my ($self) = @_;
    return $self->{status} eq 'completed' ? $self->{results} : undef;
}

sub finish {
    my ( $self, $results ) = @_;
    my $before = $self->{status};
    @{$self}{qw(status results)} = ( 'completed', $results );
    my $late = { variables => { _own('results') => [ Headway::Json::plain($results), 1 ] } };
    if ( $before eq 'completed' ) {
        $self->_say( SetVariables => $late );
        return;
    }
    my %request = defined $results ? ( results => Headway::Json::plain($results) ) : ();
    $self->_say(
        FinishJob => \%request,
        sub {
            my ($error) = @_;
            return ( SetVariables => $late ) if $error->reason eq 'JOB_ENDED';
            return                           if $error->code ne 'INVALID_ARGUMENT' || !exists $request{results};
            _warn( $self, 'it ends without its results', $error );
            return ( FinishJob => {} );
        }
    );
    return;
}

sub set {
    my ( $self, $values ) = @_;
    Carp::croak 'set wants a reference to a hash' if ( Scalar::Util::reftype($values) // q{} ) ne 'HASH';
    return                                        if !%{$values};
    $self->{values} = { %{ $self->{values} }, %{$values} };
    $self->_say(
        SetVariables => { variables => Headway::Json::plain( { map { _key($_) => $values->{$_} } keys %{$values} } ) }
    );
    return;
}

sub get {
    my ( $self, $key ) = @_;
    $key //= q{};
    return $self->{values}{$key} if exists $self->{values}{$key};
    return $self->{values}{ _key($key) };
}

sub clear {
    my ($self) = @_;
    $self->_say( ClearJob => { allow_missing => JSON::PP::true() } );
    return;
}

sub fetch {
    my ( $class, $session, $id ) = splice @_;
    return if !length( $session // q{} ) || !length( $id // q{} );
    local ( $@, $! );
    my $key       = "$session\0$id";
    my $engine    = _client()->engine;
    my $job_state = $job_states{$key};

    # Only this process knows what it could not send yet.
    if ( $job_state && @{ $job_state->{pending} } ) {
        $engine->connection_state->again;
        _wait_for( $engine, $job_state );
        return $class->_recalled( $session, $id ) if @{ $job_state->{pending} };
    }
    my $self = $class->_asked( $session, $id );
    _know( $key, $self );
    return $self;
}

# The server's answer; without one, the last state that this process knows.
sub _asked {
    my ( $class, $session, $id ) = splice @_;
    my $client           = _client();
    my $connection_state = $client->engine->connection_state;
    $connection_state->again;
    my $known = $class->_recalled( $session, $id );
    return $known if $known && $connection_state->paused && Headway::Ids::now() < $ask_again;
    my %how   = ( session => Headway::Session->new($session) );
    my $begun = Headway::Ids::now();
    my ( $job, $variables, $results );
    my $read = _caught( sub {
        $job       = $client->get( "$id", %how );
        $variables = $client->variables( "$id", %how );
        $results   = $client->results( "$id", %how ) if $job->{status} eq 'COMPLETED';
        return 1;
    } );
    my $error = $@;
    if ($read) {
        $connection_state->reached if $connection_state->down;
        return $class->_fetched( $session, $job, $variables, $results );
    }
    die $error if !Scalar::Util::blessed $error || !$error->isa('Headway::Error');
    return     if $error->reason && $error->code =~ /\A(?:NOT_FOUND|INVALID_ARGUMENT)\z/;
    if ( $error->error_policy eq 'RECONNECT' && !$error->reason ) {
        my $took = Headway::Ids::now() - $begun;
        $client->engine->unreachable( $error, $took );
        $ask_again = Headway::Ids::now() + $took;
    }
    else {
        $connection_state->warn_user( 'job ' . _short($id) . ' cannot be read: ' . $error->log_text );
    }
    return $known;
}

# An eval that hides exceptions from the caller's handler, which may show a page and exit.
sub _caught {
    my ($code) = @_;
    local $SIG{__DIE__} = 'DEFAULT';
    return eval { $code->() };
}

sub _recalled {
    my ( $class, $session, $id ) = splice @_;
    my $known = $known{"$session\0$id"} or return;
    return $class->_object( $session, $id, %{$known} );
}

sub _know {
    my ( $key, $self ) = splice @_;
    if ( !$self ) {
        delete $known{$key};
        @known = grep { $_ ne $key } @known;
        return;
    }
    push @known, $key if !$known{$key};
    $known{$key} = { %{$self} };
    delete $known{ shift @known } if @known > $KNOWN_AT_MOST;
    return;
}

sub _fetched {
    my ( $class, $session, $job, $variables, $results ) = splice @_;
    my %own     = map { $_ => delete $variables->{ _own($_) } } qw(name invoker size progress results);
    my $running = $job->{status} =~ /\A(?:PENDING|RUNNING|LOST)\z/;
    my %fields  = ( status => $running ? 'running' : 'completed', values => $variables );
    for my $field (qw(name invoker size progress)) {
        my $kept  = $own{$field};
        my $plain = length $job->{$field} ? $job->{$field} : undef;
        $fields{$field} = $kept && ( $kept->[1] || _agrees( $field, $kept->[0], $job ) ) ? $kept->[0] : $plain;
    }
    if ( !$running ) {
        $fields{results} =
              $own{results}                 ? $own{results}[0]
            : $job->{status} eq 'COMPLETED' ? $results
            :                                 { status => $job->{status}, error => ( $job->{error} || {} )->{message} };
    }
    return $class->_object( $session, $job->{id}, %fields );
}

# The given value, as Headway's field holds it.
sub _short {
    my ($text) = @_;
    return Headway::Json::clean( $text, $NAME_LIMIT );
}

sub _count {
    my ($number) = @_;
    return if !defined $number || ref $number || !Scalar::Util::looks_like_number($number) || $number != $number;
    my $whole = Headway::Json::whole($number);
    return $whole > 0 ? $whole : 0;
}

# Whether the field holds everything that was given.
sub _tells_all {
    my ( $field, $given ) = @_;
    if ( $field eq 'size' || $field eq 'progress' ) {
        my $count = _count($given);
        return defined $count && Headway::Json::is_number($given) && $count == $given;
    }
    return !defined $given || !ref $given && length $given && _short($given) eq $given;
}

# Whether the field still holds the given value, so that nobody else has changed it since.
sub _agrees {
    my ( $field, $given, $job ) = @_;
    return _short($given) eq $job->{$field} if $field eq 'name' || $field eq 'invoker';
    my $count = _count($given);
    return !defined $count || $count == $job->{$field};
}

sub _own {
    my ($field) = @_;
    return "$OWN.$field";
}

# A caller's key as the name of a variable: itself, if it is valid and none of ours.
sub _key {
    my ($key) = @_;
    $key //= q{};
    return $key
        if length $key && length $key <= $KEY_LIMIT && $key !~ /\A\Q$OWN\E/ && Headway::Json::clean($key) eq $key;
    utf8::encode( my $bytes = $key );
    return "$OWN:key:" . Digest::MD5::md5_hex($bytes);
}

sub _described {
    my ( $self, $field, @set ) = @_;
    return $self->{$field} if !@set;
    my $given = $self->{$field} = $set[0];
    $self->_say( UpdateJob => { job => { id => $self->{jobID}, $field => _short($given) }, update_mask => $field } );

    # Always set it: an earlier value may still be there, with the same value in the field.
    $self->_say( SetVariables => { variables => { _own($field) => Headway::Json::plain( [$given] ) } } );
    return $given;
}

sub _counted {
    my ( $self, $field, @set ) = @_;
    return $self->{$field} if !@set;
    my $given = $self->{$field} = $set[0];
    my $count = _count($given);
    $count = 0 if !defined $count && ( $field eq 'size' || !defined $given );
    my %request = ( variables => { _own($field) => Headway::Json::plain( [$given] ) } );
    $request{$field} = $count if defined $count;
    $self->_say(
        ReportProgress => \%request,
        sub {
            my ($error) = @_;

            # If the given value does not fit, only the count is left of it.
            return ( ReportProgress => { $field => $count } ) if $error->code eq 'INVALID_ARGUMENT' && defined $count;
            return                                            if $error->reason ne 'JOB_ENDED';

            # The job has ended, but here it can still be set.
            return ( SetVariables =>
                    { variables => { map { $_ => [ $request{variables}{$_}[0], 1 ] } keys %{ $request{variables} } } }
            );
        }
    );
    return $given;
}

# One client for each server that this process uses.
sub _client {
    my $server = join "\0", map { $ENV{$_} // q{} } qw(HEADWAY_HTTP_TARGET HEADWAY_TARGET HEADWAY_TOKEN HEADWAY_CA);
    return $clients{$server} //= Headway->connect( warn_at => 1, call_timeout => $ASKING, exit_timeout => $LEAVING );
}

sub _warn {
    my ( $self, $what, $error ) = @_;
    _client()->engine->connection_state->warn_user( "job $self->{jobID}: $what: " . $error->log_text );
    return;
}

# Sends a call to the server, after all calls before it. `instead`: the call to make if this one is refused.
sub _say {
    my ( $self, $method, $request, $instead ) = @_;
    Carp::croak 'No session: give one' if !length( $self->{sessionID} // q{} );
    local ( $@, $! );
    my $engine = _client()->engine;
    my $job_state;

    # A signal handler that dies must leave either all of it queued, or nothing.
    my $fault = Headway::Safely::safely( sub {
        $job_state = _job_state_of( $engine, $self );
        _know( "$self->{sessionID}\0$self->{jobID}", $method eq 'ClearJob' ? undef : $self );
        my $pending = $self->_queue( $method, $request, $instead );
        $engine->connection_state->again;
        $engine->submit( $job_state, _joined( $engine, $job_state, $pending ) ? () : $pending );
    } );
    die $fault if defined $fault;
    _wait_for( $engine, $job_state );
    return;
}

# The queue of this job. Queues of other jobs are forgotten after they are sent.
sub _job_state_of {
    my ( $engine, $self ) = @_;
    my $session = $self->{sessionID};
    my $key     = "$session\0$self->{jobID}";
    for my $old ( keys %job_states ) {
        delete $job_states{$old} if !$job_states{$old}{over} && !@{ $job_states{$old}{pending} };
    }
    my $job_state = $job_states{$key} || Headway::JobState->new(
        session => Headway::Session->new($session),
        engine  => $engine,
        job     => { id => $self->{jobID}, name => _short( $self->{name} ) },
        passing => 1,
    );
    return $job_states{$key} = $job_state;
}

# Waits until the server has everything of this job, or is known to be unreachable.
sub _wait_for {
    my ( $engine, $job_state ) = @_;
    my $told = $engine->await(
        $ANSWER_TIMEOUT,
        sub {
            !grep { !$_->{tried} } @{ $job_state->{pending} };
        }
    );
    $engine->unreachable( Headway::Error->new( code => 'DEADLINE_EXCEEDED', message => 'no answer' ), $ANSWER_TIMEOUT )
        if !$told;
    return;
}

sub _queue {
    my ( $self, $method, $request, $instead ) = @_;
    my %pending = ( method => $method, aside => 1 );
    $pending{request} = {
        session_id => Headway::Session->new( $self->{sessionID} ),
        $method eq 'UpdateJob' ? () : ( job_id => $self->{jobID} ),
        %{$request},
    };
    $pending{request}{sequence} = _sequence() if $method eq 'ReportProgress';
    return \%pending                          if $method eq 'CreateJob';
    $pending{instead} = sub {
        my ($error) = @_;
        my @other = $instead ? $instead->($error) : ();
        return $self->_queue(@other) if @other;
        _warn( $self, 'a change was refused', $error );
        return;
    };
    return \%pending;
}

# While the server is unreachable, a later value replaces an earlier one of the same field.
sub _joined {
    my ( $engine, $job_state, $pending ) = @_;
    return q{} if $pending->{method} !~ /\A(?:ReportProgress|SetVariables|UpdateJob)\z/;
    for my $earlier ( reverse @{ $job_state->{pending} } ) {
        return q{} if $earlier->{method} =~ /\A(?:CreateJob|FinishJob|ClearJob)\z/;
        next       if $earlier->{method} ne $pending->{method};
        return q{} if $engine->sending($earlier) || _subject($earlier) ne _subject($pending);
        $earlier->{request} = { %{ $earlier->{request} }, %{ $pending->{request} } };
        $earlier->{instead} = $pending->{instead};
        return 1;
    }
    return q{};
}

# Which field it sets.
sub _subject {
    my ($pending) = @_;
    my $request = $pending->{request};
    return join "\0", $request->{update_mask} // q{}, sort keys %{ $request->{variables} || {} };
}

# Greater than every sequence of an earlier process that reported this job.
my $sequence = 0;

sub _sequence {
    my $now = Headway::Ids::micros();
    $sequence = $now > $sequence ? $now : $sequence + 1;
    return $sequence;
}

1;

__END__

=encoding utf8

=head1 NAME

C4::BackgroundJob - the interface of Koha's module of that name, over a Headway server

=head1 SYNOPSIS

    use lib '/path/to/headway/clients/perl/lib', '/path/to/headway/clients/perl/lib-koha';
    use C4::BackgroundJob;

    my $job   = C4::BackgroundJob->new( $sessionID, $job_name, $job_invoker, $num_work_units );
    my $jobID = $job->id;

    # the worker
    $job->progress($work_units_processed);
    $job->finish( { num_added => 12 } );

    # somebody who asks
    my $asked = C4::BackgroundJob->fetch( $sessionID, $jobID );
    my $status = $asked->status;    # running, completed

=head1 DESCRIPTION

For callers that are written to Koha's C4::BackgroundJob: they change one C<use lib> line and set HEADWAY_TARGET to the base
URL of a Headway server, C<http://127.0.0.1:8080> by default (see L<Headway/ENVIRONMENT>). The folder C<lib-koha> holds
nothing else, so that Koha's own module is hidden only where that is asked for.

An object is a snapshot: of its C<new> or C<fetch>, and of what was set on it since. To see the changes of another process,
fetch the job again. In a forked child the object still works, over a connection of its own.

Nothing here dies because the server is unreachable. It warns once, and keeps the changes. It sends them, in order, with
the next successful call, or at the end of the program, which waits at most two seconds for that. Otherwise a later program
sends them from the spool. A setter waits at most a second for the server; while it is known to be unreachable, setters
return at once. A child that leaves by C<POSIX::_exit> has no such end: its changes while the server was unreachable are lost.

Jobs are never LOST: a silent program may just be busy.

=head1 METHODS

A setter that is given a value, undef and 0 included, stores it at once.

=head2 new($sessionID, $job_name, $job_invoker, $num_work_units)

A new job, C<running>, with a progress of 0. All but the session can be left out.

=head2 fetch($class, $sessionID, $jobID)

The job as it is now, called as C<< C4::BackgroundJob->fetch(...) >>; undef if there is no such job in this session. If the
server is unreachable, each of three calls waits at most five seconds for the answer. The result is then the last state that
this process knows, or undef.

=head2 id

The id: 32 hexadecimal digits, known at once.

=head2 name, invoker, size, progress

Give the value, or set it. Anything that JSON has a word for comes back as it was given, a progress that is no number too.
Headway's own fields show as much of it as they can: the first 256 characters, and whole numbers from 0 on. Whole numbers beyond
2**53 come back as text, and so do code and globs.

=head2 status

C<running>, or C<completed>. Headway knows more: RUNNING, PENDING and LOST are C<running>; COMPLETED, FAILED and CANCELLED are
C<completed>.

=head2 finish($results)

Ends the job, with any data as its results, at most 1 MiB as JSON. A second call keeps the later results (at most 256 KiB).

=head2 results

The results; undef before the job is completed. Of a job that FAILED or was CANCELLED:
C<< { status => 'FAILED', error => 'the disk is full' } >>, unless it was finished here after that.

=head2 set(\%values)

Merges values into those that the job keeps beside its fields, whatever their keys. At most 250 of them, of 256 KiB in all.

=head2 get($key)

Such a value, undef if it is not there.

=head2 clear

Removes this job, and no other, from the session.

=cut
