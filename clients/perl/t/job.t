#!/usr/bin/perl

# Jobs against a real server.

use 5.016;
use strict;
use warnings;

use lib 't/lib';
use POSIX ();
use Test::More;

use TestServer;

use Headway ();

my $server = TestServer->start;
my $client = Headway->connect;

subtest 'A scope that is left by an exception' => sub {
    my $job = $client->create( name => 'Run' );
    ok !eval {
        $job->run( sub { die "the disk is full\n" } );
        1;
    }, 'the exception goes on';
    is $@, "the disk is full\n", 'unchanged';
    my $state = $client->get( $job->id );
    is_deeply [ $state->{status}, $state->{error} ],
        [ 'FAILED', { code => 'UNKNOWN', message => 'the disk is full' } ], 'FAILED';

    my $guarded = $client->create( name => 'Scope' );
    eval {
        my $scope = $guarded->scope;
        die "anything\n";
    };
    is $client->get( $guarded->id )->{status}, 'FAILED', 'a guard does the same';

    for my $leave ( '$job->run( sub { exit 4 } )', 'our $scope = $job->scope; exit 4' ) {
        my $program = 'my $job = Headway->connect->create; print $job->id; ' . $leave;
        open my $perl, q{-|}, $^X, ( map { "-I$_" } @INC ), '-MHeadway', '-we', $program or die "perl: $!\n";
        my $id = readline $perl;
        close $perl;
        is $? >> 8,                     4,        "$leave keeps the status";
        is $client->get($id)->{status}, 'FAILED', 'and ends the job';
    }
};

subtest 'What run gives back' => sub {
    {
        local ( $@, $! ) = ( 'mine', 7 );
        $client->create->fail('x');
        is_deeply [ $@, 0 + $! ], [ 'mine', 7 ], 'is not the fault of an end';
    }
    my $job  = $client->create;
    my @list = $job->run( sub { return ( 1, 2 ) } );
    is_deeply \@list, [ 1, 2 ], 'is what the work gave';
    is $client->get( $job->id )->{status}, 'COMPLETED', 'and the job is done';
};

subtest 'A cancellation request' => sub {
    my $job = $client->create;
    $client->cancel( $job->id, reason => 'wrong file' );
    ok $job->flush, 'the next report';
    $job->refresh if !$job->cancelled;
    ok !eval {
        $job->run( sub { $_[0]->die_if_cancelled } );
        1;
    }, 'brings it';
    is $@->reason,                         'wrong file', 'with its reason';
    is $client->get( $job->id )->{status}, 'CANCELLED',  'CANCELLED';
};

subtest 'A forked child reports a part of its own' => sub {
    my $job = $client->create( size => 10 );
    $job->advance(3);
    my $pid = fork // die "fork: $!\n";
    if ( !$pid ) {
        $job->advance(4);
        $client->close;
        POSIX::_exit(0);
    }
    waitpid $pid, 0;
    $job->finish;
    is_deeply $client->get( $job->id )->{parts}, { q{} => 3, "\@$pid" => 4 }, 'beside the parent';
};

done_testing;
