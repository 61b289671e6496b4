"""The daemon's answers: a running stack's tables as the rows of ``messages.py``.

Each view is an iterator over rows taken at one moment. What the stack keeps as int or bytes
becomes text here, at the edge; the texts and columns are the command line's business.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from ustack.core import netdevice
from ustack.core.sysctl import sysctl_read, sysctl_values, sysctl_write
from ustack.daemon.ethtool import ethtool_rows, ethtool_set
from ustack.daemon.irq import AFFINITY_NAME, read_affinity, write_affinity
from ustack.daemon.limits import FileLimits
from ustack.daemon.messages import (
    AddressRow,
    AnyRequest,
    CatRequest,
    CounterRow,
    CountersRequest,
    DropsRequest,
    EthtoolRequest,
    EthtoolSetRequest,
    FaultRequest,
    LineRow,
    LinkRow,
    LinksRequest,
    NeighbourChange,
    NeighbourRow,
    NeighboursRequest,
    QdiscsRequest,
    RedirectRequest,
    RingRequest,
    RouteGetRequest,
    RouteGetRow,
    RouteRow,
    RoutesRequest,
    ShowRequest,
    SocketRow,
    SocketsRequest,
    SocketSummaryRequest,
    SysctlRequest,
    SysctlWriteRequest,
    TcpMetricsDelete,
    TcpMetricsRequest,
    TcpMetricsRow,
    Timer,
    UlimitRequest,
    ValueRow,
    row_messages,
)
from ustack.daemon.procfs import proc_lines
from ustack.daemon.qdiscs import qdisc_rows
from ustack.daemon.show import show_lines
from ustack.daemon.sysfs import is_sysfs, sysfs_read, sysfs_write
from ustack.driver.igb import IgbAdapter
from ustack.driver.igb_dump import igb_dump
from ustack.ipv4.devinet import AddressRecord, address_records
from ustack.ipv4.fib import (
    PROTOCOL_NAMES,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_NAMES,
    RTPROT_BOOT,
    SCOPE_NAMES,
    FibEntry,
)
from ustack.ipv4.route import ip_route_lookup
from ustack.lib.addresses import format_ipv4, format_mac, parse_ipv4, parse_mac
from ustack.lib.socket_error import socket_error

if TYPE_CHECKING:
    from ustack.core.netdevice import NetDevice
    from ustack.daemon.join_hub import PairBytes
    from ustack.link.neighbour import NeighRecord
    from ustack.stack import Stack
    from ustack.tcp.metrics import TcpMetricsBlock

Row = msgspec.Struct

GSO_MAX_SEGS = 65535
"""No limit of its own: a super-frame's bytes end it first."""

TABLES = {"main": RT_TABLE_MAIN, "local": RT_TABLE_LOCAL}
"""Routing tables by iproute2's names."""

FLAG_NAMES = (
    (netdevice.IFF_LOOPBACK, "LOOPBACK"),
    (netdevice.IFF_BROADCAST, "BROADCAST"),
    (netdevice.IFF_MULTICAST, "MULTICAST"),
    (netdevice.IFF_UP, "UP"),
    (netdevice.IFF_LOWER_UP, "LOWER_UP"),
)
"""In iproute2's order."""

FILE_NR, FILE_NR_PATH = "fs.file-nr", "/proc/sys/fs/file-nr"
DROP_CACHES = ("vm.drop_caches", "vm/drop_caches")

NOT_INFO = frozenset(
    ["state", "recv_q", "send_q", "local", "peer", "timer", "skmem", "orphan", "syn_queue",
     "syn_queue_limit", "qlen_young", "netid"]
)  # fmt: skip
"""Keys of ``stack.tcp.diag()`` that have a place of their own in a row."""


