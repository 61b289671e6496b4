"""The device's transmit DMA: gathering, offload requests, write-back, a wire that refuses."""

from __future__ import annotations

import struct

import pytest

from kit.board import Board, ethernet
from ustack.native.lib import lib
from ustack.nic.pair import wire_pair

TXSM = lib.US_E1000_TXD_POPTS_TXSM
TSE = lib.US_E1000_ADVTXD_DCMD_TSE
FRAME = ethernet(b"x" * 60, dest=bytes.fromhex("020000000002"))


@pytest.fixture
def board():
    return Board()


def test_a_frame_goes_out_with_an_empty_virtio_header(board):
    board.data(0, FRAME)
    board.nic.write_tdt(0, 1)
    assert board.far.recv_frame() == bytes(10) + FRAME
    assert (board.txq.TDH, board.txq.TDT) == (1, 1)
    assert (1, len(FRAME)) == (board.regs.GPTC, board.regs.GOTC)


def test_dd_is_written_where_report_status_was_asked_and_sets_the_cause(board):
    board.data(0, FRAME, rs=False)
    board.nic.write_tdt(0, 1)
    assert not board.tx_is_done(0)
    assert not board.delivered
    board.data(1, FRAME)
    board.nic.write_tdt(0, 2)
    assert board.tx_is_done(1)
    assert board.delivered == [0]


def test_one_doorbell_sends_many_frames(board):
    for i in range(10):
        board.data(i, ethernet(bytes([i])), at=100 * i)
    board.nic.write_tdt(0, 10)
    assert [board.far.recv_frame()[24] for _ in range(10)] == list(range(10))


def test_a_frame_is_gathered_from_descriptors_round_the_end_of_the_ring(board):
    board.txq.TDH = board.txq.TDT = 254
    for i, (piece, at) in enumerate([(FRAME[:20], 0), (FRAME[20:30], 1000), (FRAME[30:], 2000)]):
        board.data((254 + i) % 256, piece, at=at, eop=i == 2, rs=i == 2)
    board.nic.write_tdt(0, 1)
    assert board.far.recv_frame() == bytes(10) + FRAME
    assert board.txq.TDH == 1


def test_a_frame_without_its_end_waits_for_it(board):
    board.data(0, FRAME[:20], eop=False, rs=False)
    board.nic.write_tdt(0, 1)
    assert board.txq.TDH == 0
    board.data(1, FRAME[20:], at=500)
    board.nic.write_tdt(0, 2)
    assert board.far.recv_frame() == bytes(10) + FRAME


@pytest.mark.parametrize(("tcp", "offset"), [(True, 16), (False, 6)])
def test_a_checksum_request_becomes_a_virtio_request(board, tcp, offset):
    board.context(0, 14, 24, 20, 0, tcp)
    board.data(1, FRAME, olinfo=TXSM)
    board.nic.write_tdt(0, 2)
    assert board.far.recv_frame() == struct.pack("=BBHHHH", 1, 0, 0, 0, 38, offset) + FRAME


def test_a_super_frame_carries_its_segment_size(board):
    frame = ethernet(bytes(5000))
    board.context(0, 14, 20, 32, 1448, True)
    board.data(1, frame, olinfo=TXSM, cmd=TSE)
    board.nic.write_tdt(0, 2)
    assert board.far.recv_frame() == struct.pack("=BBHHHH", 1, 1, 66, 1448, 34, 16) + frame
    assert board.regs.TSCTC == 1


def test_a_context_stays_until_the_next(board):
    board.context(0, 14, 20, 20, 0, True)
    board.data(1, FRAME, olinfo=TXSM)
    board.nic.write_tdt(0, 2)
    board.data(2, FRAME)
    board.data(3, FRAME, olinfo=TXSM)
    board.nic.write_tdt(0, 4)
    assert [board.far.recv_frame()[0] for _ in range(3)] == [1, 0, 1]


@pytest.mark.parametrize(
    ("maclen", "iplen", "l4len", "mss", "tcp", "cmd"),
    [(14, 50, 20, 0, True, 0), (14, 20, 20, 0, True, TSE), (14, 20, 200, 9, True, TSE),
     (14, 20, 20, 9, False, TSE), (127, 511, 20, 0, True, 0)],
)  # fmt: skip
def test_offloads_that_make_no_sense_lose_the_frame(board, maclen, iplen, l4len, mss, tcp, cmd):
    board.context(0, maclen, iplen, l4len, mss, tcp)
    board.data(1, FRAME, olinfo=TXSM, cmd=cmd)
    board.data(2, FRAME)
    board.nic.write_tdt(0, 3)
    assert board.regs.TXERRC == 1
    assert board.tx_is_done(1)
    assert board.far.recv_frame() == bytes(10) + FRAME


def test_a_descriptor_that_points_outside_memory_loses_the_frame(board):
    board.data(0, FRAME)
    board.mem.view[board.tx_ring + 6 : board.tx_ring + 8] = b"\xff\xff"
    board.data(1, FRAME)
    board.nic.write_tdt(0, 2)
    assert (board.regs.TXERRC, board.regs.GPTC) == (1, 1)


def test_a_full_wire_leaves_descriptors_pending():
    wire, far = wire_pair(limit=2)
    board = Board(wire)
    for i in range(3):
        board.data(i, ethernet(bytes([i])), at=100 * i)
    board.nic.write_tdt(0, 3)
    assert (board.txq.TDH, board.tx_is_done(2)) == (2, False)
    assert board.nic.dma_tx() == 0
    far.recv_frame()
    assert board.nic.dma_tx() == 1
    assert board.tx_is_done(2)
    assert [far.recv_frame()[24] for _ in range(2)] == [1, 2]


def test_a_tail_outside_the_ring_is_ignored(board):
    board.data(0, FRAME)
    board.nic.write_tdt(0, 256)
    assert board.txq.TDT == 0
    assert board.far.recv_frame() is None


def test_broadcast_and_multicast_are_counted_apart(board):
    board.data(0, ethernet(b"", dest=b"\xff" * 6))
    board.data(1, ethernet(b"", dest=b"\x01\0\x5e\0\0\x01"), at=100)
    board.nic.write_tdt(0, 2)
    assert (board.regs.GPTC, board.regs.BPTC, board.regs.MPTC) == (2, 1, 1)
