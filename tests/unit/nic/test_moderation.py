"""Interrupt moderation of the device: EITR, low latency filters, lone completions."""

from __future__ import annotations

import struct

import pytest

from kit.board import Board, ethernet
from ustack.native.lib import lib


class ModeratedBoard(Board):
    """A board whose vector interrupts every 50 us at most, and which hears what is held."""

    def __init__(self, usecs: int = 50) -> None:
        super().__init__()
        self.held: list[int] = []
        self.nic.irq_held = self.held.append
        self.nic.write_eitr(0, usecs << 2)

    def at(self, now_us: int, *frames: bytes) -> int:
        """Let frames arrive at a moment; return the interrupts so far."""
        for frame in frames:
            self.far.send_frame(bytes(10) + frame)
        self.nic.dma(now_us)
        return self.nic.irq_counts[0]

    def poll_done(self) -> None:
        """What the driver does after polling: enable the vector again."""
        self.nic.write_eims(1)


def test_the_first_interrupt_comes_at_once():
    board = ModeratedBoard()
    assert board.at(1000, ethernet(b"a")) == 1
    assert board.held == []


def test_the_next_waits_until_the_interval_is_over():
    board = ModeratedBoard()
    board.at(1000, ethernet(b"a"))
    board.poll_done()
    assert board.at(1020, ethernet(b"b")) == 1
    assert board.held == [1050]
    assert board.at(1049) == 1
    board.nic.expire_itr(1050)
    assert board.nic.irq_counts[0] == 2


def test_several_frames_share_one_interrupt():
    board = ModeratedBoard()
    for now_us in range(0, 1000, 10):
        board.at(now_us, ethernet(b"x"))
        board.poll_done()
    assert board.nic.irq_counts[0] == 20


def test_a_masked_vector_is_not_held():
    board = ModeratedBoard()
    board.at(1000, ethernet(b"a"))
    assert board.at(1010, ethernet(b"b")) == 1
    assert board.held == []  # still masked: the poll is under way and will see the frame
    board.poll_done()
    assert board.held == [1050]


def test_writing_eitr_without_cnt_ignr_ends_the_interval():
    board = ModeratedBoard()
    board.at(1000, ethernet(b"a"))
    board.poll_done()
    board.at(1010, ethernet(b"b"))
    board.nic.write_eitr(0, 200 | lib.US_E1000_EITR_CNT_IGNR)
    assert board.nic.irq_counts[0] == 1
    board.nic.write_eitr(0, 200)
    assert board.nic.irq_counts[0] == 2


def tcp(flags: int, size: int = 1000) -> bytes:
    head = struct.pack(">BBHHHBBHII", 0x45, 0, 40 + size, 0, 0, 64, 6, 0, 1, 2)
    segment = struct.pack(">HHIIBBHHH", 1, 2, 3, 4, 0x50, flags, 0, 0, 0)
    return ethernet(head + segment + bytes(size), ethertype=0x0800)


@pytest.mark.parametrize(
    ("match", "frame", "urgent"),
    [
        (100 | lib.US_E1000_IMIREXT_CTRL_BP, ethernet(bytes(80)), True),
        (100 | lib.US_E1000_IMIREXT_CTRL_BP, ethernet(bytes(86)), False),
        (lib.US_E1000_IMIREXT_SIZE_BP | lib.US_E1000_IMIREXT_CTRL_URG, tcp(0x20), True),
        (lib.US_E1000_IMIREXT_SIZE_BP | lib.US_E1000_IMIREXT_CTRL_ACK, tcp(0x10), True),
        (lib.US_E1000_IMIREXT_SIZE_BP | lib.US_E1000_IMIREXT_CTRL_PSH, tcp(0x18), True),
        (lib.US_E1000_IMIREXT_SIZE_BP | lib.US_E1000_IMIREXT_CTRL_RST, tcp(0x04), True),
        (lib.US_E1000_IMIREXT_SIZE_BP | lib.US_E1000_IMIREXT_CTRL_SYN, tcp(0x02), True),
        (lib.US_E1000_IMIREXT_SIZE_BP | lib.US_E1000_IMIREXT_CTRL_FIN, tcp(0x01), True),
        (lib.US_E1000_IMIREXT_SIZE_BP | lib.US_E1000_IMIREXT_CTRL_PSH, tcp(0x10), False),
        (lib.US_E1000_IMIREXT_SIZE_BP | lib.US_E1000_IMIREXT_CTRL_PSH, ethernet(bytes(90)), False),
        (100 | lib.US_E1000_IMIREXT_CTRL_PSH, tcp(0x08), False),
        (100 | lib.US_E1000_IMIREXT_CTRL_PSH, tcp(0x08, size=1), True),
    ],
)
@pytest.mark.parametrize("number", [0, 1])
def test_a_frame_that_matches_a_filter_does_not_wait(number, match, frame, urgent):
    board = ModeratedBoard()
    board.regs.IMIR[number] = lib.US_E1000_IMIR_PORT_IM_EN
    board.regs.IMIREXT[number] = match
    board.at(1000, ethernet(bytes(1000)))
    board.poll_done()
    assert board.at(1001, frame) == 1 + urgent


def test_a_ring_that_runs_short_does_not_wait():
    board = ModeratedBoard(usecs=10_000)
    board.at(0, ethernet(b"a"))
    board.poll_done()
    counts = [board.at(1, ethernet(b"x")) for _ in range(254)]
    assert counts.index(2) + 1 == 255 - 256 // 8 - 1


def test_a_lone_completion_waits_for_a_frame_to_share_its_interrupt():
    board = ModeratedBoard()
    board.regs.TIDV = 245
    board.at(1000, ethernet(b"a"))
    board.poll_done()
    board.data(0, ethernet(b"reply"))
    board.nic.write_tdt(0, 1)
    assert board.held == [1245]
    assert board.at(1100) == 1
    assert board.at(1101, ethernet(b"b")) == 2


def test_a_lone_completion_is_told_in_the_end():
    board = ModeratedBoard()
    board.regs.TIDV = 245
    board.at(1000, ethernet(b"a"))
    board.poll_done()
    board.data(0, ethernet(b"reply"))
    board.nic.write_tdt(0, 1)
    board.nic.expire_itr(1245)
    assert board.nic.irq_counts[0] == 2


def test_vectors_are_held_apart():
    board = ModeratedBoard()
    delivered: list[int] = []
    board.nic.request_irq(1, delivered.append)
    board.regs.EIAC = board.regs.EIAM = 3
    board.at(1000, ethernet(b"a"))
    board.nic.write_eims(3)
    board.nic.write_eics(3)
    assert (board.nic.irq_counts[:2], board.held) == ([1, 1], [1050])