class Views:
    """Answers management requests from one stack."""

    def __init__(
        self,
        stack: Stack,
        call: Callable[[Callable[[], Any]], Any],
        bytes_in_pairs: Callable[[], PairBytes] = dict,
        limits: FileLimits | None = None,
    ) -> None:
        """``call`` runs a function of the stack with fresh time (``InlineRuntime.call``)."""
        self._limits = limits or FileLimits(stack)
        self._bytes_in_pairs = bytes_in_pairs
        self._stack = stack
        self._call = call
        self._views: dict[type[Any], Callable[[Any], Iterable[Row]]] = {
            SocketsRequest: self._sockets,
            SocketSummaryRequest: self._socket_summary,
            CountersRequest: self._counters,
            DropsRequest: self._drops,
            EthtoolRequest: self._ethtool,
            EthtoolSetRequest: self._ethtool_set,
            NeighboursRequest: self._neighbours,
            NeighbourChange: self._change_neighbour,
            TcpMetricsRequest: self._tcp_metrics,
            TcpMetricsDelete: self._tcp_metrics_delete,
            RoutesRequest: self._routes,
            LinksRequest: self._links,
            QdiscsRequest: self._qdiscs,
            ShowRequest: self._show,
            RingRequest: self._ring,
            FaultRequest: self._fault,
            RedirectRequest: self._redirect,
            RouteGetRequest: self._route_get,
            CatRequest: self._cat,
            SysctlRequest: self._sysctl,
            SysctlWriteRequest: self._sysctl_write,
            UlimitRequest: self._ulimit,
        }

    def answer(self, request: AnyRequest) -> Iterator[bytes]:
        """Return the encoded messages that answer ``request``, made as they are read.

        Raises:
            LookupError: (while iterating) no such device, view or table: the client's fault.
        """
        yield from row_messages(self._views[type(request)](request))

    def _sockets(self, request: SocketsRequest) -> Iterator[Row]:
        wanted = frozenset(request.states)
        held = self._bytes_in_pairs()
        for sock in self._call(partial(self._stack.inet.diag, request.netids)):
            if not wanted or sock["state"] in wanted:
                unread, written = held.get((sock["local"], sock["peer"]), (0, 0))
                sock["recv_q"] += unread
                sock["send_q"] += written
                yield socket_row(sock)

    def _socket_summary(self, request: SocketSummaryRequest) -> Iterator[Row]:
        states: Counter[str] = Counter()
        for sock in self._stack.tcp.diag():
            states[sock["state"]] += 1
            if sock.get("orphan"):
                states["orphaned"] += 1
        yield from (CounterRow("", name, n) for name, n in sorted(states.items()))
        yield from (CounterRow("inuse", name, n) for name, n in self._stack.inet.inuse().items())

    def _counters(self, request: CountersRequest) -> Iterator[Row]:
        for table, counters in self._stack.net.mib.snapshot().items():
            yield from (CounterRow(table, name, value) for name, value in counters.items())
        wakes = sum(softnet.ksoftirqd_wakeups for softnet in self._stack.net.softnets)
        yield CounterRow("Ksoftirqd", "Wakes", wakes)
        own = self._stack.net.mib.ustack
        yield from (CounterRow("", f.name, getattr(own, f.name)) for f in fields(own))
        yield CounterRow("Copied", "Bytes", self._stack.tcp.copied_bytes)
        yield CounterRow("Ref", "Bytes", self._stack.tcp.ref_bytes)

    def _drops(self, request: DropsRequest) -> Iterator[Row]:
        drops = self._stack.net.drops.nonzero()
        yield from (CounterRow("", name, value) for name, value in drops.items())

    def _ethtool(self, request: EthtoolRequest) -> Iterator[Row]:
        yield from ethtool_rows(self._stack, request)

    def _ethtool_set(self, request: EthtoolSetRequest) -> Iterator[Row]:
        self._call(partial(ethtool_set, self._stack, request))
        yield from ()

    def _neighbours(self, request: NeighboursRequest) -> Iterator[Row]:
        for neigh in self._call(self._stack.ip.arp.table.records):
            yield neighbour_row(neigh)

    def _change_neighbour(self, request: NeighbourChange) -> Iterator[Row]:
        device = self._stack.net.devices.get(request.device)
        if device is None:
            raise LookupError(f'Cannot find device "{request.device}"')
        if device.flags & netdevice.IFF_LOOPBACK:
            raise LookupError("Invalid argument")
        table = self._stack.ip.arp.table
        try:
            addr = parse_ipv4(request.address)
            if request.action == "del":
                self._call(lambda: table.neigh_delete(device, addr))
            else:
                mac, replace = parse_mac(request.mac), request.action == "replace"
                self._call(lambda: table.neigh_add(device, addr, mac, replace=replace))
        except ValueError as error:
            raise LookupError(str(error)) from None
        except OSError as error:
            raise LookupError(os.strerror(error.errno or 0)) from None
        return iter(())

    def _tcp_metrics(self, request: TcpMetricsRequest) -> Iterator[Row]:
        now_us = self._call(lambda: self._stack.clock.now_us)
        for (saddr, daddr), block in tuple(self._stack.tcp.metrics.blocks.items()):
            yield tcp_metrics_row(saddr, daddr, block, now_us)

    def _tcp_metrics_delete(self, request: TcpMetricsDelete) -> Iterator[Row]:
        metrics = self._stack.tcp.metrics
        if not request.address:
            metrics.clear()
        elif not metrics.delete(parse_ipv4(request.address)):
            raise LookupError(os.strerror(errno.ESRCH))
        return iter(())

    def _routes(self, request: RoutesRequest) -> Iterator[Row]:
        number = TABLES.get(request.table)
        if number is None:
            raise LookupError(f'argument "{request.table}" is wrong: "table" value is invalid')
        for entry in self._stack.ip.fib.table(number).entries():
            yield route_row(entry)

    def _links(self, request: LinksRequest) -> Iterator[Row]:
        for device in tuple(self._stack.net.devices.values()):
            yield link_row(device, address_records(self._stack.ip, device))

    def _qdiscs(self, request: QdiscsRequest) -> Iterator[Row]:
        devices = self._stack.net.devices
        if request.device and request.device not in devices:
            raise LookupError(f'Cannot find device "{request.device}"')
        for device in [devices[request.device]] if request.device else tuple(devices.values()):
            yield from qdisc_rows(device)

    def _show(self, request: ShowRequest) -> Iterator[Row]:
        return (LineRow(line) for line in show_lines(self._stack, request.what, request.port))

    def _ring(self, request: RingRequest) -> Iterator[Row]:
        device = self._stack.net.devices.get(request.device)
        if device is None:
            raise LookupError(f'Cannot find device "{request.device}"')
        if not isinstance(device, IgbAdapter):
            raise LookupError(f"{device.name} has no rings")
        # At one moment, although the answer is read over several turns of the loop.
        lines = list(igb_dump(device, request.direction, request.queue))
        return (LineRow(line) for line in lines)

    def _fault(self, request: FaultRequest) -> Iterator[Row]:
        faults = self._stack.net.faults
        try:
            if request.kind == "freeze-softirq":
                self._call(partial(faults.freeze_softirq, request.duration_us))
            else:
                self._call(partial(faults.fail_alloc, request.count, request.duration_us))
        except OSError as error:
            raise LookupError(f"{request.kind}: {error.strerror}") from None
        return iter(())

    def _redirect(self, request: RedirectRequest) -> Iterator[Row]:
        self._call(partial(self._stack.redirect_sockmap, request.on))
        return iter(())

    def _route_get(self, request: RouteGetRequest) -> Iterator[Row]:
        try:
            daddr = parse_ipv4(request.address)
            saddr = parse_ipv4(request.source) if request.source else 0
        except ValueError as error:
            raise LookupError(str(error)) from None
        try:
            yield route_get_row(self._stack, daddr, saddr)
        except OSError as error:
            raise LookupError(os.strerror(error.errno or 0)) from None

    def _cat(self, request: CatRequest) -> Iterator[Row]:
        if request.path == FILE_NR_PATH:
            return iter([LineRow(self._limits.file_nr())])
        return (LineRow(line) for line in proc_lines(self._stack, request.path))

    def _ulimit(self, request: UlimitRequest) -> Iterator[Row]:
        if request.soft is not None or request.hard is not None:
            self._limits.set_rlimit(request.pid, request.soft, request.hard)
        limits = self._limits.rlimit(request.pid)
        yield from (ValueRow(name, str(value)) for name, value in limits._asdict().items())

    def _sysctl(self, request: SysctlRequest) -> Iterator[Row]:
        config = self._stack.config
        affinity = AFFINITY_NAME.fullmatch(request.name)
        if affinity is not None:
            yield ValueRow(request.name, read_affinity(self._stack, int(affinity[1])))
        elif request.name == FILE_NR:
            yield ValueRow(FILE_NR, self._limits.file_nr())
        elif is_sysfs(request.name):
            yield ValueRow(request.name, sysfs_read(self._stack, request.name))
        elif request.name in DROP_CACHES:
            yield ValueRow(request.name, "0")
        elif request.name:
            yield ValueRow(request.name, sysctl_read(config, request.name))
        else:
            yield ValueRow(FILE_NR, self._limits.file_nr())
            yield from (ValueRow(name, value) for name, value in sysctl_values(config))

    def _sysctl_write(self, request: SysctlWriteRequest) -> Iterator[Row]:
        affinity = AFFINITY_NAME.fullmatch(request.name)
        if affinity is not None:
            write_affinity(self._stack, int(affinity[1]), request.value.strip())
            yield ValueRow(request.name, read_affinity(self._stack, int(affinity[1])))
            return
        if is_sysfs(request.name):
            sysfs_write(self._stack, request.name, request.value)
            yield ValueRow(request.name, sysfs_read(self._stack, request.name))
            return
        if request.name in DROP_CACHES:
            yield ValueRow(request.name, self._drop_caches(request.value.strip()))
            return
        try:
            config = sysctl_write(self._stack.config, request.name, request.value)
        except ValueError as error:
            raise LookupError(str(error)) from None
        self._call(lambda: self._stack.set_config(config))
        yield ValueRow(request.name, sysctl_read(config, request.name))

    def _drop_caches(self, value: str) -> str:
        """Take 1, 2 or 3 as Linux does: of what they drop there are only slabs here, bit 2."""
        if value not in ("1", "2", "3"):
            raise LookupError('setting key "vm.drop_caches": Invalid argument')
        if int(value) & 2:
            self._call(self._stack.drop_slab)
        return value


