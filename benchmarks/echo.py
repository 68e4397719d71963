"""Gives back what it gets, on the server's own kind of event loop and port. Prints its address."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import uvloop

from headway_server.domain.limits import Limits
from headway_server.rpc.grpc_options import options


async def unary(message: bytes, _: object) -> bytes:
    return message


async def stream(messages: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
    async for message in messages:
        yield message


async def main() -> None:
    server = grpc.aio.server(options=options(Limits()))
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.stream_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("headway.benchmark.Echo", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
