#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Interfaces of every kind, that come, go, move and change their names."""
import fcntl
import os
import re
import signal
import socket
import struct
import subprocess
import time

import harness
import pcap
import traffic
from harness import run

BURST = 40 if harness.GUEST else 200
ARPHRD_CAN = 280  # we have no link type for it
TUNSETIFF, TUNSETLINK = 0x400454CA, 0x400454CD
IFF_TUN, IFF_NO_PI = 1, 0x1000


class Link:
    """One end of a veth pair to send from, and what was sent to be captured."""

    def __init__(self, lab, ns, dev):
        self.lab, self.ns, self.dev, self.number = lab, ns, dev, 0

    def frames(self, n):
        """Frames that no other link ever sends."""
        for _ in range(n):
            self.number += 1
            text = f"{self.ns} {self.dev} {self.number} ".encode()
            yield traffic.ether(0x0800, traffic.ipv4(17, traffic.l4(1000, 2000) + text))

    def send(self, n=5):
        sent = list(self.frames(n))
        self.lab.sends(self.ns, self.dev)
        with harness.make_socket(self.ns, socket.AF_PACKET, socket.SOCK_RAW) as s:
            s.bind((self.dev, 0))
            for frame in sent:
                s.send(frame)
        return sent


def capturing(agent, dev, count=1):
    agent.wait_for(rf'capturing interface "{re.escape(dev)}"', count=count)


def finish(lab, agent, collector, want, link="dump.pcap"):
    """Stop both: the file has the wanted packets, the ledgers are complete and equal."""
    assert agent.stop() == 0
    assert collector.stop() == 0
    got = [p.data for p in pcap.read(lab.path(link)).packets]
    assert pcap.compare(want, got)[:2] == (0, 0), \
        f"{len(want)} wanted, {len(got)} captured, missing/extra/disorder {pcap.compare(want, got)}"
    for d in (agent, collector):
        assert {x["verdict"] for x in d.ledgers()} == {"complete"}, d.ledgers()
        assert not re.search(r"do(es)? not add up", d.text()), d.text()
    for counter in ("seen", "captured", "committed"):
        assert agent.total(counter) == collector.total(counter)
    return got


def seen(agent, n):
    """Wait until @n packets have come to the hooks. What is sent over a veth pair waits for
    a processor first, and is dropped with an interface that goes meanwhile."""
    harness.wait_until(f"{n} packets to be seen", lambda: agent.snapshot()["seen"] >= n)


def counted(daemons, dev, direction, n, counter="captured"):
    for d in daemons:
        have = d.total(counter, dev, direction)
        assert have == n, f"{d.name} counts {have} {counter} of {dev} {direction}, not {n}"