def socket_row(sock: Mapping[str, Any]) -> SocketRow:
    """Turn one record of ``stack.tcp.diag()`` into a row; what has no column is ``info``."""
    timer = sock["timer"]
    extended: dict[str, Any] = {}
    if "syn_queue" in sock:
        extended["synq"] = f"{sock['syn_queue']}/{sock['syn_queue_limit']}"
        extended["young"] = sock["qlen_young"]
        extended["accq"] = f"{sock['recv_q']}/{sock['send_q']}"
    elif sock.get("orphan"):
        extended["orphan"] = 1
    return SocketRow(
        state=sock["state"],
        recv_q=sock["recv_q"],
        send_q=sock["send_q"],
        local=_endpoint(sock["local"]),
        peer=_endpoint(sock["peer"]),
        timer=Timer(*timer) if timer else None,
        skmem=sock.get("skmem", {}),
        info={name: value for name, value in sock.items() if name not in NOT_INFO},
        extended=extended,
        netid=sock.get("netid", "tcp"),
    )


def _endpoint(address: tuple[int, int]) -> tuple[str, int]:
    return format_ipv4(address[0]), address[1]


def device_flags(device: NetDevice) -> tuple[str, ...]:
    """Return the names of a device's flags in iproute2's order."""
    return tuple(name for bit, name in FLAG_NAMES if device.flags & bit)


