#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Packets that the host handles as one and the wire would show as many: whole, and told so."""
import collections
import contextlib
import socket
import struct
import threading
import zlib

import harness
import pcap
import psstream as ps
import tcp
from harness import run

PLAIN = "tls:\n  enable: false\n"
WHOLE = "inputPacketLen: 262144\nringSize: 64MB\n"
BIG = 180000
# Until a connection is so fast that its packets get that big, it takes some megabytes.
BIG_VOLUME = 20_000_000
XDP_REACH = 131070  # the kernel's bpf_xdp_load_bytes() reads no further
DATA_HEAD = 40
Block = collections.namedtuple("Block", "len data offload")
# What captures at ingress: (configuration, does it know of segments).
BACKENDS = {
    "tc": ("backend: tc\n", True),
    "native": ("backend: xdp\nxdpMode: native\n", False),
    "generic": ("backend: xdp\nxdpMode: generic\n", False),
}


class Sink:
    """A collector that keeps the blocks as they were sent."""

    def __init__(self, lab, port=8081):
        self.blocks = []
        self.listener = harness.make_socket(lab.rx, socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", port))
        self.listener.listen()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        with contextlib.suppress(ConnectionError), self.listener.accept()[0] as s:
            raw = b""
            while more := s.recv(1 << 20):
                raw += more
                for kind, payload, seq in self.messages(raw):
                    raw = raw[ps.HEADER + len(payload):]
                    if kind == ps.HELLO:
                        s.sendall(ps.welcome(credit=1 << 40))
                    elif kind in ps.NUMBERED:
                        s.sendall(ps.ack(seq, 1 << 20))
                    if kind == ps.DATA:
                        self.take(zlib.decompress(payload[DATA_HEAD:], 31))

    @staticmethod
    def messages(raw):
        seqs, at = [], 0
        found = ps.parse(raw)
        for _, payload in found:
            seqs.append(struct.unpack_from("<Q", raw, at + 16)[0])
            at += ps.HEADER + len(payload)
        return [(kind, payload, seq) for (kind, payload), seq in zip(found, seqs)]

    def take(self, raw):
        while raw:
            total, caplen, length = struct.unpack_from("<4xI12xII", raw)
            options = raw[28 + caplen + -caplen % 4:total - 16]
            if options:
                assert options[:8] == ps.offload()[:8] and len(options) == 16, options
                options = struct.unpack("<HHB", options[8:13])
            self.blocks.append(Block(length, raw[28:28 + caplen], options or None))
            raw = raw[total:]

    def close(self):
        self.thread.join()
        self.listener.close()


def captured_by(lab, backend, data_of):
    """The blocks of a transfer, which arrive complete."""
    sink = Sink(lab)
    agent = lab.agent(WHOLE + BACKENDS[backend][0], tls=PLAIN)
    data = data_of()
    assert agent.stop() == 0
    sink.close()
    verdict = {x["verdict"] for x in agent.ledgers()}
    assert verdict == {"complete"}, agent.ledgers()
    assert tcp.reassembled([b.data for b in sink.blocks], len(data)) == data
    assert all(b.len == len(b.data) for b in sink.blocks)
    return sink.blocks


def check_segments(blocks, mtu):
    """Every packet above the MTU says of how many segments it is, and no other does."""
    supers = 0
    for b in blocks:
        seg = tcp.segment(b.data)
        if not seg:
            continue
        payload = len(seg[2])
        if b.len <= mtu + 14:
            assert b.offload is None or b.offload[0] == 0 or payload > b.offload[0], b.offload
            continue
        size, number, checksum = b.offload
        headers = b.len - payload - 14
        assert size <= mtu - headers + 8 and size >= mtu - headers, (size, headers)
        assert number == -(-payload // size), (payload, b.offload)
        assert checksum == 2, b.offload
        supers += 1
    longest = max(b.len for b in blocks)
    print(f"# {len(blocks)} packets, {supers} of several segments, the longest of {longest} bytes")
    return supers


def a_transfer_by(lab, backend):
    """At native XDP there is nothing of several segments: the kernel then keeps the other end of
    the veth from sending such."""
    tcp.connect(lab, mtu=1500)
    tcp.offload(lab, True)
    blocks = captured_by(lab, backend, lambda: tcp.transfer(lab))
    if backend == "native":
        assert max(b.len for b in blocks) == 1514
    else:
        assert max(b.len for b in blocks) > 9014
    if BACKENDS[backend][1]:
        assert check_segments(blocks, 1500) > 0
    else:
        assert not any(b.offload for b in blocks)
        print(f"# {len(blocks)} packets, the longest of {max(b.len for b in blocks)} bytes")


def segments_are_told_at_tc(lab):
    a_transfer_by(lab, "tc")


def transfers_are_whole_at_native_xdp(lab):
    a_transfer_by(lab, "native")


def transfers_are_whole_at_generic_xdp(lab):
    a_transfer_by(lab, "generic")


def big_tcp(lab, size=BIG):
    tcp.connect(lab, socket.AF_INET6, mtu=1500)
    tcp.offload(lab, True)
    for ns, dev in ((lab.tx, "ps0"), (lab.rx, "ps1")):
        done = run("ip", "-n", ns, "link", "set", dev, "gso_max_size", size,
                   "gro_max_size", size, check=False)
        if done.returncode:
            raise harness.Skip("no BIG TCP (Linux 5.19, iproute2 5.19)")


def big_tcp_by(lab, backend, size=BIG):
    big_tcp(lab, size)
    blocks = captured_by(lab, backend, lambda: tcp.transfer(lab, BIG_VOLUME, socket.AF_INET6))
    longest = max(b.len for b in blocks)
    if backend == "native":
        assert longest == 1514
    else:
        assert longest > 65549, longest
    if BACKENDS[backend][1]:
        assert check_segments(blocks, 1500) > 0
    else:
        print(f"# {len(blocks)} packets, the longest of {longest} bytes")


def packets_above_64_kib_are_whole_at_tc(lab):
    big_tcp_by(lab, "tc")


def packets_above_64_kib_are_whole_at_native_xdp(lab):
    big_tcp_by(lab, "native")


def packets_above_64_kib_are_whole_at_generic_xdp(lab):
    """As far as XDP reaches. It does for whole packets of 128 KiB less a few bytes."""
    big_tcp_by(lab, "generic", XDP_REACH - 1000)


def what_xdp_cannot_reach_is_cut_off_and_counted(lab):
    big_tcp(lab)
    agent = lab.agent(WHOLE + BACKENDS["generic"][0], output=lab.path("out.pcap"))
    tcp.transfer(lab, BIG_VOLUME, socket.AF_INET6)
    assert agent.stop() == 0
    packets = pcap.read(lab.path("out.pcap")).packets
    assert all(len(p.data) == min(p.len, XDP_REACH) for p in packets)
    cut = [p for p in packets if p.len > XDP_REACH]
    if not cut and harness.GUEST:
        raise harness.Skip("no packet got that big: an emulated processor is too slow")
    assert cut and agent.total("sliced") == len(cut)
    assert agent.total("captured") == agent.total("seen") == len(packets)
    print(f"# {len(cut)} of {len(packets)} packets, the longest of {max(p.len for p in cut)} bytes")


def packets_above_64_kib_are_cut_by_the_default_snap_length(lab):
    big_tcp(lab)
    collector = lab.collector()
    cut = lab.agent("ringSize: 64MB\n", name="cut")
    whole = lab.agent(WHOLE, name="whole", output=lab.path("whole.pcap"))
    tcp.transfer(lab, BIG_VOLUME, socket.AF_INET6)
    for d in (cut, whole, collector):
        assert d.stop() == 0
    full = pcap.read(lab.path("whole.pcap")).packets
    short = pcap.read(lab.path("dump.pcap")).packets
    assert max(len(p.data) for p in full) > 65549
    assert max(len(p.data) for p in short) == 65535
    assert sorted((p.len, p.data[:65535]) for p in full) == sorted((p.len, p.data) for p in short)


if __name__ == "__main__":
    harness.main([segments_are_told_at_tc,
                  transfers_are_whole_at_native_xdp,
                  transfers_are_whole_at_generic_xdp,
                  packets_above_64_kib_are_whole_at_tc,
                  packets_above_64_kib_are_whole_at_native_xdp,
                  packets_above_64_kib_are_whole_at_generic_xdp,
                  what_xdp_cannot_reach_is_cut_off_and_counted,
                  packets_above_64_kib_are_cut_by_the_default_snap_length])
