package Headway::Spool;

# Keeps on disk what could not be delivered: one file for each job of each process.
#
# The folder is `http` in HEADWAY_SPOOL, else in headway/spool of the user's state folder ($XDG_STATE_HOME or
# ~/.local/state); an empty HEADWAY_SPOOL turns the spool off. The files of clients that speak gRPC are in the folder
# above: they contain protobuf, for another port. A spool file is JSON:
#
#   {"version": 1, "target": "http://127.0.0.1:8080", "job": ID, "name": TEXT, "requests": [["CreateJob", {...}], ...]}
#
# with the requests as docs/http.md has them. It contains session ids, which are secrets: only its user can read the
# file (0600, in a folder of 0700). It is neither encrypted nor safe from root. There are at most 100, of at most 8 MiB
# each.
#
# A process claims a file by locking it. The system releases the lock of a process that has died, so that another one
# can claim the file in any case.

use 5.016;
use strict;
use warnings;

use Digest::MD5 qw(md5_hex);
use Fcntl       qw(LOCK_EX LOCK_NB O_CREAT O_EXCL O_RDONLY O_WRONLY);
use IO::Handle  ();

use Headway::Ids    qw(uuid7);
use Headway::Json   qw(decode encode);
use Headway::Safely qw(beyond_standard);

my $FILES   = 100;
my $BYTES   = 8 * 1024 * 1024;
my $VERSION = 1;

# Where the files are, whether the folder exists or not; undef = no spool.
sub folder {
    my $base = $ENV{HEADWAY_SPOOL};
    return if defined $base && !length $base;
    if ( !defined $base ) {
        my $home  = $ENV{HOME} // ( getpwuid $> )[7];
        my $state = $ENV{XDG_STATE_HOME} || ( defined $home ? "$home/.local/state" : return );
        $base = "$state/headway/spool";
    }
    return "$base/http";
}

# The files that wait for this server, oldest first; only those of one job if an id is given.
sub waiting_files {
    my ( $target, $job_id ) = @_;
    my $folder = folder() // return;
    my ( $mark, $end ) = ( _server_key( $target->url ), $job_id ? '-' . _file_name_id($job_id) : q{} );
    my @names = grep { /\A$mark-.*\Q$end\E[.]json\z/ } _names($folder);
    return map { "$folder/$_" } sort @names;
}

# Saves what a job has left to send. Returns the file, claimed by this process. Dies.
sub write_file {
    my ( $target, $job, $requests ) = @_;
    my $folder = folder() // die "there is no folder for it, see HEADWAY_SPOOL\n";
    _make($folder);

    die "$folder has $FILES files already\n" if ( grep { /[.]json\z/ } _names($folder) ) >= $FILES;
    my $path = sprintf '%s/%s-%s-%s.json', $folder, _server_key( $target->url ), uuid7(), _file_name_id( $job->{id} );
    my $content = _content( {
        version  => $VERSION,
        target   => $target->url,
        job      => $job->{id},
        name     => $job->{name} // q{},
        requests => $requests,
    } );
    my $draft = "$path.$$.tmp";
    my $fault = eval {
        my $file = beyond_standard( sub {
            sysopen my $opened, $draft, O_WRONLY | O_CREAT | O_EXCL, oct 600 or die "$draft: $!\n";
            return $opened;
        } );

        # Lock it before it has its name, so that no other process ever finds it unlocked.
        flock $file, LOCK_EX | LOCK_NB or die "$draft: $!\n";
        binmode $file;
        local $\ = undef;
        print {$file} $content or die "$draft: $!\n";
        $file->flush           or die "$draft: $!\n";
        $file->sync            or die "$draft: $!\n";
        rename $draft, $path or die "$path: $!\n";
        return bless { path => $path, file => $file }, 'Headway::Spool::File';
    };
    if ( !$fault ) {
        my $why = $@;
        unlink $draft;
        die $why;
    }
    _sync($folder);
    return $fault;
}

