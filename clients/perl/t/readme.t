#!/usr/bin/perl

# The samples of the README, run against a real server.

use 5.016;
use strict;
use warnings;

use lib 't/lib';
use Test::More;

use TestServer;

my $server = TestServer->start;
open my $readme, '<:encoding(UTF-8)', 'README.md' or die "README.md: $!\n";
my $text = do { local $/ = undef; readline $readme };
close $readme or die "README.md: $!\n";

my $count = 0;
while ( $text =~ /^```perl\n(.*?)^```$/msg ) {
    my $sample = $1;
    $count++;
    $sample =~ s{http://127[.]0[.]0[.]1:8080}{$ENV{HEADWAY_TARGET}};
    $sample =~ s/^use lib .*\n//m;
    open my $perl, q{|-}, $^X, '-w', '-Mstrict', ( map { "-I$_" } @INC ), q{-} or die "perl: $!\n";
    print {$perl} "open STDOUT, '>', '/dev/null';\n$sample" or die "perl: $!\n";
    ok close $perl, "sample $count runs";
}
is $count, 3, 'all of them';

done_testing;
