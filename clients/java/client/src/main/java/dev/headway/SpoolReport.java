package dev.headway;

/**
 * Counts what happened to the spool files for a server.
 *
 * @param sent how many the server has stored
 * @param refused how many the server will never accept; they stay as {@code .refused}, for people
 *     to look at
 * @param waiting how many still wait, because the server is unreachable or another process has them
 */
public record SpoolReport(int sent, int refused, int waiting) {}