def interfaces_may_come_and_go_and_change_their_names(lab):
    collector = lab.collector()
    agent = lab.agent(interfaces='["veth*", "!veth9"]')
    both, want = (agent, collector), []
    link = lambda dev: Link(lab, lab.tx, dev)

    # New ones, one of them not wanted.
    for n in (1, 2, 9):
        lab.veth(lab.rx, f"veth{n}", lab.tx, f"p{n}")
    capturing(agent, "veth1")
    capturing(agent, "veth2")
    one, two, nine = link("p1"), link("p2"), link("p9")
    want += one.send() + two.send(7)
    nine.send()
    seen(agent, len(want))
    # Down and up again is the same interface: no second line.
    run("ip", "-n", lab.rx, "link", "set", "veth2", "down")
    run("ip", "-n", lab.rx, "link", "set", "veth2", "up")
    want += two.send(3)
    seen(agent, len(want))
    # Gone and there again under the same name.
    run("ip", "-n", lab.rx, "link", "del", "veth1")
    agent.wait_for('interface "veth1" .* is gone')
    lab.veth(lab.rx, "veth1", lab.tx, "p1")
    capturing(agent, "veth1", 2)
    want += one.send(11)
    seen(agent, len(want))
    # A new name that is wanted, one that is not, and back.
    run("ip", "-n", lab.rx, "link", "set", "veth2", "down")
    run("ip", "-n", lab.rx, "link", "set", "veth2", "name", "veth3", "up")
    capturing(agent, "veth3")
    want += two.send(4)
    seen(agent, len(want))
    run("ip", "-n", lab.rx, "link", "set", "veth3", "down")
    run("ip", "-n", lab.rx, "link", "set", "veth3", "name", "other", "up")
    agent.wait_for('interface "veth3" .* has another name')
    two.send()
    run("ip", "-n", lab.rx, "link", "set", "other", "down")
    run("ip", "-n", lab.rx, "link", "set", "other", "name", "veth3", "up")
    capturing(agent, "veth3", 2)
    want += two.send(6)
    seen(agent, len(want))
    # Away to another namespace and back.
    away = lab.namespace(lab.tag + "x")
    run("ip", "-n", lab.rx, "link", "set", "veth3", "netns", away)
    agent.wait_for('interface "veth3" .* is gone')
    run("ip", "-n", away, "link", "set", "veth3", "up")
    two.send()
    run("ip", "-n", away, "link", "set", "veth3", "netns", lab.rx)
    lab.quiet(lab.rx, "veth3")
    capturing(agent, "veth3", 3)
    want += two.send(8)

    finish(lab, agent, collector, want)
    counted(both, "veth1", "ingress", 5 + 11)
    counted(both, "veth2", "ingress", 7 + 3)
    counted(both, "veth3", "ingress", 4 + 6 + 8)
    assert agent.text().count('capturing interface "veth2"') == 1
    for dev in ("veth9", "other", "ps1"):
        assert not any(x["interface"] == dev for x in agent.ledgers()), dev


def a_burst_of_new_interfaces_is_captured_whole(lab):
    collector = lab.collector()
    agent = lab.agent(interfaces='["veth*"]')
    pods = lab.namespace(lab.tag + "p")
    up = "".join(f"link set %s{i} arp off multicast off up\n" for i in range(BURST))
    add = "".join(f"link add veth{i} type veth peer name p{i} netns {pods}\n" for i in range(BURST))
    run("ip", "-n", lab.rx, "-batch", lab.file("veths", add + up.replace("%s", "veth")))
    run("ip", "-n", pods, "-batch", lab.file("peers", up.replace("%s", "p")))
    agent.wait_for('capturing interface "veth', count=BURST, seconds=60)
    want = []
    for i in range(BURST):
        want += Link(lab, pods, f"p{i}").send(3)
    # And away with all of them at once; what is still on its way would go with them.
    seen(agent, len(want))
    start = time.monotonic()
    run("ip", "netns", "del", pods)
    agent.wait_for('interface "veth.* is gone', count=BURST, seconds=60)
    print(f"# {BURST} interfaces gone, known {time.monotonic() - start:.1f} s later")
    finish(lab, agent, collector, want)
    for i in range(BURST):
        counted((agent, collector), f"veth{i}", "ingress", 3)


def monitors(daemon):
    """The daemon's sockets that hear of links: (netlink address, messages lost) of each."""
    with open(f"/proc/{daemon.pid}/net/netlink") as f:
        rows = [line.split() for line in f.read().splitlines()[1:]]
    return [(int(row[2]), int(row[8])) for row in rows if row[1] == "0" and int(row[3], 16) & 1]


def index_of(ns, dev):
    return int(run("ip", "netns", "exec", ns, "cat", f"/sys/class/net/{dev}/ifindex").stdout)


