package Headway::Cancelled;

use 5.016;
use strict;
use warnings;

use overload
    q{""}    => sub { 'The job is cancelled: ' . ( $_[0]{reason} || 'no reason given' ) . "\n" },
    bool     => sub { 1 },
    fallback => 1;

sub new {
    my ( $class, $reason, $deadline ) = @_;
    return bless { reason => $reason // q{}, deadline => $deadline }, $class;
}

sub throw {
    my ( $class, @about ) = @_;
    die $class->new(@about);
}

sub reason   { return $_[0]{reason} }
sub deadline { return $_[0]{deadline} }

1;

__END__

=head1 NAME

Headway::Cancelled - somebody wants the job to end early

=head1 SYNOPSIS

    $job->run(
        sub {
            while ( my $record = $next->() ) {
                $job->die_if_cancelled;
                ...;
            }
        }
    );

=head1 DESCRIPTION

C<die_if_cancelled> dies with this. Let it pass: C<run> ends the job as CANCELLED. A worker that is interrupted in another
way can say so too, for example with C<< local $SIG{INT} = sub { Headway::Cancelled->throw('interrupted') } >>.

=head1 METHODS

=head2 new($reason, $deadline), throw($reason, $deadline)

Both can be left out. C<throw> dies with it.

=head2 reason

Why, in the words of whom wants it.

=head2 deadline

When the server ends the job itself, as text (RFC 3339, UTC); undef if that is not known.

=cut
