"""Files of /proc beside what Linux prints: the same columns, to the space."""

from __future__ import annotations

import random
import re
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest

from ustack.config import CoreConfig, StackConfig
from ustack.core.backlog import netif_rx
from ustack.core.napi import NET_RX_SOFTIRQ
from ustack.core.skb import Skb
from ustack.daemon.proc_names import NETSTAT_ROWS, SNMP_ROWS
from ustack.daemon.procfs import PROC_FILES, function_name, proc_lines
from ustack.lib.addresses import parse_interface
from ustack.lib.counters import NetMib
from ustack.nic.pair import wire_pair
from ustack.stack import Stack

CORE = CoreConfig(arena_bytes=8 << 20, nr_cpus=2)


@pytest.fixture
def stack() -> Stack:
    """Two contexts, lo and eth0."""
    wire, _ = wire_pair()
    stack = Stack(StackConfig(core=CORE), rng=random.Random(1), now_us=1_000_000)
    stack.add_igb(wire, address=parse_interface("10.0.0.2/24"))
    return stack


def lines(stack: Stack, path: str) -> list[str]:
    return list(proc_lines(stack, path))


def shape(line: str) -> str:
    """A line with every number replaced, so that ours and the kernel's can be compared."""
    return re.sub(r" *\b[0-9a-f]+\b", " #", line)


def test_interrupts_are_counted_in_the_column_of_their_cpu(stack: Stack):
    adapter = stack.adapters[0]
    adapter.napi.cpu = 1
    adapter.nic.irq_counts[0] = 7
    assert lines(stack, "/proc/interrupts") == [
        "           CPU0       CPU1       ",
        " 24:          0          7 PCI-MSIX-0000:01:00.0   0-edge      eth0-TxRx-0",
    ]


def test_a_driver_names_its_own_vectors(stack: Stack):
    stack.adapters[0].interrupts = lambda: [("eth0-TxRx-0", [1, 2]), ("eth0-TxRx-1", [3, 0])]
    assert lines(stack, "/proc/interrupts")[1:] == [
        " 24:          1          2 PCI-MSIX-0000:01:00.0   0-edge      eth0-TxRx-0",
        " 25:          3          0 PCI-MSIX-0000:01:00.0   1-edge      eth0-TxRx-1",
    ]


def test_softirqs(stack: Stack):
    stack.net.softnets[1].softirq_counts[NET_RX_SOFTIRQ] = 118251
    found = lines(stack, "/proc/softirqs")
    assert found[0] == "                    CPU0       CPU1       "
    assert found[4] == "      NET_RX:          0     118251"
    assert len(found) == 11


def test_softnet_stat_has_linux_6s_fifteen_columns(stack: Stack):
    softnet = stack.net.softnets[0]
    softnet.processed, softnet.dropped, softnet.time_squeeze = 0xF0504, 2, 3
    netif_rx(stack.net, Skb(bytes(60), stack.lo))
    zeros = " ".join(["00000000"] * 8)
    assert lines(stack, "/proc/net/softnet_stat") == [
        f"000f0504 00000002 00000003 {zeros} 00000001 00000000 00000001 00000000",
        f"00000000 00000000 00000000 {zeros} 00000000 00000001 00000000 00000000",
    ]


def test_net_dev(stack: Stack):
    stats = stack.lo.stats
    stats.rx_bytes = stats.tx_bytes = 3921
    stats.rx_packets = stats.tx_packets = 42
    stats.rx_dropped, stats.rx_missed_errors = 1, 2
    assert lines(stack, "/proc/net/dev")[2] == (
        "    lo:    3921      42    0    3    0     0          0         0"
        "     3921      42    0    0    0     0       0          0"
    )


def test_ptype_names_taps_and_handlers(stack: Stack):
    def packet_rcv(skb, dev, outgoing):
        pass

    stack.net.dev_add_pack(None, packet_rcv)
    assert lines(stack, "/proc/net/ptype") == [
        "Type Device      Function",
        "ALL           packet_rcv",
        "0806          arp_rcv",
        "0800          ip_rcv",
    ]
    assert function_name(partial(partial(packet_rcv, 1), 2)) == "packet_rcv"


def test_protocols_counts_sockets(stack: Stack):
    sock = stack.socket()
    row = lines(stack, "/proc/net/protocols")[1].split()
    assert (row[0], row[2]) == ("TCP", "1")
    assert len(row) == 8 + 18
    sock.close()


def test_udp_and_raw_have_a_line_for_each_socket(stack: Stack):
    sock, raw = stack.socket(2), stack.socket(3, 1)
    sock.bind(0x7F000001, 53)
    sock.sendmsg(b"hello", to=(0x7F000001, 53))
    while stack.poll(1_000_100):
        pass
    header, line = lines(stack, "/proc/net/udp")
    assert header.split()[:3] == ["sl", "local_address", "rem_address"]
    assert line.split()[:5] == ["0:", "0100007F:0035", "00000000:0000", "07", "00000000:00000300"]
    assert (len(header), len(line)) == (127, 127)
    assert lines(stack, "/proc/net/raw")[1].split()[1] == "00000000:0001"
    sock.close()
    raw.close()
    assert len(lines(stack, "/proc/net/udp")) == 1


def test_sockstat_counts_sockets_and_their_memory(stack: Stack):
    sock = stack.socket(2)
    sock.bind(0x7F000001, 53)
    sock.sendmsg(b"hello", to=(0x7F000001, 53))
    while stack.poll(1_000_100):
        pass
    assert lines(stack, "/proc/net/sockstat") == [
        "sockets: used 1",
        "TCP: inuse 0 orphan 0 tw 0 alloc 0 mem 0",
        "UDP: inuse 1 mem 1",
        "RAW: inuse 0",
        "FRAG: inuse 0 memory 0",
    ]


