#!/usr/bin/perl

# Values for the server and back, and errors.

use 5.016;
use strict;
use warnings;

use Test::More;

use Headway::Error ();
use Headway::Json  qw(clean decode encode perlish plain seconds span);

is encode( plain( [ 1, '1', 1.5, 3.0, undef, \1, \0 ] ) ), '[1,"1",1.5,3,null,true,false]',
    'numbers and texts stay what they are';
is encode( plain( [ 9_007_199_254_740_993, 2**53 + 2, -1e16, 9**9**9 ] ) ),
    '["9007199254740993","9007199254740994","-10000000000000000","Inf"]',
    'what is no JSON number becomes text';
like encode( plain( { a => sub { }, b => Headway::Error->new( message => 'x' ) } ) ), qr/CODE.*UNKNOWN: x/,
    'so does an object';
is encode( plain( [ 0.1 + 0.2, 1 / 3, 1e300, 2**53 ] ) ),
    '[0.30000000000000004,0.3333333333333333,1e+300,9007199254740992]',
    'with all their digits';
my ( $number, $text ) = ( 5, '5' );
my $used = "$number" . ( $text + 1 );
is encode( plain( [ $number, $text ] ) ), '[5,"5"]',             'whatever was done with them';
is clean("a\0b\x{110000}c"),              "a\x{FFFD}b\x{FFFD}c", 'no character that the server does not take';
is clean( 'abc', 2 ),                     'ab',                  'no more than it takes';
is encode( perlish( decode('[9007199254740992.0, 5.0, "5"]') ) ), '[9007199254740992,5,"5"]', 'whole numbers are whole';
is_deeply [ map { span($_) } 60, 0.5, 100 ], [qw(60s 0.5s 100s)], 'spans';
is seconds('0.250s'), 0.25, 'and back';
my $loop = {};
$loop->{self} = $loop;
ok encode( plain($loop) ), 'data without an end has one';
delete $loop->{self};

my $told = {
    code    => 'resource_exhausted',
    message => "Wait.\nA little.",
    details => [
        { type => 'google.rpc.ErrorInfo', debug => { reason     => 'OVERLOADED', domain => 'headway' } },
        { type => 'google.rpc.RetryInfo', debug => { retryDelay => '1.500s' } },
    ],
};
my $error = Headway::Error->from_response( 429, $told );
is_deeply [ map { $error->$_ } qw(code reason retry_after error_policy) ],
    [qw(RESOURCE_EXHAUSTED OVERLOADED 1.5 RETRY)],
    'an error';
is "$error", "RESOURCE_EXHAUSTED: Wait. A little.\n", 'in one line';
is( Headway::Error->from_response( 404, undef )->error_policy, 'RECONNECT', 'a proxy ends nothing' );
is( Headway::Error->new( code => 'INVALID_ARGUMENT', reason => 'MALFORMED_MESSAGE' )->error_policy,
    'DROP', 'what the server cannot read does not hold up the rest' );
is( Headway::Error->new( code => 'FAILED_PRECONDITION', reason => 'STALE_ATTEMPT' )->error_policy,
    'STOP', 'a take-over does' );

done_testing;