def tcp_metrics_row(saddr: int, daddr: int, block: TcpMetricsBlock, now_us: int) -> TcpMetricsRow:
    """Turn what is known about one peer into a row."""
    return TcpMetricsRow(
        format_ipv4(daddr),
        format_ipv4(saddr),
        now_us - block.c.stamp_us,
        ssthresh=block.c.ssthresh,
        cwnd=block.c.cwnd,
        reordering=block.c.reordering,
        rtt_us=block.c.rtt >> 3,
        rttvar_us=block.c.rttvar >> 2,
        fo_mss=block.fo_mss,
        fo_syn_drops=block.syn_loss,
        fo_syn_drop_age_us=now_us - block.last_syn_loss_us if block.syn_loss else 0,
        fo_cookie=block.cookie.cookie.hex(),
    )


def neighbour_row(neigh: NeighRecord) -> NeighbourRow:
    """Turn one record of the neighbour table into a row."""
    mac = format_mac(neigh.lladdr) if neigh.lladdr else ""
    return NeighbourRow(format_ipv4(neigh.addr), neigh.dev, mac, neigh.state)


def route_row(entry: FibEntry) -> RouteRow:
    """Turn one route into a row."""
    if entry.prefix_len == 32:
        destination = format_ipv4(entry.network)
    elif entry.prefix_len == 0:
        destination = "default"
    else:
        destination = f"{format_ipv4(entry.network)}/{entry.prefix_len}"
    return RouteRow(
        type=RTN_NAMES.get(entry.rt_type, str(entry.rt_type)),
        destination=destination,
        device=entry.dev.name if entry.dev is not None else "",
        gateway=format_ipv4(entry.gateway) if entry.gateway else "",
        source=format_ipv4(entry.prefsrc) if entry.prefsrc else "",
        scope=SCOPE_NAMES.get(entry.scope, "") if entry.scope != RT_SCOPE_UNIVERSE else "",
        # iproute2 leaves out what "ip route add" itself enters.
        protocol=PROTOCOL_NAMES.get(entry.protocol, "") if entry.protocol != RTPROT_BOOT else "",
    )


