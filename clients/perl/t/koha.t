#!/usr/bin/perl

# The interface of C4::BackgroundJob, used as its documentation shows it.

use 5.016;
use strict;
use warnings;

use lib 't/lib';
use Carp     ();
use JSON::PP ();
use POSIX    ();
use Test::More;
use Time::HiRes ();

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
        close STDIN;
        close STDOUT;
        close STDERR;
        $job->progress(1);

        # The output of a command must not get into the connection.
        system 'echo noise; echo noise >&2';
        $job->progress($_) for 2 .. 3;
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

subtest 'Numbers stay numbers' => sub {
    my $job = C4::BackgroundJob->new($sessionID);
    my ( $count, $text ) = ( 5, '5' );
    my $printed = "$count of $text";
    $job->set( { count => $count, text => $text, half => 0.5, exact => 0.1 + 0.2, large => 2**53 + 2 } );
    $job->progress($count);
    my $asked = fetched($job);
    is( JSON::PP->new->encode( [ $asked->progress, map { $asked->get($_) } qw(count text half) ] ),
        '[5,5,"5",0.5]', 'also those that were printed, and text stays text' );
    ok $asked->get('exact') == 0.1 + 0.2, 'to the last digit';
    ok $asked->get('large') == 2**53 + 2, 'also where JSON has no word for them';
};

