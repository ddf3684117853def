#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Time stamps are the wall clock's at the moment of the packet, whatever that clock did later."""
import signal
import socket
import sys
import time

import checks
import harness
import pcap

HERE, THERE, PORT = "192.0.2.2", "192.0.2.1", 5001
BACKENDS = {
    "tc": "backend: tc\n",
    "native": "backend: xdp\nxdpMode: native\n",
    "generic": "backend: xdp\nxdpMode: generic\n",
}
# Runs what follows in a time namespace whose CLOCK_BOOTTIME is ahead by some days.
AHEAD = """import ctypes, os, sys
libc, new_time = ctypes.CDLL(None, use_errno=True), 0x80
if libc.unshare(new_time):
    sys.exit("no time namespaces: " + os.strerror(ctypes.get_errno()))
with open("/proc/self/timens_offsets", "w") as f:
    f.write("boottime 400000 5")
if libc.setns(os.open("/proc/self/ns/time_for_children", os.O_RDONLY), new_time):
    sys.exit("setns: " + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
"""


class Line:
    """Sends datagrams one at a time; of each, the wall clock before and after its way."""

    def __init__(self, lab):
        lab.address((lab.tx, "ps0", THERE), (lab.rx, "ps1", HERE))
        self.to = harness.make_socket(lab.rx, socket.AF_INET, socket.SOCK_DGRAM)
        self.to.bind((HERE, PORT))
        self.to.settimeout(10 * harness.PATIENCE)
        self.out = harness.make_socket(lab.tx, socket.AF_INET, socket.SOCK_DGRAM)
        self.sent = []

    def send(self, n):
        for _ in range(n):
            before = time.time_ns()
            self.out.sendto(b"%08d" % len(self.sent), (HERE, PORT))
            self.to.recv(100)
            self.sent.append((before, time.time_ns()))

    def close(self):
        self.to.close()
        self.out.close()

    def check(self, path):
        """How wide the windows were at the median, in ns."""
        got = pcap.read(path).packets
        assert len(got) == len(self.sent), (len(got), len(self.sent))
        for n, (p, (before, after)) in enumerate(zip(got, self.sent)):
            assert p.data[-8:] == b"%08d" % n, n
            # A microsecond: as well as we promise to know the distance between the clocks.
            assert before - 1000 <= p.time <= after + 1000, (n, p.time - before, after - before)
        return sorted(after - before for before, after in self.sent)[len(got) // 2]


def stamps_lie_between_sending_and_receipt(lab, extra):
    line = Line(lab)
    agent = lab.agent(extra, output=lab.path("out.pcap"))
    line.send(100 if harness.GUEST else 2000)
    assert agent.stop() == 0
    window = line.check(lab.path("out.pcap"))
    line.close()
    print(f"# {len(line.sent)} stamps in windows of {window / 1000:.1f} us at the median")


def stamps_at_tc_lie_between_sending_and_receipt(lab):
    stamps_lie_between_sending_and_receipt(lab, BACKENDS["tc"])


def stamps_at_native_xdp_lie_between_sending_and_receipt(lab):
    stamps_lie_between_sending_and_receipt(lab, BACKENDS["native"])


def stamps_at_generic_xdp_lie_between_sending_and_receipt(lab):
    stamps_lie_between_sending_and_receipt(lab, BACKENDS["generic"])


def an_agent_in_a_time_namespace_has_the_same_stamps(lab):
    """It is not asked to be ready at first: without time namespaces it never is."""
    line = Line(lab)
    agent = lab.agent(output=lab.path("out.pcap"), ready=False, wrap=[sys.executable, "-c", AHEAD])
    try:
        agent.ready()
    except RuntimeError as e:
        if "no time namespaces" in str(e):
            raise harness.Skip(str(e).splitlines()[-1]) from None
        raise
    line.send(100)
    assert agent.stop() == 0
    line.check(lab.path("out.pcap"))
    line.close()
    checks.check_sums(agent)


def step(ns):
    now = time.time_ns()
    time.clock_settime_ns(time.CLOCK_REALTIME, now + ns)


def packets_of_before_a_step_keep_the_time_that_it_was(lab):
    """The agent stands still while packets come and the clock is set, so it meets them after."""
    if not harness.GUEST:
        raise harness.Skip("sets the clock of the machine: in a guest only")
    line = Line(lab)
    collector, agent = lab.collector(), lab.agent()
    steps = [3000, -2000, 500, -1]
    for n, seconds in enumerate(steps, 1):
        line.send(5)
        agent.signal(signal.SIGSTOP)
        line.send(5)
        step(seconds * 10**9)
        agent.signal(signal.SIGCONT)
        # The first one is told at once, those that come soon after it in a sum. (Between the
        # reading of the clock and its setting passes some time, too.)
        if n == 1:
            agent.wait_for(r"the wall clock was set by \+(?:2999|3000)\d{9} ns")
        harness.wait_until("the agent to have seen that",
                           lambda: agent.snapshot()["captured"] >= len(line.sent))
        line.send(5)
    assert agent.stop() == 0 and collector.stop() == 0
    line.check(lab.path("dump.pcap"))
    line.close()
    checks.check_complete(agent, collector)
    told = [x for x in collector.text().splitlines() if '"kind":"clock"' in x.replace(" ", "")]
    assert len(told) >= 2, collector.text()
    print("\n".join(f"# {x}" for x in told))


if __name__ == "__main__":
    harness.main([stamps_at_tc_lie_between_sending_and_receipt,
                  stamps_at_native_xdp_lie_between_sending_and_receipt,
                  stamps_at_generic_xdp_lie_between_sending_and_receipt,
                  an_agent_in_a_time_namespace_has_the_same_stamps,
                  packets_of_before_a_step_keep_the_time_that_it_was])