def only_the_kernel_is_believed(lab):
    """A process of the namespace tells the agent that an interface is gone."""
    collector, agent = lab.collector(), lab.agent(interfaces='["ps1", "veth*"]')
    (address, _), = monitors(agent)
    gone = struct.pack("=IHHIIBxHiII", 32, 17, 0, 0, 0, 0, 1, index_of(lab.rx, "ps1"), 0, 0)
    with harness.make_socket(lab.rx, socket.AF_NETLINK, socket.SOCK_RAW, 0) as s:
        s.sendto(gone, (address, 0))
    # What is told after that is known.
    lab.veth(lab.rx, "veth1", lab.tx, "p1")
    capturing(agent, "veth1")
    want = Link(lab, lab.tx, "ps0").send()
    finish(lab, agent, collector, want)
    assert "is gone" not in agent.text(), agent.text()


def changes_that_nobody_could_note_are_looked_up(lab):
    """More of them than a socket holds: the first ones are old news, the last ones unheard of."""
    collector, agent = lab.collector(), lab.agent(interfaces='["ps1", "veth*"]')
    for n in (1, 2):
        lab.veth(lab.rx, f"veth{n}", lab.tx, f"p{n}")
        capturing(agent, f"veth{n}")
    agent.signal(signal.SIGSTOP)
    away, back = ("link set {0} down\nlink set {0} name {1}\nlink set {1} up\n".format(*names)
                  for names in (("veth1", "other"), ("other", "veth1")))
    many = "".join(f"link set lo alias number{n}\n" for n in range(12000))
    last = "link del veth2\n"
    run("ip", "-n", lab.rx, "-batch", lab.file("changes", away + many + back + last))
    assert monitors(agent)[0][1] > 0
    agent.signal(signal.SIGCONT)
    agent.wait_for('interface "veth2" .* is gone')
    lab.veth(lab.rx, "veth3", lab.tx, "p3")
    capturing(agent, "veth3")
    want = Link(lab, lab.tx, "p1").send() + Link(lab, lab.tx, "p3").send()
    finish(lab, agent, collector, want)
    assert "another name" not in agent.text(), agent.text()


def open_tun(ns, dev, link=None):
    run("modprobe", "tun", check=False)
    # The namespace that the file was opened in is the interface's.
    with harness.inside(ns):
        tun = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", dev.encode(), IFF_TUN | IFF_NO_PI))
        if link:
            fcntl.ioctl(tun, TUNSETLINK, link)
    return tun


def an_interface_that_cannot_be_captured_stops_no_other(lab):
    tun = open_tun(lab.rx, "veth5", ARPHRD_CAN)
    run("ip", "-n", lab.rx, "link", "set", "veth5", "up")
    lab.veth(lab.rx, "veth1", lab.tx, "p1")
    collector = lab.collector()
    agent = lab.agent(interfaces='["veth*"]')
    refusal = r'interface "veth5" cannot be captured: its link type \(ARPHRD 280\)'
    agent.wait_for(refusal)
    capturing(agent, "veth1")
    lab.veth(lab.rx, "veth2", lab.tx, "p2")
    capturing(agent, "veth2")
    want = Link(lab, lab.tx, "p1").send() + Link(lab, lab.tx, "p2").send()
    # Said once, not again with every change.
    run("ip", "-n", lab.rx, "link", "set", "veth5", "mtu", "1400")
    run("ip", "-n", lab.rx, "link", "set", "veth5", "down")
    os.close(tun)
    harness.wait_until("veth5 to be gone", lambda: run(
        "ip", "-n", lab.rx, "link", "show", "veth5", check=False).returncode)
    lab.veth(lab.rx, "veth5", lab.tx, "p5")
    capturing(agent, "veth5")
    want += Link(lab, lab.tx, "p5").send()
    finish(lab, agent, collector, want)
    assert len(re.findall(refusal, agent.text())) == 1


def udp_over_lo(lab, n, port=7001):
    """Datagrams over 127.0.0.1, one more than sent by nobody; their payloads."""
    with harness.make_socket(lab.rx, socket.AF_INET, socket.SOCK_DGRAM) as to, \
            harness.make_socket(lab.rx, socket.AF_INET, socket.SOCK_DGRAM) as s:
        to.bind(("127.0.0.1", port))
        payloads = [f"over lo {i} ".encode() * (1 + i % 90) for i in range(n)]
        for p in payloads:
            s.sendto(p, ("127.0.0.1", port))
            assert to.recv(65536) == p
    return payloads


