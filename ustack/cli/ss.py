"""``ustack ss``: sockets in the columns of iproute2's ss.

State, Recv-Q, Send-Q, Local Address:Port, Peer Address:Port, then Process, which stays empty
except for what -o and -e add. As in ss, Netid stands in front unless -t, -u or -w leaves only
one transport. With -m and -i a second line begins with a tab. A listener's Recv-Q is its accept
queue now, Send-Q that queue's limit.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence

from ustack.cli.client import Client, ClientError
from ustack.cli.ss_info import format_info
from ustack.daemon.messages import (
    CounterRow,
    SocketRow,
    SocketsRequest,
    SocketSummaryRequest,
    Timer,
)

STATES = {
    "established": ("ESTAB",),
    "syn-sent": ("SYN-SENT",),
    "syn-recv": ("SYN-RECV",),
    "fin-wait-1": ("FIN-WAIT-1",),
    "fin-wait-2": ("FIN-WAIT-2",),
    "time-wait": ("TIME-WAIT",),
    "closed": ("UNCONN",),
    "close-wait": ("CLOSE-WAIT",),
    "last-ack": ("LAST-ACK",),
    "listening": ("LISTEN",),
    "closing": ("CLOSING",),
}
"""ss's names of states to those in its State column."""
_CONNECTED = tuple(
    name for names in STATES.values() for name in names if name not in ("UNCONN", "LISTEN")
)
_BUCKET = ("SYN-RECV", "TIME-WAIT")
STATE_GROUPS = {
    "all": tuple(name for names in STATES.values() for name in names),
    "connected": _CONNECTED,
    "synchronized": tuple(name for name in _CONNECTED if name != "SYN-SENT"),
    "bucket": _BUCKET,
    "big": tuple(name for name in _CONNECTED if name not in _BUCKET),
}
DEFAULT_STATES = tuple(name for name in _CONNECTED if name not in _BUCKET)
"""Without -a, -l and a state filter: ss shows what is connected."""

SKMEM_LETTERS = ("r", "rb", "t", "tb", "f", "w", "o", "bl", "d")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ss's options."""
    flag = parser.add_argument
    flag("-a", "--all", action="store_true", help="listening and connected sockets")
    flag("-l", "--listening", action="store_true", help="only listening sockets")
    flag("-n", "--numeric", action="store_true", help="numbers, as always here")
    flag("-t", "--tcp", action="store_true", help="TCP sockets")
    flag("-u", "--udp", action="store_true", help="UDP sockets")
    flag("-w", "--raw", action="store_true", help="raw sockets")
    flag("-4", "--ipv4", action="store_true", help="IPv4 sockets, as always here")
    flag("-p", "--processes", action="store_true", help="accepted; sockets belong to the daemon")
    flag("-i", "--info", action="store_true", help="tcp_info")
    flag("-e", "--extended", action="store_true", help="more about each socket")
    flag("-m", "--memory", action="store_true", help="socket memory")
    flag("-o", "--options", action="store_true", help="timers")
    flag("-s", "--summary", action="store_true", help="only how many sockets there are")
    flag("-H", "--no-header", action="store_true", help="no header line")
    flag("-O", "--oneline", action="store_true", help="one line a socket")
    flag("filter", nargs="*", help="state NAME")


def run(args: argparse.Namespace, client: Client) -> int:
    """Print the sockets, or with -s their numbers."""
    if args.summary:
        rows = client.rows(SocketSummaryRequest(), CounterRow)
        print("\n".join(summary_lines({row.name: row.value for row in rows})))
        return 0
    netids = wanted_netids(args)
    states = wanted_states(args, netids)
    sockets = list(client.rows(SocketsRequest(states, netids), SocketRow))
    show_state = len(states) != 1 or not args.filter
    for line in socket_lines(sockets, args, show_state=show_state):
        print(line)
    return 0


