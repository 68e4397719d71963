package Headway::Json;

# Converts texts and values for the server and back. Converting for the server never dies: an odd title or result must
# never make a worker fail.

use 5.016;
use strict;
use warnings;

use B            ();
use Exporter     qw(import);
use JSON::PP     ();
use Scalar::Util qw(blessed looks_like_number reftype);

use Headway::Error ();

our @EXPORT_OK = qw(clean decode encode is_number job_state perlish plain seconds size_of span whole);

my $EXACT  = 9_007_199_254_740_992;
my $DEPTH  = 32;
my $WRITER = JSON::PP->new->utf8->canonical->allow_nonref->allow_bignum->convert_blessed;
my $READER = JSON::PP->new->utf8->allow_nonref;

my @NUMBERS = qw(size progress error_count attempt revision last_sequence);
my @SPANS   = qw(heartbeat_timeout stall_timeout retention);

# UTF-8, the same bytes for the same data.
sub encode {
    my ($data) = @_;
    return $WRITER->encode($data);
}

sub decode {
    my ($bytes) = @_;
    return $READER->decode($bytes);
}

# Makes a text that the server accepts: Unicode without U+0000, at most so many characters.
sub clean {
    my ( $text, $limit ) = @_;
    $text = defined $text ? "$text" : q{};
    $text = substr $text, 0, $limit if defined $limit && length $text > $limit;
    if ( $text =~ /[^\x01-\x{D7FF}]/ ) {
        no warnings qw(non_unicode surrogate);    ## no critic (ProhibitNoWarnings)
        $text =~ s/[\x{0}\x{D800}-\x{DFFF}]|[^\x{0}-\x{10FFFF}]/\x{FFFD}/g;
    }
    return $text;
}

# Whether Perl holds it as a number, and not as text that looks like one.
sub is_number {
    my ($scalar) = @_;
    return q{} if !defined $scalar || ref $scalar;

  # A printed number also has a text, as pPOK says. Only POK says that it was text first (and, before Perl 5.36, that it
  # was printed).
    my $flags = B::svref_2object( \$scalar )->FLAGS;
    return ( $flags & ( B::SVp_IOK | B::SVp_NOK ) ) && !( $flags & B::SVf_POK ) && looks_like_number($scalar);
}

# The number as a count can be sent: whole, at most 2**53 in size. Anything else is 0.
sub whole {
    my ($number) = @_;
    return 0 if !defined $number || !looks_like_number($number) || $number != $number;
    return $number > $EXACT ? $EXACT : $number < -$EXACT ? -$EXACT : int $number;
}

# The amount of work: 0 (not known) for invalid, infinite and negative numbers.
sub size_of {
    my ($number) = @_;
    my $units = whole($number);
    return $units > 0 && $number - $number == 0 ? $units : 0;
}