def what_comes_out_of_ipsec_is_left_to_libpcap(lab):
    made = run("ip", "-n", lab.rx, "link", "add", "xf0", "type", "xfrm", "dev", "ps1", "if_id", 5,
               check=False)
    if made.returncode:
        raise harness.Skip("this kernel has no XFRM interfaces")
    run("ip", "-n", lab.rx, "link", "set", "xf0", "up")
    bpf = lab.agent(name="bpf", interfaces="[ps1, xf0]", output=lab.path("bpf.pcap"))
    bpf.wait_for(r'interface "xf0" cannot be captured: .* what comes out of IPsec')
    libpcap = lab.agent("backend: pcap\n", name="libpcap", interfaces="[ps1, xf0]",
                        output=lab.path("libpcap.pcap"))
    capturing(libpcap, "xf0")
    assert bpf.stop() == 0 and libpcap.stop() == 0


def loopback_is_captured_on_request_and_each_packet_once(lab):
    collector = lab.collector()
    agent = lab.agent("captureLoopback: true\n", interfaces='["lo", "ps*"]')
    capturing(agent, "lo")
    collector.wait_for('agent "agent" .* connected')
    sent = udp_over_lo(lab, 500)
    link = Link(lab, lab.tx, "ps0")
    beside = link.send()
    assert agent.stop() == 0
    assert collector.stop() == 0
    got = pcap.read(lab.path("dump.pcap"))
    assert got.link_type == 1
    lo = [p.data for p in got.packets if p.data[:12] == bytes(12)]
    assert [p[42:] for p in lo] == sent
    for p in lo:
        assert p[12:14] == b"\x08\x00" and p[23] == 17 and p[26:34] == bytes([127, 0, 0, 1] * 2)
    assert [p.data for p in got.packets if p.data not in set(lo)] == beside
    for d in (agent, collector):
        assert {x["verdict"] for x in d.ledgers()} == {"complete"}
        assert d.total("captured", "lo") == d.total("captured", "lo", "ingress") == len(sent)
    # The agent's own stream went over lo as well.
    assert agent.total("ruled_out", "lo") > 0


def loopback_is_not_captured_without_request(lab):
    collector = lab.collector()
    agent = lab.agent(interfaces=None)
    capturing(agent, "ps1")
    udp_over_lo(lab, 20)
    want = Link(lab, lab.tx, "ps0").send()
    finish(lab, agent, collector, want)
    assert {x["interface"] for x in agent.ledgers()} == {"ps1"}


def raw_ip_goes_to_a_file_of_its_own(lab):
    collector = lab.collector()
    agent = lab.agent(interfaces='["tun*", "ps1"]')
    tun = open_tun(lab.rx, "tun0")
    run("ip", "-n", lab.rx, "addr", "add", "10.9.0.1/24", "dev", "tun0")
    run("ip", "-n", lab.rx, "link", "set", "tun0", "multicast", "off", "up")
    capturing(agent, "tun0")
    ethernet = Link(lab, lab.tx, "ps0").send()
    # In: whatever comes out of the tunnel, also what no router would take.
    ingress = [traffic.ipv4(17, traffic.l4(1000 + i, 2000, 20 + i)) for i in range(60)]
    ingress += [traffic.ipv6(6, traffic.l4(80, 3000 + i, 60 * i)) for i in range(20)]
    for p in ingress:
        os.write(tun, p)
    # Out: as the stack makes it, which is what the tunnel's reader gets.
    egress = []
    with harness.make_socket(lab.rx, socket.AF_INET, socket.SOCK_DGRAM) as s:
        for i in range(50):
            s.sendto(b"out" * (i + 1), ("10.9.0.2", 5000))
            egress.append(os.read(tun, 65536))
    assert agent.stop() == 0
    assert collector.stop() == 0
    os.close(tun)
    raw = pcap.read(lab.path("dump.raw.pcap"))
    assert raw.link_type == 101, raw.link_type
    assert [p.data for p in raw.packets] == ingress + egress
    assert all(p.len == len(p.data) for p in raw.packets)
    got = pcap.read(lab.path("dump.pcap"))
    assert got.link_type == 1
    assert [p.data for p in got.packets] == ethernet
    for d in (agent, collector):
        assert {x["verdict"] for x in d.ledgers()} == {"complete"}
    for counter in ("seen", "captured", "committed"):
        counted((agent, collector), "tun0", "ingress", len(ingress), counter)
        counted((agent, collector), "tun0", "egress", len(egress), counter)
    assert agent.total("captured_bytes", "tun0", "ingress") == sum(map(len, ingress))
    counted((agent, collector), "ps1", "ingress", len(ethernet))
    for x in collector.ledgers():
        assert x["file"] == lab.path("dump.raw.pcap" if x["interface"] == "tun0" else "dump.pcap")


