package Headway::Postman;

# Goes once through the letters for one server, or of one job there, one call after the other. If the server does not answer,
# the rest stays for a later process.

use 5.016;
use strict;
use warnings;

use Headway::Report ();
use Headway::Spool  ();

sub new {
    my ( $class, $target, $job_id ) = @_;
    my @paths = Headway::Spool::letters( $target, $job_id );
    return
        bless { paths => \@paths, letter => undef, calls => [], sent => 0, refused => 0, waiting => 0, ended => undef },
        $class;
}

sub over {
    my ($self) = @_;
    return !$self->{letter} && !@{ $self->{paths} };
}

sub counts {
    my ($self) = @_;
    return { map { $_ => $self->{$_} } qw(sent refused waiting) };
}

# The server does not answer.
sub stop {
    my ($self) = @_;
    $self->{waiting} += @{ $self->{paths} } + ( $self->{letter} ? 1 : 0 );
    $self->{letter}->release if $self->{letter};
    $self->{letter} = undef;
    @{ $self->{paths} } = ();
    return;
}

# The call to make now: its method and request.
sub next_call {
    my ($self) = @_;
    while (1) {
        if ( !$self->{letter} ) {
            my $path = shift @{ $self->{paths} } // return;
            $self->_open($path);
        }
        elsif ( my $call = $self->{calls}[0] ) {
            return @{$call};
        }
        elsif ( $self->{ended} ) {
            $self->_refuse( $self->{ended} );
        }
        else {
            $self->{letter}->remove;
            $self->{letter} = undef;
            $self->{sent}++;
        }
    }
}

sub _open {
    my ( $self, $path ) = @_;
    my $letter = Headway::Spool::Letter->claim($path);
    if ( !$letter ) {
        $self->{waiting}++ if -e $path;
        return;
    }
    @{$self}{qw(letter ended)} = ( $letter, undef );
    my $content = eval { $letter->content };
    if ($content) {
        $self->{calls} = $content->{requests};
    }
    else {
        chomp( my $why = $@ );
        $self->_refuse($why);
    }
    return;
}

sub _refuse {
    my ( $self, $why ) = @_;
    my $path = $self->{letter}->refuse;
    $self->{letter} = undef;
    $self->{refused}++;
    warn "headway: what was left to say of a job is refused, see $path: $why\n";
    return;
}

# What became of that call, if the server said it.
sub answered {
    my ( $self,   $error )   = @_;
    my ( $method, $request ) = @{ $self->{calls}[0] };
    my $ends = $method =~ /\AF/;
    if ( !$error ) {
        shift @{ $self->{calls} };
        $self->{ended} = undef if $ends;
        return;
    }
    my $verdict = $error->verdict;

    # If the end did arrive, and only its answer did not, then so did all before it: its repeat tells.
    if ( !$ends && $error->reason eq 'JOB_ENDED' ) {
        $self->{ended} = $error->in_words;
        shift @{ $self->{calls} };
    }
    elsif ( $verdict eq 'REFUSED' && $method eq 'ReportProgress' ) {

        # What is refused of a job must not keep the rest of it back.
        shift @{ $self->{calls} } if !Headway::Report::lighten( $request, $error );
    }
    elsif ( $verdict eq 'REFUSED' && $method eq 'FinishJob' && exists $request->{results} ) {
        delete $request->{results};
    }
    elsif ( $verdict eq 'REFUSED' && ( $method eq 'UpdateJob' || $method eq 'SetVariables' ) ) {
        shift @{ $self->{calls} };
    }
    elsif ( $verdict eq 'LATER' ) {
        $self->stop;
    }
    else {
        $self->_refuse( $error->in_words );
    }
    return;
}

1;
