"""A forward proxy for HTTPS: it connects each client to one server, whatever host the client names."""

import contextlib
import socket
import socketserver
import threading
from types import TracebackType
from typing import Self


class ConnectProxy:
    """Answers CONNECT of HTTP, and CONNECT of SOCKS5.

    Attributes:
        hosts: the hosts that clients named, in order.
        logins: value of `Proxy-Authorization` of each client of HTTP.
    """

    def __init__(self, host: str, port: int) -> None:
        self.hosts: list[str] = []
        self.logins: list[str] = []
        proxy = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError), socket.create_connection((host, port)) as server:
                    first = self.rfile.read(1)
                    if first == b"\x05":
                        proxy._greet_socks(self)
                    else:
                        proxy._greet_http(self, first)
                    threading.Thread(target=_copy, args=(server, self.connection), daemon=True).start()
                    while data := self.rfile.read1(65536):
                        server.sendall(data)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _greet_http(self, client: socketserver.StreamRequestHandler, first: bytes) -> None:
        self.hosts.append((first + client.rfile.readline()).decode().split()[1].rpartition(":")[0])
        while (line := client.rfile.readline().decode().strip()) != "":
            if line.lower().startswith("proxy-authorization:"):
                self.logins.append(line.partition(": ")[2])
        client.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

    def _greet_socks(self, client: socketserver.StreamRequestHandler) -> None:
        client.rfile.read(client.rfile.read(1)[0])
        client.wfile.write(b"\x05\x00")
        kind = client.rfile.read(4)[3]
        assert kind == 3, "the client resolved the name itself"
        self.hosts.append(client.rfile.read(client.rfile.read(1)[0]).decode())
        client.rfile.read(2)
        client.wfile.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
