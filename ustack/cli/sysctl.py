"""``ustack sysctl``: read and set net.core.* and net.ipv4.*, in procps' format."""

from __future__ import annotations

import argparse

from ustack.cli.client import Client, ClientError
from ustack.daemon.messages import SysctlRequest, SysctlWriteRequest, ValueRow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare sysctl's options."""
    flag = parser.add_argument
    flag("-a", "--all", action="store_true", help="all variables")
    flag("-n", "--values", action="store_true", help="values without names")
    flag("-w", "--write", action="store_true", help="set; NAME=VALUE sets without it as well")
    flag(
        "variables",
        nargs="*",
        metavar="NAME[=VALUE]",
        help="e.g. net.core.somaxconn, /sys/class/net/eth0/queues/rx-0/rps_cpus",
    )


def run(args: argparse.Namespace, client: Client) -> int:
    """Print what was asked for, and what was set."""
    if not args.all and not args.variables:
        raise ClientError("sysctl: no variables specified (see --help)")
    for variable in [""] if args.all else args.variables:
        name, equals, value = variable.partition("=")
        if args.write and not equals:
            raise ClientError(f'sysctl: "{variable}" must be of the form name=value')
        request = SysctlWriteRequest(name.strip(), value) if equals else SysctlRequest(name)
        try:
            for row in client.rows(request, ValueRow):
                print(row.value if args.values else f"{row.name} = {row.value}")
        except ClientError as error:
            raise ClientError(f"sysctl: {error}") from None
    return 0
