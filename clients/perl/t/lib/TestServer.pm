package TestServer;

# A real server for tests that need one: that of HEADWAY_TARGET, or one that starts here and ends with the test.

use 5.016;
use strict;
use warnings;

use Cwd         qw(abs_path);
use File::Temp  qw(tempdir);
use FindBin     ();
use IO::Handle  ();
use Test::More  ();
use Time::HiRes qw(sleep);

my $ROOT   = abs_path("$FindBin::Bin/../../..");
my $PYTHON = "$ROOT/.venv/bin/python";

# The server; the environment names it. Skips the test if there is none.
sub start {
    my ($class) = @_;
    my $folder = tempdir( CLEANUP => 1 );
    $ENV{HEADWAY_SPOOL}   = "$folder/spool";
    $ENV{HEADWAY_SESSION} = "perl-test-$$";
    my $self = bless { folder => $folder, pid => 0, owner => $$ }, $class;
    return $self if $ENV{HEADWAY_TARGET} || $ENV{HEADWAY_HTTP_TARGET};
    if ( !-x $PYTHON ) {
        die "no $PYTHON to start a server with\n" if ( $ENV{CI} // q{} ) eq 'true';
        Test::More::plan( skip_all => "no server: set HEADWAY_TARGET, or make $PYTHON" );
    }
    $self->run('127.0.0.1:0');
    return $self;
}

# Starts it on that address. Returns where it is.
sub run {
    my ( $self, $address ) = @_;
    my @command = ( $PYTHON, '-m', 'headway_server', '--listen', '127.0.0.1:0', '--http', $address );
    push @command, '--database', "sqlite:///$self->{folder}/headway.db";
    $self->{pid} = open $self->{output}, q{-|}, @command or die "the server: $!\n";
    while ( my $line = readline $self->{output} ) {
        next if $line !~ m{page:\s+http://([\d.:]+)/};
        $ENV{HEADWAY_TARGET} = "http://$1";
        return $1;
    }
    die "the server did not start\n";
}

sub stop {
    my ($self) = @_;
    return if !$self->{pid} || $self->{owner} != $$;
    kill KILL => $self->{pid};

    # Waits for it.
    close delete $self->{output};
    $self->{pid} = 0;
    return;
}

sub own { return $_[0]{pid} }

sub DESTROY {
    my ($self) = @_;
    local ( $@, $!, $? );
    $self->stop;
    return;
}

1;
