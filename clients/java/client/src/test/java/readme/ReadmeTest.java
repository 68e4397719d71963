package readme;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.regex.Pattern;

class ReadmeTest {
    private static final Pattern BLOCK = Pattern.compile("```java\n(.*?)```", Pattern.DOTALL);

    private static String plain(String code) {
        return code.replaceAll("\\s+", "");
    }

    @Test
    void whatTheReadmeShowsIsCompiled() throws IOException {
        String tour = plain(Files.readString(Path.of("src/test/java/readme/Tour.java")));
        var blocks = BLOCK.matcher(Files.readString(Path.of("../README.md"))).results().toList();
        assertFalse(blocks.isEmpty());
        blocks.forEach(block -> assertTrue(tour.contains(plain(block.group(1))), block.group(1)));
    }
}
