#!/usr/bin/perl

# The interface of C4::BackgroundJob, used as its documentation shows it.

use 5.016;
use strict;
use warnings;

use lib 't/lib';
use POSIX ();
use Test::More;

use TestServer;

use C4::BackgroundJob ();

my $server    = TestServer->start;
my $sessionID = "koha-$$";

sub fetched {
    my ($job) = @_;
    return C4::BackgroundJob->fetch( $sessionID, $job->id );
}

subtest 'The parent forks, the child works, and somebody asks' => sub {
    my $job   = C4::BackgroundJob->new( $sessionID, 'Stage', 'batch.pl', 3 );
    my $jobID = $job->id;
    if ( my $pid = fork ) {
        waitpid $pid, 0;
    }
    elsif ( defined $pid ) {
        close STDOUT;
        close STDERR;
        $job->progress($_) for 1 .. 3;
        $job->finish( { num_added => 3 } );
        POSIX::_exit(0);
    }
    my $asked = C4::BackgroundJob->fetch( $sessionID, $jobID );
    is_deeply [ $asked->status, $asked->progress, $asked->size ], [ 'completed', 3, 3 ], 'what the child said';
    is_deeply $asked->results, { num_added => 3 }, 'and its results';
    is $job->progress, 0, 'an object is a snapshot';
};

subtest 'Anything comes back as it was given' => sub {
    my $job = C4::BackgroundJob->new($sessionID);
    is_deeply [ map { fetched($job)->$_ } qw(name invoker size progress status results) ],
        [ undef, undef, undef, 0, 'running', undef ], 'a session is enough';
    for my $given ( 0, 7, 2.5, '12', 'half way', undef, 3 ) {
        $job->progress($given);
        is fetched($job)->progress, $given, 'progress ' . ( $given // 'undef' );
    }
    for my $given ( 5, undef, 0 ) {
        $job->size($given);
        is fetched($job)->size, $given, 'size ' . ( $given // 'undef' );
    }
    for my $given ( 'A', undef, 0, 'B' x 300 ) {
        $job->name($given);
        is fetched($job)->name, $given, 'name ' . ( $given // 'undef' );
    }
};

subtest 'Values touch no field' => sub {
    my $job    = C4::BackgroundJob->new( $sessionID, 'Name', 'me', 4 );
    my %values = (
        progress                     => 'p',
        name                         => 'n',
        'C4::BackgroundJob.progress' => 9,
        q{}                          => 'empty',
        deep                         => { a => [ 1, '1' ] }
    );
    $job->set( \%values );
    $job->set( { more => 0 } );
    my $asked = fetched($job);
    is_deeply {
        map { $_ => $asked->get($_) } keys %values
    }, \%values, 'they are there';
    is $asked->get('more'),    0,     'merged';
    is $asked->get('unknown'), undef, 'or not';
    is_deeply [ $asked->name, $asked->progress ], [ 'Name', 0 ], 'beside the fields';
};

subtest 'The last results count' => sub {
    my $job = C4::BackgroundJob->new($sessionID);
    $job->finish('first');
    $job->finish( ['second'] );
    $job->progress(5);
    my $asked = fetched($job);
    is_deeply [ $asked->status, $asked->results, $asked->progress ], [ 'completed', ['second'], 5 ],
        'also after the end';
};

subtest 'Foreign, unknown and cleared jobs' => sub {
    my ( $one, $other ) = map { C4::BackgroundJob->new($sessionID) } 1, 2;
    is( C4::BackgroundJob->fetch( 'another',  $one->id ), undef, 'another session' );
    is( C4::BackgroundJob->fetch( $sessionID, '123456' ), undef, 'another kind of id' );
    $one->clear;
    is fetched($one), undef, 'cleared';
    ok fetched($other), 'this one alone';
    is $other->{sessionID}, $sessionID, 'the session can be read';
};

subtest 'A server that is away' => sub {
    plan skip_all => 'the server must be one that can be stopped' if !$server->own;
    my $job     = C4::BackgroundJob->new( $sessionID, 'Away', 'me', 4 );
    my $address = $ENV{HEADWAY_TARGET} =~ s{.*/}{}r;
    my @warnings;
    local $SIG{__WARN__} = sub { push @warnings, @_ };
    $server->stop;
    $job->progress($_) for 1 .. 3;
    $job->set( { a => 1 } );
    is scalar @warnings,        1, 'one warning';
    is fetched($job)->progress, 3, 'what was said is kept';
    $server->run($address);

    # The pause between two tries.
    my $end = time + 20;
    $job->progress(4) until time > $end || grep { /answers again/ } @warnings;
    my $asked = fetched($job);
    is_deeply [ $asked->progress, $asked->get('a') ], [ 4, 1 ], 'and sent, in order';
};

done_testing;
