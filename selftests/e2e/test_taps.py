#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A tap gives everything that is wanted of its interface to the agent and nothing of it to the
host; all other packets and interfaces stay the host's."""
import contextlib
import ctypes
import mmap
import os
import re
import signal
import socket
import struct

import checks
import harness
import pcap
import tcprog
import test_hooks
import traffic
from harness import run

HERE, THERE, PORT = "192.0.2.2", "192.0.2.1", 5001
TAP = "taps: [ps1]\n"
WHOLE = "inputPacketLen: 262144\n"
PPS = 4000


def fits(packet):
    """Packets of several frames can be had from AF_XDP since Linux 6.6."""
    return harness.KERNEL >= (6, 6) or len(packet) + 32 <= 4096 - 256


def tapped(lab, extra="", **kw):
    agent = lab.agent(TAP + WHOLE + extra, **kw)
    agent.wait_for(r'capturing interface "ps1" .* by AF_XDP (zero-copy|copy), \d+ queue')
    return agent


def check(d, seen, dev="ps1", **counters):
    """The ledger of the tap adds up; others than @counters are 0."""
    parts = ("ruled_out", "expression_out", "sampled_out", "captured", "lost_ring", "lost_error")
    got = {k: d.total(k, dev, "ingress") for k in ("seen", *parts)}
    assert got == dict.fromkeys(parts, 0) | {"seen": seen} | counters, got
    for unit in ("", "_bytes"):
        sums = [d.total(k + unit, dev, "ingress") for k in ("seen", *parts)]
        assert sums[0] == sum(sums[1:]), (unit, sums)


def sender_tcpdump(lab, path):
    d = lab.spawn("tcpdump", ["tcpdump", "-i", "ps0", "-w", path, "-U", "-s0", "-B", "16384",
                              "--time-stamp-precision=nano", "-j", "host"], ns=lab.tx)
    d.wait_for("listening on")
    return d


def packets_arrive(lab, packets, extra="", in_order=True):
    """Byte for byte, in order, stamped after the sender's tcpdump and soon."""
    pcap.write(lab.path("in.pcap"), packets)
    want = [p for p in packets if fits(p)]
    collector, agent = lab.collector(), tapped(lab, extra)
    beside = sender_tcpdump(lab, lab.path("tcpdump.pcap"))
    lab.replay(lab.path("in.pcap"), PPS)
    assert agent.stop() == 0
    harness.wait_until("tcpdump to have written all", lambda: os.path.getsize(
        lab.path("tcpdump.pcap")) >= 24 + sum(16 + len(p) for p in packets))
    beside.stop()
    assert collector.stop() == 0
    got = pcap.read(lab.path("dump.pcap")).packets
    missing, more, disorder = pcap.compare(want, [p.data for p in got])
    assert (missing, more) == (0, 0), f"missing {missing}, extra {more} of {len(want)}"
    assert not (in_order and disorder), f"{disorder} of {len(want)} out of order"
    assert all(p.len == len(p.data) for p in got)
    assert [p.time for p in got] == sorted(p.time for p in got)
    if in_order and len(want) == len(packets):
        sent = pcap.read(lab.path("tcpdump.pcap")).packets
        late = [g.time - s.time for g, s in zip(got, sent)]
        # The sender's tcpdump stamps before the device takes the packet.
        assert min(late) > -10**6 and max(late) < 10**10 * harness.PATIENCE, (min(late), max(late))
        print(f"# {len(got)} packets, {min(late) / 1000:.1f} to {max(late) / 1000:.1f} us after "
              "the sender's stamps")
    for d in (agent, collector):
        check(d, len(packets), captured=len(want), lost_error=len(packets) - len(want))
        assert d.total("committed", "ps1", "ingress") == len(want)
    return agent


def captured():
    if not harness.traffic_files():
        raise harness.Skip("no captures here (PS_TRAFFIC)")
    return traffic.captured()[::4 if harness.GUEST else 1]


def every_generated_shape_arrives_through_a_tap(lab):
    packets_arrive(lab, [p for p in traffic.generated() if traffic.sendable(p)][::4 if harness.GUEST
                                                                                else 1])


def every_real_capture_arrives_through_a_native_tap(lab):
    packets_arrive(lab, captured(), "xdpMode: native\n")


def every_real_capture_arrives_through_a_generic_tap(lab):
    packets_arrive(lab, captured(), "xdpMode: generic\n")


