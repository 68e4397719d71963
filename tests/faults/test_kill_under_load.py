"""A server killed while a stream runs at full speed: what was acknowledged is there, and nothing that was not sent."""

from collections.abc import Iterator

import grpc

from headway.v1 import job_service_pb2 as pb
from headway.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.seeds import seeded
from tests.support.server import ServerProcess

JOBS = 100
ROUNDS = 4
SESSION = "under-load"


def test_what_a_stream_was_acknowledged_is_there_after_a_kill(own_server: ServerProcess) -> None:
    chance = seeded("kill under load")
    with grpc.insecure_channel(own_server.address) as channel:
        stub = JobServiceStub(channel)
        jobs = [stub.CreateJob(pb.CreateJobRequest(session_id=SESSION)).id for _ in range(JOBS)]
    # The benchmark's message: a hundred jobs, each one unit further.
    reports = [pb.ReportProgressRequest(session_id=SESSION, job_id=job, advance=1) for job in jobs]
    message = pb.StreamProgressRequest(reports=reports)
    stored = 0
    for _ in range(ROUNDS):
        sent = acked = 0
        killed_after = chance.randint(200, 1500)

        def messages() -> Iterator[pb.StreamProgressRequest]:
            nonlocal sent
            while True:
                sent += 1
                yield message

        # As fast as the server takes them: gRPC and the stream's window hold the sender back.
        with grpc.insecure_channel(own_server.address) as channel:
            try:
                for response in JobServiceStub(channel).StreamProgress(messages()):
                    acked = response.acked
                    if acked >= killed_after and own_server.running:
                        own_server.kill()
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
        own_server.start()
        with grpc.insecure_channel(own_server.address) as channel:
            stub = JobServiceStub(channel)
            found = {stub.GetJob(pb.GetJobRequest(session_id=SESSION, job_id=job)).progress for job in jobs}
        # A message is committed as a whole: all jobs stand where it left them.
        (after,) = found
        assert stored + killed_after <= stored + acked <= after <= stored + sent
        stored = after
