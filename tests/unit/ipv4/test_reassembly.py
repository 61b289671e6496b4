"""ip_defrag: pieces in any order, pieces that lie, pieces that never come."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.fragments import fragment, piece
from kit.netbed import OURS, PEER, Bed, ip_config, with_checksum
from ustack.core.skb import Skb
from ustack.lib.addresses import ETH_BROADCAST
from ustack.wire.ipv4 import IP_DF, build_ipv4

PROTO = 200
SECOND_US = 1_000_000
DATA = bytes(random.Random(1).randbytes(4000))


def bed_with_handler(**config) -> tuple[Bed, list[bytes]]:
    bed = Bed(ip_config(**config))
    bed.know_peer()
    got: list[bytes] = []

    def rcv(skb: Skb) -> None:
        got.append(bytes(skb.data[skb.transport_offset :]))

    bed.ip.inet_add_protocol(PROTO, rcv, None)
    return bed, got


def packet(data: bytes = DATA, ident: int = 7, **fields) -> bytes:
    saddr = fields.pop("saddr", PEER)
    fields = {"frag": 0, **fields}
    return build_ipv4(saddr, OURS, PROTO, len(data), ident=ident, **fields) + data


def feed(bed: Bed, *packets: bytes) -> None:
    for one in packets:
        bed.receive_ip(one)


def reasm(bed: Bed) -> dict[str, int]:
    """The counters of reassembly that are not zero."""
    snapshot = bed.net.mib.snapshot()
    both = {**snapshot["Ip"], **snapshot["IpExt"]}
    return {k: v for k, v in both.items() if k.startswith("Reasm") and v}


def nothing_is_kept(bed: Bed) -> bool:
    frags = bed.ip.frags
    return (frags.mem, len(frags), frags._peers) == (0, 0, {})


@given(st.randoms(use_true_random=False), st.integers(1, 30_000), st.integers(28, 3000))
def test_fragments_in_any_order_some_twice_make_the_packet(rng, size, mtu):
    bed, got = bed_with_handler(ipfrag_max_dist=0)
    data = rng.randbytes(size)
    pieces = fragment(packet(data), max(mtu, 20 + size // 500 * 8 + 8))
    # A piece that comes twice does no harm, unless it comes after the packet is complete.
    rng.shuffle(pieces)
    feed(bed, *[p for n, p in enumerate(pieces[:-1]) for _ in range(1 + n % 2)], pieces[-1])
    assert got == [data]
    assert nothing_is_kept(bed)
    assert bed.net.timers.next_us() is None
    bed.mem.close()


def test_the_largest_packet_of_all_arrives_in_pieces_of_48_bytes():
    bed, got = bed_with_handler()
    data = random.Random(2).randbytes(65_515)
    pieces = fragment(packet(data), 68)
    assert len(pieces) == 1365
    random.Random(3).shuffle(pieces)
    feed(bed, *pieces)
    assert got == [data]
    assert reasm(bed) == {"ReasmReqds": 1365, "ReasmOKs": 1}
    assert bed.net.mib.ip.InDelivers == 1


def test_the_whole_has_a_header_as_if_it_had_never_been_cut():
    seen: list[bytes] = []
    bed, _ = bed_with_handler()
    bed.ip.inet_protos[PROTO] = (lambda skb: seen.append(bytes(skb.data)), None)
    whole = packet(tos=0x10, ttl=9)
    pieces = fragment(whole)
    feed(bed, pieces[2], pieces[0], pieces[1])
    assert seen[0][14:] == whole


@pytest.mark.parametrize(
    ("tos", "result"),
    [
        ((0, 0, 0), 0),
        ((2, 2, 2), 2),
        ((2, 3, 2), 3),
        ((1, 2, 1), 1),
        ((3, 3, 3), 3),
        ((0, 2, 2), None),
        ((2, 2, 0), None),
        ((0, 3, 0), None),
    ],
)
@pytest.mark.rfc("3168", "5.3")
def test_congestion_marks_of_pieces_are_joined(tos, result):
    seen: list[bytes] = []
    bed, _ = bed_with_handler()
    bed.ip.inet_protos[PROTO] = (lambda skb: seen.append(bytes(skb.data)), None)
    feed(bed, *[fragment(packet(tos=t))[n] for n, t in enumerate(tos)])
    assert [frame[15] for frame in seen] == ([] if result is None else [result])
    if result is None:
        assert reasm(bed) == {"ReasmReqds": 3, "ReasmFails": 1}
        assert bed.drops == {"FRAG_INVALID": 3}
    assert nothing_is_kept(bed)


def test_a_packet_cut_with_df_set_keeps_it():
    seen: list[bytes] = []
    bed, _ = bed_with_handler()
    bed.ip.inet_protos[PROTO] = (lambda skb: seen.append(bytes(skb.data)), None)
    feed(bed, *fragment(packet(frag=IP_DF)))
    assert seen[0][20:22] == b"\x40\x00"


def test_packets_that_differ_in_anything_are_kept_apart():
    bed, got = bed_with_handler()
    bed.ip.inet_add_protocol(201, lambda skb: got.append(b"201"), None)
    others = [packet(ident=8), packet(saddr=0x0A000005)]
    other_proto = with_checksum(packet()[:9] + b"\xc9" + packet()[10:20]) + DATA
    for n in range(3):
        for whole in (packet(), *others, other_proto):
            feed(bed, fragment(whole)[n])
    assert got == [DATA, DATA, DATA, b"201"]


def test_fragments_of_a_broadcast_are_joined_too():
    bed, got = bed_with_handler()
    whole = build_ipv4(PEER, 0x0A0000FF, PROTO, len(DATA), frag=0) + DATA
    for one in fragment(whole):
        bed.receive_ip(one, dest=ETH_BROADCAST)
    assert got == [DATA]


# Pieces that lie.

WHOLE = packet()


@pytest.mark.rfc("5722", "4")
@pytest.mark.parametrize(
    "second",
    [(0, 1496), (8, 1488), (1472, 1488), (504, 2000), (496, 1000), (0, 2000)],
    ids=str,
)
def test_a_fragment_that_overlaps_ends_its_packet(second):
    bed, got = bed_with_handler()
    feed(bed, piece(WHOLE, 504, 1480), piece(WHOLE, *second))
    assert bed.drops == {"FRAG_OVERLAP": 2}
    assert reasm(bed) == {"ReasmReqds": 2, "ReasmFails": 1, "ReasmOverlaps": 1}
    assert nothing_is_kept(bed)
    feed(bed, *fragment(WHOLE))  # and the next of this name begins anew
    assert got == [DATA]


@pytest.mark.parametrize("second", [(0, 1480), (0, 8), (8, 1472), (1472, 1480)], ids=str)
def test_a_fragment_that_adds_nothing_changes_nothing(second):
    bed, got = bed_with_handler()
    evil = packet(bytes(len(DATA)))
    feed(bed, piece(WHOLE, 0, 1480), piece(evil, *second), *fragment(WHOLE)[1:])
    assert got == [DATA]
    assert bed.drops == {"DUP_FRAG": 1}
    assert reasm(bed) == {"ReasmReqds": 4, "ReasmOKs": 1}


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(WHOLE, 3000, 4000), piece(WHOLE, 4000, 4008, more=True)],
        [piece(WHOLE, 0, 1000), piece(WHOLE, 984, 992, more=False)],
        [piece(WHOLE, 2000, 2008), piece(WHOLE, 8, 16, more=False)],
        [piece(WHOLE, 800, 1000, more=False), piece(WHOLE, 1000, 1008, more=False)],
        [piece(packet(bytes(5000)), 800, 1000, more=False), piece(packet(bytes(5000)), 1000, 1200)],
        [piece(WHOLE, 0, 8), piece(WHOLE, 0, 0, more=True)],
        [piece(WHOLE, 0, 8), piece(WHOLE, 8, 8, more=False)],
        [piece(WHOLE, 0, 8), piece(WHOLE, 16, 23, more=True)],
    ],
    ids=[
        "beyond the last",
        "last within what came",
        "last before what came",
        "two different last ones",
        "goes on behind the last",
        "empty",
        "empty and last",
        "seven bytes, not the last",
    ],
)
def test_a_fragment_that_contradicts_the_others_ends_its_packet(pieces):
    bed, got = bed_with_handler()
    feed(bed, *pieces)
    assert got == []
    assert bed.drops == {"FRAG_INVALID": 2}
    assert reasm(bed)["ReasmFails"] == 1
    assert nothing_is_kept(bed)


def test_bytes_behind_the_last_multiple_of_eight_are_cut_off():
    bed, got = bed_with_handler()
    ragged = piece(WHOLE, 0, 1485, more=True)
    feed(bed, ragged, *fragment(WHOLE)[1:])
    assert got == [DATA]


@pytest.mark.parametrize(("end", "ok"), [(65_515, True), (65_516, False)])
def test_a_packet_of_more_than_65535_bytes_is_dropped(end, ok):
    bed, got = bed_with_handler()
    data = bytes(65_528)
    whole = packet()[:20] + data
    feed(bed, piece(whole, 0, 32_768), piece(whole, 32_768, 65_504))
    feed(bed, piece(whole, 65_504, end, more=False))
    assert len(got) == ok
    assert bed.drops == ({} if ok else {"FRAG_INVALID": 3})
    assert nothing_is_kept(bed)


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 40), st.booleans(), st.integers(0, 2)),
        max_size=60,
    )
)
def test_whatever_comes_what_is_charged_is_what_is_kept(pieces):
    bed, got = bed_with_handler()
    big = packet(bytes(1000))
    for start, length, more, ident in pieces:
        one = bytearray(piece(big, start * 8, start * 8 + length, more=more))
        one[4:6] = ident.to_bytes(2, "big")
        bed.receive_ip(with_checksum(bytes(one[:20])) + one[20:])
    kept = sum(qp.truesize for qp in bed.ip.frags._queues.values())
    assert bed.ip.frags.mem == kept
    assert reasm(bed).get("ReasmReqds", 0) <= len(pieces)
    if not got:
        waiting = sum(len(qp.fragments) for qp in bed.ip.frags._queues.values())
        assert sum(bed.drops.values()) + waiting == len(pieces)
    bed.advance_us(31 * SECOND_US)
    assert nothing_is_kept(bed)
    bed.mem.close()


# Pieces that never come.


@pytest.mark.rfc("1122", "3.3.2")
def test_after_thirty_seconds_the_sender_hears_that_its_packet_was_not_complete():
    bed, got = bed_with_handler()
    first, _, last = fragment(WHOLE)
    feed(bed, last)
    bed.advance_us(10 * SECOND_US)
    feed(bed, first)
    bed.advance_us(20 * SECOND_US - 1)
    assert bed.take_sent() == []
    bed.advance_us(1)
    (frame,) = bed.take_sent()
    assert frame[34:36] == b"\x0b\x01"
    assert frame[42:590] == first[:548]  # 576 bytes in all
    assert len(frame) == 14 + 576
    assert got == []
    assert reasm(bed) == {"ReasmReqds": 2, "ReasmTimeout": 1, "ReasmFails": 1}
    assert bed.net.mib.icmp.OutTimeExcds == 1
    assert bed.drops == {"FRAG_REASM_TIMEOUT": 2}
    assert nothing_is_kept(bed)
    assert bed.net.timers.next_us() is None


def test_without_the_first_fragment_nobody_hears_of_it():
    bed, _ = bed_with_handler()
    feed(bed, *fragment(WHOLE)[1:])
    bed.advance_us(30 * SECOND_US)
    assert bed.take_sent() == []
    assert reasm(bed)["ReasmTimeout"] == 1


def test_each_packet_has_its_own_thirty_seconds():
    bed, _ = bed_with_handler()
    for ident in range(5):
        feed(bed, fragment(packet(ident=ident))[1])
        bed.advance_us(SECOND_US)
    bed.advance_us(25 * SECOND_US)
    assert len(bed.ip.frags) == 4
    bed.advance_us(2 * SECOND_US)
    assert len(bed.ip.frags) == 2


def never_completed(count: int, size: int = 1480) -> list[bytes]:
    """First fragments of ``count`` packets, of hosts and identifications all over."""
    return [
        piece(packet(bytes(2000), ident=n & 0xFFFF, saddr=0x0B000000 + n * 7), 0, size)
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("size", "count"), [(1480, 4000), (8, 6000)], ids=["of 1480 bytes", "tiny"]
)
def test_fragments_that_are_never_completed_cost_four_megabytes_at_most(size, count):
    bed, got = bed_with_handler()
    bed.ip.add_default_gateway(PEER)
    flood = never_completed(count, size)
    bed.receive_ip(flood[0])
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    feed(bed, *flood[1:])
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    mem = bed.ip.frags.mem
    assert 4 << 20 < mem < (4 << 20) + 5000
    assert after - before < 6 << 20  # what Python really took, routes_in included
    refused = bed.drops["FRAG_NOMEM"]
    assert refused == bed.net.mib.ip.ReasmFails == count - len(bed.ip.frags)
    assert refused > 0
    feed(bed, *fragment(WHOLE))
    assert got == []  # Linux since 4.17: who comes late is refused
    bed.advance_us(30 * SECOND_US)
    assert nothing_is_kept(bed)
    feed(bed, *fragment(WHOLE))
    assert got == [DATA]


def test_before_linux_4_17_a_flood_costs_the_oldest_packets_their_place():
    bed, got = bed_with_handler(ipfrag_evict=True)
    feed(bed, *never_completed(2000))
    assert bed.ip.frags.mem <= (4 << 20) + 5000
    assert bed.drops["FRAG_NOMEM"] > 0
    feed(bed, *fragment(WHOLE))
    assert got == [DATA]
    assert bed.ip.frags.mem > (3 << 20) - 5000


def test_one_packet_in_eight_byte_pieces_is_bounded_too():
    bed, _ = bed_with_handler(ipfrag_high_thresh=100_000)
    feed(bed, *fragment(packet(bytes(60_000)), 28))
    assert bed.ip.frags.mem < 101_000


def test_packets_that_are_completed_leave_no_timers_behind():
    bed, got = bed_with_handler()
    for ident in range(500):
        feed(bed, *fragment(packet(DATA[:2000], ident=ident)))
    assert len(got) == 500
    assert len(bed.net.timers._heap) <= 1


@pytest.mark.rfc("4963", "3")
def test_an_identification_used_again_is_not_joined_with_the_old_packet():
    bed, got = bed_with_handler()
    old = packet(b"o" * 4000)
    feed(bed, fragment(old)[0])
    for ident in range(1000, 1022):
        feed(bed, *fragment(packet(DATA[:4000], ident=ident)))
    got.clear()
    assert 22 * 3 > 64
    feed(bed, *fragment(WHOLE))
    assert got == [DATA]
    assert bed.drops == {"FRAG_TOO_FAR": 1}
    assert reasm(bed)["ReasmFails"] == 1


def test_fragments_of_other_hosts_do_not_count_as_distance():
    bed, got = bed_with_handler()
    bed.ip.add_default_gateway(PEER)
    first, *rest = fragment(WHOLE)
    feed(bed, first, *never_completed(100), *rest)
    assert got == [DATA]


def test_a_fragment_held_for_long_does_not_hold_the_receive_ring():
    bed, _ = bed_with_handler()
    frame = bytearray(b"\x02\0\0\0\0\2\x02\0\0\0\0\1\x08\0" + fragment(WHOLE)[0])
    bed.receive(memoryview(frame))
    frame[40:50] = b"overwrites"
    (qp,) = bed.ip.frags._queues.values()
    assert bytes(qp.fragments[0].data[34:]) == DATA[:1480]