def test_buddyinfo_and_slabinfo_are_the_arenas(stack: Stack):
    sock = stack.socket()
    (line,) = lines(stack, "/proc/buddyinfo")
    counts = [int(word) for word in line.split()[4:]]
    assert sum(n << order for order, n in enumerate(counts)) == stack.net.mem.free_pages
    slabs = {row.split()[0]: row.split() for row in lines(stack, "/proc/slabinfo")[2:]}
    assert slabs["TCP"][1] == "1"
    sock.close()


def test_zoneinfo_and_meminfo_add_up_to_the_arena(stack: Stack):
    sock = stack.socket()
    mem = stack.net.mem
    zone = dict(line.split()[-2:] for line in lines(stack, "/proc/zoneinfo")[2:])
    assert int(zone["spanned"]) << 12 == stack.config.core.arena_bytes
    assert int(zone["managed"]) == int(zone["present"]) - 1
    assert int(zone["free"]) == int(zone["nr_free_pages"]) == mem.free_pages
    assert 0 < int(zone["min"]) == mem.min_free < int(zone["low"]) < int(zone["high"])
    info = {line.split()[0]: int(line.split()[1]) for line in lines(stack, "/proc/meminfo")}
    assert info["MemTotal:"] == int(zone["managed"]) * 4
    assert info["MemFree:"] == mem.free_pages * 4
    assert info["Slab:"] == int(zone["nr_slab_unreclaimable"]) * 4 > 0
    sock.close()


def test_pagetypeinfo_has_buddyinfos_blocks(stack: Stack):
    free = lines(stack, "/proc/pagetypeinfo")[4]
    assert [int(word) for word in free.split()[6:]] == stack.net.mem.buddyinfo()


def test_empty_slabs_go_back_when_caches_are_dropped(stack: Stack):
    stack.socket().close()
    free = stack.net.mem.free_pages
    kept = stack.memory_info()["TCP"]
    assert (kept.active_slabs, kept.num_slabs) == (0, 1)
    assert stack.drop_slab() == kept.pagesperslab
    assert stack.net.mem.free_pages == free + kept.pagesperslab
    assert stack.memory_info()["TCP"].num_slabs == 0
    assert stack.drop_slab() == 0


def test_every_counter_of_ours_has_its_place_under_the_kernels_name():
    known = {attribute: set(names) for _, attribute, names in (*SNMP_ROWS, *NETSTAT_ROWS)}
    mib = NetMib()
    for table in fields(mib):
        if table.name == "ustack":
            continue  # what Linux does not count
        ours = {counter.name for counter in fields(getattr(mib, table.name))}
        assert ours <= known[table.name], ours - known[table.name]


def test_counters_stand_below_their_names(stack: Stack):
    stack.net.mib.tcp_ext.ListenDrops = 5
    names, values = lines(stack, "/proc/net/netstat")[:2]
    assert dict(zip(names.split(), values.split(), strict=True))["ListenDrops"] == "5"
    titles = [line.split()[0] for line in lines(stack, "/proc/net/snmp")[::2]]
    assert titles == ["Ip:", "Icmp:", "Tcp:", "Udp:"]


@pytest.mark.other_kernels
@pytest.mark.parametrize(
    ("path", "rows"),
    [
        ("/proc/net/dev", [0, 1, 2]), ("/proc/softirqs", range(1, 11)), ("/proc/buddyinfo", [0]),
        ("/proc/net/softnet_stat", [0]), ("/proc/net/ptype", [0]), ("/proc/slabinfo", [0, 1]),
        ("/proc/pagetypeinfo", [2, 3]),
        ("/proc/net/udp", [0]), ("/proc/net/raw", [0]),
        ("/proc/net/protocols", [0]), ("/proc/net/snmp", [0, 1]), ("/proc/net/netstat", [0, 1]),
    ],
)  # fmt: skip
def test_the_running_kernel_prints_the_same_shape(stack: Stack, path: str, rows):
    """Held beside this machine's own files where it has them (a kernel of Linux 6)."""
    try:
        real = Path(path).read_text().splitlines()
    except OSError:
        pytest.skip(f"no {path} here")
    if path == "/proc/buddyinfo":
        real = [line for line in real if "Normal" in line] or real
    if path == "/proc/softirqs":
        columns = len(real[0].split())
        real = [line[: 13 + 11 * min(columns, 2)] for line in real]
    for row in rows:
        ours = lines(stack, path)[row]
        if columns_differ(ours, real[row]):
            pytest.skip("the kernel is of another version")
        assert shape(ours) == shape(real[row]) or ours == real[row]


@pytest.mark.other_kernels
@pytest.mark.parametrize("path", ["/proc/zoneinfo", "/proc/meminfo"])
def test_every_line_has_its_like_in_the_running_kernels_file(stack: Stack, path: str):
    def names(text: str) -> set[str]:
        return set(re.findall(r"^ *(?:pages )?([A-Za-z_]+)", text, re.M))

    assert names("\n".join(lines(stack, path))) <= names(Path(path).read_text())


def columns_differ(ours: str, real: str) -> bool:
    """Whether another kernel's row has other columns: that is not a fault of ours."""
    return len(ours.split()) != len(real.split())


def test_an_unknown_file_is_the_clients_mistake(stack: Stack):
    assert "/proc/interrupts" in PROC_FILES
    with pytest.raises(LookupError, match="/proc/nothing: No such file or directory"):
        proc_lines(stack, "/proc/nothing")
