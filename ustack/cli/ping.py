"""``ustack ping``: echo requests from the stack, in the words of iputils' ping."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from ustack.cli.client import Client, ClientError
from ustack.cli.streaming import stop_signals
from ustack.daemon.messages import Done, PingRequest, PingResult, PingSummary
from ustack.lib.addresses import format_ipv4, parse_ipv4

HEADERS_BYTES = 28
"""IPv4's and ICMP's, which ping adds in brackets."""
UNREACHABLE = {
    0: "Destination Net Unreachable",
    1: "Destination Host Unreachable",
    2: "Destination Protocol Unreachable",
    3: "Destination Port Unreachable",
    4: "Frag needed and DF set (mtu = {mtu})",
    5: "Source Route Failed",
    6: "Destination Net Unknown",
    7: "Destination Host Unknown",
    8: "Source Host Isolated",
    9: "Destination Net Prohibited",
    10: "Destination Host Prohibited",
    11: "Destination Net Unreachable for Type of Service",
    12: "Destination Host Unreachable for Type of Service",
    13: "Packet filtered",
    14: "Precedence Violation",
    15: "Precedence Cutoff",
}
TIME_EXCEEDED = {0: "Time to live exceeded", 1: "Frag reassembly time exceeded"}

NumberT = TypeVar("NumberT", int, float)


def number(kind: Callable[[str], NumberT], least: float, most: float) -> Callable[[str], NumberT]:
    """Return a converter for argparse of numbers from ``least`` to ``most``."""

    def convert(text: str) -> NumberT:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"not a number: {text!r}") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not from {least:g} to {most:g}")
        return value

    return convert


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ping's options."""
    add = parser.add_argument
    add("address", metavar="ADDRESS", help="an IPv4 address")
    add("-c", dest="count", type=number(int, 1, 1 << 31), default=0, help="stop after COUNT")
    add("-s", dest="size", type=number(int, 0, 65507), default=56, help="payload bytes (56)")
    add("-i", dest="interval", type=number(float, 0.001, 3600), default=1.0, metavar="SECONDS")
    add("-W", dest="timeout", type=number(float, 0.001, 3600), default=10.0, metavar="SECONDS",
        help="wait so long for a reply (10)")  # fmt: skip
    add("-t", dest="ttl", type=number(int, 1, 255), default=0, help="time to live")
    add("-Q", dest="tos", type=number(int, 0, 255), default=0, help="type of service")
    add("-M", dest="pmtu", choices=("do", "want", "dont"), default="want", help="do: set DF")
    add("-q", dest="quiet", action="store_true", help="only the summary")


@dataclass
class Statistics:
    """What the last lines say."""

    received: int = 0
    errors: int = 0
    rtts_us: list[int] = field(default_factory=list)


def run(args: argparse.Namespace, client: Client) -> int:
    """Ping.

    Returns:
        0 if there was a reply, else 1.
    """
    try:
        address = format_ipv4(parse_ipv4(args.address))
    except ValueError:
        raise ClientError(f"ping: {args.address}: not an IPv4 address") from None
    client.wait_forever()
    request = PingRequest(
        address,
        count=args.count,
        size=args.size,
        interval_us=round(args.interval * 1e6),
        timeout_us=round(args.timeout * 1e6),
        ttl=args.ttl,
        tos=args.tos,
        df=args.pmtu == "do",
    )
    statistics = Statistics()
    head = f"{args.size}({args.size + HEADERS_BYTES}) bytes of data."
    with stop_signals(client, request):
        print(f"PING {args.address} ({address}) {head}", flush=True)
        while not isinstance(reply := client.receive(), Done):
            if isinstance(reply, PingResult):
                line = take(reply, address, statistics)
                if line and not args.quiet:
                    print(line, flush=True)
            elif isinstance(reply, PingSummary):
                print("\n".join(summary_lines(args.address, reply, statistics)), flush=True)
    return 0 if statistics.received else 1


def take(result: PingResult, address: str, statistics: Statistics) -> str:
    """Count a result and return its line, empty for one that timed out."""
    if result.failure:
        statistics.errors += 1
        return f"ping: sendmsg: {result.failure}"
    # iputils prints the 16 bits that were on the wire.
    seq = f"icmp_seq={result.seq & 0xFFFF}"
    if result.error is not None:
        statistics.errors += 1
        return f"From {result.sender} {seq} {error_text(result)}"
    if result.rtt_us is None:
        return ""
    statistics.received += 1
    statistics.rtts_us.append(result.rtt_us)
    wrong = "" if result.intact else " (wrong data)"
    return (
        f"{result.length} bytes from {address}: {seq} ttl={result.ttl} "
        f"time={format_rtt(result.rtt_us)} ms{wrong}"
    )


def error_text(result: PingResult) -> str:
    """Say what an ICMP error means."""
    icmp_type, code = result.error or (0, 0)
    if icmp_type == 3:
        return UNREACHABLE.get(code, f"Dest Unreachable, Bad Code: {code}").format(mtu=result.mtu)
    if icmp_type == 11:
        return TIME_EXCEEDED.get(code, f"Time exceeded, Bad Code: {code}")
    if icmp_type == 12:
        return "Parameter problem"
    return f"Bad ICMP type: {icmp_type}"


def format_rtt(rtt_us: int) -> str:
    """Write milliseconds with three significant digits or more, as iputils does."""
    if rtt_us >= 99_950:
        return f"{(rtt_us + 500) // 1000}"
    decimals = 1 if rtt_us >= 9_995 else 2 if rtt_us >= 1000 else 3
    return f"{rtt_us / 1000:.{decimals}f}"


def summary_lines(name: str, summary: PingSummary, statistics: Statistics) -> list[str]:
    """Write the statistics."""
    sent, received = summary.sent, statistics.received
    errors = f", +{statistics.errors} errors" if statistics.errors else ""
    loss = (sent - received) * 100 / sent if sent else 0.0
    lines = [
        "",
        f"--- {name} ping statistics ---",
        f"{sent} packets transmitted, {received} received{errors}, {loss:g}% packet loss, "
        f"time {summary.time_us // 1000}ms",
    ]
    if rtts := statistics.rtts_us:
        mean = sum(rtts) / len(rtts)
        mdev = math.sqrt(max(0.0, sum(rtt * rtt for rtt in rtts) / len(rtts) - mean * mean))
        figures = "/".join(f"{us / 1000:.3f}" for us in (min(rtts), mean, max(rtts), mdev))
        lines.append(f"rtt min/avg/max/mdev = {figures} ms")
    return lines
