"""A wire of several descriptors, as a TAP with several queues: socket pairs stand for them."""

from __future__ import annotations

import errno
import socket

import pytest

from kit.board import Board, ethernet
from ustack.native.lib import lib
from ustack.nic.wire import Wire
from ustack.nic.wrapped import WrappedWire

HEADER = bytes(10)


class SocketsWire(Wire):
    """Ends of SOCK_SEQPACKET pairs, all of one wire."""

    def __init__(self, ends: list[socket.socket]) -> None:
        self.ends = ends
        fds = [end.fileno() for end in ends]
        self.dma_fd, self.more_fds = fds[0], tuple(fds[1:])

    def fileno(self) -> int:
        return self.dma_fd


class Rig:
    """A board on a wire of ``queues`` descriptors and their far ends."""

    def __init__(self, queues: int, **board) -> None:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(queues)]
        self.near = [near for near, _ in pairs]
        self.far = [far for _, far in pairs]
        for end in (*self.near, *self.far):
            end.setblocking(False)
        self.wire = SocketsWire(self.near)
        self.board = Board(self.wire, **board)

    def arrive(self, queue: int, *marks: int) -> None:
        for mark in marks:
            self.far[queue].send(HEADER + ethernet(bytes([mark])))

    def received(self) -> list[int]:
        return [self.board.buffer(i)[14] for i in range(self.board.rxq.RDH)]

    def add_tx_queues(self, *queues: int) -> None:
        """Give transmit queues rings of their own, with a descriptor for a marked frame."""
        board = self.board
        for queue in queues:
            txq = board.regs.txq + queue
            board.tx_ring = txq.TDBAL = board.mem.alloc_pages(4)
            txq.TDLEN = board.count * 16
            txq.TXDCTL = lib.US_E1000_TXDCTL_QUEUE_ENABLE
            board.data(0, ethernet(bytes([queue])), at=100 * queue)

    def sent(self, queue: int) -> list[int]:
        marks = []
        while True:
            try:
                marks.append(self.far[queue].recv(2048)[24])
            except BlockingIOError:
                return marks

    def close(self) -> None:
        self.board.nic.close()
        for end in (*self.near, *self.far):
            end.close()


@pytest.fixture
def rig():
    made = Rig(3)
    yield made
    made.close()


def test_every_queue_is_read(rig: Rig):
    for queue in range(3):
        rig.arrive(queue, 10 * queue, 10 * queue + 1)
    assert rig.board.nic.dma_rx() == 6
    assert sorted(rig.received()) == [0, 1, 10, 11, 20, 21]
    assert rig.board.nic.dma_rx() == 0


def test_frames_of_one_queue_stay_in_order(rig: Rig):
    rig.arrive(1, *range(50))
    assert rig.board.nic.dma_rx() == 50
    assert rig.received() == list(range(50))


def test_a_queue_that_is_never_empty_does_not_starve_the_others(rig: Rig):
    rig.arrive(0, *range(60))
    rig.arrive(2, 200)
    for _ in range(3):
        rig.board.nic.dma_rx(limit=8)
    assert 200 in rig.received()


def test_a_full_ring_leaves_frames_on_all_queues(rig: Rig):
    rig.board.rxq.RDT = 1
    for queue in range(3):
        rig.arrive(queue, queue)
    assert rig.board.nic.dma_rx() == 1
    assert rig.board.nic.dma_rx() == 0
    rig.board.rxq.RDT = 255
    assert rig.board.nic.dma_rx() == 2
    assert sorted(rig.received()) == [0, 1, 2]


def test_a_transmit_queue_sends_by_the_wires_queue_of_its_number(rig: Rig):
    rig.add_tx_queues(*range(8))
    for queue in range(8):
        rig.board.nic.write_tdt(queue, 1)
    assert [rig.sent(queue) for queue in range(3)] == [[0, 3, 6], [1, 4, 7], [2, 5]]


def test_a_full_queue_of_the_wire_holds_up_only_those_that_send_by_it(rig: Rig):
    rig.add_tx_queues(0, 1)
    rig.near[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    with pytest.raises(BlockingIOError):
        while True:
            rig.near[0].send(bytes(2000))
    rig.board.nic.write_tdt(0, 1)
    rig.board.nic.write_tdt(1, 1)
    assert rig.sent(1) == [1]
    assert lib.us_nic_tx_pending(rig.board.nic._nic) == 0b1


def test_one_queue_that_is_gone_is_a_wire_that_is_gone(rig: Rig):
    rig.far[1].close()
    assert rig.board.nic.dma(0) == -1
    assert rig.board.nic.wire_error == errno.ECONNRESET


def test_all_descriptors_are_to_be_watched(rig: Rig):
    assert rig.wire.filenos() == WrappedWire(rig.wire).filenos()
    assert len(rig.wire.filenos()) == 3
    assert Wire().filenos() == []


def test_a_wire_of_more_queues_than_the_device_is_refused():
    with pytest.raises(ValueError, match="more than 8 queues"):
        Rig(9)


def test_a_queue_cannot_be_attached_to_no_wire():
    board = Board()
    assert lib.us_nic_attach_queue(board.nic._nic, 0) == -errno.EINVAL
