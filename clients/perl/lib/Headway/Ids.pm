package Headway::Ids;

# Ids and random numbers that a worker can choose on its own.

use 5.016;
use strict;
use warnings;

use Exporter    qw(import);
use POSIX       ();
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

our @EXPORT_OK = qw(chance micros now uuid7);

# Seconds of a monotonic clock.
sub now {
    return clock_gettime(CLOCK_MONOTONIC);
}

# Unix time in microseconds.
sub micros {
    return int( Time::HiRes::time() * 1_000_000 );
}

# A random number between the two, so that many clients do not retry at the same moment.
sub chance {
    my ( $low, $high ) = @_;
    return $low + ( $high - $low ) * unpack( 'N', _random(4) ) / 2**32;
}

# A UUIDv7 (RFC 9562) as 32 lower-case hexadecimal digits: sorts by time to the millisecond.
sub uuid7 {
    my $milliseconds = int( Time::HiRes::time() * 1_000 );
    my @random       = unpack 'n5', _random(10);
    return sprintf '%012x%04x%04x%04x%04x%04x', $milliseconds, 0x7000 | $random[0] & 0x0fff,
        0x8000 | $random[1] & 0x3fff,
        @random[ 2 .. 4 ];
}

# From the system: rand() would repeat itself in every forked child.
sub _random {
    my ($length) = @_;
    my $source = POSIX::open( '/dev/urandom', POSIX::O_RDONLY() );
    if ( defined $source ) {
        my $got = POSIX::read( $source, my $bytes, $length );
        POSIX::close($source);
        return $bytes if ( $got || 0 ) == $length;
    }
    require Digest::MD5;
    state $count = 0;
    return substr Digest::MD5::md5( join q{ }, $$, ++$count, Time::HiRes::time(), rand ), 0, $length;
}

1;
