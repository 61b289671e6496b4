"""struct tcp_info of the running kernel, over its loopback, and ours: what must agree does."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from kit.host import two_hosts
from kit.lab import Namespace
from ustack.tcp.info import FIELDS, LAYOUT, unpack_tcp_info

TCP, TCP_INFO = socket.IPPROTO_TCP, 11
SENT = 100

KERNEL = """
import json, socket
def infos():
    return [sk.getsockopt(6, 11, 1000).hex() for sk in (client, server, listener, fresh)]
fresh = socket.socket()
listener = socket.create_server(("127.0.0.1", 5000), backlog=128)
client = socket.create_connection(("127.0.0.1", 5000))
server, _ = listener.accept()
out = [infos()]
client.send(bytes(100))
server.recv(100)
while client.getsockopt(6, 11, 192)[24]:
    pass
out.append(infos())
print(json.dumps(out))
"""

OF_THE_PATH = {
    "wscale", "flags", "rto", "rcv_mss", "snd_mss", "last_data_sent", "last_data_recv",
    "last_ack_recv", "pmtu", "rcv_ssthresh", "rtt", "rttvar", "advmss", "rcv_rtt", "rcv_space",
    "pacing_rate", "min_rtt", "delivery_rate", "busy_time", "snd_wnd", "rcv_wnd", "ato",
}  # fmt: skip
"""Times, sizes of loopback's segments and memory, and what ustack does not measure."""
MUST_AGREE = [name for name in FIELDS if name not in OF_THE_PATH]
Infos = list[dict[str, int]]


@pytest.fixture(scope="module")
def packed() -> list[list[bytes]]:
    with Namespace("info") as ns:
        said = ns.output("python3", "-c", KERNEL)
    return [[bytes.fromhex(text) for text in row] for row in json.loads(said)]


@pytest.fixture(scope="module")
def kernel(packed: list[list[bytes]]) -> list[Infos]:
    return [[unpack_tcp_info(one[: LAYOUT.size]) for one in row] for row in packed]


@pytest.fixture(scope="module")
def ours() -> list[Infos]:
    near, far = two_hosts()
    fresh = near.socket()
    listener = far.listen(5000, 128)
    client = near.connect("10.0.0.2", 5000)
    server = listener.accept()

    def infos() -> Infos:
        socks: tuple[Any, ...] = (client, server, listener, fresh)
        return [unpack_tcp_info(sk.getsockopt(TCP, TCP_INFO, 1000)) for sk in socks]

    idle = infos()
    client.send(bytes(SENT))
    near.settle()
    server.recv(SENT)
    near.advance_us(100_000)
    return [idle, infos()]


@pytest.mark.parametrize("who", range(4), ids=["client", "server", "listener", "fresh"])
def test_an_idle_connection_has_the_kernels_figures(kernel, ours, who: int):
    theirs, own = kernel[0][who], ours[0][who]
    assert {n: own[n] for n in MUST_AGREE} == {n: theirs[n] for n in MUST_AGREE}


@pytest.mark.parametrize("who", [0, 1], ids=["client", "server"])
@pytest.mark.parametrize(
    "name",
    ["state", "options", "unacked", "bytes_acked", "bytes_received", "bytes_sent", "data_segs_in",
     "data_segs_out", "delivered", "notsent_bytes", "total_retrans", "snd_ssthresh"],
)  # fmt: skip
def test_a_hundred_bytes_count_as_the_kernel_counts_them(kernel, ours, who: int, name: str):
    assert ours[1][who][name] == kernel[1][who][name]


def test_what_the_kernel_measures_of_loopback_stands_where_we_read_it(kernel):
    """Members that are of the path say by their values that they are the right ones."""
    client, server, *_ = kernel[0]
    assert client["min_rtt"] == client["rtt"] > 0
    assert client["rcv_wnd"] == server["snd_wnd"] and client["snd_wnd"] == server["rcv_wnd"]
    assert client["advmss"] == 65_483 and client["pmtu"] == 65_535
    assert client["rto"] >= 200_000 and client["rcv_mss"] == 536
    assert client["wscale"] == server["wscale"] >> 4 | (server["wscale"] & 15) << 4


def test_a_new_socket_of_the_kernel_has_our_first_values(kernel, ours):
    for name in ("rto", "snd_mss", "rttvar", "min_rtt", "pacing_rate"):
        assert ours[0][3][name] == kernel[0][3][name]


def test_the_structure_is_not_longer_here(packed):
    """A newer kernel may have more behind; an older one has less."""
    assert len(packed[0][0]) <= LAYOUT.size or set(packed[0][0][LAYOUT.size :]) <= {0}
