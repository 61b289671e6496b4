"""Files of /proc as Linux 6 prints them, from a running stack: ``ustack cat PATH``.

Column for column the format of the kernel's own seq_files, so that what parses those parses
these. A CPU is one softnet context; the one thread runs them in turn. Only what the stack
has is shown: no architecture's interrupts. Counters that the kernel names and the stack does
not have are 0 (``proc_names.py``). Memory's files are in ``procfs_mem.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from ustack.core.softirq import SOFTIRQ_NAMES
from ustack.daemon import procfs_mem
from ustack.daemon.irq import AFFINITY_PATH, FIRST_IRQ, read_affinity
from ustack.daemon.proc_names import NETSTAT_ROWS, SNMP_ROWS
from ustack.daemon.sysfs import is_sysfs, sysfs_read
from ustack.lib.counters import NetMib
from ustack.sock.dgram import sk_rmem_alloc_get

if TYPE_CHECKING:
    from ustack.stack import Stack

TCP_METHODS = "y  y  n  y  n  y  y  y  y  y  y  y  y  y  y  y  y  y"
"""Which of struct proto's operations TCP has: no disconnect, no ioctl."""


def proc_lines(stack: Stack, path: str) -> Iterator[str]:
    """Return the lines of one file, without line ends.

    Raises:
        LookupError: there is no such file; the client's fault.
    """
    if is_sysfs(path):
        return iter([sysfs_read(stack, path)])
    affinity = AFFINITY_PATH.fullmatch(path)
    if affinity is not None:
        return iter([read_affinity(stack, int(affinity[1]))])
    make = PROC_FILES.get(path)
    if make is None:
        raise LookupError(f"{path}: No such file or directory")
    return make(stack)


def cpu_header(stack: Stack, indent: int) -> str:
    """Return the line of CPU names above /proc/interrupts and /proc/softirqs."""
    return " " * indent + "".join([f"CPU{softnet.cpu:<8}" for softnet in stack.net.softnets])


def interrupts(stack: Stack) -> Iterator[str]:
    """Yield /proc/interrupts: each device's vectors (show_interrupts)."""
    yield cpu_header(stack, 11)
    irq = FIRST_IRQ
    with_irqs = [dev for dev in stack.net.devices.values() if dev.interrupts()]
    for slot, device in enumerate(with_irqs):
        for hwirq, (name, counts) in enumerate(device.interrupts()):
            columns = "".join([f" {count:10d}" for count in counts])
            chip = f"PCI-MSIX-0000:{slot + 1:02x}:00.0"
            yield f"{irq:3d}:{columns} {chip} {hwirq:3d}-edge      {name}"
            irq += 1


def softirqs(stack: Stack) -> Iterator[str]:
    """Yield /proc/softirqs: runs of each vector (show_softirqs)."""
    yield cpu_header(stack, 20)
    for number, name in enumerate(SOFTIRQ_NAMES):
        counts = [softnet.softirq_counts[number] for softnet in stack.net.softnets]
        yield f"{name:>12}:" + "".join([f" {count:10d}" for count in counts])


def softnet_stat(stack: Stack) -> Iterator[str]:
    """Yield /proc/net/softnet_stat, 15 columns (softnet_seq_show).

    processed, dropped, time_squeeze, five zeros, cpu_collision (0: no locks), received_rps,
    flow_limit (not supported), backlog length, CPU, length of input_pkt_queue, of
    process_queue.
    """
    for softnet in stack.net.softnets:
        input_qlen, process_qlen = len(softnet.input_pkt_queue), len(softnet.process_queue)
        counted = (softnet.processed, softnet.dropped, softnet.time_squeeze, *[0] * 6)
        counted += (softnet.received_rps, 0)
        queued = (input_qlen + process_qlen, softnet.cpu, input_qlen, process_qlen)
        yield " ".join([f"{n & 0xFFFFFFFF:08x}" for n in (*counted, *queued)])


def net_dev(stack: Stack) -> Iterator[str]:
    """Yield /proc/net/dev (dev_seq_printf_stats)."""
    yield "Inter-|   Receive                                                |  Transmit"
    yield (
        " face |bytes    packets errs drop fifo frame compressed multicast|"
        "bytes    packets errs drop fifo colls carrier compressed"
    )
    for device in stack.net.devices.values():
        s = device.stats
        yield (
            f"{device.name:>6}: {s.rx_bytes:7d} {s.rx_packets:7d} {s.rx_errors:4d} "
            f"{s.rx_dropped + s.rx_missed_errors:4d} {s.rx_fifo_errors:4d} "
            f"{s.rx_length_errors + s.rx_crc_errors:5d} {0:10d} {s.multicast:9d} "
            f"{s.tx_bytes:8d} {s.tx_packets:7d} {s.tx_errors:4d} {s.tx_dropped:4d} "
            f"{0:4d} {0:5d} {0:7d} {0:10d}"
        )


def ptype(stack: Stack) -> Iterator[str]:
    """Yield /proc/net/ptype: taps, then handlers by EtherType (ptype_seq_show)."""
    yield "Type Device      Function"
    for tap in stack.net.ptype_all:
        yield f"ALL  {'':<8} {function_name(tap)}"
    for number, handlers in stack.net.ptype_specific.items():
        for handler in handlers:
            yield f"{number:04x} {'':<8} {function_name(handler)}"


