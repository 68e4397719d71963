package dev.headway;

import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import com.google.gson.JsonParseException;
import com.google.gson.JsonParser;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.Parser;

import dev.headway.v1.CreateJobRequest;
import dev.headway.v1.FailJobRequest;
import dev.headway.v1.FinishJobRequest;
import dev.headway.v1.ReportProgressRequest;
import dev.headway.v1.StartJobRequest;
import dev.headway.v1.UpdateJobRequest;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;

/**
 * What one job has left to send, in order, and to which server. Reports keep their sequences, so
 * that a report that did arrive does not count twice. All clients read and write the same format.
 */
record SpoolRecord(String address, boolean tls, String jobId, String name, List<Message> requests) {
    static final int MAX_FILE_BYTES = 8 * 1024 * 1024;

    private static final int VERSION = 1;
    private static final Map<String, Parser<? extends Message>> KINDS =
            Map.of(
                    "CreateJobRequest", CreateJobRequest.parser(),
                    "StartJobRequest", StartJobRequest.parser(),
                    "UpdateJobRequest", UpdateJobRequest.parser(),
                    "ReportProgressRequest", ReportProgressRequest.parser(),
                    "FinishJobRequest", FinishJobRequest.parser(),
                    "FailJobRequest", FailJobRequest.parser());

    /**
     * Gives JSON of at most 8 MiB. If there is no room, it drops record errors, the last ones
     * first.
     */
    byte[] encode() {
        List<Message> fitting = new ArrayList<>(requests);
        long size = fitting.stream().mapToLong(SpoolRecord::length).sum();
        for (int i = fitting.size() - 1; i >= 0 && size > MAX_FILE_BYTES - 4096; i--) {
            if (fitting.get(i) instanceof ReportProgressRequest report) {
                Message rest = report.toBuilder().clearRecordErrors().build();
                size -= length(report) - length(rest);
                fitting.set(i, rest);
            }
        }
        JsonArray calls = new JsonArray();
        for (Message request : fitting) {
            JsonArray call = new JsonArray();
            call.add(request.getDescriptorForType().getName());
            call.add(Base64.getEncoder().encodeToString(request.toByteArray()));
            calls.add(call);
        }
        JsonObject file = new JsonObject();
        file.addProperty("version", VERSION);
        file.addProperty("target", address);
        file.addProperty("tls", tls);
        file.addProperty("job", jobId);
        file.addProperty("name", name);
        file.add("requests", calls);
        return file.toString().getBytes(StandardCharsets.UTF_8);
    }

    /**
     * IllegalArgumentException if {@code encode} did not make this data, or if it has another
     * version.
     */
    static SpoolRecord decode(byte[] data) {
        try {
            JsonObject file =
                    JsonParser.parseString(new String(data, StandardCharsets.UTF_8))
                            .getAsJsonObject();
            if (file.get("version").getAsInt() != VERSION) {
                throw new IllegalArgumentException("it is of version " + file.get("version"));
            }
            List<Message> requests = new ArrayList<>();
            for (var entry : file.getAsJsonArray("requests")) {
                JsonArray call = entry.getAsJsonArray();
                byte[] bytes = Base64.getDecoder().decode(call.get(1).getAsString());
                requests.add(KINDS.get(call.get(0).getAsString()).parseFrom(bytes));
            }
            return new SpoolRecord(
                    file.get("target").getAsString(),
                    file.get("tls").getAsBoolean(),
                    file.get("job").getAsString(),
                    file.get("name").getAsString(),
                    requests);
        } catch (JsonParseException
                | NullPointerException
                | IllegalStateException
                | ClassCastException
                | IndexOutOfBoundsException
                | UnsupportedOperationException
                | InvalidProtocolBufferException damage) {
            throw new IllegalArgumentException(
                    "it is damaged: " + damage.getClass().getSimpleName());
        }
    }

    /** Without the requests, which contain a session id. */
    @Override
    public String toString() {
        return "last spoolRecord of job " + jobId + " for " + address;
    }

    private static long length(Message request) {
        return (request.getSerializedSize() + 2L) / 3 * 4 + 32;
    }
}
