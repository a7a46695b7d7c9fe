"""Answers every TCP connection and every UDP datagram on one port with `NAME SOURCE-ADDRESS`. Standard library only:
it is started many times, with `python -I -S`, as the server in a pod.
"""

import asyncio
import sys
from typing import cast


class Answer(asyncio.DatagramProtocol):
    def __init__(self, name: str) -> None:
        self.name = name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)  # the endpoint was made for datagrams

    def datagram_received(self, _data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(f"{self.name} {addr[0]}\n".encode(), addr)


async def serve(name: str, port: int) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One line at once; then, for connections that are held open, an echo of what arrives."""
        writer.write(f"{name} {writer.get_extra_info('peername')[0]}\n".encode())
        try:
            while data := await reader.read(4096):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(greet, "0.0.0.0", port, backlog=512)  # noqa: S104 - a pod serves its network
    await loop.create_datagram_endpoint(lambda: Answer(name), local_addr=("0.0.0.0", port))  # noqa: S104
    print("listening", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
