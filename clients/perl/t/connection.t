#!/usr/bin/perl

# The connection: kept alive, without a delay, and never waiting for a silent server.

use 5.016;
use strict;
use warnings;

use IO::Socket::INET ();
use POSIX            ();
use Socket           qw(IPPROTO_TCP TCP_NODELAY);
use Test::More;
use Time::HiRes qw(time);

use Headway         ();
use Headway::Http   ();
use Headway::Target ();

$ENV{HEADWAY_SPOOL} = q{};
delete @ENV{qw(HEADWAY_HTTP_TARGET HEADWAY_CA HEADWAY_TOKEN)};

my $server = IO::Socket::INET->new( Listen => 5, LocalAddr => '127.0.0.1', LocalPort => 0 ) or die "$!\n";
my $url    = 'http://127.0.0.1:' . $server->sockport;

# Answers one request on a connection.
sub answer {
    my ( $peer, $json ) = @_;
    my $request = q{};
    sysread $peer, $request, 65_536, length $request until $request =~ /\}\z/;
    syswrite $peer, "HTTP/1.1 200 OK\r\nContent-Length: " . length($json) . "\r\n\r\n$json";
    return $request;
}

subtest 'Calls share a connection that sends at once' => sub {
    my $http = Headway::Http->new( Headway::Target->new( target => $url, token => 'secret' ) );
    $http->begin( GetJob => { job_id => 1 }, 1 );
    my $peer    = $server->accept;
    my $request = answer( $peer, '{"a":1}' );
    like $request, qr{\APOST /headway[.]v1[.]JobService/GetJob HTTP/1[.]1\r\n}, 'the method';
    like $request, qr/^Authorization: Bearer secret\r$/m,                       'the token';
    ok $http->ready(1), 'there is an answer';
    is_deeply $http->answer(1), { a => 1 }, 'that can be read';
    ok unpack( 'I', getsockopt $http->{handle}{fh}, IPPROTO_TCP, TCP_NODELAY ), 'TCP_NODELAY is set';
    $http->begin( GetJob => { job_id => 2 }, 1 );
    answer( $peer, '{"a":2}' );
    ok $http->ready(1), 'the second comes over the same connection';
    is_deeply $http->answer(1), { a => 2 }, 'and is answered';
};

# A server in a forked child: for each connection, what it does with each request; `undef` closes it.
sub serve {
    my ( $connections, $work ) = @_;
    my $pid = fork // die "fork: $!\n";
    if ( !$pid ) {
        for my $answers ( @{$connections} ) {
            my $peer = $server->accept;
            for my $text ( @{$answers} ) {
                my $request = q{};
                sysread $peer, $request, 65_536, length $request until $request =~ /\}\z/;
                last if !defined $text;
                syswrite $peer, $text;
            }
        }
        POSIX::_exit(0);
    }
    $work->();
    kill KILL => $pid;
    waitpid $pid, 0;
    return;
}

sub http {
    my ( $status, $text ) = @_;
    return "HTTP/1.1 $status\r\nContent-Length: " . length($text) . "\r\n\r\n$text";
}

subtest 'A connection that is closed between two calls' => sub {
    my $job    = http( '200 OK', '{"id":"a","status":"JOB_STATUS_RUNNING"}' );
    my $chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{\"\r\n8\r\nid\":\"b\"}\r\n0\r\n\r\n";
    serve(
        [ [ $job, undef ], [$job], [$chunks] ],
        sub {
            my $client = Headway->connect( target => $url, session => 's', exit_timeout => 0 );
            is $client->get('a')->{id},                                                   'a', 'a call' for 1 .. 2;
            is eval { $client->_call( GetJob => Headway::Session->new('s'), {} )->{id} }, 'b', 'the next, in chunks';
        }
    );
};

subtest 'What is no Headway server' => sub {
    serve(
        [ [ http( '502 Bad Gateway', '<html>' ) ], [undef] ],
        sub {
            my $client = Headway->connect( target => $url, session => 's', exit_timeout => 0 );
            ok !eval { $client->get('a'); 1 }, 'a proxy';
            is $@, "UNKNOWN: HTTP status 502\n", 'says what it says';
            $client = Headway->connect( target => $url, session => 's', exit_timeout => 0 );
            ok !eval { $client->get('a'); 1 }, 'the port of gRPC';
            like $@, qr/HTTP port.*HEADWAY_HTTP_TARGET/, 'is suspected';
        }
    );
};

subtest 'A request that the server cannot read' => sub {
    my $refusal = http(
        '400 Bad Request',
        '{"code":"invalid_argument","message":"no","details":[{"type":"google.rpc.ErrorInfo",'
            . '"debug":{"reason":"MALFORMED_MESSAGE","domain":"headway"}}]}'
    );
    serve(
        [ [$refusal], [$refusal] ],
        sub {
            my $client = Headway->connect( target => $url, session => 's', exit_timeout => 0 );
            local $SIG{__WARN__} = sub { };
            ok !eval { $client->create; 1 }, 'is refused';
            is $@->reason, 'MALFORMED_MESSAGE', 'at the second try';
        }
    );
};

subtest 'A server that is silent costs a worker nothing' => sub {
    my $client = Headway->connect( target => $url, session => 's', exit_timeout => 0.1 );
    my $before = time;
    my $job    = $client->create( name => 'silent' );
    cmp_ok time - $before, '<', 3, 'create waits a second';
    $before = time;
    $job->advance for 1 .. 50_000;
    cmp_ok time - $before, '<', 3, 'an update does not wait';
    my $alarm;
    {
        local $SIG{ALRM} = sub { $alarm = 'the alarm of the worker' };
        local $@ = 'the error of the worker';
        $job->advance;
        is $@, 'the error of the worker', 'and leaves $@ alone';
    }
    local $SIG{__WARN__} = sub { };
    $client->close;
};

subtest 'An alarm in a wait is the worker\'s' => sub {
    my $client = Headway->connect( target => $url, session => 's', exit_timeout => 0 );
    my $done   = eval {
        local $SIG{ALRM} = sub { die "alarm\n" };
        alarm 1;
        $client->get('x');
        1;
    };
    is $@, "alarm\n", 'it is not lost';
};

subtest 'Targets' => sub {
    local $ENV{HEADWAY_TARGET} = 'one:1';
    is( Headway::Target->new->url, 'http://one:1', 'host:port is http' );
    local $ENV{HEADWAY_HTTP_TARGET} = 'http://two:2/';
    is( Headway::Target->new->url,                                 'http://two:2', 'HEADWAY_HTTP_TARGET goes before' );
    is( Headway::Target->new( target => 'http://[::1]:80' )->peer, '::1',          'IPv6' );
    ok !eval { Headway::Target->new( target => $_ ); 1 }, "not $_" for qw(one http://one ftp://one:1 one:70000 one:1/x);
};

done_testing;
