#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Capture inside other network namespaces, which come and go with what is in them."""
import gzip
import json
import os
import re
import socket
import struct
import subprocess
import threading

import checks
import harness
import psstream
import tcprog
from harness import run
from test_interfaces import Link, capturing, finish, seen
from test_own_stream import Talk, own_stream_is_not_captured

PLAIN = "tls:\n  enable: false\n"
# Everything goes by four times, and a busy machine may let the reader wait.
WHOLE = "inputPacketLen: 262144\nringSize: 128MB\n"
THERE, HERE = "10.77.2.1", "10.77.2.2"
ROUTER, INSIDE = "10.77.3.1", "10.77.3.2"


def netns(*names):
    return "netns: [" + ", ".join(f'"{n}"' for n in names) + "]\n"


def place(name):
    return f"/run/netns/{name}"


def pod(lab, name, dev="eth0", peer_ns=None):
    """A namespace with one interface, whose other end is `x` + the name's last letter."""
    ns = lab.namespace(lab.tag + name)
    lab.veth(ns, dev, peer_ns or lab.tx, f"x{name}")
    return ns, Link(lab, peer_ns or lab.tx, f"x{name}")


def inode(ns):
    return os.stat(place(ns)).st_ino


def ifindex(ns, dev):
    return json.loads(run("ip", "-n", ns, "-j", "link", "show", dev).stdout)[0]["ifindex"]


class Recorder(threading.Thread):
    """A collector that acknowledges everything and keeps what interfaces and packets are."""

    def __init__(self, ns):
        super().__init__(daemon=True)
        self.listener = harness.make_socket(ns, socket.AF_INET, socket.SOCK_STREAM)
        self.listener.bind(("127.0.0.1", 8081))
        self.listener.listen()
        self.ifaces, self.packets = {}, []
        self.start()

    def run(self):
        raw, written = b"", 0
        with self.listener, self.listener.accept()[0] as s:
            while block := s.recv(1 << 16):
                raw += block
                messages = psstream.parse(raw)
                raw = raw[sum(psstream.HEADER + len(payload) for _, payload in messages):]
                for kind, payload in messages:
                    written += kind in psstream.NUMBERED
                    self.message(s, kind, payload)
                if written:
                    s.sendall(psstream.ack(written, 1 << 20, durable=written))

    def message(self, s, kind, payload):
        if kind == psstream.HELLO:
            s.sendall(psstream.welcome())
        elif kind == psstream.META:
            f = psstream.fields(payload)
            ident, index, ns = (int.from_bytes(f[n], "little") for n in (1, 2, 3))
            self.ifaces.setdefault(ident, (ns, index, f[9].decode()))
        elif kind == psstream.DATA:
            blocks, at = gzip.decompress(payload[40:]), 0
            while at < len(blocks):
                _, total, ident, _, _, caplen = struct.unpack_from("<6I", blocks, at)
                self.packets.append((self.ifaces[ident], blocks[at + 28:at + 28 + caplen]))
                at += total


def the_same_index_and_name_in_two_namespaces_are_two_interfaces(lab):
    (one, to_one), (two, to_two) = pod(lab, "1"), pod(lab, "2")
    assert ifindex(one, "eth0") == ifindex(two, "eth0")
    recorder = Recorder(lab.rx)
    agent = lab.agent(netns(place(one), place(two)), tls=PLAIN, interfaces="[eth0, ps1]")
    agent.wait_for("connected to the collector")
    own = Link(lab, lab.tx, "ps0")
    want = {}
    for link, ns, dev in ((to_one, one, "eth0"), (to_two, two, "eth0"), (own, lab.rx, "ps1")):
        want[inode(ns), ifindex(ns, dev), dev] = link.send(7) + link.send(5)
    assert agent.stop() == 0
    recorder.join(10 * harness.PATIENCE)
    got = {}
    for iface, packet in recorder.packets:
        got.setdefault(iface, []).append(packet)
    assert got == want, (got.keys(), want.keys())
    names = {(x.get("netns"), x["interface"]): x["captured"] for x in agent.ledgers()
             if x["direction"] == "ingress"}
    assert names == {(one, "eth0"): 12, (two, "eth0"): 12, (None, "ps1"): 12}, names
    checks.check_complete(agent)


def rules_by_name_apply_inside(lab):
    ns, web = pod(lab, "1", "web0")
    lab.veth(ns, "db0", lab.tx, "xdb")
    lab.veth(ns, "other", lab.tx, "xother")
    collector = lab.collector()
    agent = lab.agent(netns(place(ns), "!self") + "pcapMode: allow\ncaptureInterfacesPorts:\n"
                      "  web*: [2000]\n  db0: [3000]\n", interfaces='["*"]')
    want = web.send(5)  # to port 2000
    Link(lab, lab.tx, "xdb").send(6)
    Link(lab, lab.tx, "xother").send(7)
    Link(lab, lab.tx, "ps0").send(8)
    seen(agent, 11)
    finish(lab, agent, collector, want)
    counts = {x["interface"]: (x["captured"], x["ruled_out"]) for x in agent.ledgers()
              if x["direction"] == "ingress"}
    assert counts == {"web0": (5, 0), "db0": (0, 6)}, counts


