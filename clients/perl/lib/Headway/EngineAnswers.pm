package Headway::EngineAnswers;

# The part of the engine that handles answers: to a job's report or call, and to a call from a spool file.

use 5.016;
use strict;
use warnings;

use Headway::Error ();
use Headway::Ids   qw(chance now);
use Headway::Json  qw(job_state seconds);

# The limits (s) of the report interval, whatever the server asks for.
my ( $MIN_REPORT_INTERVAL, $MAX_REPORT_INTERVAL ) = ( 0.01, 30.0 );

sub _reported {
    my ( $self, $job_state, $reporter, $answer, $error ) = @_;
    if ($error) {
        my $policy = $error->error_policy;
        return $self->_outage( $error, 0 ) if $policy eq 'RECONNECT';
        if    ( $policy eq 'STOP' )  { $self->_stop( $job_state, $error ) }
        elsif ( $policy eq 'RETRY' ) { $self->_retry_later( $job_state, $error ) }
        elsif ($reporter) {
            $self->_warn( 'a report of job %s was refused: %s', $job_state, $error );
            $reporter->refused($error);
        }
        else {
            # A heartbeat has nothing that could be left out.
            $self->_stop( $job_state, $error );
        }
    }
    else {
        $self->_heard;
        $reporter->settle if $reporter;
        my $interval = seconds( $answer->{nextReportAfter} ) || $self->{report_interval};
        $self->{report_interval} =
              $interval < $MIN_REPORT_INTERVAL ? $MIN_REPORT_INTERVAL
            : $interval > $MAX_REPORT_INTERVAL ? $MAX_REPORT_INTERVAL
            :                                    $interval;
        my $cancellation = $answer->{cancellation};
        $job_state->cancel($cancellation) if $cancellation && $cancellation->{requested};
    }
    my $turn = now() + $self->_turn_of($job_state);
    $job_state->{beat_at} = $turn if $job_state->{beat_at} > $turn;
    $job_state->{due}     = $job_state->urgent ? 0 : $turn;
    return;
}

sub _called {
    my ( $self, $job_state, $pending, $answer, $error ) = @_;
    if ( !$error ) {
        my $job = $pending->{method} =~ /\A(?:ReportProgress|ClearJob)\z/ ? undef : job_state($answer);
        return $self->_outage( Headway::Error->new( message => 'an answer to something else' ), 0 )
            if $job && $job->{id} ne $job_state->id;
        $self->_heard;
        $job_state->answered( $pending, $job );
        @{$job_state}{qw(due beat_at)} = ( 0, now() + $self->_turn_of($job_state) );
        return;
    }
    my $policy = $error->error_policy;
    if ( $policy eq 'RETRY' ) {
        $self->_retry_later( $job_state, $error );
        $pending->{tried} = 1;
    }
    elsif ( $policy ne 'RECONNECT' || $error->denies_access && $pending->{method} eq 'CreateJob' ) {
        $self->_declined( $job_state, $pending, $error );
    }
    else {
        $self->_outage( $error, 0 );
    }
    return;
}

sub _declined {
    my ( $self, $job_state, $pending, $error ) = @_;
    my ( $method, $request ) = @{$pending}{qw(method request)};
    if ( $pending->{instead} ) {
        my $instead = $pending->{instead}->($error);
        $pending->{error} = $error;
        $job_state->answered($pending);
        unshift @{ $job_state->{pending} }, $instead if $instead;
    }
    elsif ( $method eq 'FinishJob' && exists $request->{results} && $error->code eq 'INVALID_ARGUMENT' ) {
        $self->_warn( 'the results of job %s were refused, so it ends without: %s', $job_state, $error );
        delete $request->{results};
    }
    elsif ( $method eq 'UpdateJob' && $error->error_policy ne 'STOP' ) {
        $self->_warn( 'a change of job %s was refused: %s', $job_state, $error );
        $job_state->answered($pending);
    }
    else {
        $self->_stop( $job_state, $error );
    }
    return;
}

sub _spool_answered {
    my ( $self, $spool_sender, $answer, $error ) = @_;
    return $self->_outage( $error, 0 ) if $error && $error->error_policy eq 'RECONNECT';
    $self->{connection_state}->reached;
    $spool_sender->answered($error);
    return;
}

sub _stop {
    my ( $self, $job_state, $error ) = @_;
    return if $job_state->{over};
    $self->_warn( 'job %s is no longer reported: %s', $job_state, $error );
    $job_state->stop($error);
    return;
}

sub _retry_later {
    my ( $self, $job_state, $error ) = @_;
    $self->_warn( 'job %s has to wait: %s', $job_state, $error ) if !$job_state->{retry_at};
    my $pause = $error->retry_after // 1.0;
    $pause = $pause < 0.1 ? 0.1 : $pause > 60 ? 60 : $pause;
    $job_state->{retry_at} = now() + $pause * chance( 1.0, 1.2 );
    return;
}

sub _warn {
    my ( $self, $text, $job_state, $error ) = @_;
    $self->{connection_state}->warn_user( sprintf $text, $job_state->id, $error->log_text );
    return;
}

1;
