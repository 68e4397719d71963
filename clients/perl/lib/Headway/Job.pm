package Headway::Job;

use 5.016;
use strict;
use warnings;

use Scalar::Util qw(blessed);
use Time::HiRes  qw(clock_gettime CLOCK_MONOTONIC);

use Headway::Cancelled ();
use Headway::JobState  ();
use Headway::Engine    ();
use Headway::Error     ();
use Headway::Json      qw(clean plain size_of);
use Headway::Scope     ();

my $NAME_LENGTH = 256;
my %CODES       = map { $Headway::Error::CODES[$_] => $_ } 0 .. $#Headway::Error::CODES;

sub new {
    my ( $class, $client, $job_state ) = @_;
    my $self = bless {
        client    => $client,
        job_state => $job_state,
        meter     => $job_state->part(q{}),
        known     => {},
        results   => undef,
        ended     => 0,
        pid       => $$,
    }, $class;
    return $self;
}

# Repeats code of Headway::Meter, for speed.
sub advance {
    my ( $self, $n ) = @_;
    Headway::Engine->forked if $$ != $Headway::Engine::PROCESS;
    my $meter = $self->{meter};
    $meter->{done} += defined $n ? $n : 1;
    $meter->{job_state}->look if clock_gettime(CLOCK_MONOTONIC) >= ${ $meter->{due} };
    return;
}

sub progress {
    my ( $self, @set ) = @_;
    Headway::Engine->forked if $$ != $Headway::Engine::PROCESS;
    my $meter = $self->{meter};
    return $meter->{done} if !@set;
    $meter->{done} = defined $set[0] ? $set[0] + 0 : 0;
    $meter->{job_state}->look if clock_gettime(CLOCK_MONOTONIC) >= ${ $meter->{due} };
    return;
}

sub count        { my ( $self, @about ) = @_; return $self->{meter}->count(@about) }
sub record_error { my ( $self, @about ) = @_; return $self->{meter}->record_error(@about) }
sub message      { my ( $self, @set )   = @_; return $self->{meter}->message(@set) }

sub track {
    my ( $self, $source, @options ) = @_;
    $self->size( scalar @{$source} ) if ref $source eq 'ARRAY' && !$self->size;
    return $self->{meter}->track( $source, @options );
}

sub set {
    my ( $self, $variables ) = @_;
    $self->{meter}->set($variables);
    $self->{known} = { %{ $self->{known} }, %{$variables} };
    return;
}

sub checkpoint {
    my ( $self, $variables ) = @_;
    $self->{meter}->checkpoint($variables);
    $self->{known} = { %{ $self->{known} }, %{$variables} };
    return;
}

sub part {
    my ( $self, $name ) = @_;
    return $self->{job_state}->part( clean( $name, 128 ) );
}

