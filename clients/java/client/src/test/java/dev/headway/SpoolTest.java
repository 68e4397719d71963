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

    private static Words words() {
        var report =
                ReportProgressRequest.newBuilder()
                        .setSessionId(SECRET)
                        .setJobId("j")
                        .setSequence(7)
                        .setProgress(3);
        var finish = FinishJobRequest.newBuilder().setSessionId(SECRET).setJobId("j");
        return new Words("h:1", false, "j", "Naïve", List.of(report.build(), finish.build()));
    }

    @Test
    void lettersAreReadAsTheyWereWritten() throws IOException {
        Letter letter = Letter.write(folder.resolve("a.json"), words());
        assertEquals(words(), letter.read());
        assertEquals(
                "rw-------",
                PosixFilePermissions.toString(Files.getPosixFilePermissions(letter.path)));
        assertTrue(Letter.claim(letter.path).isEmpty());
        letter.release();
        Letter again = Letter.claim(letter.path).orElseThrow();
        again.remove();
        assertFalse(Files.exists(letter.path));
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
        Letter letter = Letter.write(folder.resolve("a.json"), words());
        Path theirs = Files.writeString(folder.resolve("theirs"), "theirs");
        Files.move(theirs, letter.path, StandardCopyOption.REPLACE_EXISTING);
        letter.remove();
        assertEquals("theirs", Files.readString(letter.path));
    }

    @Test
    void aLetterOfAnotherLanguageIsRead() {
        String letter =
                "{\"version\": 1, \"target\": \"h:1\", \"tls\": false, \"job\": \"j\", \"name\":"
                        + " \"Na\\u00efve\", \"requests\": [[\"ReportProgressRequest\","
                        + " \"ChBhIHNlY3JldCBzZXNzaW9uEgFqKAcwAw==\"], [\"FinishJobRequest\","
                        + " \"ChBhIHNlY3JldCBzZXNzaW9uEgFq\"]]}";
        assertEquals(words(), Words.decode(letter.getBytes(StandardCharsets.UTF_8)));
        for (String damaged :
                List.of("", "[]", "{", "{\"version\": 2}", letter.replace("Finish", "Finnish"))) {
            assertThrows(
                    IllegalArgumentException.class,
                    () -> Words.decode(damaged.getBytes(StandardCharsets.UTF_8)));
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
        Words large = new Words("h:1", false, "j", "", Collections.nCopies(10, report.build()));
        byte[] data = large.encode();
        assertTrue(data.length <= Words.BYTES);
        var kept = Words.decode(data).requests();
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
        assertEquals("1e37332c", Spool.mark("127.0.0.1:50051", false));
        assertEquals("185259d8", Spool.mark("h:1", true));
    }

    @Test
    void laterLettersOfAJobWaitForThoseInOtherHands() throws IOException {
        Target target = Target.of("127.0.0.1:2", null, null, Map.of());
        Words words = new Words("127.0.0.1:2", false, "j", "", List.of());
        Letter held = Spool.write(words, null);
        Letter later = Spool.write(words, null);
        later.release();
        Files.writeString(later.path, "{");
        var credentials = Channels.credentials(target);
        assertEquals(new SpoolReport(0, 0, 2), Postman.flush(target, credentials));
        held.remove();
        assertEquals(new SpoolReport(0, 1, 0), Postman.flush(target, credentials));
    }

    @Test
    void aServerThatIsAwayHoldsNobodyUp() throws IOException {
        for (Path old : Spool.letters(Target.of("127.0.0.1:1", null, null, Map.of()), "")) {
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
        List<Path> letters = Spool.letters(Target.of("127.0.0.1:1", null, null, Map.of()), id);
        assertEquals(1, letters.size());
        assertEquals(
                List.of("CreateJobRequest", "ReportProgressRequest", "FinishJobRequest"),
                Words.decode(Files.readAllBytes(letters.get(0))).requests().stream()
                        .map(r -> r.getDescriptorForType().getName())
                        .toList());
    }
}
