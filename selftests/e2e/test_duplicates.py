#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A packet that crosses several interfaces: captured once with dedupWindow, and at the
interfaces that capturePoint chooses."""
import socket
import struct

import harness
import pcap
import traffic
from harness import run
from test_interfaces import finish, seen

HERE, THERE, ROUTER, INSIDE = "10.77.2.2", "10.77.2.1", "10.77.3.1", "10.77.3.2"
WINDOW = "dedupWindow: 1s\n"


def bridged_pod(lab):
    """ps1 -> br0 -> vp = eth0 of a pod."""
    ns = lab.namespace(lab.tag + "p")
    lab.veth(lab.rx, "vp", ns, "eth0", 9000)
    run("ip", "-n", lab.rx, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0",
        "forward_delay", "0")
    lab.quiet(lab.rx, "br0")
    for port in ("ps1", "vp"):
        run("ip", "-n", lab.rx, "link", "set", port, "master", "br0")
    harness.wait_until("both ports to forward", lambda: run(
        "bridge", "-n", lab.rx, "link", "show").stdout.count(b"state forwarding") == 2)
    return ns


def frames(n):
    """Valid ones, which is all that a bridge with netfilter forwards: IP and others."""
    for i in range(n):
        payload = traffic.l4(1000, 2000) + f"number {i}".encode()
        if i % 2:
            yield traffic.ether(0x88B5, payload)
            continue
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), i, 0, 64, 132, 0) + \
            traffic.V4A + traffic.V4B
        total = sum(struct.unpack("!10H", head))
        total = (total & 0xFFFF) + (total >> 16)
        head = head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[12:]
        yield traffic.ether(0x0800, head + payload)


def send(lab, all_frames):
    with harness.make_socket(lab.tx, socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind(("ps0", 0))
        for frame in all_frames:
            s.send(frame)
    return all_frames


def crossing(agent):
    """Packets captured and ruled out by interface and direction, where there were any."""
    assert all(x["duplicates"] == x["ruled_out"] for x in agent.ledgers())
    return {(x["interface"], x["direction"]): (x["captured"], x["ruled_out"])
            for x in agent.ledgers() if x["seen"]}


def a_bridged_packet_is_captured_once(lab):
    ns = bridged_pod(lab)
    collector = lab.collector()
    agent = lab.agent(WINDOW + f'netns: ["/run/netns/{ns}"]\n', interfaces="[ps1, vp, eth0]")
    want = send(lab, list(frames(20)))
    seen(agent, 60)
    finish(lab, agent, collector, want)
    assert crossing(agent) == {("ps1", "ingress"): (20, 0), ("vp", "egress"): (0, 20),
                               ("eth0", "ingress"): (0, 20)}, crossing(agent)


def without_the_window_it_is_captured_everywhere(lab):
    ns = bridged_pod(lab)
    collector = lab.collector()
    agent = lab.agent(f'netns: ["/run/netns/{ns}"]\n', interfaces="[ps1, vp, eth0]")
    want = 3 * send(lab, list(frames(20)))
    seen(agent, 60)
    finish(lab, agent, collector, want)


def equal_packets_that_were_sent_twice_are_kept_twice(lab):
    bridged_pod(lab)
    collector = lab.collector()
    agent = lab.agent(WINDOW, interfaces="[ps1, vp]")
    once = list(frames(10))
    want = send(lab, 2 * once + [f for f in once for _ in range(3)])
    seen(agent, 100)
    finish(lab, agent, collector, want)
    assert crossing(agent) == {("ps1", "ingress"): (50, 0), ("vp", "egress"): (0, 50)}


def routed(lab):
    """ps0 -> ps1, a router, xr -> eth0 of a pod: real UDP, real TTL."""
    ns = lab.namespace(lab.tag + "p")
    lab.veth(lab.rx, "xr", ns, "eth0")
    lab.address((lab.tx, "ps0", THERE), (lab.rx, "ps1", HERE))
    lab.address((lab.rx, "xr", ROUTER), (ns, "eth0", INSIDE))
    run("ip", "netns", "exec", lab.rx, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    run("ip", "-n", lab.tx, "route", "add", "10.77.3.0/24", "via", HERE)
    run("ip", "-n", ns, "route", "add", "10.77.2.0/24", "via", ROUTER)
    return ns


def a_routed_packet_is_captured_once(lab):
    ns = routed(lab)
    # The checksum is then computed on the way, behind the hook.
    run("ip", "netns", "exec", lab.rx, "ethtool", "-K", "xr", "tx", "off", check=False)
    collector = lab.collector()
    agent = lab.agent(WINDOW + f'netns: ["/run/netns/{ns}"]\n', interfaces="[ps1, xr, eth0]")
    with harness.make_socket(lab.tx, socket.AF_INET, socket.SOCK_DGRAM) as s, \
            harness.make_socket(ns, socket.AF_INET, socket.SOCK_DGRAM) as pod:
        pod.bind((INSIDE, 5000))
        pod.settimeout(10 * harness.PATIENCE)
        for i in range(20):
            # The same beginning, another end: longer than what is hashed of it.
            s.sendto(bytes(900) + bytes([i]), (INSIDE, 5000))
        for _ in range(20):
            text, back = pod.recvfrom(2000)
            pod.sendto(b"answer " + text, back)
        s.settimeout(10 * harness.PATIENCE)
        for _ in range(20):
            s.recv(2000)
    seen(agent, 120)
    assert agent.stop() == 0
    assert collector.stop() == 0
    assert crossing(agent) == {
        ("ps1", "ingress"): (20, 0), ("xr", "egress"): (0, 20), ("eth0", "ingress"): (0, 20),
        ("eth0", "egress"): (20, 0), ("xr", "ingress"): (0, 20), ("ps1", "egress"): (0, 20),
    }, crossing(agent)
    got = [p.data for p in pcap.read(lab.path("dump.pcap")).packets]
    assert len(got) == len(set(got)) == 40


def chosen(lab, point, extra=""):
    agent = lab.agent(f"capturePoint: {point}\n{extra}", interfaces=None,
                      output=lab.path(f"{point}.pcap"), name=point)
    assert agent.stop() == 0
    return {(x.get("netns"), x["interface"]) for x in agent.ledgers()}


def interfaces_are_chosen_by_capture_point(lab):
    """There is no network card in a namespace, so `wire` is nothing."""
    ns = bridged_pod(lab)
    lab.veth(lab.rx, "va", lab.rx, "vb")
    own = lambda *names: {(None, n) for n in names}
    assert chosen(lab, "wire") == set()
    assert chosen(lab, "pod") == own("ps1", "vp")
    assert chosen(lab, "host") == own("br0", "va", "vb")
    assert chosen(lab, "all") == own("ps1", "vp", "br0", "va", "vb")
    # With the pods' own namespaces, pods are captured there and the host's ends are not.
    inside = f'netns: ["/run/netns/{ns}"]\n'
    assert chosen(lab, "pod", inside) == {(ns, "eth0")}
    assert chosen(lab, "host", inside) == own("br0", "va", "vb")


def an_interface_may_come_to_another_point(lab):
    """A veth pair is made on the host, then one end goes to the pod."""
    ns = lab.namespace(lab.tag + "p")
    agent = lab.agent("capturePoint: host\n", interfaces='["v*"]', output=lab.path("x.pcap"))
    lab.veth(lab.rx, "vh", lab.rx, "vp")
    agent.wait_for('capturing interface "vh"')
    agent.wait_for('capturing interface "vp"')
    run("ip", "-n", lab.rx, "link", "set", "vp", "netns", ns)
    lab.quiet(ns, "vp")
    agent.wait_for('interface "vh" .* is at another capture point now')
    assert agent.stop() == 0


if __name__ == "__main__":
    harness.main([a_bridged_packet_is_captured_once,
                  without_the_window_it_is_captured_everywhere,
                  equal_packets_that_were_sent_twice_are_kept_twice,
                  a_routed_packet_is_captured_once,
                  interfaces_are_chosen_by_capture_point,
                  an_interface_may_come_to_another_point])