def wanted_netids(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the transports that -t, -u and -w name; all in ss's order without any."""
    named = [("raw", args.raw), ("udp", args.udp), ("tcp", args.tcp)]
    chosen = tuple(name for name, wanted in named if wanted)
    return chosen or tuple(name for name, _ in named)


def wanted_states(args: argparse.Namespace, netids: tuple[str, ...] = ("tcp",)) -> tuple[str, ...]:
    """Return the State column's values to ask for.

    Raises:
        ClientError: the filter is not ``state NAME`` or ``exclude NAME``, maybe repeated.
    """
    chosen: list[str] = []
    excluded: list[str] = []
    words = list(args.filter)
    while words:
        keyword = words.pop(0)
        if keyword not in ("state", "exclude") or not words:
            raise ClientError(f"filter not supported: {' '.join([keyword, *words])}")
        name = words.pop(0).lower()
        names = STATES.get(name) or STATE_GROUPS.get(name)
        if names is None:
            raise ClientError(f"wrong state name: {name}")
        (chosen if keyword == "state" else excluded).extend(names)
    if not chosen:
        if args.all:
            chosen.extend(STATE_GROUPS["all"])
        elif args.listening:
            chosen.append("LISTEN")
            if netids != ("tcp",):
                chosen.append("UNCONN")
        else:
            chosen.extend(STATE_GROUPS["all"] if excluded else DEFAULT_STATES)
    return tuple(name for name in dict.fromkeys(chosen) if name not in excluded)


def socket_lines(
    sockets: Sequence[SocketRow], args: argparse.Namespace, *, show_state: bool = True
) -> Iterator[str]:
    """Yield the table, header first."""
    show_netid = len(wanted_netids(args)) > 1
    header = ("Netid", "State", "Recv-Q", "Send-Q", "Local Address", "Port", "Peer Address", "Port")
    cells = [socket_cells(sock) for sock in sockets]
    widths = column_widths([header, *cells])
    if not args.no_header:
        yield table_line(header, widths, "Process", netid=show_netid, state=show_state)
    for sock, row in zip(sockets, cells, strict=True):
        process = process_column(sock, args)
        line = table_line(row, widths, process, netid=show_netid, state=show_state)
        details = detail_line(sock, args)
        if not details:
            yield line
        elif args.oneline:
            yield f"{line} {details}"
        else:
            yield line
            yield f"\t {details}"


def socket_cells(sock: SocketRow) -> tuple[str, ...]:
    """Return the eight cells that make the fixed columns."""
    return (
        sock.netid,
        sock.state,
        str(sock.recv_q),
        str(sock.send_q),
        *endpoint_cells(sock.local),
        *endpoint_cells(sock.peer),
    )


def endpoint_cells(endpoint: tuple[str, int]) -> tuple[str, str]:
    """Return address and port; port 0 is ``*`` as in ss."""
    address, port = endpoint
    return address, str(port) if port else "*"


def column_widths(rows: Iterable[Sequence[str]]) -> list[int]:
    """Return the width of each column."""
    return [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]


def table_line(
    cells: Sequence[str], widths: Sequence[int], process: str, *, netid: bool, state: bool
) -> str:
    """Align one line: addresses to the right against their colon, all else to the left."""
    padded = [f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)]
    local, peer = (f"{cells[i]:>{widths[i]}}:{padded[i + 1]}" for i in (4, 6))
    columns = [padded[0]] if netid else []
    columns += padded[1:4] if state else padded[2:4]
    return " ".join([*columns, local, peer, process]).rstrip()


def process_column(sock: SocketRow, args: argparse.Namespace) -> str:
    """Return what stands behind the addresses: timer (-o), identity (-e)."""
    parts = []
    if args.options and sock.timer is not None:
        parts.append(format_timer(sock.timer))
    if args.extended:
        parts += [f"{name}:{value}" for name, value in sock.extended.items()]
    return " ".join(parts)


def format_timer(timer: Timer) -> str:
    """Write ``timer:(on,204ms,0)`` as ss does."""
    return f"timer:({timer.name},{format_expiry(timer.expires_us // 1000)},{timer.retries})"


def format_expiry(ms: int) -> str:
    """Write a timer's time left as ss does, its odd ``1.500ms`` for a second and a half too."""
    minutes, rest_ms = divmod(max(ms, 0), 60_000)
    seconds, milliseconds = divmod(rest_ms, 1000)
    if minutes:
        return f"{minutes}min" + (f"{seconds}sec" if seconds and minutes <= 9 else "")
    if seconds > 9 or (seconds and not milliseconds):
        return f"{seconds}sec"
    if seconds:
        return f"{seconds}.{milliseconds:03d}ms"
    return f"{milliseconds:03d}ms" if milliseconds else ""


def detail_line(sock: SocketRow, args: argparse.Namespace) -> str:
    """Return the second line: memory (-m) and tcp_info (-i)."""
    parts = []
    if args.memory and sock.skmem:
        fields = ",".join(f"{letter}{sock.skmem.get(letter, 0)}" for letter in SKMEM_LETTERS)
        parts.append(f"skmem:({fields})")
    if args.info and sock.info:
        parts.append(format_info(sock.info))
    return " ".join(parts)


def summary_lines(states: dict[str, int]) -> list[str]:
    """Return ``ss -s``: totals, then one line a transport."""
    counted = dict(states)
    udp, raw = counted.pop("UDP", 0), counted.pop("RAW", 0)
    total = sum(n for name, n in counted.items() if name != "orphaned")
    timewait = states.get("TIME-WAIT", 0)
    closed = timewait + states.get("UNCONN", 0)
    open_sockets = total - timewait
    detail = (
        f"estab {states.get('ESTAB', 0)}, closed {closed}, orphaned {states.get('orphaned', 0)}"
    )
    return [
        f"Total: {open_sockets + udp + raw}",
        f"TCP:   {total} ({detail}, timewait {timewait})",
        "",
        "Transport Total     IP        IPv6",
        *(f"{name:<9} {n:<9} {n:<9} {0:<9}" for name, n in _transports(open_sockets, udp, raw)),
    ]


def _transports(tcp: int, udp: int, raw: int) -> list[tuple[str, int]]:
    return [("RAW", raw), ("UDP", udp), ("TCP", tcp), ("INET", tcp + udp + raw), ("FRAG", 0)]