def queue_packets(lab, dev):
    """Received by each queue of a veth."""
    out = run("ip", "netns", "exec", lab.rx, "ethtool", "-S", dev).stdout.decode()
    return [int(n) for n in re.findall(r"rx_queue_\d+_xdp_packets: (\d+)", out)]


def all_queues_of_a_tap_are_read(lab):
    run("ip", "-n", lab.tx, "link", "del", "ps0")
    run("ip", "-n", lab.tx, "link", "add", "ps0", "mtu", 9000, "numtxqueues", 4, "numrxqueues", 4,
        "type", "veth", "peer", "name", "ps1", "netns", lab.rx, "mtu", 9000, "numtxqueues", 4,
        "numrxqueues", 4)
    lab.quiet(lab.tx, "ps0")
    lab.quiet(lab.rx, "ps1")
    packets = [traffic.ether(0x0800, traffic.ipv4(17, traffic.l4(1000 + i % 50, 53), ident=i))
               for i in range(2000)]
    pcap.write(lab.path("in.pcap"), packets)
    collector, agent = lab.collector(), tapped(lab, "xdpMode: native\n")
    agent.wait_for(r"AF_XDP copy, 4 queues")
    lab.replay(lab.path("in.pcap"), PPS)
    by_queue = queue_packets(lab, "ps1")
    assert agent.stop() == 0
    assert collector.stop() == 0
    assert len(by_queue) == 4 and sum(by_queue) == len(packets), by_queue
    assert sum(n > 0 for n in by_queue) > 1, by_queue
    got = pcap.read(lab.path("dump.pcap")).packets
    assert pcap.compare(packets, [p.data for p in got])[:2] == (0, 0)
    assert [p.time for p in got] == sorted(p.time for p in got)
    # Within a flow, and so within a queue, the order is that of sending.
    for flow in range(50):
        assert [p.data for p in got if p.data[34:36] == struct.pack("!H", 1000 + flow)] == \
            packets[flow::50]
    for d in (agent, collector):
        check(d, len(packets), captured=len(packets))
    print(f"# by queue: {by_queue}")


def what_does_not_fit_while_nobody_reads_is_counted(lab):
    """A stopped agent's sockets run full; sizes differ, so bytes have to add up as well."""
    sizes, count = (60, 300, 1000), 3000
    collector, agent = lab.collector(), tapped(lab, "ringSize: 8MB\n")
    agent.signal(signal.SIGSTOP)
    for size in sizes:
        assert lab.blast(count, size) == count
    agent.signal(signal.SIGCONT)
    # What is lost is told without another packet, and while the tap goes on.
    harness.wait_until("the loss to be known", lambda: agent.snapshot()["lost_ring"] > 0)
    assert lab.blast(500, 200) == 500
    assert agent.stop() == 0
    assert collector.stop() == 0
    seen = len(sizes) * count + 500
    got = len(pcap.read(lab.path("dump.pcap")).packets)
    for d in (agent, collector):
        check(d, seen, captured=got, lost_ring=seen - got)
        assert d.total("seen_bytes", "ps1", "ingress") == sum(sizes) * count + 500 * 200
        assert d.total("captured_bytes", "ps1", "ingress") == sum(
            p.len for p in pcap.read(lab.path("dump.pcap")).packets)
    assert 500 < got < seen
    print(f"# {seen - got} of {seen} packets lost and counted")


def reachable(lab):
    """Let the host take packets for HERE from ps1, which has no address itself."""
    run("ip", "-n", lab.rx, "addr", "add", f"{HERE}/32", "dev", "lo")
    for where in ("all", "ps1"):
        run("ip", "netns", "exec", lab.rx, "sh", "-c",
            f"echo 0 >/proc/sys/net/ipv4/conf/{where}/rp_filter")
    run("ip", "-n", lab.tx, "addr", "add", f"{THERE}/24", "dev", "ps0")
    run("ip", "-n", lab.tx, "neigh", "replace", HERE, "lladdr", lab.mac(lab.rx, "ps1"), "dev", "ps0",
        "nud", "permanent")


