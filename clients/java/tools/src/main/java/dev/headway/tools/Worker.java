package dev.headway.tools;

import dev.headway.HeadwayClient;
import dev.headway.NewJob;

import java.util.List;
import java.util.Map;

/** The same in every language; docs/clients.md shows them side by side. */
final class Worker {
    public static void main(String[] args) {
        List<String> batch = List.of("record 1", "record 2", "record 3");
        NewJob staging = NewJob.named("Stage MARC records").size(batch.size()).unit("records");
        try (HeadwayClient client = HeadwayClient.connect()) {
            client.call(
                    staging,
                    job -> {
                        for (String record : job.track(batch)) {
                            job.message("staging " + record);
                            job.count("added");
                        }
                        return Map.of("added", batch.size(), "updated", 0);
                    });
        }
    }

    private Worker() {}
}
