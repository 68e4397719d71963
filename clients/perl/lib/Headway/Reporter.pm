package Headway::Reporter;

# Turns one meter's state into numbered reports. A report stays the same, and is sent again, until it is settled. So a
# retry counts once.

use 5.016;
use strict;
use warnings;

use Headway::Ids  qw(micros);
use Headway::Json qw(clean);

my $MAX_ERROR_BYTES_PER_REPORT = 1024 * 1024;
my $MAX_COUNTERS               = 64;

# No clock gives a sequence from here on, and counting on from it could exceed 2**63. Such a sequence is ignored.
my $MAX_USABLE_SEQUENCE = 2**62;

sub new {
    my ( $class, $meter, $progress, $size ) = @_;
    return bless {
        meter     => $meter,
        sequence  => micros(),
        progress  => $progress || 0,
        size      => $size     || 0,
        message   => q{},
        counters  => {},
        unsettled => [],
        more      => 0,
        pressing  => 0,
    }, $class;
}

sub meter { return $_[0]{meter} }

# The server has applied a report with that sequence. Later reports must have higher numbers, even if an earlier process
# of the same attempt had a faster clock.
sub number_above {
    my ( $self, $last ) = @_;
    $self->{sequence} = $last if $last > $self->{sequence} && $last < $MAX_USABLE_SEQUENCE;
    return;
}

# Whether a report is unsettled, or another must follow without waiting.
sub busy {
    my ($self) = @_;
    return @{ $self->{unsettled} } || $self->{pressing};
}

sub unsettled { return scalar @{ $_[0]{unsettled} } }

# The unsettled report, or a new one, or undef if nothing has changed. Without `fresh` it makes a new report only to
# complete the one before.
sub report {
    my ( $self, $about, $fresh ) = @_;
    $self->_freeze($about) if !@{ $self->{unsettled} } && ( $fresh || $self->{more} );
    return $self->{unsettled}[0];
}

# Everything that this meter has left to report, exactly as it is sent if this process still sends it.
sub drain {
    my ( $self, $about, $fresh ) = @_;
    my $more = $fresh ? $self->_freeze($about) : 1;
    $more = $self->_freeze($about) while $more && $self->{more};
    return @{ $self->{unsettled} };
}

# The server has applied the report.
sub settle {
    my ($self) = @_;
    shift @{ $self->{unsettled} };
    return;
}

# The server has refused the report. The rest of it goes out again without the invalid fields.
sub refused {
    my ( $self, $error ) = @_;
    my $report = $self->{unsettled}[0] or return;
    if ( lighten( $report, $error ) ) {
        $self->_number($_) for @{ $self->{unsettled} };
    }
    else {
        $self->settle;
    }
    return;
}

# Removes the fields that the error names from the report. If it names none, it removes the variables, which are refused
# most often. Returns whether there was something to remove.
sub lighten {
    my ( $report, $error ) = @_;
    my $lighter = 0;
    for my $path ( map { $_->[0] // q{} } $error->fields ) {
        my ( $field, $key ) = $path =~ /\A(\w+)(?:\[(.*?)\])?/s;
        next if !defined $field || $field !~ /\A(?:progress|size|message|counters|record_errors|variables)\z/;
        my $whole = !defined $key || $field ne 'counters';
        $lighter++ if defined( $whole ? delete $report->{$field} : delete $report->{counters}{$key} );
    }
    return $lighter || defined delete $report->{variables};
}

sub _freeze {
    my ( $self, $about ) = @_;
    my $sample = $self->{meter}->sample($MAX_ERROR_BYTES_PER_REPORT);
    @{$self}{qw(more pressing)} = @{$sample}{qw(more pressing)};
    my %said;
    for my $field (qw(progress size message)) {
        next if !defined $sample->{$field} || $sample->{$field} eq $self->{$field};
        $said{$field} = $self->{$field} = $sample->{$field};
    }
    my @counters = sort keys %{ $sample->{counters} };
    for my $name ( splice @counters, 0, $MAX_COUNTERS ) {
        my $delta = $sample->{counters}{$name} - ( $self->{counters}{$name} // 0 ) or next;
        my $known = clean( $name, 128 );
        $said{counters}{ length $known ? $known : q{?} } += $delta;
    }
    $self->{counters}    = $sample->{counters};
    $said{record_errors} = $sample->{errors}    if @{ $sample->{errors} };
    $said{variables}     = $sample->{variables} if $sample->{variables};
    return q{} if !%said;
    push @{ $self->{unsettled} }, $self->_number( { %{$about}, part => $self->{meter}->part_name, %said } );
    return 1;
}

sub _number {
    my ( $self, $report ) = @_;

    # As text: it may be beyond 2**53, where JSON's numbers are not exact.
    $report->{sequence} = q{} . ++$self->{sequence};
    return $report;
}

1;