def datagrams(lab, ports, n=20):
    """Send n datagrams to each port by turns, the last ones to PORT; how many the host got there."""
    got = dict.fromkeys(ports, 0)
    with harness.make_socket(lab.tx, socket.AF_INET, socket.SOCK_DGRAM) as s:
        to = {}
        for port in ports:
            to[port] = harness.make_socket(lab.rx, socket.AF_INET, socket.SOCK_DGRAM)
            to[port].bind((HERE, port))
            to[port].setblocking(False)
        for i in range(n):
            for port in ports:
                s.sendto(bytes([i]) * 50, (HERE, port))

        def count():
            for port in ports:
                try:
                    while to[port].recv(100):
                        got[port] += 1
                except BlockingIOError:
                    pass
            return got
        yield count
        for sock in to.values():
            sock.close()


def the_host_gets(lab, want, n=20):
    for count in datagrams(lab, list(want), n):
        harness.wait_until(f"the host to get {want}", lambda: count() == want, 5)


def unmatched_packets_are_passed_to_the_host(lab):
    reachable(lab)
    agent = tapped(lab, f"pcapMode: allow\ncapturePorts: [{PORT}]\n", output=lab.path("out.pcap"))
    the_host_gets(lab, {PORT: 0, PORT + 1: 20})
    harness.wait_until("the packets", lambda: agent.snapshot()["seen"] == 40)
    assert agent.stop() == 0
    check(agent, 40, captured=20, ruled_out=20)
    # The tap is the host's again.
    the_host_gets(lab, {PORT: 20, PORT + 1: 20})


def unmatched_packets_are_dropped_on_demand(lab):
    reachable(lab)
    agent = tapped(lab, f"pcapMode: allow\ncapturePorts: [{PORT}]\ntapUnmatched: drop\n",
                   output=lab.path("out.pcap"))
    for count in datagrams(lab, [PORT, PORT + 1]):
        harness.wait_until("the packets", lambda: agent.snapshot()["seen"] == 40)
        assert count() == {PORT: 0, PORT + 1: 0}
    assert agent.stop() == 0
    check(agent, 40, captured=20, ruled_out=20)


def a_filter_of_the_host_works_on_behind_a_tap(lab):
    reachable(lab)
    other = tcprog.Program(0)
    with contextlib.ExitStack() as stack:
        stack.callback(other.close)
        test_hooks.by_clsact(lab, 60000)(stack, other)
        for mode in ("native", "generic"):
            agent = tapped(lab, f"filter: tcp\nxdpMode: {mode}\n", output=lab.path(f"{mode}.pcap"))
            before = other.count()
            assert test_hooks.datagrams(lab) == [0, 20], mode
            assert other.count() - before == 40
            assert agent.stop() == 0


def what_filters_and_samples_leave_out_is_unmatched(lab):
    reachable(lab)
    agent = tapped(lab, f"filter: udp dst port {PORT}\nsample: 2\nslice: 46\n",
                   output=lab.path("out.pcap"))
    # Each processor counts for itself.
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    try:
        the_host_gets(lab, {PORT: 10, PORT + 1: 20})
    finally:
        os.sched_setaffinity(0, processors)
    harness.wait_until("the packets", lambda: agent.snapshot()["seen"] == 40)
    assert agent.stop() == 0
    check(agent, 40, captured=10, expression_out=20, sampled_out=10)
    got = pcap.read(lab.path("out.pcap")).packets
    assert [(p.len, len(p.data), p.data[42]) for p in got] == [(92, 46, i) for i in range(0, 20, 2)]


def an_interface_that_is_no_tap_keeps_its_packets(lab):
    lab.veth(lab.tx, "ps2", lab.rx, "ps3")
    reachable(lab)
    agent = lab.agent("taps: [ps3]\ntapUnmatched: drop\n", interfaces="[ps1]",
                      output=lab.path("out.pcap"))
    agent.wait_for(r'"ps3" .* by AF_XDP')
    the_host_gets(lab, {PORT: 20, PORT + 1: 20})
    lab.blast(30, 200, "ps2")
    assert agent.stop() == 0
    assert agent.total("captured", "ps1", "ingress") == 40
    assert agent.total("captured", "ps3", "ingress") == 30
    assert {x["verdict"] for x in agent.ledgers()} == {"complete"}


