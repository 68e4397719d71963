"""A worker that can be told to stop: `python -m examples.cancellable`, and then `headway cancel JOB`.

It only pretends to send reminders, 100 a second. Sent reminders stay sent.
"""

import sys
import time

import headway

COUNT = 3000


def main() -> int:
    """Exit status 0 if all were sent, 1 after a cancellation request."""
    with headway.connect() as hw:
        try:
            with hw.job(name="Send overdue notices", size=COUNT, unit="notices") as job:  # plain-words: ok
                print(f"job {job.id}", flush=True)
                for _ in job.track(range(COUNT), cancellable=True):
                    time.sleep(0.01)
        except headway.JobCancelled as cancelled:
            print(f"stopped after {job.progress} reminders: {cancelled.reason}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
