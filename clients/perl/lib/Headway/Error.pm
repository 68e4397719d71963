package Headway::Error;

use 5.016;
use strict;
use warnings;

use overload q{""} => 'text', bool => sub { 1 }, fallback => 1;

our @CODES = qw(OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED
    RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED);

my %KNOWN = map { $_ => 1 } @CODES;

my %STOP_REASONS = map { $_ => 1 } qw(JOB_ENDED STALE_ATTEMPT JOB_NOT_FOUND JOB_ID_AMBIGUOUS);

my %DROP_CODES = map { $_ => 1 } qw(INVALID_ARGUMENT ALREADY_EXISTS NOT_FOUND FAILED_PRECONDITION ABORTED);

my $LINE = 300;

sub new {
    my ( $class, %about ) = @_;
    return bless { code => 'UNKNOWN', message => q{}, reason => q{}, fields => [], retry_after => undef, %about },
        $class;
}

# The error of an unsuccessful HTTP response. Only JSON of a Headway server has a reason: a proxy's page has none.
sub from_response {
    my ( $class, $status, $told ) = @_;
    my $code = $status == 503 ? 'UNAVAILABLE' : 'UNKNOWN';
    return $class->new( code => $code, message => "HTTP status $status" ) if ref $told ne 'HASH';
    my $name = uc( $told->{code} // q{} );
    $name = 'CANCELLED' if $name eq 'CANCELED';
    my %about = ( code => $KNOWN{$name} ? $name : $code, message => $told->{message} // q{} );
    for my $detail ( @{ ref $told->{details} eq 'ARRAY' ? $told->{details} : [] } ) {
        my ( $type, $debug ) = @{$detail}{qw(type debug)};
        next if ref $debug ne 'HASH';
        if ( $type eq 'google.rpc.ErrorInfo' && ( $debug->{domain} // q{} ) eq 'headway' ) {
            $about{reason} = $debug->{reason} // q{};
        }
        elsif ( $type eq 'google.rpc.BadRequest' ) {
            $about{fields} = [ map { [ $_->{field}, $_->{description} ] } @{ $debug->{fieldViolations} || [] } ];
        }
        elsif ( $type eq 'google.rpc.RetryInfo' && ( $debug->{retryDelay} // q{} ) =~ /\A([\d.]+)s\z/ ) {
            $about{retry_after} = 0 + $1;
        }
    }
    return $class->new(%about);
}

# The error of a message that is too large to send.
sub too_large {
    my ($class) = @_;
    return $class->new(
        code    => 'INVALID_ARGUMENT',
        reason  => 'INVALID_REQUEST',
        message => 'It is larger than a message may be.',
    );
}

# Turns any caught exception into such an error. Without an answer of the server the connection is at fault.
sub from_fault {
    my ( $class, $fault ) = @_;
    return $fault if ref $fault && eval { $fault->isa($class) };
    chomp( my $text = "$fault" );
    my $code = $text =~ /\ATimed out/ ? 'DEADLINE_EXCEEDED' : 'UNAVAILABLE';
    $text .= '; is this the HTTP port? That of gRPC is another one, see HEADWAY_HTTP_TARGET'
        if $text =~ /looking for line|Malformed (?:Status-Line|header)/i;
    return $class->new( code => $code, message => $text );
}

sub code        { return $_[0]{code} }
sub message     { return $_[0]{message} }
sub reason      { return $_[0]{reason} }
sub fields      { return @{ $_[0]{fields} } }
sub retry_after { return $_[0]{retry_after} }

sub text {
    my ($self) = @_;
    return "$self->{code}: " . $self->log_text . "\n";
}

# The error as one line for a log, whatever the server or a proxy has written into it.
sub log_text {
    my ($self) = @_;
    my $text = $self->{message};
    $text =~ s/[^[:print:]]+/ /g;
    $text =~ s/\s+/ /g;
    return substr( $text, 0, $LINE ) || $self->{code};
}

# What the error means: STOP (the server accepts no more of this job), DROP (the server would refuse the same request
# again), RETRY (the same request can succeed later), RECONNECT (nothing is known: the connection, or what is behind it,
# is at fault). Only errors that a Headway server sends, with a reason, count: a proxy's 404 must not end a job.
sub error_policy {
    my ($self) = @_;
    my ( $code, $reason ) = @{$self}{qw(code reason)};
    return 'STOP' if $STOP_REASONS{$reason};

    return 'RECONNECT' if !$reason;
    return 'DROP'      if $DROP_CODES{$code} || $reason eq 'MESSAGE_TOO_LARGE';
    return 'RETRY'     if $code eq 'RESOURCE_EXHAUSTED';
    return 'RECONNECT';
}

# Whether the caller apparently has no right to create a job.
sub denies_access {
    my ($self) = @_;
    return $self->{reason} && $self->{code} =~ /\A(?:UNAUTHENTICATED|PERMISSION_DENIED)\z/;
}

1;

__END__

=encoding utf8

=head1 NAME

Headway::Error - a call that the server refused, or that did not reach it

=head1 SYNOPSIS

    my $state = eval { $client->get($id) };
    if ( my $error = $@ ) {
        die $error if !ref $error || $error->code ne 'NOT_FOUND';
    }

=head1 DESCRIPTION

Updates of a job never die with this; creating, reading and changing jobs from outside do. As text it is one line, with a
line end.

=head1 METHODS

=head2 code

The name of the google.rpc.Code: C<NOT_FOUND> (no such job in this session), C<INVALID_ARGUMENT> (see C<fields>),
C<FAILED_PRECONDITION> (the job's state does not allow it, see C<reason>), C<UNAVAILABLE> (the server or its database does
not answer: worth a retry), C<DEADLINE_EXCEEDED> (no answer in time), …

=head2 message

A sentence for people that says what to do.

=head2 reason

A name of headway.v1.ErrorReason, such as C<JOB_ENDED>; empty if no Headway server said this.

=head2 fields

The fields at fault: pairs of a path in the request and what it must be.

=head2 retry_after

Seconds after which the server asks to be tried again, or undef.

=head2 text, log_text

The error as one line, with its code and a line end, or without.

=head2 error_policy

What the error means for the client: C<STOP>, C<DROP>, C<RETRY> or C<RECONNECT>.

=head2 new, from_response, from_fault, too_large, denies_access

For this library.

=cut
