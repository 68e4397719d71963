#!/usr/bin/perl

# What could not be delivered is saved, and sent later.

use 5.016;
use strict;
use warnings;

use lib 't/lib';
use File::Temp qw(tempdir);
use Test::More;

use TestServer;

use Headway         ();
use Headway::Spool  ();
use Headway::Target ();

my $server = TestServer->start;
plan skip_all => 'the server must be one that can be stopped' if !$server->own;
my $address = $ENV{HEADWAY_TARGET} =~ s{.*/}{}r;
my $target  = Headway::Target->new;

my @warnings;
my $id;
{
    local $SIG{__WARN__} = sub { push @warnings, @_ };
    $server->stop;
    my $client = Headway->connect( exit_timeout => 0.1 );
    my $job    = $client->create( name => 'Left' );
    $id = $job->id;
    $job->advance(3);
    $job->finish( { n => 3 } );
    $client->close;
}
my ($path) = Headway::Spool::waiting_files( $target, $id );
ok $path, 'there is a spool file';
is sprintf( '%o', ( stat $path )[2] & oct 777 ), '600', 'for its user alone';
like $path,         qr{/http/[^/]+\z},             'in the folder of this transport';
like "@warnings",   qr/\Q$path\E/,                 'and a warning that says where';
unlike "@warnings", qr/\Q$ENV{HEADWAY_SESSION}\E/, 'but not the session';

my $held = Headway::Spool::File->claim($path);
ok $held, 'who has it';
is( Headway::Spool::File->claim($path), undef, 'has it alone' );
$held->release;

$server->run($address);
my $client = Headway->connect;
is_deeply $client->flush_spool, { sent => 1, refused => 0, waiting => 0 }, 'it is sent';
my $state = $client->get($id);
is_deeply [ @{$state}{qw(status progress)} ],         [ 'COMPLETED', 3 ], 'and arrives';
is_deeply [ Headway::Spool::waiting_files($target) ], [],                 'nothing is left';

# A folder that others can read, such as /etc, keeps its mode and gets no file, and neither does a folder in it.
for my $name (qw(of-all within)) {
    my $folder = tempdir( CLEANUP => 1 );
    my $open   = $name eq 'within' ? "$folder/http" : $folder;
    mkdir $open;
    chmod oct 755, $open;
    local $ENV{HEADWAY_SPOOL} = $folder;
    ok !eval { Headway::Spool::write_file( $target, { id => $id }, [] ); 1 }, "$name: nothing is written there";
    like $@, qr/is open to others: chmod 700 it/, "$name: it says why";
    is sprintf( '%o', ( stat $open )[2] & oct 777 ), '755', "$name: its mode stays";
    ok !glob("$folder/http/*"), "$name: it stays empty";
}

done_testing;
