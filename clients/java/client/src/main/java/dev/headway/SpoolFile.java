package dev.headway;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.FileAttribute;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Arrays;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/**
 * A file of the spool that this process has claimed, until {@code remove}, {@code refuse} or {@code
 * release}.
 *
 * <p>Other clients lock their files with flock, which Java does not have. So another process may
 * send a file while this one does. That is harmless, since reports are numbered. But this process
 * must not remove a file that another has written again meanwhile.
 */
final class SpoolFile {
    static final boolean POSIX =
            FileSystems.getDefault().supportedFileAttributeViews().contains("posix");

    private static final Set<Path> CLAIMED = ConcurrentHashMap.newKeySet();
    private static final FileAttribute<?>[] PRIVATE =
            POSIX
                    ? new FileAttribute<?>[] {
                        PosixFilePermissions.asFileAttribute(
                                PosixFilePermissions.fromString("rw-------"))
                    }
                    : new FileAttribute<?>[0];

    final Path path;
    private final Object file;

    private SpoolFile(Path path, Object file) {
        this.path = path;
        this.file = file;
    }

    /** Writes the whole file, or nothing. It replaces a claimed file if {@code path} is one. */
    static SpoolFile write(Path path, SpoolRecord spoolRecord) throws IOException {
        String name = path.getFileName().toString().replaceFirst("\\.json$", "");
        Path draft = path.resolveSibling(name + "." + ProcessHandle.current().pid() + ".tmp");
        Files.deleteIfExists(draft);
        CLAIMED.add(path);
        try {
            var options = Set.of(StandardOpenOption.WRITE, StandardOpenOption.CREATE_NEW);
            try (FileChannel out = FileChannel.open(draft, options, PRIVATE)) {
                ByteBuffer data = ByteBuffer.wrap(spoolRecord.encode());
                while (data.hasRemaining()) {
                    out.write(data);
                }
                out.force(true);
            }
            Object file = key(draft);
            Files.move(draft, path, StandardCopyOption.ATOMIC_MOVE);
            sync(path.getParent());
            return new SpoolFile(path, file);
        } catch (IOException | RuntimeException error) {
            CLAIMED.remove(path);
            Files.deleteIfExists(draft);
            throw error;
        }
    }

    /**
     * Claims the file; empty if another thread has it, it was sent meanwhile, or it belongs to
     * another user.
     */
    static Optional<SpoolFile> claim(Path path) {
        if (!CLAIMED.add(path)) {
            return Optional.empty();
        }
        try {
            var about =
                    Files.readAttributes(
                            path, BasicFileAttributes.class, LinkOption.NOFOLLOW_LINKS);
            if (about.isRegularFile() && isOurs(path)) {
                return Optional.of(new SpoolFile(path, key(about)));
            }
        } catch (IOException gone) {
            // Another process has sent it.
        }
        CLAIMED.remove(path);
        return Optional.empty();
    }

    /** Whether this process's user owns it. */
    static boolean isOurs(Path path) throws IOException {
        String owner = Files.getOwner(path, LinkOption.NOFOLLOW_LINKS).getName();
        return ProcessHandle.current().info().user().map(owner::equals).orElse(true);
    }

    /** IllegalArgumentException if it is damaged, or from another version of this library. */
    SpoolRecord read() throws IOException {
        return SpoolRecord.decode(Files.readAllBytes(path));
    }

    /** Everything in it has arrived. */
    void remove() {
        try {
            if (isUnchanged()) {
                Files.deleteIfExists(path);
            }
        } catch (IOException kept) {
            // It will be sent once more, which is harmless.
        }
        release();
    }

    /**
     * The server will never accept it. The file stays beside the others, for people to look at.
     * Returns its new path.
     */
    Path refuse() {
        String name = path.getFileName().toString().replaceFirst("\\.json$", ".refused");
        Path refused = path.resolveSibling(name);
        try {
            if (isUnchanged()) {
                Files.move(path, refused, StandardCopyOption.REPLACE_EXISTING);
                Spool.trimRefused(path.getParent());
            }
        } catch (IOException kept) {
            // It will be refused once more.
        }
        release();
        return refused;
    }

    /** Leaves the file to the next process. */
    void release() {
        CLAIMED.remove(path);
    }

    private boolean isUnchanged() throws IOException {
        return Objects.equals(key(path), file);
    }

    private static Object key(Path path) throws IOException {
        return key(
                Files.readAttributes(path, BasicFileAttributes.class, LinkOption.NOFOLLOW_LINKS));
    }

    /** The file system soon gives the inode's number to another file. */
    private static Object key(BasicFileAttributes about) {
        return Arrays.asList(about.fileKey(), about.lastModifiedTime());
    }

    private static void sync(Path folder) throws IOException {
        if (POSIX) {
            try (FileChannel handle = FileChannel.open(folder, StandardOpenOption.READ)) {
                handle.force(true);
            }
        }
    }
}
