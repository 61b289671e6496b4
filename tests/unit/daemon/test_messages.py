"""The control socket's messages: sizes, bad input, packing of rows and packets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ustack.daemon.messages import (
    MAX_MESSAGE_BYTES,
    CaptureRequest,
    CounterRow,
    Done,
    Failure,
    PacketPiece,
    Rows,
    SocketsRequest,
    decode_reply,
    decode_request,
    encode,
    packet_messages,
    row_messages,
)


def test_a_request_comes_through_as_it_was():
    request = CaptureRequest("eth0", 100, 5)
    assert decode_request(encode(request)) == request
    assert decode_request(b'{"op":"sockets"}') == SocketsRequest(())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"op":"reboot"}',
        b'{"op":"sockets","states":7}',
        b'{"op":"sockets","surprise":1}',
        b'{"states":[]}',
        b'{"op":"capture","count":"many"}',
        b'{"op":"capture","count":1e99}',
    ],
)
def test_what_is_no_request_is_a_value_error(data: bytes):
    with pytest.raises(ValueError):
        decode_request(data)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes):
    try:
        decode_request(data)
    except ValueError:
        pass


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_rows_come_in_messages_below_the_limit_and_end_with_done(count: int):
    rows = [CounterRow("TcpExt", f"counter{i}", i) for i in range(count)]
    messages = list(row_messages(rows))
    assert all(len(message) <= MAX_MESSAGE_BYTES for message in messages)
    *chunks, last = [decode_reply(message) for message in messages]
    assert last == Done()
    assert all(isinstance(chunk, Rows) for chunk in chunks)
    assert sum(len(chunk.rows) for chunk in chunks) == count


def test_rows_are_made_only_as_they_are_read():
    made = []

    def rows():
        for i in range(100_000):
            made.append(i)
            yield CounterRow("", "x" * 100, i)

    next(row_messages(rows()))
    assert len(made) < 1000


def test_a_row_that_fits_no_message_ends_the_answer_with_a_failure():
    messages = list(row_messages([CounterRow("", "x" * 70_000, 1), CounterRow("", "y", 1)]))
    assert isinstance(decode_reply(messages[-1]), Failure)
    assert len(messages) == 1


@given(st.integers(0, 3), st.integers(-1, 1))
def test_a_packet_is_cut_into_pieces_that_fit(pieces: int, off_by: int):
    data = bytes(max(0, pieces * 32 * 1024 + off_by))
    messages = list(packet_messages(5, len(data), data))
    assert all(len(message) <= MAX_MESSAGE_BYTES for message in messages)
    replies = [decode_reply(message) for message in messages]
    assert all(isinstance(reply, PacketPiece) for reply in replies)
    assert b"".join(reply.data for reply in replies) == data
    assert [reply.last for reply in replies] == [False] * (len(replies) - 1) + [True]
