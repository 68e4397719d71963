package Headway::Spool;

# What could not be delivered, on disk until it is: one file, a letter, for each job of each process.
#
# The folder is `http` in HEADWAY_SPOOL, else in headway/spool of the user's state folder ($XDG_STATE_HOME or ~/.local/state);
# an empty HEADWAY_SPOOL turns it off. The letters of clients that speak gRPC lie in the folder above: they hold protobuf, for
# another port. A letter is JSON:
#
#   {"version": 1, "target": "http://127.0.0.1:8080", "job": ID, "name": TEXT, "requests": [["CreateJob", {...}], ...]}
#
# with the requests as docs/http.md has them. It holds session ids, which are secrets: the file is readable by its user
# alone (0600, in a folder of 0700), and neither encrypted nor safe from root. There are at most 100, of at most 8 MiB each.
#
# A file is in the hands of the process that has it locked. The system lets go of the lock of a process that has died, so
# whatever happened to it, another one takes the file up.

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

# Where the files are, whether it exists or not; undef if there shall be none.
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

# The files that wait for this server, oldest first; of that job alone, if one is given.
sub letters {
    my ( $target, $job_id ) = @_;
    my $folder = folder() // return;
    my ( $mark, $end ) = ( _mark( $target->url ), $job_id ? '-' . _plain($job_id) : q{} );
    my @names = grep { /\A$mark-.*\Q$end\E[.]json\z/ } _names($folder);
    return map { "$folder/$_" } sort @names;
}

# Writes down what a job has left to say, and gives the letter, in the hands of this process. Dies.
sub write_letter {
    my ( $target, $job, $requests ) = @_;
    my $folder = folder() // die "there is no folder for it, see HEADWAY_SPOOL\n";
    _make($folder);

    die "$folder has $FILES files already\n" if ( grep { /[.]json\z/ } _names($folder) ) >= $FILES;
    my $path    = sprintf '%s/%s-%s-%s.json', $folder, _mark( $target->url ), uuid7(), _plain( $job->{id} );
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

        # Locked before it has its name, so that no other process ever finds it free.
        flock $file, LOCK_EX | LOCK_NB or die "$draft: $!\n";
        binmode $file;
        local $\ = undef;
        print {$file} $content or die "$draft: $!\n";
        $file->flush           or die "$draft: $!\n";
        $file->sync            or die "$draft: $!\n";
        rename $draft, $path or die "$path: $!\n";
        return bless { path => $path, file => $file }, 'Headway::Spool::Letter';
    };
    if ( !$fault ) {
        my $why = $@;
        unlink $draft;
        die $why;
    }
    _sync($folder);
    return $fault;
}

# JSON of at most 8 MiB. What has no room are record errors, the last ones first.
sub _content {
    my ($letter) = @_;
    my $content  = encode($letter);
    my @requests = reverse @{ $letter->{requests} };
    for my $request (@requests) {
        last if length $content <= $BYTES;
        next if !$request->[1]{record_errors};
        $request->[1] = { %{ $request->[1] } };
        delete $request->[1]{record_errors};
        $content = encode($letter);
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

# Folders that are made here are the user's alone. The last two are the spool's, and have to be so in any case: what was
# there before, perhaps with other things in it, keeps its mode. Dies.
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

sub _mark {
    my ($url) = @_;
    return substr md5_hex($url), 0, 8;
}

# The worker chooses it, and only the server says whether it is one.
sub _plain {
    my ($job_id) = @_;
    return $job_id =~ /\A[[:alnum:]]{1,64}\z/a ? $job_id : 'odd';
}

sub _sync {
    my ($folder) = @_;
    sysopen my $handle, $folder, O_RDONLY or return;
    $handle->sync;
    return;
}

package Headway::Spool::Letter;

use Fcntl qw(LOCK_EX LOCK_NB O_NOFOLLOW O_NONBLOCK O_RDWR);

# Takes the file in hand; undef if another process has it, or has sent it meanwhile, or if it is another user's.
sub claim {
    my ( $class, $path ) = @_;
    my $opened = Headway::Safely::beyond_standard( sub {
        my $handle;
        sysopen $handle, $path, O_RDWR | O_NOFOLLOW | O_NONBLOCK or $handle = undef;
        return [$handle];
    } );
    my $file = $opened->[0] // return;
    flock $file, LOCK_EX | LOCK_NB or return;

    # It may have been removed, or written anew, between the two.
    my @about = stat $file;
    my @named = stat $path or return;
    return if $named[1] != $about[1] || $about[4] != $>;
    return bless { path => $path, file => $file }, $class;
}

sub path { return $_[0]{path} }

# What is left to say. Dies if the file is damaged, or from another version of this library.
sub content {
    my ($self) = @_;
    local $/ = undef;
    seek $self->{file}, 0, 0 or die "$self->{path}: $!\n";
    my $bytes  = readline( $self->{file} ) // die "$self->{path}: $!\n";
    my $letter = eval { Headway::Json::decode($bytes) };
    die "it is damaged\n"                       if ref $letter ne 'HASH' || ref $letter->{requests} ne 'ARRAY';
    die "it is of version $letter->{version}\n" if ( $letter->{version} // q{} ) ne $VERSION;
    die "it is damaged\n" if grep { ref $_ ne 'ARRAY' || ref $_->[1] ne 'HASH' } @{ $letter->{requests} };
    return $letter;
}

# All of it has arrived.
sub remove {
    my ($self) = @_;
    unlink $self->{path};
    $self->release;
    return;
}

# The server will never take it: it stays beside, for people to look at. Where it is now.
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

# Leaves the file to whoever takes it up next.
sub release {
    my ($self) = @_;
    $self->{file} = undef;
    return;
}

1;
