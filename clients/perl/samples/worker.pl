use strict;
use warnings;
use Headway;

my @batch = ( 'record 1', 'record 2', 'record 3' );

my $client = Headway->connect;
my $job    = $client->create( name => 'Stage MARC records', size => scalar @batch, unit => 'records' );
$job->run(
    sub {
        my $next = $job->track( \@batch );
        while ( my ($record) = $next->() ) {
            $job->message("staging $record");
            $job->count('added');
        }
        $job->results( { added => scalar @batch, updated => 0 } );
    }
);
$client->close;
