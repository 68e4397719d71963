package Headway::Meter;

use 5.016;
use strict;
use warnings;

use Carp         qw(croak);
use Scalar::Util qw(looks_like_number);
use Time::HiRes  qw(clock_gettime CLOCK_MONOTONIC);

use Headway::Backlog ();
use Headway::Engine  ();
use Headway::Json    qw(clean plain whole);

my $ERRORS_AT_MOST = 1_000;

# `job_state` sends what is reported here; `due` is when it must be called next.
sub new {
    my ( $class, $part, $progress ) = @_;
    my $never = 9**9**9;
    return bless { part => $part, job_state => undef, due => \$never, %{ _fresh($progress) } }, $class;
}

sub _fresh {
    my ($progress) = @_;
    return {
        done      => $progress,
        counters  => {},
        errors    => Headway::Backlog->new,
        taken     => 0,
        variables => undef,
        cut       => undef,
        message   => undef,
        size      => undef,
    };
}

sub part_name { return $_[0]{part} }

# A worker calls these two for each record, so they are written out: a shared sub would make them half as slow again. A
# value that minus itself is not 0, NaN and infinity, is no amount. Only the process id tells that this is a forked
# child, whose count begins at 0.
sub advance {
    my ( $self, $n ) = @_;
    Headway::Engine->forked if $$ != $Headway::Engine::PROCESS;
    my $by = defined $n ? $n + 0 : 1;
    $self->{done} += $by     if $by - $by == 0;
    $self->{job_state}->look if clock_gettime(CLOCK_MONOTONIC) >= ${ $self->{due} };
    return;
}

sub progress {
    my ( $self, @set ) = @_;
    Headway::Engine->forked if $$ != $Headway::Engine::PROCESS;
    return $self->{done}    if !@set;
    my $done = defined $set[0] ? $set[0] + 0 : 0;
    $self->{done} = $done if $done - $done == 0;
    $self->{job_state}->look if clock_gettime(CLOCK_MONOTONIC) >= ${ $self->{due} };
    return;
}