def filtered(lab, packets, link_type, expression):
    """What libpcap keeps."""
    pcap.write(lab.path("all.pcap"), packets, link_type)
    run("tcpdump", "-r", lab.path("all.pcap"), "-w", lab.path("kept.pcap"), expression)
    return [p.data for p in pcap.read(lab.path("kept.pcap")).packets]


def raw_ip_is_filtered(lab, backend):
    """Expressions on packets that start at the IP header."""
    expression = "(udp and greater 60) or (ip6 and tcp dst port 3005) or (ip and tcp and less 100)"
    tun = open_tun(lab.rx, "tun0")
    run("ip", "-n", lab.rx, "link", "set", "tun0", "multicast", "off", "up")
    agent = lab.agent(f"{backend}filter: '{expression}'\n", interfaces='["tun*"]',
                      output=lab.path("out.pcap"))
    packets = [traffic.ipv4(17, traffic.l4(1000 + i, 2000, 20 + i)) for i in range(60)]
    packets += [traffic.ipv6(6, traffic.l4(80, 3000 + i, 60 * i)) for i in range(20)]
    packets += [traffic.ipv4(6, traffic.l4(80, i, 10 * i)) for i in range(20)]
    for p in packets:
        os.write(tun, p)
    assert agent.stop() == 0
    os.close(tun)
    got = pcap.read(lab.path("out.raw.pcap"))
    assert got.link_type == 101
    want = filtered(lab, packets, 101, expression)
    assert 0 < len(want) < len(packets)
    assert [p.data for p in got.packets] == want
    assert all(p.len == len(p.data) for p in got.packets)
    assert agent.total("seen", "tun0", "ingress") == len(packets)
    assert agent.total("expression_out", "tun0", "ingress") == len(packets) - len(want)


def raw_ip_is_filtered_at_tc(lab):
    raw_ip_is_filtered(lab, "backend: tc\n")


def raw_ip_is_filtered_at_generic_xdp(lab):
    raw_ip_is_filtered(lab, "backend: xdp\nxdpMode: generic\n")


def loopback_is_captured_and_filtered_at_generic_xdp(lab):
    agent = lab.agent("captureLoopback: true\nbackend: xdp\nfilter: udp dst port 7001 and less 500\n",
                      interfaces='["lo"]', output=lab.path("out.pcap"))
    sent = udp_over_lo(lab, 300)
    assert agent.stop() == 0
    got = pcap.read(lab.path("out.pcap"))
    assert got.link_type == 1
    assert [p.data[42:] for p in got.packets] == [p for p in sent if len(p) + 42 <= 500]
    assert all(p.len == len(p.data) and p.data[:12] == bytes(12) for p in got.packets)
    assert agent.total("seen", "lo") == agent.total("seen", "lo", "ingress") == len(sent)