# Converts any data to JSON. What JSON cannot express (code, globs, whole numbers beyond 2**53, infinity) becomes its
# text.
sub plain {
    my ( $data, $depth ) = @_;
    $depth //= 0;
    return undef if !defined $data;    ## no critic (ProhibitExplicitReturnUndef)
    if ( !ref $data ) {
        return clean($data) if !is_number($data) || $data != $data || abs($data) == 9**9**9;
        return _number($data);
    }
    if ( blessed $data ) {
        return $data if JSON::PP::is_bool($data);
        return _of_object( $data, $depth );
    }
    return clean($data) if $depth >= $DEPTH;
    my $kind = reftype $data;
    return [ map { plain( $_, $depth + 1 ) } @{$data} ]                            if $kind eq 'ARRAY';
    return { map { clean($_) => plain( $data->{$_}, $depth + 1 ) } keys %{$data} } if $kind eq 'HASH';

    # As JSON modules do: \1 is true and \0 is false.
    return ${$data} ? JSON::PP::true() : JSON::PP::false() if $kind eq 'SCALAR' && ( ${$data} // q{} ) =~ /\A[01]\z/;
    return clean($data);
}

# Writes a whole number as one, even if Perl holds it as a double, and as text if the server accepts no number. Other
# numbers get as many digits as it takes to read the same double again; Perl itself would write 15.
sub _number {
    my ($number) = @_;
    if ( $number == int $number && abs($number) < 2**64 ) {
        return 0 + sprintf '%d', $number if abs($number) <= $EXACT;
        return "$number" =~ /\A-?\d+\z/ ? "$number" : sprintf '%.0f', $number;
    }
    my $text;
    for my $digits ( 15 .. 17 ) {
        $text = sprintf "%.${digits}g", $number;
        last if $text == $number;
    }
    return bless \$text, 'Headway::Json::Double';
}

# JSON data in Perl: whole numbers as integers.
sub perlish {
    my ($data) = @_;
    return [ map { perlish($_) } @{$data} ]                       if ref $data eq 'ARRAY';
    return { map { $_ => perlish( $data->{$_} ) } keys %{$data} } if ref $data eq 'HASH';
    return is_number($data) && abs($data) <= $EXACT && $data == int $data ? 0 + sprintf '%d', $data : $data;
}

# An object is converted by its own method, else to text.
sub _of_object {
    my ( $object, $depth ) = @_;
    local $@;
    my $told = eval { $depth < $DEPTH && $object->can('TO_JSON') ? [ $object->TO_JSON ] : undef };
    return plain( $told->[0], $depth + 1 ) if $told && @{$told};
    return clean( eval { "$object" } // ref $object );
}

# Seconds as a duration of protobuf's JSON, and back.
sub span {
    my ($seconds) = @_;
    my $text      = sprintf '%.6f', $seconds;
    $text =~ s/\.?0+\z// if $text =~ /[.]/;
    return "${text}s";
}

sub seconds {
    my ($span) = @_;
    return ( $span // q{} ) =~ /\A(-?[\d.]+)s\z/ ? 0 + $1 : 0;
}

# A job as the server describes it, with the names of job.proto, numbers as numbers and durations in seconds.
sub job_state {
    my ($told) = @_;
    my %job = %{ _snake($told) };
    $job{$_} = 0 + ( $job{$_} // 0 ) for @NUMBERS;
    $job{$_} = seconds( $job{$_} )   for @SPANS;
    $job{status} =~ s/\AJOB_STATUS_//;
    $job{$_} //= q{} for qw(continues continued_by key);
    $job{stalled} = $job{stalled} ? 1 : 0;
    for my $counts (qw(parts counters)) {
        my $of = $told->{$counts} || {};
        $job{$counts} = { map { $_ => 0 + $of->{$_} } keys %{$of} };
    }
    $job{labels} = $told->{labels} || {};
    $job{error} &&=
        { code => $Headway::Error::CODES[ $job{error}{code} // 2 ], message => $job{error}{message} // q{} };
    for my $change ( @{ $job{history} || [] } ) {
        $change->{status} =~ s/\AJOB_STATUS_//;
        $change->{revision} = 0 + $change->{revision};
    }
    for my $flag (qw(requested seen)) {
        $job{cancellation}{$flag} = $job{cancellation}{$flag} ? 1 : 0 if $job{cancellation};
    }
    if ( my $estimate = $job{estimate} ) {
        $estimate->{"remaining_$_"} = seconds( $estimate->{"remaining_$_"} ) for qw(low likely high);
    }
    return \%job;
}

sub _snake {
    my ($told) = @_;
    return [ map { _snake($_) } @{$told} ] if ref $told eq 'ARRAY';
    return $told                           if ref $told ne 'HASH';
    my %snake;
    for my $name ( keys %{$told} ) {
        ( my $plain = $name ) =~ s/([A-Z])/_\l$1/g;
        $snake{$plain} = _snake( $told->{$name} );
    }
    return \%snake;
}

package Headway::Json::Double;

# The text of a number, which JSON::PP writes as it is, since it looks like a Math::BigFloat.

use overload q{""} => sub { ${ $_[0] } }, fallback => 1;

our @ISA = ('Math::BigFloat');    ## no critic (ProhibitExplicitISA)

1;
