package dev.headway;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.AccessDeniedException;
import java.nio.file.DirectoryIteratorException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.zip.CRC32;

/**
 * What could not be delivered, on disk until it is: one file for each job of each process.
 *
 * <p>The folder is HEADWAY_SPOOL, else headway/spool in the user's state folder ($XDG_STATE_HOME or
 * ~/.local/state); an empty HEADWAY_SPOOL turns it off. A file holds session ids, which are
 * secrets: it is readable by its user alone (0600, in a folder of 0700). There are at most 100
 * files, of at most 8 MiB each. The clients of all languages share it.
 */
final class Spool {
    private static final int FILES = 100;

    private Spool() {}

    /** Where the files are, whether it exists or not; null if there shall be none. */
    static Path folder(Map<String, String> environment) {
        String path = environment.get("HEADWAY_SPOOL");
        if (path != null) {
            return path.isEmpty() ? null : Path.of(path);
        }
        String state = environment.getOrDefault("XDG_STATE_HOME", "");
        Path base = state.isEmpty() ? stateOf(System.getProperty("user.home")) : Path.of(state);
        return base == null ? null : base.resolve("headway").resolve("spool");
    }

    /** A user whom the system does not know has no home: Java calls it "?". */
    static Path stateOf(String home) {
        boolean known = home != null && !home.isEmpty() && !home.equals("?");
        return known ? Path.of(home, ".local", "state") : null;
    }

    private static Path folder() {
        return folder(System.getenv());
    }

    static boolean isOn() {
        return folder() != null;
    }

    /** The files that wait for this server, oldest first; of that job alone, if one is given. */
    static List<Path> letters(Target target, String jobId) {
        String job = jobId.isEmpty() ? "*" : plain(jobId);
        return list(folder(), mark(target.address(), target.tls()) + "-*-" + job + ".json");
    }

    /** Whose letter it is, as its name says. */
    static String jobIn(Path path) {
        return path.getFileName().toString().replaceFirst("^.*-", "");
    }

    /**
     * Writes these words down, in place of those before (null: there were none). IOException, also
     * if there is no room.
     */
    static Letter write(Words words, Letter before) throws IOException {
        if (before != null) {
            return Letter.write(before.path, words);
        }
        Path folder = folder();
        if (folder == null) {
            throw new IOException("HEADWAY_SPOOL is empty, or there is no home for it");
        }
        prepare(folder);
        if (list(folder, "*.json").size() >= FILES) {
            throw new IOException(folder + " has " + FILES + " files already");
        }
        String name =
                mark(words.address(), words.tls())
                        + "-"
                        + Ids.uuid7()
                        + "-"
                        + plain(words.jobId())
                        + ".json";
        return Letter.write(folder.resolve(name), words);
    }

    /** Makes the folder if it does not exist. IOException, also if it is not the user's alone. */
    static void prepare(Path folder) throws IOException {
        if (!Letter.POSIX) {
            Files.createDirectories(folder);
            return;
        }
        var alone = PosixFilePermissions.fromString("rwx------");
        if (!Files.isDirectory(folder)) {
            Files.createDirectories(folder.toAbsolutePath().getParent());
            Files.createDirectory(folder, PosixFilePermissions.asFileAttribute(alone));
        }
        if (!Letter.isOurs(folder)) {
            throw new AccessDeniedException(folder + " belongs to another user");
        }
        if (!alone.containsAll(Files.getPosixFilePermissions(folder))) {
            // It was there before, perhaps with other things in it: its mode is not ours to change.
            throw new AccessDeniedException(
                    folder
                            + " is open to others: chmod 700 it, or name another folder in"
                            + " HEADWAY_SPOOL");
        }
    }

    /** Keeps the youngest of what was refused. */
    static void trimRefused(Path folder) throws IOException {
        List<Path> refused = list(folder, "*.refused");
        refused.sort(Comparator.comparing(path -> path.getFileName().toString()));
        for (Path old : refused.subList(0, Math.max(refused.size() - FILES, 0))) {
            Files.deleteIfExists(old);
        }
    }

    private static List<Path> list(Path folder, String pattern) {
        List<Path> found = new ArrayList<>();
        if (folder == null || !Files.isDirectory(folder)) {
            return found;
        }
        try (var files = Files.newDirectoryStream(folder, pattern)) {
            files.forEach(found::add);
        } catch (IOException | DirectoryIteratorException unreadable) {
            return new ArrayList<>();
        }
        found.sort(
                Comparator.comparing(
                        path -> path.getFileName().toString().replaceFirst("^[^-]*-", "")));
        return found;
    }

    /** In the name, so that a look at the folder tells whether there is something for a server. */
    static String mark(String address, boolean tls) {
        CRC32 crc = new CRC32();
        crc.update((address + " " + (tls ? "True" : "False")).getBytes(StandardCharsets.UTF_8));
        return String.format("%08x", crc.getValue());
    }

    /** The worker chooses it, and only the server says whether it is one. */
    private static String plain(String jobId) {
        return jobId.matches("[0-9A-Za-z]{1,64}") ? jobId : "odd";
    }
}