sub count {
    my ( $self, $counter, $n ) = @_;
    $self->_mine;
    my $by = ( $n // 1 ) + 0;
    $self->{counters}{$counter} += $by - $by == 0 ? $by : 0;
    return $self->_said;
}

sub record_error {
    my ( $self, $record, $message, $code ) = @_;
    $self->_mine;
    my $name = clean( $record, 256 );
    $name = q{?} if !length $name;
    my %error = ( record => $name );
    $error{message} = clean( $message, 1_024 ) if defined $message;
    $error{code}    = clean( $code,    64 )    if defined $code;
    $self->{errors}->add( \%error );
    return $self->_said;
}

sub set {
    my ( $self, $variables ) = @_;
    $self->_merge($variables);
    return $self->_said;
}

sub checkpoint {
    my ( $self, $variables ) = @_;
    $self->_merge($variables);
    $self->{cut} = {
        done     => $self->{done},
        counters => { %{ $self->{counters} } },
        errors   => $self->{taken} + $self->{errors}->size,
    };
    return $self->_said;
}

sub message {
    my ( $self, @set ) = @_;
    $self->_mine;
    return $self->{message} // q{} if !@set;
    $self->{message} = clean( $set[0], 1_024 );
    return $self->_said;
}

sub track {
    my ( $self, $source, %options ) = @_;
    my $kind = ref $source;
    croak 'track wants a reference to a list, or to a sub that gives the next item'
        if $kind ne 'ARRAY' && $kind ne 'CODE';
    $self->_expect( scalar @{$source} ) if $kind eq 'ARRAY';
    my $job_state = $options{cancellable} // 1 ? $self->{job_state} : undef;
    my ( $index, $begun ) = ( 0, 0 );
    return sub {
        $self->advance              if $begun;
        $job_state->die_if_unwanted if $job_state && $job_state->{unwanted};
        $begun = 0;
        my $item;
        if ( $kind eq 'ARRAY' ) {
            return if $index >= @{$source};
            $item = $source->[ $index++ ];
        }
        else {
            return if !defined $source || !defined( $item = $source->() );
        }
        $begun = 1;
        return $item;
    };
}

# In a forked child: a part of its own, from 0.
sub adopt {
    my ($self) = @_;
    $self->{part} = substr( $self->{part}, 0, 100 ) . "\@$$";
    %{$self} = ( %{$self}, %{ _fresh(0) } );
    return;
}

# Takes everything there is to report, with record errors of at most so many bytes. `more`: something is left for a
# further sample. `pressing`: record errors are left, which pile up if the next sample is delayed.
sub sample {
    my ( $self, $room ) = @_;
    my $cut     = $self->{cut};
    my $waiting = $cut ? $cut->{errors} - $self->{taken} : $self->{errors}->size;
    my @taken;
    while ( $waiting > 0 && $room > 0 && @taken < $ERRORS_AT_MOST ) {
        push @taken, $self->{errors}->take;
        $room -= 32 + 4 * length join q{}, values %{ $taken[-1] };
        $waiting--;
    }
    $self->{taken} += @taken;
    my $done     = whole( $cut ? $cut->{done} : $self->{done} );
    my $counters = $cut ? $cut->{counters} : $self->{counters};
    my %sample   = (
        progress => $done > 0 ? $done : 0,
        counters => { map { $_ => whole( $counters->{$_} ) } keys %{$counters} },
        errors   => \@taken,
        message  => $self->{message},
        size     => $self->{size},
        more     => $cut || $waiting > 0,
        pressing => $waiting > 0,
    );
    if ( $waiting <= 0 ) {
        $sample{variables} = $self->{variables};
        @{$self}{qw(variables cut)} = ( undef, undef );
    }
    return \%sample;
}

# The length of a part is not the job's size.
sub _expect { return }

sub _mine {
    Headway::Engine->forked if $$ != $Headway::Engine::PROCESS;
    return;
}

sub _said {
    my ($self) = @_;
    $self->{job_state}->look if clock_gettime(CLOCK_MONOTONIC) >= ${ $self->{due} };
    return;
}

sub _merge {
    my ( $self, $variables ) = @_;
    croak 'variables are a reference to a hash' if ref $variables ne 'HASH';
    $self->_mine;
    $self->{variables} = { %{ $self->{variables} || {} }, %{ plain($variables) } };
    return;
}

1;

__END__

=encoding utf8

=head1 NAME

Headway::Meter - one part of a job: what one of its workers moves on its own

=head1 SYNOPSIS

    my $part = $job->part('shelf 1');
    $part->advance for @records;

=head1 DESCRIPTION

The progress of a job is the sum of its parts. A job is itself the meter of the part with the empty name, so all of this can
be called on a job too. Every update only touches memory, and now and then gives the client its turn: see
L<Headway/"When something is sent">. None waits for the server, and none dies because of it.

=head1 METHODS

=head2 advance($n)

Counts C<$n> more units as done, 1 by default.

=head2 progress, progress($done)

Units done by this part, in this process's eyes; or sets that.

=head2 track($source)

    my $next = $job->track(\@records);
    while ( my ($record) = $next->() ) { ... }

An iterator that counts an item as done when the next one is asked for, so that one in which the loop is left or dies is not
counted. The source is a reference to a list, whose length becomes the job's size if that is not known yet, or a sub that
gives the next item, and undef at the end. At the end the iterator gives the empty list, undef in scalar context.

It dies before the next item if the work is no longer needed: with L<Headway::Cancelled> after a cancellation request,
or with the error of C<stopped> if the job has ended otherwise or another worker has taken it over. With C<< cancellable => 0 >> it
goes on.

=head2 count($counter, $n)

Adds C<$n>, 1 by default, to a named counter (C<added>, C<updated>, C<skipped>): at most 64 a job, names of 1 to 128
characters.

=head2 record_error($record, $message, $code)

Reports a record that could not be processed: which (its first 256 characters), why (1,024), and a code to group by (64).
Message and code can be left out. Each is counted. Of more than 1,000 that wait for the server the first and the last 500
keep their texts; it keeps but the first and the last 100 of a job itself.

=head2 set(\%variables)

Merges into the job's variables: at most 256, of 256 KiB in all. Sent with the next report. What JSON has no word for, whole
numbers beyond 2**53 among it, becomes text.

=head2 checkpoint(\%variables)

Merges variables that are stored together with the progress, counters and record errors of this moment, or not at all: what
a worker needs that resumes the job after a crash.

=head2 message, message($text)

What the job is doing now, for people: at most 1,024 characters.

=head2 part_name

The name of the part.

=head2 new, adopt, sample

For this library.

=cut
