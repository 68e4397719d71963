# Keeps the progress of jobs in a web session, in the way of Koha's C4::BackgroundJob: a job is a parameter of the
# session, and each report loads the session, sets the parameter, and writes the whole session again.
#
#     perl cgi_session.pl SOCKET JOBS [overlap]
#
# Makes a session with so many jobs, and reports the last of them: for each line with a number on standard input so many
# times, and for another line it says the job's progress as somebody else finds it. With "overlap" it says instead how a
# job stands that finished while somebody polled it.
use strict;
use warnings;
use CGI::Session;
use DBI;

$| = 1;
my ( $socket, $jobs, $overlap ) = @ARGV;

sub connection {
    return DBI->connect( "DBI:mysql:database=koha;mysql_socket=$socket", 'root', '', { RaiseError => 1 } );
}

sub session {
    my ( $connection, $id ) = @_;
    my $session = CGI::Session->new( 'driver:MySQL;serializer:yaml;id:md5', $id, { Handle => $connection } );
    return $session || die CGI::Session->errstr;
}

my $mine  = connection();
my $other = connection();
my $first = session( $mine, '' );
my $id    = $first->id;

sub job {
    my ($number) = @_;
    my %job = (
        sessionID    => $id,
        jobID        => sprintf( '%032x', $number ),
        name         => 'import.mrc',
        invoker      => '/cgi-bin/koha/tools/stage-marc-import.pl',
        size         => 1_000_000,
        progress     => 0,
        status       => 'running',
        extra_values => {},
    );
    return bless \%job, 'BackgroundJob';
}

$first->param( "job_" . $_->{jobID}, $_ ) for map { job($_) } 1 .. $jobs;
$first->flush;
undef $first;

my $job  = job($jobs);
my $name = "job_$job->{jobID}";

sub store {
    my $session = session( $mine, $id );
    $session->param( $name, $job );
    $session->flush;
    return;
}

sub stored {
    my ($field) = @_;
    # Read only, so that this leaves no trace.
    my $session = CGI::Session->load( 'driver:MySQL;serializer:yaml;id:md5', $id, { Handle => $other }, 1 );
    return $session->param($name)->{$field};
}

if ($overlap) {
    my $poll = session( $other, $id );
    $job->{status} = 'completed';
    store();
    undef $poll;    # Ends as a page does: it writes the session, because the time of the last access has changed.
    print stored('status'), "\n";
    exit;
}

print "ready\n";
while ( my $order = <STDIN> ) {
    if ( $order =~ /^\d/ ) {
        for ( 1 .. $order ) {
            $job->{progress}++;
            store();
        }
        print "told\n";
    }
    else {
        print stored('progress'), "\n";
    }
}