def what_stdout_cannot_carry_takes_nothing_else_along(lab):
    """Ethernet and raw IP in turn, to a pipe that has begun with Ethernet."""
    tun = open_tun(lab.rx, "tun0")
    run("ip", "-n", lab.rx, "link", "set", "tun0", "multicast", "off", "up")
    with open(lab.path("out.pcap"), "wb") as f:
        cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=f)
    agent = lab.agent("gatherMaxWaitMs: 300\n", interfaces="[ps1, tun0]", output="stdout",
                      stdout=cat.stdin)
    cat.stdin.close()
    for _ in range(10):
        assert lab.blast(5) == 5
        os.write(tun, traffic.ipv4(17, traffic.l4(1, 2)))
    assert agent.stop() == 0
    os.close(tun)
    assert cat.wait(20) == 0
    assert len(pcap.read(lab.path("out.pcap")).packets) == 50
    assert (agent.total("committed", "ps1"), agent.total("lost_output", "ps1")) == (50, 0)
    assert (agent.total("committed", "tun0"), agent.total("lost_output", "tun0")) == (0, 10)
    assert agent.text().count("packets are being lost") == 1


def a_bridge_and_its_ports_each_tell_what_passes_them(lab):
    run("ip", "-n", lab.rx, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0",
        "forward_delay", "0")
    lab.quiet(lab.rx, "br0")
    for n in (1, 2):
        lab.veth(lab.rx, f"veth{n}", lab.tx, f"p{n}")
        run("ip", "-n", lab.rx, "link", "set", f"veth{n}", "master", "br0")
    harness.wait_until("both ports to forward", lambda: run(
        "bridge", "-n", lab.rx, "link", "show").stdout.count(b"state forwarding") == 2)
    collector = lab.collector()
    agent = lab.agent(interfaces='["veth*", br0]')
    for dev in ("veth1", "veth2", "br0"):
        capturing(agent, dev)
    # To everybody: in at one port, out at the other, and up to the bridge itself.
    one, two = Link(lab, lab.tx, "p1"), Link(lab, lab.tx, "p2")
    # Not as IP, of which a bridge with netfilter forwards only what is valid.
    frames = [b"\xff" * 6 + f[6:12] + b"\x88\xb5" + f[14:] for f in one.frames(6)]
    with harness.make_socket(lab.tx, socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind(("p1", 0))
        for f in frames:
            s.send(f)
    # To the station that is behind the first port now: only there.
    back = [traffic.MACS[6:] + bytes.fromhex("02000000000388b5") + f[14:] for f in two.frames(4)]
    with harness.make_socket(lab.tx, socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind(("p2", 0))
        for f in back:
            s.send(f)
    finish(lab, agent, collector, frames * 3 + back * 2)
    both = (agent, collector)
    counted(both, "veth1", "ingress", 6)
    counted(both, "veth1", "egress", 4)
    counted(both, "veth2", "ingress", 4)
    counted(both, "veth2", "egress", 6)
    counted(both, "br0", "ingress", 6)
    counted(both, "br0", "egress", 0)


if __name__ == "__main__":
    harness.main([interfaces_may_come_and_go_and_change_their_names,
                  a_burst_of_new_interfaces_is_captured_whole,
                  only_the_kernel_is_believed,
                  changes_that_nobody_could_note_are_looked_up,
                  an_interface_that_cannot_be_captured_stops_no_other,
                  what_comes_out_of_ipsec_is_left_to_libpcap,
                  loopback_is_captured_on_request_and_each_packet_once,
                  loopback_is_not_captured_without_request,
                  raw_ip_goes_to_a_file_of_its_own,
                  raw_ip_is_filtered_at_tc,
                  raw_ip_is_filtered_at_generic_xdp,
                  loopback_is_captured_and_filtered_at_generic_xdp,
                  what_stdout_cannot_carry_takes_nothing_else_along,
                  a_bridge_and_its_ports_each_tell_what_passes_them])
