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
 * Keeps on disk what could not be delivered: one file for each job of each process.
 *
 * <p>The folder is HEADWAY_SPOOL, else headway/spool in the user's state folder ($XDG_STATE_HOME or
 * ~/.local/state); an empty HEADWAY_SPOOL turns the spool off. A file contains session ids, which
 * are secrets: only its user can read it (0600, in a folder of 0700). There are at most 100 files,
 * of at most 8 MiB each. All clients share the format (docs/client-engine.md).
 */
final class Spool {
    private static final int MAX_FILES = 100;

    private Spool() {}

    /** Where the files are, whether the folder exists or not; null = no spool. */
    static Path folder(Map<String, String> environment) {
        String path = environment.get("HEADWAY_SPOOL");
        if (path != null) {
            return path.isEmpty() ? null : Path.of(path);
        }
        String state = environment.getOrDefault("XDG_STATE_HOME", "");
        Path base = state.isEmpty() ? stateOf(System.getProperty("user.home")) : Path.of(state);
        return base == null ? null : base.resolve("headway").resolve("spool");
    }

    /** A user that the system does not know has no home: Java calls it "?". */
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

    /**
     * The files that wait for this server, oldest first; only those of one job if an id is given.
     */
    static List<Path> waitingFiles(Target target, String jobId) {
        String job = jobId.isEmpty() ? "*" : fileNameId(jobId);
        return list(folder(), serverKey(target.address(), target.tls()) + "-*-" + job + ".json");
    }

    /** The job's id in the file's name. */
    static String jobInName(Path path) {
        return path.getFileName().toString().replaceFirst("^.*-", "");
    }

    /**
     * Saves this record, in place of the file before (null: there was none). IOException, also if
     * there is no room.
     */
    static SpoolFile write(SpoolRecord spoolRecord, SpoolFile before) throws IOException {
        if (before != null) {
            return SpoolFile.write(before.path, spoolRecord);
        }
        Path folder = folder();
        if (folder == null) {
            throw new IOException("HEADWAY_SPOOL is empty, or there is no home for it");
        }
        prepare(folder);
        if (list(folder, "*.json").size() >= MAX_FILES) {
            throw new IOException(folder + " has " + MAX_FILES + " files already");
        }
        String name =
                serverKey(spoolRecord.address(), spoolRecord.tls())
                        + "-"
                        + Ids.uuid7()
                        + "-"
                        + fileNameId(spoolRecord.jobId())
                        + ".json";
        return SpoolFile.write(folder.resolve(name), spoolRecord);
    }

    /** Makes the folder if it does not exist. IOException, also if others can read it. */
    static void prepare(Path folder) throws IOException {
        if (!SpoolFile.POSIX) {
            Files.createDirectories(folder);
            return;
        }
        var alone = PosixFilePermissions.fromString("rwx------");
        if (!Files.isDirectory(folder)) {
            Files.createDirectories(folder.toAbsolutePath().getParent());
            Files.createDirectory(folder, PosixFilePermissions.asFileAttribute(alone));
        }
        if (!SpoolFile.isOurs(folder)) {
            throw new AccessDeniedException(folder + " belongs to another user");
        }
        if (!alone.containsAll(Files.getPosixFilePermissions(folder))) {
            // The folder existed before, perhaps with other files in it. Do not change its mode.
            throw new AccessDeniedException(
                    folder
                            + " is open to others: chmod 700 it, or name another folder in"
                            + " HEADWAY_SPOOL");
        }
    }

    /** Keeps only the newest refused files. */
    static void trimRefused(Path folder) throws IOException {
        List<Path> refused = list(folder, "*.refused");
        refused.sort(Comparator.comparing(path -> path.getFileName().toString()));
        for (Path old : refused.subList(0, Math.max(refused.size() - MAX_FILES, 0))) {
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

    /** Part of the name, so that the names alone tell whether there is something for a server. */
    static String serverKey(String address, boolean tls) {
        CRC32 crc = new CRC32();
        crc.update((address + " " + (tls ? "True" : "False")).getBytes(StandardCharsets.UTF_8));
        return String.format("%08x", crc.getValue());
    }

    /** The worker chooses the id, and only the server checks it. */
    private static String fileNameId(String jobId) {
        return jobId.matches("[0-9A-Za-z]{1,64}") ? jobId : "odd";
    }
}
