#!/usr/bin/perl

# The methods that a worker calls, without a server.

use 5.016;
use strict;
use warnings;

use Test::More;

use Headway::Backlog  ();
use Headway::JobState ();
use Headway::Error    ();
use Headway::Meter    ();
use Headway::Reporter ();

# An engine that has all jobs, and does nothing.
sub OneEngine::new   { return bless { due => 9**9**9 }, shift }
sub OneEngine::has   { return 1 }
sub OneEngine::clock { return \$_[0]{due} }

sub texts {
    my ($sample) = @_;
    return map { $_->{record} } @{ $sample->{errors} };
}

subtest 'Of many record errors those at either end keep their texts' => sub {
    my $meter = Headway::Meter->new( q{}, 0 );
    $meter->record_error($_) for 1 .. 2_500;
    my @sent;
    my $sample;
    do { $sample = $meter->sample(1_000_000); push @sent, texts($sample) } while $sample->{more};
    is scalar @sent, 2_500, 'all are counted';
    is_deeply [ @sent[ 0, 499, 500, 1_999, 2_000, 2_499 ] ], [ 1, 500, q{?}, q{?}, 2_001, 2_500 ], 'which are named';
};

subtest 'What is no amount is passed over' => sub {
    my $meter = Headway::Meter->new( q{}, 0 );
    my $inf   = 9**9**9;
    $meter->progress(4);
    for my $strange ( $inf, -$inf, $inf - $inf ) {
        $meter->advance($strange);
        $meter->progress($strange);
        $meter->count( 'added', $strange );
    }
    $meter->advance($_) for 0.5, 0.5;
    $meter->count('added');
    my $sample = $meter->sample(1_000);
    is $sample->{progress}, 5, 'the progress';
    is_deeply $sample->{counters}, { added => 1 }, 'the counters';
};

subtest 'A checkpoint goes with its moment' => sub {
    my $meter = Headway::Meter->new( q{}, 0 );
    $meter->advance(3);
    $meter->record_error('a');
    $meter->checkpoint( { at => 3 } );
    $meter->advance(4);
    $meter->record_error('b');
    my $first = $meter->sample(1_000);
    is $first->{progress}, 3, 'the progress of then';
    is_deeply [ texts($first) ], ['a'], 'the errors of then';
    is_deeply $first->{variables}, { at => 3 }, 'the variables';
    my $second = $meter->sample(1_000);
    is $second->{progress}, 7, 'the rest follows';
    is_deeply [ texts($second) ], ['b'], 'its errors too';
};

subtest 'A report stays the same until it is settled' => sub {
    my $meter    = Headway::Meter->new( q{}, 0 );
    my $reporter = Headway::Reporter->new($meter);
    my $about    = { job_id => 'x' };
    is $reporter->report( $about, 1 ), undef, 'nothing to say';
    $meter->advance(2);
    $meter->count( added => 2 );
    my %first = %{ $reporter->report( $about, 1 ) };
    $meter->advance(1);
    $meter->count('added');
    is_deeply $reporter->report( $about, 1 ), \%first, 'the same again';
    $reporter->settle;
    my $second = $reporter->report( $about, 1 );
    is $second->{progress}, 3, 'then what came since';
    is_deeply $second->{counters}, { added => 1 }, 'counters as differences';
    cmp_ok $second->{sequence}, '>', $first{sequence}, 'under a greater number';
};

subtest 'An end waits for what was said while a report was under way' => sub {
    my $job_state = Headway::JobState->new( job => { id => 'x', status => 'RUNNING' }, engine => OneEngine->new );
    my $meter     = $job_state->part(q{});
    my $end       = { method => 'FinishJob', request => {}, after_reports => 1 };
    $meter->advance(1);
    my ( $report, $reporter ) = $job_state->next_report(0);
    $meter->count('added');
    $job_state->add_call($end);
    my %counters;

    for ( 1 .. 5 ) {
        $reporter->settle if $reporter;
        last              if !$end->{after_reports};
        ( $report, $reporter ) = $job_state->next_report(0);
        %counters = ( %counters, %{ $report->{counters} || {} } ) if $report;
    }
    is_deeply \%counters, { added => 1 }, 'so it is sent';
    is $job_state->next_pending, $end, 'before it';
};

subtest 'What is refused loses only what is at fault' => sub {
    my $meter    = Headway::Meter->new( q{}, 0 );
    my $reporter = Headway::Reporter->new($meter);
    $meter->advance(2);
    $meter->count($_) for qw(a b);
    $meter->set( { x => 1 } );
    my $report = $reporter->report( {}, 1 );
    my $kept   = sub {
        my @fields = @_;
        $reporter->refused(
            Headway::Error->new( code => 'INVALID_ARGUMENT', fields => [ map { [ $_, q{} ] } @fields ] ) );
        return join q{ }, sort( keys %{ $report->{counters} || {} } ),
            grep { exists $report->{$_} } qw(progress variables);
    };
    is $kept->('counters[a]'), 'b progress variables', 'a counter';
    is $kept->('counters'),    'progress variables',   'all counters';
    is $kept->(),              'progress',             'the variables';
    $kept->('part');
    is $reporter->report( {}, 1 ), undef, 'or all of it';
};

subtest 'An item is counted when the next is asked for' => sub {
    my $meter = Headway::Meter->new( q{}, 0 );
    my $next  = $meter->track( [ undef, 0, 'c' ] );
    my @seen;
    while ( my ($item) = $next->() ) {
        push @seen, $item;
        last if @seen == 2;
    }
    is $meter->progress, 1, 'not the one in which the loop is left';
    my @rest = $next->();
    is $meter->progress, 2, 'but it is, once the loop goes on';
    is_deeply [ $next->() ], [], 'the end is the empty list';
    my @from = ( 1, 2 );
    my $lazy = $meter->track( sub { shift @from } );
    1 while defined $lazy->();
    is $meter->progress, 5, 'a sub is a source too';
};

subtest 'An answer does not undo what was set meanwhile' => sub {
    my %job       = ( id => 'x', status => 'RUNNING', name => 'Before', invoker => 'alice' );
    my $job_state = Headway::JobState->new( job => {%job} );
    my @calls     = map { { method => 'UpdateJob', request => { job => $_, update_mask => ( keys %{$_} )[0] } } }
        { name => 'After' }, { invoker => 'bob' };
    $job_state->add_call($_) for @calls;
    $job_state->answered( $calls[0], { %job, name => 'After' } );
    is $job_state->{job}{invoker}, 'bob', 'but is not sent yet';
    $job_state->answered( $calls[1], { %job, invoker => 'carol' } );
    is $job_state->{job}{invoker}, 'carol', 'the last answer counts';
};

subtest 'Sequences go on above those of a later clock' => sub {
    my $meter    = Headway::Meter->new( q{}, 0 );
    my $reporter = Headway::Reporter->new( $meter, 0, 0 );

    # In nanoseconds, as another worker may count.
    $reporter->number_above($_) for 4_071_006_245_678_901_233, 0, 9_223_372_036_854_775_807;
    $meter->advance(1);
    is $reporter->report( {}, 1 )->{sequence}, '4071006245678901234', 'above what the server has applied';
};

done_testing;