def function_name(function: Callable[..., Any]) -> str:
    """Return the name of a function, a method or a partial of one."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def protocols(stack: Stack) -> Iterator[str]:
    """Yield /proc/net/protocols: those that have sockets (proto_seq_printf)."""
    yield (
        "protocol  size sockets  memory press maxhdr  slab module     "
        "cl co di ac io in de sh ss gs se re bi br ha uh gp em"
    )
    cache = stack.tcp.tcp_cache.info()
    pressure = stack.tcp.pressure
    yield (
        f"{'TCP':<9} {cache.objsize:4d} {cache.active_objs:6d}  {pressure.allocated:6d}   "
        f"{'yes' if pressure.since_us else 'no':<3} {192:6d}   "
        f"{'yes':<3}  {'kernel':<10}  {TCP_METHODS}"
    )


def udp(stack: Stack) -> Iterator[str]:
    """Yield /proc/net/udp (udp4_seq_show): as raw, but for the blanks."""
    return (f" {line}".ljust(127) for line in dgram_lines(stack, "udp"))


def raw(stack: Stack) -> Iterator[str]:
    """Yield /proc/net/raw (raw_seq_show)."""
    return dgram_lines(stack, "raw")


def dgram_lines(stack: Stack, netid: str) -> Iterator[str]:
    """Yield one line a socket; addresses are hexadecimal in network order, read as an int."""
    yield (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt"
        "   uid  timeout inode ref pointer drops"
    )
    for number, sk in enumerate(stack.inet.dgram_socks(netid)):
        local = f"{socket_hex(sk.rcv_saddr)}:{sk.sport:04X}"
        remote = f"{socket_hex(sk.daddr)}:{sk.dport:04X}"
        state = 1 if sk.connected else 7
        yield (
            f"{number:4d}: {local} {remote} {state:02X} {0:08X}:{sk_rmem_alloc_get(sk):08X} "
            f"{0:02X}:{0:08X} {0:08X} {0:5d} {0:8d} {0:d} {2:d} {0:016x} {sk.drops:d}"
        )


def socket_hex(addr: int) -> str:
    """Write an address as /proc/net does: network byte order, read as a little-endian int."""
    return addr.to_bytes(4, "little").hex().upper()


def sockstat(stack: Stack) -> Iterator[str]:
    """Yield /proc/net/sockstat (sockstat_seq_show); memory is counted in pages of 4096 bytes."""
    tcp = stack.tcp.diag()
    inuse = stack.inet.inuse()
    orphans = sum(1 for row in tcp if row.get("orphan"))
    timewaits = sum(1 for row in tcp if row["state"] == "TIME-WAIT")
    frags = stack.ip.frags
    alloc = stack.tcp.tcp_cache.info().active_objs
    yield f"sockets: used {len(tcp) - timewaits + sum(inuse.values())}"
    yield (
        f"TCP: inuse {len(tcp) - timewaits} orphan {orphans} tw {timewaits} alloc {alloc} "
        f"mem {stack.tcp.pressure.allocated}"
    )
    yield f"UDP: inuse {inuse['UDP']} mem {stack.udp.memory.allocated}"
    yield f"RAW: inuse {inuse['RAW']}"
    yield f"FRAG: inuse {len(frags)} memory {frags.mem}"


def snmp(stack: Stack) -> Iterator[str]:
    """Yield /proc/net/snmp."""
    return mib_lines(stack.net.mib, SNMP_ROWS)


def netstat(stack: Stack) -> Iterator[str]:
    """Yield /proc/net/netstat."""
    return mib_lines(stack.net.mib, NETSTAT_ROWS)


def mib_lines(mib: NetMib, rows: Iterable[tuple[str, str, tuple[str, ...]]]) -> Iterator[str]:
    """Yield two lines a row: the kernel's names, and our values or 0."""
    for title, attribute, names in rows:
        table = getattr(mib, attribute)
        yield f"{title}: " + " ".join(names)
        yield f"{title}: " + " ".join([str(getattr(table, name, 0)) for name in names])


PROC_FILES: dict[str, Callable[[Stack], Iterator[str]]] = {
    "/proc/buddyinfo": procfs_mem.buddyinfo,
    "/proc/interrupts": interrupts,
    "/proc/meminfo": procfs_mem.meminfo,
    "/proc/net/dev": net_dev,
    "/proc/net/netstat": netstat,
    "/proc/net/protocols": protocols,
    "/proc/net/ptype": ptype,
    "/proc/net/raw": raw,
    "/proc/net/snmp": snmp,
    "/proc/net/sockstat": sockstat,
    "/proc/net/softnet_stat": softnet_stat,
    "/proc/net/udp": udp,
    "/proc/pagetypeinfo": procfs_mem.pagetypeinfo,
    "/proc/slabinfo": procfs_mem.slabinfo,
    "/proc/softirqs": softirqs,
    "/proc/zoneinfo": procfs_mem.zoneinfo,
}
