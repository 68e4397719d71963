package Headway::Backlog;

# Holds record errors until they are sent. It counts all of them, and keeps the texts of the first and the last.

use 5.016;
use strict;
use warnings;

my $AT_AN_END = 500;

sub new {
    my ($class) = @_;
    return bless { first => [], nameless => 0, last => [] }, $class;
}

sub size {
    my ($self) = @_;
    return @{ $self->{first} } + $self->{nameless} + @{ $self->{last} };
}

sub add {
    my ( $self, $error ) = @_;
    if ( !@{ $self->{last} } && !$self->{nameless} && @{ $self->{first} } < $AT_AN_END ) {
        push @{ $self->{first} }, $error;
        return;
    }
    push @{ $self->{last} }, $error;
    if ( @{ $self->{last} } > $AT_AN_END ) {
        shift @{ $self->{last} };
        $self->{nameless}++;
    }
    return;
}

sub take {
    my ($self) = @_;
    return shift @{ $self->{first} } if @{ $self->{first} };
    if ( $self->{nameless} ) {
        $self->{nameless}--;
        return { record => q{?} };
    }
    return shift @{ $self->{last} };
}

1;