sub id           { return $_[0]{job_state}->id }
sub session      { return $_[0]{job_state}{session}->text }
sub status       { return $_[0]{job_state}{job}{status} }
sub unit         { return $_[0]{job_state}{job}{unit} // q{} }
sub attempt      { return $_[0]{job_state}->attempt }
sub snapshot     { return $_[0]{job_state}{job} }
sub cancelled    { return $_[0]{job_state}{cancelled} }
sub stopped      { return $_[0]{job_state}{error} }
sub cancellation { return $_[0]{job_state}{job}{cancellation} }

sub die_if_cancelled {
    my ($self) = @_;
    $self->{job_state}->die_if_cancelled if $self->{job_state}{cancelled};
    return;
}

sub die_if_stopped {
    my ($self) = @_;
    die $self->stopped if $self->stopped;
    return;
}

sub size {
    my ( $self, @set ) = @_;
    my $meter = $self->{meter};
    return $meter->{size} // $self->{job_state}{job}{size} // 0 if !@set;
    Headway::Engine->forked                                     if $$ != $Headway::Engine::PROCESS;
    $meter->{size} = size_of( $set[0] );
    $meter->{job_state}->look if clock_gettime(CLOCK_MONOTONIC) >= ${ $meter->{due} };
    return;
}

sub name    { my ( $self, @set ) = @_; return $self->_described( name    => @set ) }
sub invoker { my ( $self, @set ) = @_; return $self->_described( invoker => @set ) }

sub _described {
    my ( $self, $field, @set ) = @_;
    my $job = $self->{job_state}{job};
    return $job->{$field} // q{} if !@set;
    my $text = $job->{$field} = clean( $set[0], $NAME_LENGTH );
    $self->_queue( UpdateJob => { job => { id => $self->id, $field => $text }, update_mask => $field } );
    return;
}

sub results {
    my ( $self, @set ) = @_;
    return $self->{results} ? $self->{results}[0] : undef if !@set;
    $self->{results} = [ $set[0] ];
    return;
}

sub get {
    my ( $self, $name ) = @_;
    return $self->{known}{$name} if exists $self->{known}{$name};
    return $self->{client}->variables( $self->id, names => [$name], session => $self->{job_state}{session} )->{$name};
}

sub finish {
    my ( $self, @results ) = @_;
    $self->results( $results[0] ) if @results;
    my %request = ( job_id => $self->id );
    $request{results} = plain( $self->{results}[0] ) if $self->{results};
    $self->_end( FinishJob => \%request );
    return;
}

sub fail {
    my ( $self, $error, $code ) = @_;
    my $number = $CODES{ $code // 'UNKNOWN' } || $CODES{UNKNOWN};
    $self->_end( FailJob => { job_id => $self->id, error => { code => $number, message => _log_text($error) } } );
    return;
}

# "Class: message" of an exception that is an object; a text stays as it is.
sub _log_text {
    my ($error) = @_;
    my $class   = blessed $error;
    my $text    = $class && $error->can('message') ? $error->message : $error;
    $text = clean($text);
    $text =~ s/\s+\z//;
    $text = length $text ? "$class: $text" : $class if $class;
    return clean( length $text ? $text : 'It failed, and did not say why.', 1_024 );
}

sub run {
    my ( $self, $work ) = @_;
    my $list = wantarray;
    my ( @given, $fault );

    # For a sub that exit() leaves.
    my $scope = $self->scope;
    {
        local $@;
        my $done = eval {
            if   ($list) { @given    = $work->($self) }
            else         { $given[0] = $work->($self) }
            1;
        };
        $fault = $@ if !$done;
        $self->end_with($fault);
    }
    die $fault if defined $fault;
    return $list ? @given : $given[0];
}

# Ends the job as its scope ended: with that exception, or without. In a forked child only the parent ends the job.
sub end_with {
    my ( $self, $fault ) = @_;
    return if $self->{ended} || $$ != $self->{pid};
    if    ( !defined $fault ) { $self->finish }
    elsif ( blessed $fault && $fault->isa('Headway::Cancelled') ) {
        $self->fail( $fault->reason || 'cancelled', 'CANCELLED' );
    }
    else { $self->fail($fault) }
    return;
}

sub ended { return $_[0]{ended} }
sub scope { return Headway::Scope->new( $_[0] ) }

sub refresh {
    my ($self) = @_;
    my $job_state = $self->{job_state};
    $job_state->heard_of( $self->{client}->get( $self->id, session => $self->{job_state}{session} ) );
    if ( $self->status eq 'COMPLETED' && !$self->{results} ) {
        $self->results( $self->{client}->results( $self->id, session => $self->{job_state}{session} ) );
    }
    return $self;
}

sub cancel {
    my ( $self, %how ) = @_;
    $self->{job_state}->heard_of( $self->{client}->cancel( $self->id, %how, session => $self->{job_state}{session} ) );
    return;
}

sub clear {
    my ($self) = @_;
    $self->{ended} = 1;
    $self->{job_state}->stop;
    $self->{client}->clear( $self->id, session => $self->{job_state}{session} );
    return;
}

sub wait {    ## no critic (ProhibitBuiltinHomonyms)
    my ( $self, %how ) = @_;
    my $state = $self->{client}->wait( $self->id, %how, session => $self->{job_state}{session} );
    $self->{job_state}->heard_of($state);
    return $state;
}

sub flush {
    my ( $self, $seconds ) = @_;
    my @left = $self->{client}->engine->wait_delivered( $seconds // $self->{client}->exit_timeout, $self->{job_state} );
    return !@left && !$self->stopped;
}

# The variables that were known when the job was taken over.
sub knows {
    my ( $self, $variables ) = @_;
    $self->{known} = { %{$variables} };
    return $self;
}

sub _queue {
    my ( $self, $method, $request, %more ) = @_;
    my $pending = { method => $method, request => { session_id => $self->{job_state}{session}, %{$request} }, %more };
    $self->{client}->engine->submit( $self->{job_state}, $pending );
    return $pending;
}

sub _end {
    my ( $self, $method, $request ) = @_;
    return if $self->{ended};
    $self->{ended} = 1;
    my $client  = $self->{client};
    my $pending = $self->_queue( $method => $request, after_reports => 1 );
    $client->engine->await( $client->exit_timeout, sub { $pending->{tried} } );
    return;
}

1;

__END__

=encoding utf8

=head1 NAME

Headway::Job - a job in the hands of its worker

=head1 SYNOPSIS

    my $job = $client->create( name => 'Import', size => scalar @records, unit => 'records' );
    $job->run(
        sub {
            my $next = $job->track( \@records );
            while ( my ($record) = $next->() ) {
                $job->die_if_cancelled;
                import_record($record) or $job->record_error( $record->id, 'no title', 'NO_TITLE' );
            }
            $job->results( { added => 12 } );
        }
    );

=head1 DESCRIPTION

Made by C<create>, C<resume> and C<fetch> of L<Headway>. It is the meter of the part with the empty name: C<advance>,
C<progress>, C<track>, C<count>, C<record_error>, C<set>, C<checkpoint> and C<message> are described at L<Headway::Meter>.
None of these waits for the server, and none dies because it is unreachable or refuses something: the client warns instead.

=head1 THE END OF A JOB

Each of these waits until the server has stored the end, at most C<exit_timeout> seconds, and not while the server is
unreachable. The rest is sent while the program goes on, and at its end. Of several ends the first counts.

=head2 run(\&work)

Calls the sub with the job, and gives back what it returns. Then the job ends: COMPLETED, with C<results>; FAILED, with the
exception's text, if one leaves the sub; CANCELLED, if that is a L<Headway::Cancelled>. The exception goes on unchanged. A sub
that calls C<exit> ends it FAILED.

=head2 scope

    my $scope = $job->scope;
    ...;
    $job->finish;

A guard: if it goes out of scope before the job has ended, however the scope is left, the job ends FAILED. Perl does not tell
a destructor of which exception it is; C<run> does know.

=head2 finish, finish($results)

COMPLETED, with the results given here or set before: a reference to a hash by custom, any data as JSON has it, at most 1 MiB.

=head2 fail($error, $code)

FAILED, because of a text or an exception, of which 1,024 characters are kept. C<$code> is the name of a google.rpc.Code,
C<UNKNOWN> by default; with C<CANCELLED> the job ends CANCELLED.

=head2 results, results($results)

What came of it: set it before the job ends. Of a fetched job: the results as they were then, undef unless it was COMPLETED.

=head2 end_with($exception), ended

Ends the job as C<run> does; whether an end was asked for.

=head1 WHAT IT IS

=head2 id, session, status, unit, attempt

The id: 32 hexadecimal digits, chosen by this client. The session id: a secret, keep it out of logs. PENDING, RUNNING, LOST,
COMPLETED, FAILED or CANCELLED, as the server last said. What is counted. Which worker this is: 1, and one more after each
take-over.

=head2 name, invoker, size

Can be set, by giving a value: the first two at most 256 characters, the size in units, 0 = not known.

=head2 snapshot

All that the server last said of the job, see L<Headway/"JOBS AS THE SERVER SEES THEM">; C<refresh> asks it.

=head2 get($name)

A variable, undef if it was never set. What this process set, or took over, is answered from memory; for the rest the server
is asked. Dies with a L<Headway::Error> if that fails.

=head2 part($name)

The L<Headway::Meter> of one part, for a worker that shares the job: its progress adds to the job's. Names have at most 128
characters, a job at most 256 parts.

=head1 SIGNALS

Both become known with the answer to a report.

=head2 cancelled, cancellation, die_if_cancelled

Whether somebody wants the job to end early; why and until when (C<reason>, C<deadline>), or undef; dies with a
L<Headway::Cancelled> if so.

=head2 stopped, die_if_stopped

Why the server takes no more reports of this worker, a L<Headway::Error> with the reason C<STALE_ATTEMPT> (another has taken
the job over), C<JOB_ENDED> or C<JOB_NOT_FOUND>, or undef; dies with it.

=head1 ASKING THE SERVER

These die with a L<Headway::Error> if it fails.

=head2 refresh

Asks how the job stands; gives the job.

=head2 cancel(reason => $text, grace => $seconds), clear, wait(timeout => $seconds)

As the methods of L<Headway>, for this job.

=head2 flush, flush($seconds)

Waits until all said so far is stored, at most so many seconds (C<exit_timeout> by default); whether it is. It is not once the
job is C<stopped>.

=head2 new, knows

For this library.

=cut
