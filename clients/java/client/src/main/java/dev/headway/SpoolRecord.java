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
 * What one job has left to say, in order, and to whom. Reports have the sequences that they had, so
 * that what did arrive is not counted twice. The clients of all languages read and write the same.
 */
record Words(String address, boolean tls, String jobId, String name, List<Message> requests) {
    static final int BYTES = 8 * 1024 * 1024;

    private static final int VERSION = 1;
    private static final Map<String, Parser<? extends Message>> KINDS =
            Map.of(
                    "CreateJobRequest", CreateJobRequest.parser(),
                    "StartJobRequest", StartJobRequest.parser(),
                    "UpdateJobRequest", UpdateJobRequest.parser(),
                    "ReportProgressRequest", ReportProgressRequest.parser(),
                    "FinishJobRequest", FinishJobRequest.parser(),
                    "FailJobRequest", FailJobRequest.parser());

    /** As JSON of at most 8 MiB. What has no room are record errors, the last ones first. */
    byte[] encode() {
        List<Message> fitting = new ArrayList<>(requests);
        long size = fitting.stream().mapToLong(Words::length).sum();
        for (int i = fitting.size() - 1; i >= 0 && size > BYTES - 4096; i--) {
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
        JsonObject letter = new JsonObject();
        letter.addProperty("version", VERSION);
        letter.addProperty("target", address);
        letter.addProperty("tls", tls);
        letter.addProperty("job", jobId);
        letter.addProperty("name", name);
        letter.add("requests", calls);
        return letter.toString().getBytes(StandardCharsets.UTF_8);
    }

    /**
     * IllegalArgumentException if this is not what {@code encode} makes, or not of this version.
     */
    static Words decode(byte[] data) {
        try {
            JsonObject letter =
                    JsonParser.parseString(new String(data, StandardCharsets.UTF_8))
                            .getAsJsonObject();
            if (letter.get("version").getAsInt() != VERSION) {
                throw new IllegalArgumentException("it is of version " + letter.get("version"));
            }
            List<Message> requests = new ArrayList<>();
            for (var entry : letter.getAsJsonArray("requests")) {
                JsonArray call = entry.getAsJsonArray();
                byte[] bytes = Base64.getDecoder().decode(call.get(1).getAsString());
                requests.add(KINDS.get(call.get(0).getAsString()).parseFrom(bytes));
            }
            return new Words(
                    letter.get("target").getAsString(),
                    letter.get("tls").getAsBoolean(),
                    letter.get("job").getAsString(),
                    letter.get("name").getAsString(),
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

    /** Without the requests, which hold a session id. */
    @Override
    public String toString() {
        return "last words of job " + jobId + " for " + address;
    }

    private static long length(Message request) {
        return (request.getSerializedSize() + 2L) / 3 * 4 + 32;
    }
}
