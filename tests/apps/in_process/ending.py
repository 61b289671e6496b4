"""Ends with threads that wait, threads that work, and an error of its own."""

import select
import socket
import threading
import time

listener = socket.create_server(("127.0.0.1", 8300))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()
silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(("127.0.0.1", 0))
main_is_done = threading.Event()


def chatter() -> None:
    while True:
        client.send(b"x")
        time.sleep(0.001)


def listen() -> None:
    while server.recv(10):
        pass


def serve_on() -> None:
    main_is_done.wait()
    threading.main_thread().join()
    for _ in range(2):
        with socket.create_connection(greeter.getsockname()) as caller:
            greeter.accept()[0].sendall(b"hello")
            print(caller.recv(5).decode())


greeter = socket.create_server(("127.0.0.1", 8301))
for wait in (
    listener.accept, lambda: silent.recv(1), lambda: select.select([silent], [], []),
    chatter, listen,
):  # fmt: skip
    threading.Thread(target=wait, daemon=True).start()
threading.Thread(target=serve_on).start()
print("main is done", flush=True)
main_is_done.set()
gone = socket.create_connection(greeter.getsockname())
greeter.accept()[0].close()
gone.shutdown(socket.SHUT_WR)
gone.send(b"x")
