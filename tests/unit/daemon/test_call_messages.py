"""The binary messages of socket calls: as the C header has them, and proof against nonsense."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.calls_daemon import CallsDaemon
from ustack.api import protocol
from ustack.api.protocol import Answer, Call

HEADER = Path(__file__).parents[3] / "ustack_c" / "preload" / "ustack_proto.h"
CALLS = st.builds(
    Call,
    st.integers(0, 65535),
    *[st.integers(-(2**31), 2**31 - 1)] * 3,
    st.integers(0, 2**32 - 1),
    st.integers(0, 65535),
    st.binary(max_size=protocol.MAX_DATA),
)
INTERESTING = st.builds(
    Call,
    st.integers(0, 13) | st.just(protocol.TELL),
    st.sampled_from([0, 1, 2, 6]),
    st.integers(0, 60) | st.sampled_from([0x541B, 0x5411, 0x894B]),
    st.integers(-2, 70_000),
    st.sampled_from([0, 0x7F000001, 0xFFFFFFFF]),
    st.integers(0, 65535),
    st.binary(max_size=40),
)


def test_the_header_says_the_same_numbers():
    text = HEADER.read_text()
    ops = dict(re.findall(r"USTACK_([A-Z]+) = (\d+),", text))
    ops |= dict(re.findall(r"USTACK_(HAS_[A-Z]+) = (\d+),", text))
    assert {name: getattr(protocol, name) for name in ops} == {n: int(v) for n, v in ops.items()}
    assert f"USTACK_MAGIC {protocol.MAGIC:#x}" in text
    assert f"USTACK_MAX_DATA {protocol.MAX_DATA}" in text
    assert f'USTACK_NAME "{protocol.NAME[1:].decode()}"' in text


def test_the_structs_have_the_same_sizes_in_c(tmp_path: Path):
    program = tmp_path / "sizes.c"
    program.write_text(
        f'#include "{HEADER}"\n#include <stdio.h>\nint main(void) {{ printf("%zu %zu %zu %zu",'
        "sizeof(struct ustack_request), sizeof(struct ustack_reply),"
        "sizeof(struct ustack_accepted), sizeof(struct ustack_datagram)); }\n"
    )
    subprocess.run(["cc", "-o", tmp_path / "sizes", program], check=True)
    sizes = subprocess.check_output([tmp_path / "sizes"], text=True)
    structs = (protocol.REQUEST, protocol.REPLY, protocol.ACCEPTED, protocol.DATAGRAM)
    assert sizes == " ".join(str(s.size) for s in structs)


@given(CALLS)
def test_a_call_is_read_as_it_was_packed(call: Call):
    assert protocol.parse_call(protocol.pack_call(call)) == call


@given(st.binary(max_size=1200))
def test_whatever_is_no_call_is_eproto(message: bytes):
    try:
        call = protocol.parse_call(message)
    except OSError as error:
        assert error.errno == errno.EPROTO
    else:
        assert protocol.pack_call(call) == message


def test_an_answer_carries_an_error_or_values():
    answer = Answer(7, 0x0A000002, 80, b"data")
    assert protocol.parse_answer(protocol.pack_answer(0, answer)) == answer
    with pytest.raises(ConnectionRefusedError):
        protocol.parse_answer(protocol.pack_answer(errno.ECONNREFUSED, Answer()))


@pytest.mark.timeout(120)
def test_no_sequence_of_calls_harms_the_daemon(tmp_path: Path):
    """Random calls on sockets of random age, foreign descriptors among them; each is answered."""
    with CallsDaemon(tmp_path / "u.sock") as daemon:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(st.tuples(INTERESTING | CALLS, st.integers(-2, 5)), max_size=25))
        def play(calls: list[tuple[Call, int]]) -> None:
            held: list[int] = []
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
                line.settimeout(20)
                line.connect(str(daemon.path))
                line.send(protocol.pack_call(Call(protocol.HELLO)))
                assert line.recv(100)
                for call, which in calls:
                    fd = held[which % len(held)] if held and which >= 0 else which + 1
                    message = protocol.pack_call(call)
                    line.sendmsg([message], protocol.rights(fd))
                    if call.op == protocol.TELL:
                        continue  # has no answer
                    answer, ancillary, _, _ = line.recvmsg(2048, socket.CMSG_SPACE(4))
                    assert len(answer) >= protocol.REPLY.size
                    held += protocol.rights_in(ancillary)
            for fd in held:
                os.close(fd)

        play()
        for _ in range(500):
            if not daemon.ask(lambda: len(daemon.hub)):
                break
        assert daemon.ask(lambda: len(daemon.hub)) == 0


def test_garbage_is_answered_with_eproto_and_a_flood_costs_the_flooder_his_line(tmp_path: Path):
    with CallsDaemon(tmp_path / "u.sock") as daemon:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
            line.connect(str(daemon.path))
            line.send(bytes([protocol.MAGIC]) + b"garbage")
            assert protocol.REPLY.unpack(line.recv(100))[0] == errno.EPROTO
            with pytest.raises(OSError):
                while True:  # never reads an answer
                    line.send(protocol.pack_call(Call(protocol.HELLO)))
        assert daemon.ask(lambda: 1) == 1
