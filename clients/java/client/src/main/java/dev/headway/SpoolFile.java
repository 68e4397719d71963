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
 * A file of the spool in the hands of this process, until {@code remove}, {@code refuse} or {@code
 * release}.
 *
 * <p>Other clients lock their files with flock, which Java has not. So another process may send a
 * letter while this one does: the numbers of reports make that harmless. What must not happen is
 * that this one removes what another has written meanwhile.
 */
final class Letter {
    static final boolean POSIX =
            FileSystems.getDefault().supportedFileAttributeViews().contains("posix");

    private static final Set<Path> IN_HAND = ConcurrentHashMap.newKeySet();
    private static final FileAttribute<?>[] PRIVATE =
            POSIX
                    ? new FileAttribute<?>[] {
                        PosixFilePermissions.asFileAttribute(
                                PosixFilePermissions.fromString("rw-------"))
                    }
                    : new FileAttribute<?>[0];

    final Path path;
    private final Object file;

    private Letter(Path path, Object file) {
        this.path = path;
        this.file = file;
    }

    /**
     * Puts the file there as a whole, or not at all; in place of one that is in hand, if {@code
     * path} is.
     */
    static Letter write(Path path, Words words) throws IOException {
        String name = path.getFileName().toString().replaceFirst("\\.json$", "");
        Path draft = path.resolveSibling(name + "." + ProcessHandle.current().pid() + ".tmp");
        Files.deleteIfExists(draft);
        IN_HAND.add(path);
        try {
            var options = Set.of(StandardOpenOption.WRITE, StandardOpenOption.CREATE_NEW);
            try (FileChannel out = FileChannel.open(draft, options, PRIVATE)) {
                ByteBuffer data = ByteBuffer.wrap(words.encode());
                while (data.hasRemaining()) {
                    out.write(data);
                }
                out.force(true);
            }
            Object file = key(draft);
            Files.move(draft, path, StandardCopyOption.ATOMIC_MOVE);
            sync(path.getParent());
            return new Letter(path, file);
        } catch (IOException | RuntimeException error) {
            IN_HAND.remove(path);
            Files.deleteIfExists(draft);
            throw error;
        }
    }

    /**
     * Takes the file in hand; empty if another thread has it, or has sent it meanwhile, or if it is
     * another user's.
     */
    static Optional<Letter> claim(Path path) {
        if (!IN_HAND.add(path)) {
            return Optional.empty();
        }
        try {
            var about =
                    Files.readAttributes(
                            path, BasicFileAttributes.class, LinkOption.NOFOLLOW_LINKS);
            if (about.isRegularFile() && isOurs(path)) {
                return Optional.of(new Letter(path, key(about)));
            }
        } catch (IOException gone) {
            // Another has sent it.
        }
        IN_HAND.remove(path);
        return Optional.empty();
    }

    /** Whether this process's user owns it. */
    static boolean isOurs(Path path) throws IOException {
        String owner = Files.getOwner(path, LinkOption.NOFOLLOW_LINKS).getName();
        return ProcessHandle.current().info().user().map(owner::equals).orElse(true);
    }

    /** IllegalArgumentException if it is damaged, or from another version of this library. */
    Words read() throws IOException {
        return Words.decode(Files.readAllBytes(path));
    }

    /** All of it has arrived. */
    void remove() {
        try {
            if (isUnchanged()) {
                Files.deleteIfExists(path);
            }
        } catch (IOException kept) {
            // It will be sent once more, to no harm.
        }
        release();
    }

    /** The server will never take it: it stays beside, for people to look at. Where it is now. */
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

    /** Leaves the file to whoever takes it up next. */
    void release() {
        IN_HAND.remove(path);
    }

    private boolean isUnchanged() throws IOException {
        return Objects.equals(key(path), file);
    }

    private static Object key(Path path) throws IOException {
        return key(
                Files.readAttributes(path, BasicFileAttributes.class, LinkOption.NOFOLLOW_LINKS));
    }

    /** The number of an inode is soon given to another file. */
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
