"""A ring, descriptor by descriptor: what the device wrote back and what is posted."""

from __future__ import annotations

import pytest

from kit.board import ethernet
from unit.driver.test_igb import Rig, numbered
from ustack.core.netdevice import NETDEV_TX_OK
from ustack.core.skb import Skb
from ustack.driver.igb_dump import igb_dump


def dump(rig: Rig, direction: str, queue: int = 0) -> list[str]:
    return list(igb_dump(rig.dev, direction, queue))


def test_a_new_receive_ring_is_posted_but_for_one_descriptor():
    lines = dump(Rig(), "rx")
    assert lines[0].startswith("eth0 rx 0: 256 descriptors at 0x")
    assert lines[1] == "next_to_use 255 next_to_clean 0 next_to_alloc 255 head 0 tail 255"
    assert len(lines) == 3 + 256
    assert sum(" posted" in line for line in lines) == 255
    assert lines[3].endswith("posted <-next_to_clean")
    assert lines[-1].endswith(" 0  <-next_to_use")
    assert not any("DD" in line for line in lines)


def test_a_frame_of_mtu_9000_takes_five_descriptors_with_eop_on_the_last():
    rig = Rig(mtu=9000, large_receive=False, rx_checksum=False)
    rig.arrive(ethernet(bytes(9000)))
    frame = [line.split()[2:5] for line in dump(rig, "rx")[3:8]]
    assert [words[0] for words in frame] == ["2048"] * 4 + [str(9014 - 4 * 2048)]
    assert [words[1:] for words in frame[:4]] == [["DD", "<-next_to_clean"]] + [["DD"]] * 3
    assert frame[4][1:] == ["DD", "EOP"]
    assert "posted" in dump(rig, "rx")[8]
    assert " head 5 tail 255" in dump(rig, "rx")[1]
    rig.settle()
    assert [x for x in dump(rig, "rx")[3:] if " DD" in x and "cleaned" not in x] == []
    assert dump(rig, "rx")[7].endswith(" 822  DD EOP cleaned <-next_to_use")
    assert dump(rig, "rx")[1] == "next_to_use 4 next_to_clean 5 next_to_alloc 4 head 5 tail 4"


def test_every_descriptor_shows_the_buffer_that_it_has():
    rig = Rig()
    rig.arrive(numbered(1))
    buffers = [line.split()[1] for line in dump(rig, "rx")[3:]]
    assert len(set(buffers)) == 256 and all(int(addr, 16) for addr in buffers)


def test_a_sent_packet_is_a_header_and_its_frags_and_done_when_it_left():
    rig = Rig()
    skb = Skb(numbered(1)[:14], rig.dev)
    skb.frags = [rig.page(b"p" * 100), rig.page(b"q" * 50)]
    assert rig.dev.ndo_start_xmit(skb) == NETDEV_TX_OK
    lines = dump(rig, "tx")
    assert lines[0].endswith(", 3 used, 0 packets sent")
    assert lines[1] == "next_to_use 3 next_to_clean 0 head 3 tail 3 stopped 0"
    words = [line.split()[2:] for line in lines[3:6]]
    assert [w[0] for w in words] == ["14", "100", "50"]
    assert words[0][1:] == ["IFCS", "in-use", "<-next_to_clean"]
    assert words[2][1:] == ["EOP", "IFCS", "RS", "DD", "in-use"]
    rig.settle()
    assert "next_to_clean 3" in dump(rig, "tx")[1]
    assert not any("in-use" in line for line in dump(rig, "tx"))


def test_a_packet_that_the_wire_refuses_is_not_done():
    rig = Rig(wire_limit=0)
    assert rig.dev.ndo_start_xmit(Skb(numbered(1), rig.dev)) == NETDEV_TX_OK
    lines = dump(rig, "tx")
    assert "DD" not in lines[3] and "in-use" in lines[3]
    assert "head 0 tail 1" in lines[1]


@pytest.mark.parametrize(("direction", "queue"), [("rx", 1), ("tx", 8), ("rx", -1), ("up", 0)])
def test_a_ring_that_is_not_there_is_an_error(direction: str, queue: int):
    with pytest.raises(LookupError, match="has no ring"):
        dump(Rig(), direction, queue)


def test_an_interface_that_is_down_has_no_rings():
    rig = Rig()
    rig.net.dev_close(rig.dev)
    with pytest.raises(LookupError, match="is down"):
        dump(rig, "rx")