def interfaces_inside_come_and_go(lab):
    ns, link = pod(lab, "1")
    collector, agent = lab.collector(), lab.agent(netns(place(ns)), interfaces='["eth*"]')
    want = link.send()
    seen(agent, len(want))
    lab.veth(ns, "eth1", lab.tx, "xb")
    capturing(agent, "eth1")
    other = Link(lab, lab.tx, "xb")
    want += other.send(7)
    seen(agent, len(want))
    run("ip", "-n", ns, "link", "del", "eth1")
    agent.wait_for(f'interface "eth1" .* of namespace "{ns}" is gone')
    run("ip", "-n", ns, "link", "set", "eth0", "down")
    run("ip", "-n", ns, "link", "set", "eth0", "name", "not", "up")
    agent.wait_for('interface "eth0" .* has another name')
    link.send()
    run("ip", "-n", ns, "link", "set", "not", "down")
    run("ip", "-n", ns, "link", "set", "not", "name", "eth5", "up")
    capturing(agent, "eth5")
    want += link.send(3)
    seen(agent, len(want))
    # From one namespace that is watched to another: the same index, another interface.
    run("ip", "-n", ns, "link", "set", "eth5", "netns", lab.rx)
    agent.wait_for('interface "eth5" .* is gone')
    lab.quiet(lab.rx, "eth5")
    capturing(agent, "eth5", 2)
    want += link.send(4)
    seen(agent, len(want))
    finish(lab, agent, collector, want)


def namespaces_come_and_go(lab):
    """And when the last path to one is gone it can die, though it was captured in."""
    collector = lab.collector()
    agent = lab.agent(netns(f"/run/netns/{lab.tag}p*", f"!/run/netns/{lab.tag}pno*"),
                      interfaces='["eth*"]')
    want = []
    for n in range(1, 4):
        ns, link = pod(lab, "p1")
        pod(lab, "pno")
        capturing(agent, "eth0", n)
        want += link.send(n)
        seen(agent, len(want))
        run("ip", "netns", "del", ns)
        run("ip", "netns", "del", lab.tag + "pno")
        agent.wait_for(f'namespace "{ns}" is gone', count=n)
        # An interface ends with its namespace, and a veth with its other end.
        harness.wait_until("the namespaces to die", lambda: all(run(
            "ip", "-n", lab.tx, "link", "show", x, check=False).returncode for x in ("xp1", "xpno")))
        lab.namespaces = [x for x in lab.namespaces if not x.startswith(lab.tag + "p")]
    finish(lab, agent, collector, want)
    assert "pno" not in agent.text()


def many_namespaces_at_once(lab, n=40):
    """As when a node starts: each has its number, none waits long."""
    collector = lab.collector()
    agent = lab.agent(netns(f"/run/netns/{lab.tag}p*"), interfaces='["eth*"]')
    links = [pod(lab, f"p{i}")[1] for i in range(8 if harness.GUEST else n)]
    capturing(agent, "eth0", len(links))
    want = [frame for link in links for frame in link.send(3)]
    seen(agent, len(want))
    finish(lab, agent, collector, want)
    assert sorted(x["captured"] for x in agent.ledgers() if x["direction"] == "ingress") == \
        [3] * len(links)


def a_process_s_namespace_by_its_path(lab):
    """No folder tells of its end."""
    guest = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    path = f"/proc/{guest.pid}/ns/net"
    try:
        harness.wait_until("its namespace", lambda: os.stat(path).st_ino !=
                           os.stat("/proc/self/ns/net").st_ino)
        run("nsenter", "-n", "-t", guest.pid, "sh", "-c",
            "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6", check=False)
        run("ip", "-n", lab.tx, "link", "add", "xg", "type", "veth", "peer", "name", "eth0", "netns",
            guest.pid)
        lab.quiet(lab.tx, "xg")
        run("nsenter", "-n", "-t", guest.pid, "ip", "link", "set", "eth0", "arp", "off", "multicast",
            "off", "up")
        collector, agent = lab.collector(), lab.agent(netns(path), interfaces="[eth0]")
        want = Link(lab, lab.tx, "xg").send()
        seen(agent, len(want))
    finally:
        guest.kill()
        guest.wait()
    agent.wait_for(f'namespace "{path}" is gone')
    harness.wait_until("the namespace to die", lambda: run(
        "ip", "-n", lab.tx, "link", "show", "xg", check=False).returncode)
    finish(lab, agent, collector, want)


