#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A host with the agent on and off, by every back end: its connections lose nothing, and other
programs on the same interface decide as before, whichever came first."""
import contextlib
import errno
import json
import re

import harness
import tcp
import tcprog
import test_hooks
from harness import run

BACKENDS = {
    "none": None,
    "tc": "backend: tc\n",
    "native": "backend: xdp\nxdpMode: native\n",
    "generic": "backend: xdp\nxdpMode: generic\n",
}
XDP_MODES = {"native": tcprog.XDP_NATIVE, "generic": tcprog.XDP_GENERIC}


def passed(lab):
    """Packets so far: [in by the device, by IP; out by IP, by the device; sent again by TCP]."""
    link, = json.loads(run("ip", "-n", lab.rx, "-j", "-s", "link", "show", "ps1").stdout)
    came, went = tcp.statistics(lab.rx, "IpInReceives", "IpOutRequests")
    again, = tcp.statistics(lab.tx, "TcpRetransSegs")
    return [link["stats64"]["rx"]["packets"], came, went, link["stats64"]["tx"]["packets"], again]


def transfers_are_the_same_with_and_without_the_agent(lab):
    """All bytes arrive, and every packet that the device has got gets to the stack, and the other
    way round. (What is sent again is shown only: timers that run out late on a busy machine, and
    packets that two processors put in another order, are nobody's harm.)"""
    tcp.connect(lab, mtu=1500)
    # GRO would merge them in between.
    run("ip", "netns", "exec", lab.rx, "ethtool", "-K", "ps1", "gro", "off")
    for name, config in BACKENDS.items():
        agent = lab.agent(config + test_hooks.WHOLE, name=name, output=lab.path(f"{name}.pcap")) \
            if config else None
        before = passed(lab)
        tcp.transfer(lab)
        harness.wait_until("the last packets", lambda: passed(lab)[2] == passed(lab)[3])
        device_in, ip_in, ip_out, device_out, again = \
            (b - a for a, b in zip(before, passed(lab)))
        print(f"# {name}: {device_in} packets in, {device_out} out, {again} sent again")
        assert (device_in, device_out) == (ip_in, ip_out), (name, device_in, ip_in, ip_out, device_out)
        if agent:
            assert agent.stop() == 0
            assert agent.total("captured") == agent.total("seen")
            assert agent.total("seen", "ps1", "ingress") == device_in


def others_decide(lab, backend, other, attach, first, seen):
    """Of 40 packets the other one drops 20 and passes 20, the agent gets @seen."""
    tcp.connect(lab, mtu=1500)
    with contextlib.ExitStack() as stack:
        stack.callback(other.close)
        if first:
            attach(stack, other)
        agent = lab.agent(BACKENDS[backend], name=backend, output=lab.path("out.pcap"))
        if backend != "tc":
            agent.wait_for(f'capturing interface "ps1" .* by {backend} XDP')
        if not first:
            attach(stack, other)
        was = agent.snapshot()["captured"]
        before = other.count()
        assert test_hooks.datagrams(lab) == [0, 20]
        assert other.count() - before == 40
        harness.wait_until(f"{seen} captured packets",
                           lambda: agent.snapshot()["captured"] - was == seen)
        assert agent.stop() == 0
        before = other.count()
        assert test_hooks.datagrams(lab) == [0, 20]
        assert other.count() - before == 40


def by_xdp(lab, mode):
    def attach(_, other):
        index = test_hooks.ifindex(lab)
        with harness.inside(lab.rx):
            other.attach(index, XDP_MODES[mode])
    return attach


def an_xdp_program_and_the_agent_at_tc(lab, mode, first):
    others_decide(lab, "tc", tcprog.Xdp(), by_xdp(lab, mode), first, 20)


def a_native_xdp_program_that_was_there_before_works_on(lab):
    an_xdp_program_and_the_agent_at_tc(lab, "native", True)


def a_native_xdp_program_that_comes_later_works_too(lab):
    an_xdp_program_and_the_agent_at_tc(lab, "native", False)


def a_generic_xdp_program_that_was_there_before_works_on(lab):
    an_xdp_program_and_the_agent_at_tc(lab, "generic", True)


def a_generic_xdp_program_that_comes_later_works_too(lab):
    an_xdp_program_and_the_agent_at_tc(lab, "generic", False)


def a_filter_works_on_behind_the_agent_at_native_xdp(lab):
    others_decide(lab, "native", tcprog.Program(0), test_hooks.by_clsact(lab, 60000), True, 40)


def a_filter_works_on_behind_the_agent_at_generic_xdp(lab):
    others_decide(lab, "generic", tcprog.Program(0), test_hooks.by_clsact(lab, 60000), False, 40)


def a_tcx_program_works_on_behind_the_agent_at_native_xdp(lab):
    others_decide(lab, "native", tcprog.Program(0), test_hooks.by_tcx(lab, tcprog.AFTER), False, 40)


def a_tcx_program_works_on_behind_the_agent_at_generic_xdp(lab):
    others_decide(lab, "generic", tcprog.Program(0), test_hooks.by_tcx(lab, tcprog.AFTER), True, 40)


def has_xdp(lab):
    link, = json.loads(run("ip", "-n", lab.rx, "-j", "link", "show", "ps1").stdout)
    return "xdp" in link


def an_agent_finds_the_place_for_xdp_taken(lab, mode):
    tcp.connect(lab, mtu=1500)
    other = tcprog.Xdp()
    by_xdp(lab, mode)(None, other)
    agent = lab.agent(BACKENDS[mode], interfaces="[ps1, lo]", output=lab.path("out.pcap"))
    said, = agent.wait_for(r'interface "ps1" cannot be captured: .*')
    assert re.search("another XDP program is there, and XDP has room for one", said), said
    before = other.count()
    assert test_hooks.datagrams(lab) == [0, 20]
    assert other.count() - before == 40
    other.close()
    assert agent.stop() == 0
    assert agent.total("seen", "ps1") == 0


def an_agent_finds_the_place_for_native_xdp_taken(lab):
    an_agent_finds_the_place_for_xdp_taken(lab, "native")


def an_agent_finds_the_place_for_generic_xdp_taken(lab):
    an_agent_finds_the_place_for_xdp_taken(lab, "generic")


def who_comes_after_the_agent_finds_xdp_taken(lab):
    tcp.connect(lab, mtu=1500)
    for mode in XDP_MODES:
        agent = lab.agent(BACKENDS[mode], name=mode, output=lab.path(f"{mode}.pcap"))
        other = tcprog.Xdp()
        try:
            by_xdp(lab, mode)(None, other)
            raise AssertionError("there was room for another one")
        except OSError as e:
            assert e.errno == errno.EBUSY, e
        assert test_hooks.datagrams(lab) == [20, 20]
        assert agent.stop() == 0
        assert agent.total("captured", "ps1", "ingress") == 40
        by_xdp(lab, mode)(None, other)
        assert test_hooks.datagrams(lab) == [0, 20]
        other.close()


def no_xdp_program_stays_after_kill_9(lab):
    tcp.connect(lab, mtu=1500)
    for mode in XDP_MODES:
        agent = lab.agent(BACKENDS[mode], name=mode, output=lab.path(f"{mode}.pcap"))
        assert has_xdp(lab)
        agent.kill()
        harness.wait_until("the program to be gone", lambda: not has_xdp(lab))
        assert test_hooks.datagrams(lab) == [20, 20]


if __name__ == "__main__":
    harness.main([transfers_are_the_same_with_and_without_the_agent,
                  a_native_xdp_program_that_was_there_before_works_on,
                  a_native_xdp_program_that_comes_later_works_too,
                  a_generic_xdp_program_that_was_there_before_works_on,
                  a_generic_xdp_program_that_comes_later_works_too,
                  a_filter_works_on_behind_the_agent_at_native_xdp,
                  a_filter_works_on_behind_the_agent_at_generic_xdp,
                  a_tcx_program_works_on_behind_the_agent_at_native_xdp,
                  a_tcx_program_works_on_behind_the_agent_at_generic_xdp,
                  an_agent_finds_the_place_for_native_xdp_taken,
                  an_agent_finds_the_place_for_generic_xdp_taken,
                  who_comes_after_the_agent_finds_xdp_taken,
                  no_xdp_program_stays_after_kill_9])
