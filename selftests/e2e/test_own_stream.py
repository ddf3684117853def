#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The agent's own stream is never in the capture, whatever way it takes, and everything
else is, also what goes between the same two hosts and to the same port.

tcpdump beside the agent tells what there was. Which packets are the agent's own is known
the other way round: the clients that the test runs itself have known ports.
"""
import contextlib
import glob
import hashlib
import os
import shutil
import socket
import struct
import threading
import time

import harness
import pcap
from harness import run

OTHER_PORT = 8082  # of a server that is not the collector
SERVICE = "10.96.0.1"
KNOCK = b"let me in "
VOLUME = 100_000 if harness.GUEST else 2_000_000
# Over lo a super-packet with its header is longer than what is kept by default.
WHOLE = "inputPacketLen: 262144\n"
PLAIN = "tls:\n  enable: false\n"
LOCAL, HERE, THERE = "127.0.0.1", "192.0.2.2", "192.0.2.1"


class Talk:
    """Other TCP connections between the agent's host and the collector's."""

    def __init__(self, lab, server_ns, server_ip, collector_ip, collector_port):
        self.lab, self.server_ns, self.server_ip = lab, server_ns, server_ip
        self.collector, self.ports = (collector_ip, collector_port), set()

    def client(self):
        s = harness.make_socket(self.lab.rx, socket.AF_INET, socket.SOCK_STREAM)
        s.settimeout(20 * harness.PATIENCE)
        return s

    def stranger(self):
        """Another client of the collector, which will not have it."""
        with self.client() as s:
            s.connect(self.collector)
            self.ports.add(s.getsockname()[1])
            with contextlib.suppress(ConnectionError):
                s.sendall(KNOCK * 100)
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass

    def transfer(self):
        """Both ways through a server beside the collector."""
        data, got = os.urandom(VOLUME), []

        def serve():
            with listener.accept()[0] as s:
                while block := s.recv(1 << 16):
                    s.sendall(block)

        with harness.make_socket(self.server_ns, socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.server_ip, OTHER_PORT))
            listener.listen()
            server = threading.Thread(target=serve)
            server.start()
            with self.client() as s:
                s.connect((self.server_ip, OTHER_PORT))
                sender = threading.Thread(
                    target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)))
                sender.start()
                while block := s.recv(1 << 16):
                    got.append(block)
                sender.join()
            server.join()
        assert hashlib.sha256(b"".join(got)).digest() == hashlib.sha256(data).digest()

    def all(self):
        self.stranger()
        self.transfer()


def tcp_ports(frame):
    if frame[12:14] != b"\x08\x00" or frame[23] != 6:
        return ()
    return struct.unpack_from("!HH", frame, 14 + 4 * (frame[14] & 15))


def knocks(frame):
    """The agent's stream has such packets inside, and may have them uncompressed."""
    if not tcp_ports(frame):
        return False
    tcp = 14 + 4 * (frame[14] & 15)
    return frame[tcp + 4 * (frame[tcp + 12] >> 4):].startswith(KNOCK)


def watch(lab, dev, ns):
    """In immediate mode every slot is as long as the snap length: 3,700 of them here, more
    than a test has packets, so that tcpdump drops none."""
    d = lab.spawn(f"tcpdump.{dev}", ["tcpdump", "-i", dev, "-w", lab.path(f"{dev}.beside.pcap"), "-U",
                  "-s70000", "-B", "262144", "--immediate-mode", "--time-stamp-precision=nano"], ns=ns)
    d.wait_for("listening on")
    return d


def still(agent, seconds=3):
    """With nobody else talking, nothing is captured: heartbeats go by, counters stay."""
    first, since, ruled_out = None, 0, 0
    end = time.monotonic() + 15 * harness.PATIENCE
    while time.monotonic() < end:
        now = agent.snapshot()
        if now["captured"] != first:
            first, since, ruled_out = now["captured"], time.monotonic(), now["ruled_out"]
        elif time.monotonic() - since >= seconds:
            assert now["ruled_out"] > ruled_out, "the stream's own packets were not even seen"
            return
        time.sleep(0.2)
    raise AssertionError(f"the agent captures with no traffic but its own: {agent.snapshot()}")


def own_stream_is_not_captured(lab, devs, talk, start_collector, agent_args, where=()):
    """@where: which of the devices are in another namespace than the agent."""
    collector = start_collector()
    agent = lab.agent(interfaces="[" + ", ".join(devs) + "]", **agent_args)
    agent.wait_for("connected to the collector")
    beside = [watch(lab, dev, dict(where).get(dev, lab.rx)) for dev in devs]
    talk.all()
    still(agent)
    # A restart: packets of the old connection, refused ones, and a new one.
    collector.stop()
    agent.wait_for("connection|collector closed|lost")
    talk.transfer()
    collector = start_collector()
    agent.wait_for("connected to the collector", count=2)
    talk.all()
    still(agent, 2)
    assert agent.stop() == 0
    assert collector.stop() == 0
    for d in beside:
        d.stop()

    # A stranger's port as the collector has it, which NAT may have changed.
    there_was = [p.data for dev in devs for p in pcap.read(lab.path(f"{dev}.beside.pcap")).packets]
    others = talk.ports.union(*(tcp_ports(f) for f in there_was if knocks(f))) - {8081, 9000}

    def is_ours(frame):
        ports = set(tcp_ports(frame))
        return bool(ports & {8081, 9000} and not ports & others)

    got = [p.data for path in sorted(glob.glob(lab.path("dump*.pcap"))) for p in
           pcap.read(path).packets]
    want = [f for f in there_was if not is_ours(f)]
    own = len(there_was) - len(want)
    ours = [f for f in got if is_ours(f)]
    assert not ours, f"{len(ours)} packets of the agent's own were captured, the first: {ours[0].hex()}"
    assert own > 0 and len(want) > 0
    missing, extra, _ = pcap.compare(want, got)
    lost = agent.total("lost_ring"), agent.total("lost_error")
    assert (missing, extra, lost) == (0, 0, (0, 0)), \
        f"of {len(want)} missing {missing}, extra {extra}, lost at the rings {lost}"
    assert {x["verdict"] for x in agent.ledgers()} == {"complete"}, agent.ledgers()
    assert agent.total("captured") == len(got)
    print(f"# {len(got)} packets captured, {own} of the agent's own left out")