def an_interface_that_the_host_uses_is_refused(lab):
    """For each of its uses; and taken once there is none."""
    def ip(*args, check=True):
        return run("ip", "-n", lab.rx, *args, check=check).returncode == 0
    uses = [
        ("it has the address 192.0.2.9", "addr add 192.0.2.9/32 dev {}", "addr del 192.0.2.9/32 dev {}"),
        ("the route to 198.51.100.0/24 leads out", "route add 198.51.100.0/24 dev {}",
         "route del 198.51.100.0/24"),
        ("the default route leads out", "route add default dev {}", "route del default"),
        ("the route to 203.0.113.0/24 leads out",
         "route add 203.0.113.0/24 nexthop dev lo nexthop dev {}", "route del 203.0.113.0/24"),
    ]
    if ip("link", "add", "br0", "type", "bridge", check=False):
        uses.append(('it is a port of "br0"', "link set {} master br0", "link set {} nomaster"))
    if ip("link", "add", "vl0", "link", "ps1", "type", "vlan", "id", "5", check=False):
        ip("link", "del", "vl0")
        uses.append(('"vl5" is on top of it', "link add vl5 link {} type vlan id 5", "link del vl5"))
    taps = [f"t{i}" for i in range(len(uses))]
    for tap, (_, do, _) in zip(taps, uses):
        lab.veth(lab.tx, f"x{tap}", lab.rx, tap)
        ip(*do.format(tap).split())
    config = f"taps: [{', '.join(taps)}]\n"
    agent = lab.agent(config, interfaces="['!*']", output=lab.path("refused.pcap"))
    for tap, (why, _, _) in zip(taps, uses):
        agent.wait_for(rf'"{tap}" cannot be captured: a tap takes .*{why}')
    assert agent.stop() == 0
    assert not agent.ledgers()
    for tap, (_, _, undo) in zip(taps, uses):
        ip(*undo.format(tap).split())
    agent = lab.agent(config, interfaces="['!*']", output=lab.path("taken.pcap"))
    for tap in taps:
        agent.wait_for(rf'capturing interface "{tap}" .* by AF_XDP')
    assert agent.stop() == 0


def an_interface_that_the_host_comes_to_use_is_given_back(lab):
    """Until it does no more; and the collector is told why."""
    reachable(lab)
    collector, agent = lab.collector(), tapped(lab)
    the_host_gets(lab, {PORT: 0})
    run("ip", "-n", lab.rx, "addr", "add", "192.0.2.9/32", "dev", "ps1")
    agent.wait_for(r'the capture of "ps1" ends: a tap takes .*it has the address 192.0.2.9')
    agent.wait_for(r'"ps1" cannot be captured: a tap takes .*it has the address 192.0.2.9')
    the_host_gets(lab, {PORT: 20})
    run("ip", "-n", lab.rx, "addr", "del", "192.0.2.9/32", "dev", "ps1")
    agent.wait_for(r'capturing interface "ps1" .* by AF_XDP', seconds=40, count=2)
    the_host_gets(lab, {PORT: 0})
    assert agent.stop() == 0
    assert collector.stop() == 0
    check(agent, 40, captured=40)
    notes = [x["text"] for x in checks.told(collector, "note") if x["kind"] == "other"]
    assert len(notes) == 1 and re.match("the capture ends: .* the address 192.0.2.9", notes[0]), notes


def advertise(lab, prefix="2001:db8:7::"):
    """A router on the wire of ps0; until ps1 has made an address and routes of it."""
    run("ip", "netns", "exec", lab.rx, "sh", "-c",
        "echo 0 >/proc/sys/net/ipv6/conf/ps1/disable_ipv6; "
        "echo 2 >/proc/sys/net/ipv6/conf/ps1/accept_ra")
    run("ip", "-n", lab.rx, "link", "set", "ps1", "multicast", "on", "arp", "on")
    source, to = (socket.inet_pton(socket.AF_INET6, a) for a in ("fe80::1", "ff02::1"))
    option = struct.pack("!BBBBIII", 3, 4, 64, 0xc0, 3600, 1800, 0)
    body = struct.pack("!BBHII", 64, 0, 1800, 0, 0) + option + socket.inet_pton(
        socket.AF_INET6, prefix)
    pseudo = source + to + struct.pack("!II", len(body) + 4, 58) + b"\x86\0\0\0" + body
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    total = (total & 0xffff) + (total >> 16)
    checksum = ~((total & 0xffff) + (total >> 16)) & 0xffff
    packet = (bytes.fromhex("333300000001 020000000001 86dd") +
              struct.pack("!IHBB", 6 << 28, len(body) + 4, 58, 255) + source + to +
              struct.pack("!BBH", 134, 0, checksum) + body)

    def has_both():
        with harness.make_socket(lab.tx, socket.AF_PACKET, socket.SOCK_RAW) as s:
            s.bind(("ps0", 0))
            s.send(packet)
        shown = [run("ip", "-n", lab.rx, "-6", *what, "show", "dev", "ps1").stdout.decode()
                 for what in (("addr",), ("route",))]
        return prefix[:-1] in shown[0] and "default" in shown[1]
    harness.wait_until("the address and the route", has_both)


