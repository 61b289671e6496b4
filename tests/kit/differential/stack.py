"""Plays a script against ustack, in virtual time over the in-memory wire."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from kit.differential.app import App
from kit.differential.conversation import Conversation
from kit.differential.script import Script
from kit.host import TEST_CONFIG, Host, host
from kit.segment import Segment, build_ip
from ustack.config import StackConfig
from ustack.core.sysctl import sysctl_write
from ustack.lib.addresses import parse_ipv4

PEER, HOST = parse_ipv4("10.0.0.1"), parse_ipv4("10.0.0.2")
FIRST_PORT = 40_000
HASTE_US = 3
"""By how much a step comes early after the one before: a delayed ACK adapts to the pace, and
the kernel's timers, which are never early, would then expire after the step."""

Log = list[tuple[str, float, float, str]]


class StackPlay:
    """One script being played on a stack of its own."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.host: Host = host(_config(script))
        self.host.adapter.set_offload(tso=False)
        self.log: Log = []
        self._event_us = self._start_us = self.host.world.now_us
        self._peers = {
            name: _Heard(self.host, self, k, script.iss + 77_777 * k)
            for k, name in enumerate("abcd")
        }

    def play(self) -> Log:
        """Play all steps; return what happened."""
        app = App(self.host.socket, 1080, PEER, FIRST_PORT)
        self._resolve()
        self._event_us = self._start_us = self.host.world.now_us
        for i, step in enumerate(self.script.steps):
            self._wait_until(step.at_ms * 1000 - i * HASTE_US)
            self._event_us = self.host.world.now_us
            if step.kind == "send":
                self._note(f"{step.peer}>", self._event_us, step.text)
                net = self.host.net
                assert net is not None
                net.send_ip(build_ip(self._peers[step.peer].conversation.segment(step.text)))
            else:
                self.host.stack.clock.now_us = self._event_us
                self._note("call", self._event_us, f"{step.text} = {app.call(step.text)}")
            self.host.settle()
        self._wait_until(self.script.end_ms * 1000)
        return self.log

    def _resolve(self) -> None:
        """Let the stack learn the peer's MAC first: here the kernel has it from the start."""
        stray = Conversation(PEER, FIRST_PORT, HOST, 9, 0).segment(". 0:0(0) ack 0")
        assert self.host.net is not None
        self.host.net.send_ip(build_ip(stray))
        self.host.settle()
        self.log.clear()

    def _wait_until(self, at_us: int) -> None:
        self.host.advance_us(max(self._start_us + at_us - self.host.world.now_us, 0))

    def heard(self, conversation: Conversation, seg: Segment) -> None:
        """Take a segment of the stack."""
        self._note("<", seg.time_us, conversation.describe(seg))

    def _note(self, kind: str, now_us: int, text: str) -> None:
        since_start, since_event = now_us - self._start_us, now_us - self._event_us
        self.log.append((kind, since_start / 1000, since_event / 1000, text))


class _Heard:
    """A scripted peer as kit.peer's network knows it."""

    def __init__(self, one: Host, play: StackPlay, index: int, iss: int) -> None:
        self.addr = PEER
        self.conversation = Conversation(PEER, FIRST_PORT + index, HOST, 1080, iss)
        self._play = play
        assert one.net is not None
        one.net.peers.append(self)  # type: ignore[arg-type]

    def takes(self, seg: Segment) -> bool:
        return self.conversation.takes(seg)

    def arrived(self, seg: Segment) -> None:
        self._play.heard(self.conversation, seg)


def _config(script: Script) -> StackConfig:
    """The test's configuration with the script's sysctls."""
    config = replace(TEST_CONFIG, tcp=replace(TEST_CONFIG.tcp, tcp_no_metrics_save=True))
    for name, value in script.sysctls:
        with contextlib.suppress(LookupError):
            config = sysctl_write(config, f"net.ipv4.{name}", value)
    return config


def play_on_stack(script: Script) -> Log:
    """Play ``script`` against ustack and return what happened, an error of ours included."""
    play = StackPlay(script)
    try:
        return play.play()
    except Exception as error:
        return [*play.log, ("!", 0.0, 0.0, repr(error))]
