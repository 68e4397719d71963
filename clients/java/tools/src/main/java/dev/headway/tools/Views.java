package dev.headway.tools;

import dev.headway.Job;
import dev.headway.Status;
import dev.headway.v1.ListRecordErrorsResponse;
import dev.headway.v1.RecordError;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** How the driver shows what it saw. */
final class Views {
    private Views() {}

    /** What a job object tells about itself. */
    static Object view(Job job) {
        Map<String, Object> view = new LinkedHashMap<>();
        view.put("id", job.id());
        view.put("name", job.name());
        view.put("invoker", job.invoker());
        view.put("status", job.status());
        view.put("progress", job.progress());
        view.put("size", job.size());
        view.put("unit", job.unit());
        view.put("message", job.message());
        view.put("attempt", job.attempt());
        view.put("results", job.results());
        view.put("cancelled", job.isCancelled());
        return view;
    }

    /** A job as the server described it. */
    static Object state(dev.headway.v1.Job job) {
        Map<String, Object> state = new LinkedHashMap<>();
        state.put("id", job.getId());
        state.put("name", job.getName());
        state.put("invoker", job.getInvoker());
        state.put("status", Status.of(job));
        state.put("progress", job.getProgress());
        state.put("size", job.getSize());
        state.put("unit", job.getUnit());
        state.put("message", job.getMessage());
        state.put("labels", job.getLabelsMap());
        state.put("parts", job.getPartsMap());
        state.put("counters", job.getCountersMap());
        state.put("error_count", job.getErrorCount());
        state.put("error", job.hasError() ? error(job.getError()) : null);
        state.put("attempt", job.getAttempt());
        state.put("revision", job.getRevision());
        state.put("stalled", job.getStalled());
        state.put("continues", job.getContinues());
        state.put("continued_by", job.getContinuedBy());
        state.put("key", job.getKey());
        return state;
    }

    private static Object error(com.google.rpc.Status error) {
        String code = io.grpc.Status.fromCodeValue(error.getCode()).getCode().name();
        return Map.of("code", code, "message", error.getMessage());
    }

    static Object recordErrors(ListRecordErrorsResponse listed) {
        return Map.of(
                "first", errors(listed.getFirstList()),
                "last", errors(listed.getLastList()),
                "total", listed.getTotal());
    }

    private static List<Map<String, String>> errors(List<RecordError> errors) {
        return errors.stream()
                .map(
                        error ->
                                Map.of(
                                        "record",
                                        error.getRecord(),
                                        "code",
                                        error.getCode(),
                                        "message",
                                        error.getMessage()))
                .toList();
    }
}
