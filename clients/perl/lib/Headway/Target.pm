package Headway::Target;

# A server's address, and the options to connect to it.

use 5.016;
use strict;
use warnings;

use Carp qw(croak);

my $DEFAULT = 'http://127.0.0.1:8080';
my $ADDRESS = qr{\A(?:(https?)://)?(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]@]+):(\d{1,5})/?\z};

# Takes the given values, else HEADWAY_HTTP_TARGET, HEADWAY_TARGET, HEADWAY_TOKEN and HEADWAY_CA.
sub new {
    my ( $class, %given ) = @_;
    my $text = $given{target} || $ENV{HEADWAY_HTTP_TARGET} || $ENV{HEADWAY_TARGET} || $DEFAULT;
    my $ca   = $given{ca}     || $ENV{HEADWAY_CA};
    my ( $scheme, $host, $port ) = $text =~ $ADDRESS;
    croak "The target must be http://host:port or https://host:port, such as $DEFAULT; not '$text'"
        if !$port || $port > 65_535;
    croak 'The target says http:// (plain text), but there is a CA file: write https://, or drop it'
        if ( $scheme // q{} ) eq 'http' && $ca;
    $scheme = $ca ? 'https' : $scheme || 'http';
    croak "The CA file '$ca' cannot be read" if $ca && !-r $ca;
    croak 'An https:// target needs the modules IO::Socket::SSL and Net::SSLeay'
        if $scheme eq 'https' && !eval { require IO::Socket::SSL; require Net::SSLeay; 1 };
    ( my $peer = $host ) =~ s/\A\[|\]\z//g;
    my $self = bless {
        scheme  => $scheme,
        peer    => $peer,
        port    => 0 + $port,
        ca      => $ca,
        address => "$host:" . ( 0 + $port ),
    }, $class;
    my $token = $given{token} || $ENV{HEADWAY_TOKEN};

    # In a closure, so that no dump of a client shows it.
    $self->{token} = sub { $token };
    return $self;
}

sub scheme  { return $_[0]{scheme} }
sub peer    { return $_[0]{peer} }
sub port    { return $_[0]{port} }
sub ca      { return $_[0]{ca} }
sub address { return $_[0]{address} }
sub token   { return $_[0]{token}->() }

# The base URL.
sub url {
    my ($self) = @_;
    return "$self->{scheme}://$self->{address}";
}

1;
