package dev.headway;

/**
 * What became of the jobs' last words that waited in the spool for a server.
 *
 * @param sent how many jobs' words arrived
 * @param refused how many the server will never take; they stay beside, as {@code .refused}, for
 *     people to look at
 * @param waiting how many still wait, because the server does not answer, or in the hands of
 *     another process
 */
public record SpoolReport(int sent, int refused, int waiting) {}