def a_missing_right_is_named(lab):
    without = ["setpriv", "--bounding-set", "-sys_admin"]
    agent = lab.agent(netns(place(lab.tx)), ready=False, output=lab.path("x.pcap"), wrap=without)
    assert agent.proc.wait(30 * harness.PATIENCE) == 1
    assert re.search(r"netns: .*CAP_SYS_ADMIN is needed", agent.text()), agent.text()
    # Nobody needs it who does not ask for that.
    agent = lab.agent(output=lab.path("y.pcap"), name="second", wrap=without)
    assert agent.stop() == 0


def nothing_works_on_inside_after_kill_9(lab):
    """Links go with the process; a filter stays, inert, and the next start takes it away."""
    ns, link = pod(lab, "1")
    agent = lab.agent(netns(place(ns)), interfaces="[eth0]", output=lab.path("x.pcap"))
    tcx = "by tcx" in agent.text()
    index = ifindex(ns, "eth0")

    def attached():
        if not tcx:
            return sum(run("tc", "-n", ns, "filter", "show", "dev", "eth0", where).stdout.count(
                b" handle 0x") for where in ("ingress", "egress"))
        with harness.inside(ns):
            return sum(tcprog.tcx_count(index, where)
                       for where in (tcprog.TCX_INGRESS, tcprog.TCX_EGRESS))
    assert attached() == 2
    agent.kill()
    if tcx:
        harness.wait_until("the links to be gone", lambda: attached() == 0)
    again = lab.agent(netns(place(ns)), interfaces="[eth0]", output=lab.path("y.pcap"),
                      name="again")
    assert attached() == 2
    link.send()
    seen(again, 5)
    assert again.stop() == 0
    assert attached() == 0


def captures_inside_too(lab, backend):
    ns, link = pod(lab, "1")
    collector = lab.collector()
    agent = lab.agent(netns(place(ns)) + backend, interfaces="[eth0, ps1]")
    want = link.send(7) + Link(lab, lab.tx, "ps0").send(4)
    seen(agent, len(want))
    finish(lab, agent, collector, want)
    assert {(x.get("netns"), x["captured"]) for x in agent.ledgers() if x["captured"]} == \
        {(ns, 7), (None, 4)}


def native_xdp_captures_inside_too(lab):
    captures_inside_too(lab, "backend: xdp\nxdpMode: native\n")


def generic_xdp_captures_inside_too(lab):
    captures_inside_too(lab, "backend: xdp\nxdpMode: generic\n")


def libpcap_captures_inside_too(lab):
    captures_inside_too(lab, "backend: pcap\n")


def far_pod(lab):
    """Agent -> ps1 = ps0 (a router's) -> xc = eth0 of a pod, where the collector is."""
    ns, _ = pod(lab, "c")
    lab.pki(INSIDE)
    lab.address((lab.tx, "ps0", THERE), (lab.rx, "ps1", HERE))
    lab.address((lab.tx, "xc", ROUTER), (ns, "eth0", INSIDE))
    run("ip", "netns", "exec", lab.tx, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    run("ip", "-n", lab.rx, "route", "add", "10.77.3.0/24", "via", THERE)
    run("ip", "-n", ns, "route", "add", "10.77.2.0/24", "via", ROUTER)
    return ns


def own_stream(lab, devs, *others):
    ns = far_pod(lab)
    own_stream_is_not_captured(
        lab, devs, Talk(lab, ns, INSIDE, INSIDE, 8081), lambda: lab.collector(ns=ns, host=INSIDE),
        {"host": INSIDE, "extra": WHOLE + netns(place(lab.tx), place(ns), *others)},
        {"ps0": lab.tx, "xc": lab.tx, "eth0": ns})


def own_stream_is_not_captured_in_namespaces_it_passes(lab):
    own_stream(lab, ["ps1", "ps0", "xc", "eth0"])


def own_stream_is_known_where_it_comes_out_of_an_uncaptured_namespace(lab):
    own_stream(lab, ["ps0", "xc", "eth0"], "!self")


if __name__ == "__main__":
    tests = [the_same_index_and_name_in_two_namespaces_are_two_interfaces,
             rules_by_name_apply_inside,
             interfaces_inside_come_and_go,
             namespaces_come_and_go,
             many_namespaces_at_once,
             a_process_s_namespace_by_its_path,
             a_missing_right_is_named,
             nothing_works_on_inside_after_kill_9,
             native_xdp_captures_inside_too,
             generic_xdp_captures_inside_too,
             libpcap_captures_inside_too,
             own_stream_is_not_captured_in_namespaces_it_passes]
    if not harness.GUEST:
        tests.append(own_stream_is_known_where_it_comes_out_of_an_uncaptured_namespace)
    harness.main(tests)
