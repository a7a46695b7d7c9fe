"""Stands for all endpoints: answers on one port with the address at which it was reached. Standard library only."""

import socket
import sys


def main() -> None:
    with socket.create_server(("0.0.0.0", int(sys.argv[1])), backlog=4096) as server:  # noqa: S104 - in its namespace
        print("listening", flush=True)
        while True:
            made, _ = server.accept()
            try:
                made.send(made.getsockname()[0].encode())
            except OSError:
                pass
            finally:
                made.close()


if __name__ == "__main__":
    main()