def what_the_kernel_makes_of_a_routers_advertisement_is_no_use(lab):
    """Anybody on a mirrored wire can send one."""
    if not os.path.exists("/proc/net/if_inet6"):
        raise harness.Skip("this kernel has no IPv6")
    advertise(lab)
    agent = tapped(lab, output=lab.path("out.pcap"))
    assert "cannot be captured" not in agent.text()
    run("ip", "-n", lab.rx, "addr", "add", "2001:db8:8::1/64", "dev", "ps1")
    agent.wait_for(r'the capture of "ps1" ends: a tap takes .*it has the address 2001:db8:8::1$')
    assert agent.stop() == 0


def a_tap_may_have_the_name_of_another_at_once(lab):
    """Its queues, which the kernel gives back a while after they were closed, are waited for."""
    names = ["ps1", "ps2", "ps3"] * 3
    agent = lab.agent(f"taps: [{', '.join(names[:3])}]\n", output=lab.path("out.pcap"))
    for n, (old, new) in enumerate(zip(names, names[1:]), 2):
        agent.signal(signal.SIGSTOP)
        run("ip", "-n", lab.rx, "-batch", lab.file(
            "rename", f"link set {old} down\nlink set {old} name {new}\nlink set {new} up\n"))
        agent.signal(signal.SIGCONT)
        agent.wait_for(r'capturing interface ".*" .* by AF_XDP', count=n)
    assert "cannot be captured" not in agent.text(), agent.text()
    lab.sends(lab.tx, "ps0")
    assert lab.blast(20) == 20
    harness.wait_until("the packets", lambda: agent.snapshot()["captured"] == 20)
    assert agent.stop() == 0


@contextlib.contextmanager
def queue_of_another(lab, dev):
    """An AF_XDP socket on the first queue, without a program."""
    sol_xdp, rx_ring, umem_reg, fill_ring, completion_ring, copy = 283, 2, 4, 5, 6, 1 << 1
    with harness.make_socket(lab.rx, 44, socket.SOCK_RAW) as s, mmap.mmap(-1, 1 << 18) as memory:
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        s.setsockopt(sol_xdp, umem_reg, struct.pack("=QQIIII", address, 1 << 18, 4096, 0, 0, 0))
        for ring in (fill_ring, completion_ring, rx_ring):
            s.setsockopt(sol_xdp, ring, 64)
        index = int(run("ip", "netns", "exec", lab.rx, "cat",
                        f"/sys/class/net/{dev}/ifindex").stdout)
        name = struct.pack("=HHIII", 44, copy, index, 0, 0)
        assert harness.LIBC.bind(s.fileno(), name, len(name)) == 0, os.strerror(ctypes.get_errno())
        yield


def a_tap_whose_queues_are_another_programs_is_tried_now_and_then(lab):
    """Changes of the interface are no reason, and its mode is not touched for nothing."""
    with queue_of_another(lab, "ps1"):
        changes = lab.spawn("changes", ["ip", "-d", "-o", "monitor", "link"], ns=lab.rx)
        agent = lab.agent(TAP, output=lab.path("out.pcap"))
        agent.wait_for('"ps1" cannot be captured: .*queue 0 has an AF_XDP socket of another')
        for n in range(20):
            run("ip", "-n", lab.rx, "link", "set", "ps1", "mtu", 8000 + n)
        harness.wait_until("the changes", lambda: "mtu 8019" in changes.text())
        assert "promiscuity 1" not in changes.text(), changes.text()
        changes.stop()
    agent.wait_for(r'capturing interface "ps1" .* by AF_XDP', seconds=40)
    assert lab.blast(20) == 20
    harness.wait_until("the packets", lambda: agent.snapshot()["captured"] == 20)
    assert agent.stop() == 0
    check(agent, 20, captured=20)
    # Every try is an interface of the stream.
    tries = [x for x in agent.ledgers() if x["direction"] == "ingress"]
    assert len(tries) <= 3, tries