subtest 'A name hides no later one' => sub {
    my $job = C4::BackgroundJob->new( $sessionID, 'A' );
    for my $given ( q{}, undef, 'B' x 300, 'B' x 256 ) {
        $job->name($given);
        is fetched($job)->name, $given, 'name of ' . length( $given // q{} );
    }
};

subtest 'Nothing but the documented methods' => sub {
    my @methods = qw(clear fetch finish get id invoker name new progress results set size status);
    is_deeply [ sort grep { !/\A_/ && C4::BackgroundJob->can($_) } keys %C4::BackgroundJob:: ], \@methods,
        'can be called';
};

subtest 'No session in a stack trace' => sub {
    my $traces = q{};
    local $SIG{__WARN__}       = sub { $traces .= Carp::longmess(@_) };
    local $SIG{__DIE__}        = sub { $traces .= Carp::longmess(@_) };
    local $ENV{HEADWAY_TARGET} = '127.0.0.1:1';
    local $ENV{HEADWAY_SPOOL}  = q{};
    my $job = C4::BackgroundJob->new( 'the secret', 'Traced' );
    C4::BackgroundJob->fetch( 'the secret', '123456' );
    eval { $job->set('no hash') };
    C4::BackgroundJob::_client()->close;
    like $traces,   qr/does not answer.*called at/s, 'there are traces';
    unlike $traces, qr/the secret/,                  'without it';
};

subtest 'A signal in the midst of it' => sub {
    my $job = C4::BackgroundJob->new($sessionID);
    my %faults;
    for ( 1 .. 50 ) {
        local $SIG{ALRM} = sub { die "alarm\n" };
        eval {
            Time::HiRes::setitimer( Time::HiRes::ITIMER_REAL(), 0.0005 + rand 0.003 );
            $job->progress($_) for 1 .. 100_000;
        };
        $faults{$@}++;
    }
    is_deeply \%faults, { "alarm\n" => 50 }, 'dies in the caller, and nothing else does';
    $job->progress(7);
    is fetched($job)->progress, 7, 'and it goes on';

    my $pid = fork // die "fork: $!\n";
    if ( !$pid ) {
        local $SIG{ALRM} = sub { exit 3 };
        Time::HiRes::setitimer( Time::HiRes::ITIMER_REAL(), 0.02 );
        $job->progress($_) for 1 .. 100_000;
        POSIX::_exit(0);
    }
    waitpid $pid, 0;
    is $? >> 8, 3, 'an exit keeps its status';
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
    my @warnings;
    local $SIG{__WARN__} = sub { push @warnings, @_ };
    is $asked->get(undef), 'empty', 'the empty key can be undef';
    is_deeply \@warnings, [], 'without a warning';
    $job->set( bless { blessed => 1 }, 'Values' );
    is fetched($job)->get('blessed'), 1, 'from an object too';
    is_deeply [ $asked->name, $asked->progress ], [ 'Name', 0 ], 'beside the fields';
};

subtest 'Where the variables have no more room' => sub {
    my $job = C4::BackgroundJob->new( $sessionID, 'Full', 'me', 4 );
    my @warnings;
    local $SIG{__WARN__} = sub { push @warnings, @_ };
    $job->set( { map { $_ => 1 } 1 .. 256 } );
    $job->progress(3);
    is fetched($job)->progress, 3, 'the progress still moves';
    $job->set( { 257 => 1 } );
    my $asked = fetched($job);
    is_deeply [ map { $asked->get($_) } 256, 257 ], [ 1, undef ], 'a value is refused';
    is scalar @warnings, 1, 'with a warning';
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

subtest 'What an old caller sees of other ends' => sub {
    my $client = Headway->connect( session => $sessionID );
    my %jobs   = map { $_ => $client->create( name => $_, heartbeat_timeout => 1 ) } qw(FAILED CANCELLED);
    $jobs{FAILED}->fail('the disk is full');
    $jobs{CANCELLED}->fail( 'not wanted', 'CANCELLED' );
    for my $status ( sort keys %jobs ) {
        my $asked = C4::BackgroundJob->fetch( $sessionID, $jobs{$status}->id );
        is $asked->status,               'completed', "$status is completed";
        is $asked->results->{num_added}, undef,       'results can be looked into';
        is $asked->results->{status},    $status,     'and say what it is';
        $asked->progress(3);
        $asked->finish( { num_added => 3 } );
        is_deeply fetched($asked)->results, { num_added => 3 }, 'until it is finished here';
    }
    $client->close;
};

subtest 'Foreign, unknown and cleared jobs' => sub {
    my ( $one, $other ) = map { C4::BackgroundJob->new($sessionID) } 1, 2;
    my $heard = 0;
    local $SIG{__DIE__} = sub { $heard++ };
    is( C4::BackgroundJob->fetch( 'another',  $one->id ), undef, 'another session' );
    is( C4::BackgroundJob->fetch( $sessionID, '123456' ), undef, 'another kind of id' );
    $one->clear;
    is fetched($one), undef, 'cleared';
    ok fetched($other), 'this one alone';
    is $other->{sessionID}, $sessionID, 'the session can be read';
    is $heard,              0,          'the handler of exceptions hears nothing of it';
};

subtest 'An unreachable server' => sub {
    plan skip_all => 'the server must be one that can be stopped' if !$server->own;
    my ( $job, $other, $gone ) = map { C4::BackgroundJob->new( $sessionID, $_, 'me', 4 ) } qw(Away Other Gone);
    my $address = $ENV{HEADWAY_TARGET} =~ s{.*/}{}r;
    my @warnings;
    local $SIG{__WARN__} = sub { push @warnings, @_ };
    $server->stop;
    {
        local ( $@, $! ) = ( 'mine', 7 );
        $job->progress($_) for 1 .. 3;
        is_deeply [ $@, 0 + $! ], [ 'mine', 7 ], 'a setter leaves $@ and $! alone';
    }
    $job->set( { a => $_, "b$_" => $_ } ) for 1 .. 3;
    for ( 1 .. 2_000 ) {
        $other->progress($_);
        $other->set( { n => $_ } );
    }
    $job->size(9);
    $job->progress(3);
    $job->set( { a => 1 } );
    {
        local $SIG{__WARN__} = sub { push @warnings, @_; die @_ };
        $gone->clear;
        is fetched($gone), undef, 'a program whose warnings are fatal goes on';
    }
    is fetched($job)->progress, 3,       'what was said is kept';
    is fetched($other)->name,   'Other', 'and what was known';
    is fetched($gone),          undef,   'also that it is cleared';
    is( C4::BackgroundJob->fetch( $sessionID, '123456' ), undef, 'who is not known is not there' );
    is scalar @warnings, 1, 'one warning';
    $server->run($address);
    my $asked = fetched($job);
    is_deeply [ $asked->progress, $asked->size, map { $asked->get($_) } qw(a b1 b3) ], [ 3, 9, 1, 1, 3 ],
        'what was said is sent, in order';
    is_deeply [ fetched($other)->progress, fetched($other)->get('n') ], [ 2_000, 2_000 ], 'the last of it';
    is fetched($gone), undef, 'all of it';
    like $warnings[1], qr/answers again/, 'which is told';
};

done_testing;