# JSON of at most 8 MiB. If there is no room, it drops record errors, the last ones first.
sub _content {
    my ($file)   = @_;
    my $content  = encode($file);
    my @requests = reverse @{ $file->{requests} };
    for my $request (@requests) {
        last if length $content <= $BYTES;
        next if !$request->[1]{record_errors};
        $request->[1] = { %{ $request->[1] } };
        delete $request->[1]{record_errors};
        $content = encode($file);
    }
    return $content;
}

sub _names {
    my ($folder) = @_;
    opendir my $entries, $folder or return;
    my @names = readdir $entries;
    closedir $entries;
    return @names;
}

# New folders can be read by their user only. The last two belong to the spool and must be so in any case. A folder that
# existed before, perhaps with other files in it, keeps its mode. Dies.
sub _make {
    my ($folder) = @_;
    my $path = q{};
    for my $part ( split m{/}, $folder ) {
        $path .= "$part/";
        mkdir $path, oct 700 if !-d $path;
        next if $path ne "$folder/" && "${path}http/" ne "$folder/";
        my @about = stat $path or die "$path: $!\n";
        die "$path belongs to another user\n"                                                  if $about[4] != $>;
        die "$path is open to others: chmod 700 it, or name another folder in HEADWAY_SPOOL\n" if $about[2] & oct 77;
    }
    return;
}

sub _server_key {
    my ($url) = @_;
    return substr md5_hex($url), 0, 8;
}

# The worker chooses the id, and only the server checks it.
sub _file_name_id {
    my ($job_id) = @_;
    return $job_id =~ /\A[[:alnum:]]{1,64}\z/a ? $job_id : 'odd';
}

sub _sync {
    my ($folder) = @_;
    sysopen my $handle, $folder, O_RDONLY or return;
    $handle->sync;
    return;
}

package Headway::Spool::File;

use Fcntl qw(LOCK_EX LOCK_NB O_NOFOLLOW O_NONBLOCK O_RDWR);

# Claims the file; undef if another process has it, has sent it meanwhile, or if it belongs to another user.
sub claim {
    my ( $class, $path ) = @_;
    my $opened = Headway::Safely::beyond_standard( sub {
        my $handle;
        sysopen $handle, $path, O_RDWR | O_NOFOLLOW | O_NONBLOCK or $handle = undef;
        return [$handle];
    } );
    my $file = $opened->[0] // return;
    flock $file, LOCK_EX | LOCK_NB or return;

    # It may have been removed or written again before it was locked.
    my @about = stat $file;
    my @named = stat $path or return;
    return if $named[1] != $about[1] || $about[4] != $>;
    return bless { path => $path, file => $file }, $class;
}

sub path { return $_[0]{path} }

# The requests in it. Dies if the file is damaged, or from another version of this library.
sub content {
    my ($self) = @_;
    local $/ = undef;
    seek $self->{file}, 0, 0 or die "$self->{path}: $!\n";
    my $bytes = readline( $self->{file} ) // die "$self->{path}: $!\n";
    my $file  = eval { Headway::Json::decode($bytes) };
    die "it is damaged\n"                     if ref $file ne 'HASH' || ref $file->{requests} ne 'ARRAY';
    die "it is of version $file->{version}\n" if ( $file->{version} // q{} ) ne $VERSION;
    die "it is damaged\n" if grep { ref $_ ne 'ARRAY' || ref $_->[1] ne 'HASH' } @{ $file->{requests} };
    return $file;
}

# Everything in it has arrived.
sub remove {
    my ($self) = @_;
    unlink $self->{path};
    $self->release;
    return;
}

# The server will never accept it. The file stays beside the others, for people to look at. Returns its new path.
sub refuse {
    my ($self) = @_;
    ( my $refused = $self->{path} ) =~ s/[.]json\z/.refused/;
    rename $self->{path}, $refused;
    my ($folder) = $refused =~ m{\A(.*)/};
    my @old = sort grep { /[.]refused\z/ } Headway::Spool::_names($folder);
    splice @old, -$FILES;
    unlink map { "$folder/$_" } @old;
    $self->release;
    return $refused;
}

# Leaves the file to the next process.
sub release {
    my ($self) = @_;
    $self->{file} = undef;
    return;
}

1;
