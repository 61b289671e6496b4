"""The device on a descriptor, as on a TAP: a socket pair stands for the kernel's side."""

from __future__ import annotations

import errno
import socket

import pytest

from kit.board import Board, ethernet
from ustack.nic.wire import Wire


class SocketWire(Wire):
    """One end of a SOCK_SEQPACKET pair: one unit for each read and write."""

    def __init__(self, end: socket.socket, *, vnet_hdr: bool = True) -> None:
        end.setblocking(False)
        self.end = end
        self.dma_fd = end.fileno()
        self.vnet_hdr = vnet_hdr


@pytest.fixture(params=[True, False], ids=["vnet_hdr", "bare"])
def setup(request):
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    far.setblocking(False)
    board = Board(SocketWire(near, vnet_hdr=request.param))
    yield board, far, bytes(10) if request.param else b""
    board.nic.close()
    near.close()
    far.close()


def test_frames_are_read_until_none_waits(setup):
    board, far, header = setup
    for i in range(5):
        far.send(header + ethernet(bytes([i])))
    assert board.nic.dma_rx() == 5
    assert [board.buffer(i)[14] for i in range(5)] == list(range(5))
    assert board.nic.dma_rx() == 0
    assert board.nic.wire_error == 0


def test_a_jumbo_frame_is_read_straight_into_its_descriptors(setup):
    board, far, header = setup
    board.regs.RLPML = 65549
    frame = ethernet(bytes(i % 249 for i in range(65535)))
    far.send(header + frame)
    assert board.nic.dma_rx() == 1
    assert board.rxq.RDH == 33
    assert b"".join(board.buffer(i) for i in range(33)) == frame


def test_with_few_descriptors_left_a_short_frame_still_comes_in(setup):
    board, far, header = setup
    board.regs.RLPML = 65549
    board.rxq.RDT = 2
    far.send(header + ethernet(b"short"))
    far.send(header + ethernet(bytes(9000)))
    far.send(header + ethernet(b"behind"))
    assert board.nic.dma_rx() == 2
    assert (board.rxq.RDH, board.regs.RNBC, board.regs.MPC) == (1, 1, 0)
    board.rxq.RDT = 255
    assert board.nic.dma_rx() == 1
    assert board.rxq.RDH == 7
    assert board.buffer(6)[14:] == b"behind"


def test_a_full_ring_is_not_read_with_pause(setup):
    board, far, header = setup
    board.rxq.RDT = 1
    for _ in range(2):
        far.send(header + ethernet(b""))
    assert board.nic.dma_rx() == 1
    assert board.nic.dma_rx() == 0
    assert far.send(header + ethernet(b"")) and board.regs.MPC == 0


def test_a_full_ring_is_read_and_dropped_without_pause(setup):
    board, far, header = setup
    board.regs.CTRL = 0
    board.rxq.RDT = 1
    for _ in range(4):
        far.send(header + ethernet(b""))
    assert board.nic.dma_rx() == 4
    assert (board.regs.GPRC, board.regs.MPC) == (1, 3)


def test_an_overlong_frame_is_dropped_not_truncated(setup):
    board, far, header = setup
    for size in (1504, 1505, 1530, 5000):
        far.send(header + ethernet(bytes(size)))
    assert board.nic.dma_rx() == 4
    assert (board.regs.GPRC, board.regs.ROC) == (1, 3)


def test_frames_are_written(setup):
    board, far, header = setup
    frame = ethernet(b"payload")
    board.data(0, frame[:9], eop=False, rs=False)
    board.data(1, frame[9:], at=100)
    board.nic.write_tdt(0, 2)
    assert far.recv(100) == header + frame
    assert board.tx_is_done(1)
    assert board.delivered == [0]


def test_a_full_wire_is_tried_again(setup):
    board, far, header = setup
    frame = ethernet(bytes(1500))
    for i in range(255):
        board.data(i, frame)
    board.nic.write_tdt(0, 255)
    stuck = board.txq.TDH
    assert stuck < 255
    assert board.nic.dma_tx() == 0
    for _ in range(stuck):
        assert far.recv(2000) == header + frame
    assert board.nic.dma_tx() > 0
    assert board.regs.GPTC == board.txq.TDH


def test_a_wire_that_is_gone_is_remembered_and_sends_nothing_any_more(setup):
    board, far, _ = setup
    far.close()
    assert board.nic.dma_rx() == 0
    assert board.nic.wire_error == errno.ECONNRESET
    board.data(0, ethernet(b""))
    board.nic.write_tdt(0, 1)
    assert (board.txq.TDH, board.regs.TXERRC, board.regs.GPTC) == (1, 1, 0)
    assert board.nic.dma_rx() == 0


def test_writing_finds_out_too(setup):
    board, far, _ = setup
    far.close()
    board.data(0, ethernet(b""))
    board.nic.write_tdt(0, 1)
    assert board.nic.wire_error == errno.EPIPE
    assert board.regs.TXERRC == 1


def test_an_offload_that_a_bare_wire_cannot_carry_loses_the_frame():
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    board = Board(SocketWire(near, vnet_hdr=False))
    board.context(0, 14, 20, 20, 0, True)
    board.data(1, ethernet(bytes(60)), olinfo=0x200)
    board.nic.write_tdt(0, 2)
    assert board.regs.TXERRC == 1
    near.close()
    far.close()
