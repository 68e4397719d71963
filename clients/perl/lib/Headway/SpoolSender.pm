package Headway::SpoolSender;

# Sends the spool files for one server, or of one job there, one call after the other. If the server does not answer,
# the rest stays for a later process.

use 5.016;
use strict;
use warnings;

use Headway::Reporter ();
use Headway::Spool    ();

sub new {
    my ( $class, $target, $job_id ) = @_;
    my @paths = Headway::Spool::waiting_files( $target, $job_id );
    return
        bless { paths => \@paths, file => undef, calls => [], sent => 0, refused => 0, waiting => 0, ended => undef },
        $class;
}

sub over {
    my ($self) = @_;
    return !$self->{file} && !@{ $self->{paths} };
}

sub counts {
    my ($self) = @_;
    return { map { $_ => $self->{$_} } qw(sent refused waiting) };
}

# The server does not answer.
sub stop {
    my ($self) = @_;
    $self->{waiting} += @{ $self->{paths} } + ( $self->{file} ? 1 : 0 );
    $self->{file}->release if $self->{file};
    $self->{file} = undef;
    @{ $self->{paths} } = ();
    return;
}

# The next call: its method and request.
sub next_call {
    my ($self) = @_;
    while (1) {
        if ( !$self->{file} ) {
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
            $self->{file}->remove;
            $self->{file} = undef;
            $self->{sent}++;
        }
    }
}

sub _open {
    my ( $self, $path ) = @_;
    my $file = Headway::Spool::File->claim($path);
    if ( !$file ) {
        $self->{waiting}++ if -e $path;
        return;
    }
    @{$self}{qw(file ended)} = ( $file, undef );
    my $content = eval { $file->content };
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
    my $path = $self->{file}->refuse;
    $self->{file} = undef;
    $self->{refused}++;
    warn "headway: the server refused what an earlier process left for a job, see $path: $why\n";
    return;
}

# Receives the result of that call, if the server answered.
sub answered {
    my ( $self,   $error )   = @_;
    my ( $method, $request ) = @{ $self->{calls}[0] };
    my $ends = $method =~ /\AF/;
    if ( !$error ) {
        shift @{ $self->{calls} };
        $self->{ended} = undef if $ends;
        return;
    }
    my $policy = $error->error_policy;

    # If the end arrived and only its answer was lost, everything before it arrived too. Repeating the end tells.
    if ( !$ends && $error->reason eq 'JOB_ENDED' ) {
        $self->{ended} = $error->log_text;
        shift @{ $self->{calls} };
    }
    elsif ( $policy eq 'DROP' && $method eq 'ReportProgress' ) {

        # A refused part of a job must not hold back the rest.
        shift @{ $self->{calls} } if !Headway::Reporter::lighten( $request, $error );
    }
    elsif ( $policy eq 'DROP' && $method eq 'FinishJob' && exists $request->{results} ) {
        delete $request->{results};
    }
    elsif ( $policy eq 'DROP' && ( $method eq 'UpdateJob' || $method eq 'SetVariables' ) ) {
        shift @{ $self->{calls} };
    }
    elsif ( $policy eq 'RETRY' ) {
        $self->stop;
    }
    else {
        $self->_refuse( $error->log_text );
    }
    return;
}

1;