def another_xdp_program_is_left_alone(lab):
    """A tap that cannot be had because of it is not announced; once it is gone it can be had."""
    other = lab.agent("backend: xdp\n", name="other", output=lab.path("other.pcap"))
    agent = lab.agent(TAP, output=lab.path("out.pcap"))
    agent.wait_for('"ps1" cannot be captured: .*another XDP program')
    lab.blast(20)
    assert other.stop() == 0
    assert other.total("captured", "ps1", "ingress") == 20
    agent.wait_for(r'capturing interface "ps1" .* by AF_XDP', seconds=40)
    assert agent.stop() == 0
    assert [x["direction"] for x in agent.ledgers()] == ["ingress", "egress"], agent.ledgers()


def nothing_is_left_after_kill_9(lab):
    reachable(lab)
    agent = tapped(lab, output=lab.path("out.pcap"))
    the_host_gets(lab, {PORT: 0})
    agent.kill()

    def all_arrive():
        for count in datagrams(lab, [PORT], 1):
            return harness.wait_until("a datagram", lambda: count()[PORT] == 1, 1)
    harness.wait_until("the host to get its packets", lambda: quietly(all_arrive))
    again = tapped(lab, name="again", output=lab.path("again.pcap"))
    the_host_gets(lab, {PORT: 0})
    assert again.stop() == 0
    check(again, 20, captured=20)


def quietly(fn):
    try:
        return fn()
    except TimeoutError:
        return False


def a_tap_that_comes_back_is_captured_again(lab):
    agent = tapped(lab, output=lab.path("out.pcap"))
    for n in range(1, 4):
        assert lab.blast(100 * n) == 100 * n
        run("ip", "-n", lab.tx, "link", "del", "ps0")
        lab.veth(lab.tx, "ps0", lab.rx, "ps1", 9000)
        agent.wait_for(r'capturing interface "ps1" .* by AF_XDP', count=n + 1)
    lab.blast(50)
    assert agent.stop() == 0
    check(agent, 650, captured=650)
    assert len(pcap.read(lab.path("out.pcap")).packets) == 650


def a_name_that_goes_to_another_interface_takes_no_counts_along(lab):
    """Of two interfaces that change their names, the one that is a tap now is known first."""
    lab.veth(lab.tx, "ps2", lab.rx, "tap0")
    agent = lab.agent("taps: [tap0]\nringSize: 8MB\nxdpMode: native\n", interfaces="['!*']",
                      output=lab.path("out.pcap"))
    agent.wait_for('capturing interface "tap0" .* by AF_XDP')
    agent.signal(signal.SIGSTOP)
    sent = lab.blast(9000, 60, "ps2")
    harness.wait_until("the packets", lambda: sum(queue_packets(lab, "tap0")) == sent)
    # A reload lists all interfaces, those of a lower index first.
    agent.signal(signal.SIGHUP)
    run("ip", "-n", lab.rx, "-batch", lab.file(
        "swap", "link set tap0 down\nlink set tap0 name away\nlink set ps1 down\n"
        "link set ps1 name tap0\nlink set tap0 up\n"))
    agent.signal(signal.SIGCONT)
    agent.wait_for('capturing interface "tap0" .* by AF_XDP', count=2)
    lab.sends(lab.tx, "ps0")
    assert lab.blast(20) == 20
    harness.wait_until("the packets", lambda: agent.snapshot()["seen"] == sent + 20)
    assert agent.stop() == 0
    # Nor was it captured once more for what the kernel had told of it before.
    assert len(re.findall("capturing interface", agent.text())) == 2, agent.text()
    got = len(pcap.read(lab.path("out.pcap")).packets)
    check(agent, sent + 20, dev="tap0", captured=got, lost_ring=sent + 20 - got)
    assert got < sent


def resident(daemon):
    """Bytes of its own memory."""
    with open(f"/proc/{daemon.pid}/status") as f:
        return 1024 * int(re.search(r"RssAnon:\s*(\d+) kB", f.read())[1])


def the_memory_of_a_tap_goes_with_it(lab):
    """At once, though no packet comes any more."""
    agent = tapped(lab, "ringSize: 128MB\n", output=lab.path("out.pcap"))
    with_tap, share = resident(agent), 64 << 20
    run("ip", "-n", lab.rx, "link", "set", "ps1", "down", "name", "away")
    harness.wait_until("the memory to be free",
                       lambda: resident(agent) < with_tap - share * 0.9, 5)
    for n in range(2, 5):
        run("ip", "-n", lab.rx, "link", "set", "away", "name", "ps1", "up")
        agent.wait_for(r'capturing interface "ps1" .* by AF_XDP', count=n)
        assert resident(agent) < with_tap + share / 2
        run("ip", "-n", lab.rx, "link", "set", "ps1", "down", "name", "away")
        agent.wait_for('interface "ps1" .* has another name', count=n)
        harness.wait_until("the memory to be free",
                           lambda: resident(agent) < with_tap - share * 0.9, 5)
    assert agent.stop() == 0