def over_loopback(lab):
    own_stream_is_not_captured(
        lab, ["lo"], Talk(lab, lab.rx, LOCAL, LOCAL, 8081), lab.collector,
        {"extra": WHOLE + "captureLoopback: true\n"})


def over_loopback_in_plain_text(lab):
    own_stream_is_not_captured(
        lab, ["lo"], Talk(lab, lab.rx, LOCAL, LOCAL, 8081), lambda: lab.collector(tls=PLAIN),
        {"extra": WHOLE + "captureLoopback: true\n", "tls": PLAIN})


def far_collector(lab, **kw):
    return lambda: lab.collector(ns=lab.tx, host=THERE, **kw)


def over_the_captured_link(lab, tls=None):
    lab.pki(THERE)
    lab.address((lab.tx, "ps0", THERE), (lab.rx, "ps1", HERE))
    own_stream_is_not_captured(
        lab, ["ps1"], Talk(lab, lab.tx, THERE, THERE, 8081), far_collector(lab, tls=tls),
        {"host": THERE, "tls": tls})


def over_the_captured_link_in_plain_text(lab):
    over_the_captured_link(lab, PLAIN)


def service_address(lab, to, port, masquerade=False):
    """What Kubernetes does with the address of a service."""
    if not shutil.which("nft"):
        raise harness.Skip("nft is not installed")
    rules = f"""table ip nat {{
	chain output {{
		type nat hook output priority -100
		ip daddr {SERVICE} tcp dport 9000 dnat to {to}:{port}
	}}
	chain postrouting {{
		type nat hook postrouting priority 100
		{"ip daddr " + to + " tcp dport " + str(port) + " masquerade random" if masquerade else ""}
	}}
}}
"""
    done = run("ip", "netns", "exec", lab.rx, "nft", "-f", lab.file("nat.nft", rules), check=False)
    if done.returncode:
        raise harness.Skip("this kernel has no NAT: " + done.stdout.decode().splitlines()[0])


def through_a_service_address(lab, masquerade=False):
    lab.pki(SERVICE)
    lab.address((lab.tx, "ps0", THERE), (lab.rx, "ps1", HERE))
    run("ip", "-n", lab.rx, "route", "add", "default", "via", THERE)
    service_address(lab, THERE, 8081, masquerade)
    own_stream_is_not_captured(
        lab, ["ps1", "lo"], Talk(lab, lab.tx, THERE, SERVICE, 9000), far_collector(lab),
        {"extra": WHOLE, "host": SERVICE, "port": 9000})


def through_a_service_address_with_other_source_ports(lab):
    through_a_service_address(lab, True)


def through_a_service_address_on_this_host(lab, masquerade=False):
    """The two directions of a connection do not look the same on lo then."""
    lab.pki(SERVICE)
    run("ip", "-n", lab.rx, "addr", "add", HERE + "/32", "dev", "lo")
    run("ip", "-n", lab.rx, "route", "add", SERVICE, "dev", "lo", "src", HERE)
    service_address(lab, HERE, 8081, masquerade)
    own_stream_is_not_captured(
        lab, ["lo"], Talk(lab, lab.rx, HERE, SERVICE, 9000), lambda: lab.collector(host=HERE),
        {"extra": WHOLE, "host": SERVICE, "port": 9000})


def through_a_service_address_on_this_host_with_other_source_ports(lab):
    through_a_service_address_on_this_host(lab, True)


def through_a_bridge_and_a_chain_of_links(lab):
    """Agent -> va = vb -> br0 -> ps1 = ps0 -> collector, and all but the last captured."""
    lab.pki(THERE)
    run("ip", "-n", lab.rx, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0",
        "forward_delay", "0")
    lab.quiet(lab.rx, "br0")
    lab.veth(lab.rx, "va", lab.rx, "vb", 9000)
    for port in ("vb", "ps1"):
        run("ip", "-n", lab.rx, "link", "set", port, "master", "br0")
    lab.address((lab.tx, "ps0", THERE), (lab.rx, "va", HERE))
    harness.wait_until("both ports to forward", lambda: run(
        "bridge", "-n", lab.rx, "link", "show").stdout.count(b"state forwarding") == 2)
    own_stream_is_not_captured(
        lab, ["va", "vb", "ps1"], Talk(lab, lab.tx, THERE, THERE, 8081), far_collector(lab),
        {"host": THERE})


if __name__ == "__main__":
    tests = [over_loopback, over_the_captured_link, through_a_service_address,
             through_a_service_address_on_this_host_with_other_source_ports,
             through_a_bridge_and_a_chain_of_links]
    # An emulated processor takes most of a minute for each, so it gets the hard ones only.
    if not harness.GUEST:
        tests += [over_loopback_in_plain_text, over_the_captured_link_in_plain_text,
                  through_a_service_address_with_other_source_ports,
                  through_a_service_address_on_this_host]
    harness.main(tests)