def route_get_row(stack: Stack, daddr: int, saddr: int) -> RouteGetRow:
    """Look a route up as a socket would (inet_rtm_getroute).

    Raises:
        OSError: ENETUNREACH; EINVAL, ``saddr`` is not ours.
    """
    if saddr and not stack.ip.is_local_address(saddr):
        raise socket_error(errno.EINVAL)
    rt = ip_route_lookup(stack.ip, daddr, saddr)
    if rt is None:
        raise socket_error(errno.ENETUNREACH)
    learnt = stack.ip.pmtu.entry(daddr)
    mtu, locked, expires_us = learnt or (0, False, 0)
    return RouteGetRow(
        type=RTN_NAMES.get(rt.rt_type, str(rt.rt_type)),
        destination=format_ipv4(daddr),
        device=rt.dev.name,
        gateway=format_ipv4(rt.gateway) if rt.gateway else "",
        source=format_ipv4(rt.saddr),
        mtu=mtu,
        mtu_locked=locked,
        expires_s=max(0, expires_us - stack.clock.now_us) // 1_000_000 if learnt else 0,
    )


def link_row(device: NetDevice, addresses: Iterable[AddressRecord]) -> LinkRow:
    """Turn one device and its addresses into a row."""
    stats = device.stats
    return LinkRow(
        ifindex=device.ifindex,
        name=device.name,
        flags=device_flags(device),
        mtu=device.mtu,
        qdisc=device.qdisc_name,
        qlen=device.tx_queue_len,
        loopback=bool(device.flags & netdevice.IFF_LOOPBACK),
        mac=format_mac(device.dev_addr),
        addresses=tuple(address_row(record) for record in addresses),
        stats={f.name: getattr(stats, f.name) for f in fields(stats)},
        details=link_details(device),
    )


def link_details(device: NetDevice) -> dict[str, int]:
    """Return what ``ip -d link`` adds, where the device has it."""
    queues = device.num_queues
    return {
        "promiscuity": 0,
        "allmulti": 0,
        "minmtu": device.min_mtu,
        "maxmtu": device.max_mtu,
        "numtxqueues": queues,
        "numrxqueues": queues,
        "gso_max_size": device.gso_max_size,
        "gso_max_segs": GSO_MAX_SEGS,
    }


def address_row(record: AddressRecord) -> AddressRow:
    """Turn one address of a device into a row."""
    return AddressRow(
        format_ipv4(record.interface.addr),
        record.interface.prefix_len,
        format_ipv4(record.broadcast) if record.broadcast else "",
        SCOPE_NAMES.get(record.scope, "global") + (" secondary" if record.secondary else ""),
    )
