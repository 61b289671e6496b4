"""The device's receive DMA: descriptors, head and tail, pause, spans, interrupt."""

from __future__ import annotations

import pytest

from kit.board import BUFFER, Board, ethernet
from ustack.native.lib import lib

DD = lib.US_E1000_RXD_STAT_DD
EOP = lib.US_E1000_RXD_STAT_EOP
RXE = lib.US_E1000_RXDEXT_STATERR_RXE


@pytest.fixture
def board():
    return Board()


def test_a_frame_lands_in_the_buffer_of_the_next_descriptor(board):
    frame = ethernet(b"hello" * 10)
    board.arrive(frame)
    assert board.buffer(0) == frame
    assert board.write_back(0) == (0, 0, DD | EOP, len(frame))
    assert (board.rxq.RDH, board.rxq.RDT) == (1, 255)
    assert board.regs.GPRC == 1
    assert len(frame) == board.regs.GORC


def test_broadcast_and_multicast_are_counted_apart(board):
    board.arrive(ethernet(b"", dest=b"\xff" * 6), ethernet(b"", dest=b"\x01\0\x5e\0\0\x01"))
    assert (board.regs.GPRC, board.regs.BPRC, board.regs.MPRC) == (2, 1, 1)


def test_a_ring_of_256_holds_255_and_pause_leaves_the_rest_on_the_wire(board):
    board.arrive(*[ethernet(i.to_bytes(2, "big")) for i in range(300)])
    assert board.rxq.RDH == board.rxq.RDT == 255
    assert board.nic.wire.pending == 45
    assert (board.regs.GPRC, board.regs.MPC, board.regs.RNBC) == (255, 0, 0)
    assert (board.regs.XOFFTXC, board.regs.XONTXC) == (1, 0)


def test_after_pause_the_rest_comes_in_order_and_the_tail_wraps(board):
    board.arrive(*[ethernet(i.to_bytes(2, "big")) for i in range(300)])
    for i in range(100):
        board.post(i)
    board.rxq.RDT = 99
    board.nic.dma_rx()
    assert board.rxq.RDH == 44
    assert board.buffer(255)[14:] == (255).to_bytes(2, "big")
    assert board.buffer(43)[14:] == (299).to_bytes(2, "big")
    assert (board.regs.XOFFTXC, board.regs.XONTXC) == (1, 1)


def test_without_pause_a_frozen_ring_of_256_misses_4745_of_5000():
    board = Board(pause=False)
    board.arrive(*[ethernet(b"flood") for _ in range(5000)])
    assert board.regs.GPRC == 255
    assert board.regs.MPC == board.regs.RNBC == board.rxq.RQDPC == 4745
    assert board.nic.wire.pending == 0


def test_one_step_takes_no_more_than_its_limit(board):
    for _ in range(10):
        board.far.send_frame(bytes(10) + ethernet(b""))
    assert board.nic.dma_rx(limit=4) == 4
    assert board.nic.dma_rx(limit=100) == 6
    assert board.nic.dma_rx(limit=100) == 0


def test_a_jumbo_frame_spans_descriptors_until_eop(board):
    board.regs.RLPML = 9018
    frame = ethernet(bytes(i % 251 for i in range(9000)))
    board.arrive(frame)
    assert board.rxq.RDH == 5
    assert [board.status(i) for i in range(5)] == [DD] * 4 + [DD | EOP]
    assert [board.write_back(i)[3] for i in range(5)] == [BUFFER] * 4 + [9014 - 4 * BUFFER]
    assert b"".join(board.buffer(i) for i in range(5)) == frame
    assert board.regs.GPRC == 1


def test_a_frame_that_needs_more_descriptors_than_are_free_waits_in_the_device(board):
    board.regs.RLPML = 9018
    board.rxq.RDT = 3
    board.arrive(ethernet(bytes(9000)), ethernet(b"behind"))
    assert (board.rxq.RDH, board.regs.RNBC, board.regs.MPC) == (0, 1, 0)
    assert board.nic.wire.pending == 1
    assert not board.delivered
    board.rxq.RDT = 255
    board.nic.dma_rx()
    assert board.rxq.RDH == 6
    assert board.buffer(5)[14:] == b"behind"
    assert board.delivered == [0]


def test_without_pause_such_a_frame_is_missed():
    board = Board(pause=False)
    board.regs.RLPML = 9018
    board.rxq.RDT = 3
    board.arrive(ethernet(bytes(9000)), ethernet(b"behind"))
    assert (board.regs.MPC, board.rxq.RDH) == (1, 1)
    assert board.buffer(0)[14:] == b"behind"


def test_turning_pause_off_drops_what_waited(board):
    board.regs.RLPML = 9018
    board.rxq.RDT = 3
    board.arrive(ethernet(bytes(9000)))
    board.regs.CTRL = 0
    board.nic.dma_rx()
    assert (board.regs.MPC, board.rxq.RDH) == (1, 0)


def test_a_frame_longer_than_the_limit_is_counted_and_dropped(board):
    board.arrive(ethernet(bytes(1505)), ethernet(bytes(1504)))
    assert (board.regs.ROC, board.regs.GPRC) == (1, 1)


def test_a_runt_is_counted_and_dropped(board):
    board.far.send_frame(bytes(5))
    board.arrive(b"", ethernet(b"")[:13])
    assert (board.regs.RUC, board.regs.GPRC) == (3, 0)


def test_a_descriptor_that_points_outside_memory_ruins_only_its_frame(board):
    board.post(0, addr=board.mem.view.nbytes - 5)
    board.post(1, addr=2**64 - 1)
    board.arrive(*[ethernet(bytes([i])) for i in range(3)])
    assert [board.status(i) & RXE for i in range(3)] == [RXE, RXE, 0]
    assert (board.regs.RXERRC, board.regs.GPRC) == (2, 1)
    assert board.buffer(2)[14:] == b"\2"


@pytest.mark.parametrize(
    ("register", "value"),
    [("RXDCTL", 0), ("RDLEN", 1 << 30), ("RDH", 256), ("RDT", 4096), ("SRRCTL", 2047),
     ("SRRCTL", 128), ("RDBAH", 1), ("RDBAL", 8)],
)  # fmt: skip
def test_a_queue_that_is_off_or_misprogrammed_takes_nothing(board, register, value):
    setattr(board.rxq, register, value)
    board.arrive(ethernet(b""))
    assert board.regs.GPRC == 0
    assert board.nic.wire.pending == 1


def test_the_interrupt_is_delivered_once_until_it_is_enabled_again(board):
    board.arrive(ethernet(b"1"))
    board.arrive(ethernet(b"2"))
    assert board.delivered == [0]
    assert (board.regs.EIMS, board.regs.EICR) == (0, 1)
    board.nic.write_eims(1)
    assert board.delivered == [0, 0]
    board.nic.write_eims(1)
    assert board.delivered == [0, 0]
    assert board.nic.irq_counts[0] == 2


def test_a_masked_cause_waits(board):
    board.nic.write_eimc(1)
    board.arrive(ethernet(b""))
    assert not board.delivered
    board.nic.write_eims(1)
    assert board.delivered == [0]


def test_software_can_set_a_cause(board):
    board.nic.write_eics(1)
    assert board.delivered == [0]


def test_a_vector_has_one_handler(board):
    with pytest.raises(ValueError, match="vector 0"):
        board.nic.request_irq(0, print)


def test_a_closed_device_touches_nothing(board):
    board.nic.close()
    board.arrive(ethernet(b""))
    assert board.regs.GPRC == 0