def virtio_nics():
    """Those of selftests/vm/tap-zerocopy, joined by a hub."""
    nics = {}
    for dev in os.listdir("/sys/class/net"):
        driver = os.path.realpath(f"/sys/class/net/{dev}/device/driver")
        if os.path.basename(driver) == "virtio_net":
            with open(f"/sys/class/net/{dev}/address") as f:
                nics[f.read().strip()] = dev
    return [nics.get(f"02:00:00:00:00:0{n}") for n in (1, 2)]


def a_virtio_tap_is_zero_copy(lab):
    nics = virtio_nics()
    if None in nics:
        raise harness.Skip("no pair of virtio NICs: selftests/vm/tap-zerocopy has one")
    for ns, dev, name in ((lab.tx, nics[0], "vt0"), (lab.rx, nics[1], "vt1")):
        run("ip", "link", "set", dev, "netns", ns)
        run("ip", "-n", ns, "link", "set", dev, "name", name)
        lab.quiet(ns, name)
    # The emulated NICs have no interrupt moderation: few packets, and slowly.
    packets = traffic.generated()[::8] + traffic.captured()[::16]
    packets = [p for p in packets if 60 <= len(p) <= 1514]
    pcap.write(lab.path("in.pcap"), packets)
    agent = lab.agent("taps: [vt1]\nxdpMode: native\n", interfaces="['!*']",
                      output=lab.path("out.pcap"))
    zero_copy, = agent.wait_for(r'interface "vt1" .* by (AF_XDP zero-copy, \d+ queues?)')
    # The sockets as another program sees them.
    sockets = run("ip", "netns", "exec", lab.rx, "ss", "--xdp", "-e", "-a").stdout.decode()
    print("#", zero_copy, *sockets.splitlines()[1:], sep="\n# ", flush=True)
    lab.replay(lab.path("in.pcap"), 300, "vt0")
    harness.wait_until("the packets", lambda: agent.snapshot()["captured"] >= len(packets), 60)
    assert agent.stop() == 0
    got = pcap.read(lab.path("out.pcap")).packets
    missing, more, disorder = pcap.compare(packets, [p.data for p in got])
    assert (missing, more) == (0, 0), f"missing {missing}, extra {more} of {len(packets)}"
    # Of ours is the order of the stamps. QEMU lets a packet overtake those that it had to keep
    # because the receiving NIC had no buffer free (qemu_net_queue_send()).
    assert [p.time for p in got] == sorted(p.time for p in got)
    assert {x["verdict"] for x in agent.ledgers()} == {"complete"}, agent.ledgers()
    print(f"# {len(got)} packets byte for byte by {zero_copy}; QEMU had {disorder} out of order")


if __name__ == "__main__":
    harness.main([every_generated_shape_arrives_through_a_tap,
                  every_real_capture_arrives_through_a_native_tap,
                  every_real_capture_arrives_through_a_generic_tap,
                  all_queues_of_a_tap_are_read,
                  what_does_not_fit_while_nobody_reads_is_counted,
                  unmatched_packets_are_passed_to_the_host,
                  unmatched_packets_are_dropped_on_demand,
                  a_filter_of_the_host_works_on_behind_a_tap,
                  what_filters_and_samples_leave_out_is_unmatched,
                  an_interface_that_is_no_tap_keeps_its_packets,
                  an_interface_that_the_host_uses_is_refused,
                  an_interface_that_the_host_comes_to_use_is_given_back,
                  what_the_kernel_makes_of_a_routers_advertisement_is_no_use,
                  a_tap_may_have_the_name_of_another_at_once,
                  a_tap_whose_queues_are_another_programs_is_tried_now_and_then,
                  another_xdp_program_is_left_alone,
                  nothing_is_left_after_kill_9,
                  a_tap_that_comes_back_is_captured_again,
                  a_name_that_goes_to_another_interface_takes_no_counts_along,
                  the_memory_of_a_tap_goes_with_it,
                  a_virtio_tap_is_zero_copy])
