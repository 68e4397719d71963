package Headway::Http;

# One connection to the server: JSON calls over HTTP/1.1, one at a time, kept alive.
#
# It starts a call, and reads its answer when that has arrived, so that a worker goes on meanwhile. HTTP::Tiny itself
# can only wait, but its handle, which implements the protocol, can be used in two halves.

use 5.016;
use strict;
use warnings;

use Headway::Error  ();
use Headway::Ids    qw(now);
use Headway::Json   qw(decode encode);
use Headway::Safely qw(beyond_standard safely);

our $VERSION = '0.1.0';

# What the server accepts in one message, less room for its frame.
our $MESSAGE_BYTES = 4 * 1024 * 1024 - 64 * 1024;

# The longest time (s) to connect.
my $CONNECTING = 2;

sub new {
    my ( $class, $target ) = @_;
    return bless { target => $target, handle => undef, sent => undef, reused => 0 }, $class;
}

# Sends a call. Dies with a Headway::Error. `timeout`: seconds for that.
sub begin {
    my ( $self, $method, $request, $timeout ) = @_;
    my $end     = now() + $timeout;
    my $content = encode($request);
    die Headway::Error->too_large if length $content > $MESSAGE_BYTES;
    my $target = $self->{target};
    my @peer   = ( $target->scheme, $target->peer, $target->port, $target->peer );
    my $handle = delete $self->{handle};
    $self->{reused} = $handle && $handle->can_reuse(@peer) ? 1 : 0;

    if ( !$self->{reused} ) {
        $handle = Headway::Http::Handle->new(
            keep_alive  => 1,
            verify_SSL  => 1,
            SSL_options => { $target->ca ? ( SSL_ca_file => $target->ca ) : () },
        );
        $handle->until( $timeout < $CONNECTING ? $end : now() + $CONNECTING );
        $handle = beyond_standard( sub { $handle->connect(@peer) } );
    }
    $handle->until($end);
    my $token = $target->token;
    $handle->write_request( {
        method  => 'POST',
        uri     => "/headway.v1.JobService/$method",
        headers => {
            host             => $target->address,
            'user-agent'     => "headway-perl/$VERSION",
            'content-type'   => 'application/json',
            'content-length' => length $content,
            defined $token ? ( authorization => "Bearer $token" ) : (),
        },
        header_case => {},
        cb          => sub { substr $content, 0, length $content, q{} },
    } );
    $self->{sent} = $handle;
    return;
}

# Whether a call is in flight.
sub busy {
    my ($self) = @_;
    return defined $self->{sent};
}

# Whether an answer, or the end of the connection, has arrived after so many seconds at most.
sub ready {
    my ( $self, $seconds ) = @_;
    return !!$self->{sent}->can_read( $seconds || 0 );
}

# The answer of a call that was started. Dies with a Headway::Error. `timeout`: seconds for the rest of it.
sub answer {
    my ( $self, $timeout ) = @_;
    my $handle = delete $self->{sent};
    $handle->until( now() + $timeout );
    my $response;
    do { $response = $handle->read_response_header } while $response->{status} =~ /\A1/;
    my $content = q{};
    my $whole   = $handle->read_body( sub { $content .= $_[0]; return }, $response );
    if ( $whole && lc( $response->{headers}{connection} // q{} ) ne 'close' ) {
        $self->{handle} = $handle;
    }
    my $told = eval { decode($content) };
    die Headway::Error->from_response( $response->{status}, $told ) if $response->{status} != 200;
    return $told                                                    if ref $told eq 'HASH';
    die Headway::Error->new( message => 'an answer that is no JSON object' );
}

# Whether the failure may only mean that the server closed an idle connection.
sub stale {
    my ( $self, $error ) = @_;
    return $self->{reused} && !$error->reason && $error->code eq 'UNAVAILABLE' && !$self->{handle};
}

# Closes the connection, and gives up the call in flight.
sub drop {
    my ($self) = @_;
    delete $self->{$_} for qw(handle sent);
    return;
}

# Makes a whole call. Dies with a Headway::Error; DEADLINE_EXCEEDED after so many seconds. While it waits, it calls
# `idle`, which returns in how many seconds to call it again.
sub call {
    my ( $self, $method, $request, $timeout, $idle ) = @_;
    my $end = now() + $timeout;
    my ( $answer, $fault );
    for my $try ( 1 .. 2 ) {
        $self->drop if $self->busy;
        $fault = safely( sub { $self->begin( $method, $request, _until($end) ) } );
        if ( !$fault ) {
            my $waiting = $self->_wait( $end, $idle );
            $fault =
                $waiting
                ? safely( sub { $answer = $self->answer( _until($end) ) } )
                : Headway::Error->new( code => 'DEADLINE_EXCEEDED', message => 'the server did not answer in time' );
        }
        return $answer if !$fault;
        $fault = Headway::Error->from_fault($fault);
        $self->drop if $self->busy;

        # Taking a job over twice is the one call that must not be repeated.
        last if !$self->stale($fault) || $method eq 'StartJob';
    }
    die $fault;
}

# An answer that has begun when the time is over gets a moment more.
sub _until {
    my ($end) = @_;
    my $left = $end - now();
    return $left > 0.25 ? $left : 0.25;
}

sub _wait {
    my ( $self, $end, $idle ) = @_;
    while (1) {
        my $left  = $end - now();
        my $pause = $idle ? $idle->() : $left;
        return 1   if $self->ready( $left < 0 ? 0 : $pause < $left ? $pause : $left );
        return q{} if $left <= 0;
    }
}

package Headway::Http::Handle;

# HTTP::Tiny's connection, with one deadline for everything that it does, and with TCP_NODELAY. HTTP::Tiny writes head
# and body separately, and the system would hold back the second for 40 ms.
#
# Over TLS there may be bytes that are no data, such as tickets after a handshake. Reading on because of them would wait
# for data without a limit.

use HTTP::Tiny 0.058;
use Socket qw(IPPROTO_TCP TCP_NODELAY);

use parent -norequire, 'HTTP::Tiny::Handle';

sub until {
    my ( $self, $moment ) = @_;
    $self->{until} = $moment;
    $self->timeout( $self->_left );
    return;
}

sub connect {    ## no critic (ProhibitBuiltinHomonyms)
    my ( $self, @peer ) = @_;
    $self->SUPER::connect(@peer);
    $self->{fh}->setsockopt( IPPROTO_TCP, TCP_NODELAY, 1 );
    return $self;
}

sub can_read {
    my ( $self, $seconds ) = @_;
    my $end = Headway::Ids::now() + ( $seconds // $self->_left );
    while (1) {
        my $left = $end - Headway::Ids::now();
        $self->SUPER::can_read( $left > 0 ? $left : 0 ) or return q{};
        return 1 if !$self->{fh}->isa('IO::Socket::SSL') || $self->_has_data;
    }
}

# Whether there is data, or an end or a fault that reading will report.
sub _has_data {
    my ($self) = @_;
    my $socket = $self->{fh};
    return 1 if $socket->pending;
    $socket->blocking(0);
    my $data = $socket->peek( my $byte, 1 );
    my $none = !defined $data && IO::Socket::SSL::errstr() eq IO::Socket::SSL::SSL_WANT_READ();
    $socket->blocking(1);
    return !$none;
}

sub can_write {
    my ( $self, $seconds ) = @_;
    return $self->SUPER::can_write( $seconds // $self->_left );
}

sub _left {
    my ($self) = @_;
    my $left = $self->{until} - Headway::Ids::now();
    return $left > 0 ? $left : 0;
}

1;
