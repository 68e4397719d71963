package dev.headway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.headway.v1.FinishJobRequest;
import dev.headway.v1.RecordError;
import dev.headway.v1.ReportProgressRequest;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.Collections;
import java.util.List;
import java.util.Map;

class SpoolTest {
    private static final String SECRET = "a secret session";

    @TempDir Path folder;

    private static SpoolRecord spoolRecord() {
        var report =
                ReportProgressRequest.newBuilder()
                        .setSessionId(SECRET)
                        .setJobId("j")
                        .setSequence(7)
                        .setProgress(3);
        var finish = FinishJobRequest.newBuilder().setSessionId(SECRET).setJobId("j");
        return new SpoolRecord("h:1", false, "j", "Naïve", List.of(report.build(), finish.build()));
    }

    @Test
    void spoolFilesAreReadAsTheyWereWritten() throws IOException {
        SpoolFile file = SpoolFile.write(folder.resolve("a.json"), spoolRecord());
        assertEquals(spoolRecord(), file.read());
        assertEquals(
                "rw-------",
                PosixFilePermissions.toString(Files.getPosixFilePermissions(file.path)));
        assertTrue(SpoolFile.claim(file.path).isEmpty());
        file.release();
        SpoolFile again = SpoolFile.claim(file.path).orElseThrow();
        again.remove();
        assertFalse(Files.exists(file.path));
    }

    @Test
    void aFolderThatIsNotTheUsersAloneKeepsItsMode() throws IOException {
        var open = PosixFilePermissions.fromString("rwxr-xr-x");
        Path place = Files.createDirectory(folder.resolve("of-all"));
        Files.setPosixFilePermissions(place, open);
        var refused = assertThrows(IOException.class, () -> Spool.prepare(place));
        assertTrue(refused.getMessage().contains("is open to others: chmod 700 it"));
        assertEquals(open, Files.getPosixFilePermissions(place));
        Spool.prepare(folder.resolve("new"));
        assertEquals(
                "rwx------",
                PosixFilePermissions.toString(
                        Files.getPosixFilePermissions(folder.resolve("new"))));
    }

    @Test
    void whatAnotherHasWrittenMeanwhileStays() throws IOException {
        SpoolFile file = SpoolFile.write(folder.resolve("a.json"), spoolRecord());
        Path theirs = Files.writeString(folder.resolve("theirs"), "theirs");
        Files.move(theirs, file.path, StandardCopyOption.REPLACE_EXISTING);
        file.remove();
        assertEquals("theirs", Files.readString(file.path));
    }

    @Test
    void aSpoolFileOfAnotherLanguageIsRead() {
        String file =
                "{\"version\": 1, \"target\": \"h:1\", \"tls\": false, \"job\": \"j\", \"name\":"
                        + " \"Na\\u00efve\", \"requests\": [[\"ReportProgressRequest\","
                        + " \"ChBhIHNlY3JldCBzZXNzaW9uEgFqKAcwAw==\"], [\"FinishJobRequest\","
                        + " \"ChBhIHNlY3JldCBzZXNzaW9uEgFq\"]]}";
        assertEquals(spoolRecord(), SpoolRecord.decode(file.getBytes(StandardCharsets.UTF_8)));
        for (String damaged :
                List.of("", "[]", "{", "{\"version\": 2}", file.replace("Finish", "Finnish"))) {
            assertThrows(
                    IllegalArgumentException.class,
                    () -> SpoolRecord.decode(damaged.getBytes(StandardCharsets.UTF_8)));
        }
    }

    @Test
    void whatHasNoRoomAreRecordErrors() {
        RecordError error =
                RecordError.newBuilder().setRecord("r").setMessage("x".repeat(1024)).build();
        var report =
                ReportProgressRequest.newBuilder()
                        .setAdvance(1)
                        .addAllRecordErrors(Collections.nCopies(900, error));
        SpoolRecord large =
                new SpoolRecord("h:1", false, "j", "", Collections.nCopies(10, report.build()));
        byte[] data = large.encode();
        assertTrue(data.length <= SpoolRecord.MAX_FILE_BYTES);
        var kept = SpoolRecord.decode(data).requests();
        assertEquals(900, ((ReportProgressRequest) kept.get(0)).getRecordErrorsCount());
        assertEquals(0, ((ReportProgressRequest) kept.get(9)).getRecordErrorsCount());
        assertEquals(1, ((ReportProgressRequest) kept.get(9)).getAdvance());
    }

    @Test
    void theFolderIsThatOfAllClients() {
        assertEquals(Path.of("/x"), Spool.folder(Map.of("HEADWAY_SPOOL", "/x")));
        assertEquals(null, Spool.folder(Map.of("HEADWAY_SPOOL", "")));
        assertEquals(Path.of("/s/headway/spool"), Spool.folder(Map.of("XDG_STATE_HOME", "/s")));
        assertEquals(null, Spool.stateOf("?"));
        assertEquals("1e37332c", Spool.serverKey("127.0.0.1:50051", false));
        assertEquals("185259d8", Spool.serverKey("h:1", true));
    }

    @Test
    void laterFilesOfAJobWaitForClaimedOnes() throws IOException {
        Target target = Target.of("127.0.0.1:2", null, null, Map.of());
        SpoolRecord spoolRecord = new SpoolRecord("127.0.0.1:2", false, "j", "", List.of());
        SpoolFile held = Spool.write(spoolRecord, null);
        SpoolFile later = Spool.write(spoolRecord, null);
        later.release();
        Files.writeString(later.path, "{");
        var credentials = Channels.credentials(target);
        assertEquals(new SpoolReport(0, 0, 2), SpoolSender.flush(target, credentials));
        held.remove();
        assertEquals(new SpoolReport(0, 1, 0), SpoolSender.flush(target, credentials));
    }

    @Test
    void anUnreachableServerDelaysNothing() throws IOException {
        for (Path old : Spool.waitingFiles(Target.of("127.0.0.1:1", null, null, Map.of()), "")) {
            Files.delete(old);
        }
        long start = Time.now();
        String id;
        try (HeadwayClient client =
                HeadwayClient.builder()
                        .target("127.0.0.1:1")
                        .session(SECRET)
                        .exitTimeout(Duration.ofMillis(50))
                        .connect()) {
            id =
                    client.call(
                            NewJob.named("away"),
                            job -> {
                                job.advance();
                                return job.id();
                            });
            Job job = client.create("left");
            job.close();
            assertFalse(job.flush(Duration.ZERO));
        }
        assertTrue(Time.now() - start < 5 * Time.SECOND);
        List<Path> files = Spool.waitingFiles(Target.of("127.0.0.1:1", null, null, Map.of()), id);
        assertEquals(1, files.size());
        assertEquals(
                List.of("CreateJobRequest", "ReportProgressRequest", "FinishJobRequest"),
                SpoolRecord.decode(Files.readAllBytes(files.get(0))).requests().stream()
                        .map(r -> r.getDescriptorForType().getName())
                        .toList());
    }
}
