package Headway::Outcome;

# The half of the engine that knows what an answer means for whoever sent the call: a job's report or step, or a letter.

use 5.016;
use strict;
use warnings;

use Headway::Error ();
use Headway::Ids   qw(chance now);
use Headway::Json  qw(job_state seconds);

# Seconds between two reports, whatever the server asks for.
my ( $QUICKEST, $SLOWEST ) = ( 0.01, 30.0 );

sub _reported {
    my ( $self, $course, $reporter, $answer, $error ) = @_;
    if ($error) {
        my $verdict = $error->verdict;
        return $self->_outage( $error, 0 ) if $verdict eq 'AWAY';
        if    ( $verdict eq 'GONE' )  { $self->_stop( $course, $error ) }
        elsif ( $verdict eq 'LATER' ) { $self->_later( $course, $error ) }
        elsif ($reporter) {
            $self->_notice( 'a report of job %s was refused: %s', $course, $error );
            $reporter->refused($error);
        }
        else {
            # Nothing in a heartbeat could be put right.
            $self->_stop( $course, $error );
        }
    }
    else {
        $self->_heard;
        $reporter->settle if $reporter;
        my $pace = seconds( $answer->{nextReportAfter} ) || $self->{pace};
        $self->{pace} = $pace < $QUICKEST ? $QUICKEST : $pace > $SLOWEST ? $SLOWEST : $pace;
        my $wish = $answer->{cancellation};
        $course->cancel($wish) if $wish && $wish->{requested};
    }
    my $turn = now() + $self->_turn_of($course);
    $course->{beat_at} = $turn if $course->{beat_at} > $turn;
    $course->{due}     = $course->urgent ? 0 : $turn;
    return;
}

sub _stepped {
    my ( $self, $course, $step, $answer, $error ) = @_;
    if ( !$error ) {
        my $job = $step->{method} =~ /\A(?:ReportProgress|ClearJob)\z/ ? undef : job_state($answer);
        return $self->_outage( Headway::Error->new( message => 'an answer to something else' ), 0 )
            if $job && $job->{id} ne $course->id;
        $self->_heard;
        $course->answered( $step, $job );
        @{$course}{qw(due beat_at)} = ( 0, now() + $self->_turn_of($course) );
        return;
    }
    my $verdict = $error->verdict;
    if ( $verdict eq 'LATER' ) {
        $self->_later( $course, $error );
        $step->{tried} = 1;
    }
    elsif ( $verdict ne 'AWAY' || $error->keeps_out && $step->{method} eq 'CreateJob' ) {
        $self->_declined( $course, $step, $error );
    }
    else {
        $self->_outage( $error, 0 );
    }
    return;
}

sub _declined {
    my ( $self, $course, $step, $error ) = @_;
    my ( $method, $request ) = @{$step}{qw(method request)};
    if ( $step->{instead} ) {
        my $instead = $step->{instead}->($error);
        $step->{error} = $error;
        $course->answered($step);
        unshift @{ $course->{steps} }, $instead if $instead;
    }
    elsif ( $method eq 'FinishJob' && exists $request->{results} && $error->code eq 'INVALID_ARGUMENT' ) {
        $self->_notice( 'the results of job %s were refused, so it ends without: %s', $course, $error );
        delete $request->{results};
    }
    elsif ( $method eq 'UpdateJob' && $error->verdict ne 'GONE' ) {
        $self->_notice( 'a change of job %s was refused: %s', $course, $error );
        $course->answered($step);
    }
    else {
        $self->_stop( $course, $error );
    }
    return;
}

sub _posted {
    my ( $self, $postman, $answer, $error ) = @_;
    return $self->_outage( $error, 0 ) if $error && $error->verdict eq 'AWAY';
    $self->{contact}->heard;
    $postman->answered($error);
    return;
}

sub _stop {
    my ( $self, $course, $error ) = @_;
    return if $course->{over};
    $self->_notice( 'job %s is no longer reported: %s', $course, $error );
    $course->stop($error);
    return;
}

sub _later {
    my ( $self, $course, $error ) = @_;
    $self->_notice( 'job %s has to wait: %s', $course, $error ) if !$course->{retry_at};
    my $pause = $error->retry_after // 1.0;
    $pause = $pause < 0.1 ? 0.1 : $pause > 60 ? 60 : $pause;
    $course->{retry_at} = now() + $pause * chance( 1.0, 1.2 );
    return;
}

sub _notice {
    my ( $self, $text, $course, $error ) = @_;
    $self->{contact}->notice( sprintf $text, $course->id, $error->in_words );
    return;
}

1;
