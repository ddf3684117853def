# SPDX-License-Identifier: Apache-2.0
"""Packets to send: of every shape that the rules know, made here, and real captures."""
import itertools
import random
import struct

import harness
import pcap

MACS = bytes.fromhex("020000000001" "020000000002")
V4A, V4B = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
V6A = bytes.fromhex("20010db8000000000000000000000001")
V6B = bytes.fromhex("20010db8000000000000000000000002")
MTU = 9000
LONGEST = MTU + 14


def ether(kind, payload, tags=()):
    out = MACS
    for proto, tci in tags:
        out += struct.pack("!HH", proto, tci)
    return out + struct.pack("!H", kind) + payload


def ipv4(proto, payload, ident=0, frag=0, options=b""):
    size = 20 + len(options)
    return struct.pack("!BBHHHBBH", 0x40 | size // 4, 0, size + len(payload), ident, frag, 64,
                       proto, 0) + V4A + V4B + options + payload


def ipv6(next_header, payload):
    return struct.pack("!IHBB", 6 << 28, len(payload), next_header, 64) + V6A + V6B + payload


def extension(next_header, units=0):
    return bytes([next_header, units]) + bytes(6 + 8 * units)


def fragment6(next_header, offset, more, ident, payload):
    return struct.pack("!BBHI", next_header, 0, offset * 8 | more, ident) + payload


def l4(sport, dport, n=40):
    return struct.pack("!HH", sport, dport) + bytes(i & 255 for i in range(n))


def shapes():
    """Every combination of address family, protocol, tags and headers, on a few ports."""
    tags = [(), ((0x8100, 5),), ((0x88A8, 7), (0x8100, 9)), ((0x8100, 1), (0x8100, 2), (0x8100, 3))]
    pairs = [(40000, 80), (443, 40001), (53, 53), (5000, 6000), (8080, 9), (22, 443)]
    for proto, tag, (s, d) in itertools.product((6, 17, 33, 132, 136, 1, 47), tags, pairs):
        yield ether(0x0800, ipv4(proto, l4(s, d)), tag)
        yield ether(0x86DD, ipv6(proto, l4(s, d)), tag)
    for s, d in pairs:
        seg = l4(s, d)
        yield ether(0x0800, ipv4(6, seg, options=bytes([1] * 8)))
        yield ether(0x86DD, ipv6(0, extension(60) + extension(43, 2) + extension(17, 1) + seg))
        yield ether(0x86DD, ipv6(51, bytes([6, 4]) + bytes(22) + seg))
        yield ether(0x86DD, ipv6(0, extension(135) + extension(139) + extension(140)
                                 + extension(132) + seg))
        yield ether(0x86DD, ipv6(0, b"".join(extension(0) for _ in range(11)) + extension(6) + seg))
        ident = s ^ d
        yield ether(0x0800, ipv4(17, seg, ident, 0x2000))
        yield ether(0x0800, ipv4(17, bytes(48), ident, 0x2000 | 6))
        yield ether(0x0800, ipv4(17, bytes(20), ident, 12))
        yield ether(0x0800, ipv4(17, bytes(20), ident ^ 0x7777, 12))  # its first never came
        yield ether(0x86DD, ipv6(44, fragment6(6, 0, 1, ident, seg)))
        yield ether(0x86DD, ipv6(44, fragment6(6, 6, 1, ident, bytes(48))))
        yield ether(0x86DD, ipv6(44, fragment6(6, 12, 0, ident, bytes(9))))
        yield ether(0x86DD, ipv6(44, fragment6(17, 0, 0, ident, seg)))
        yield ether(0x86DD, ipv6(0, extension(44) + fragment6(60, 0, 1, ident + 1,
                                                               extension(6) + seg)))
    yield ether(0x0806, bytes(28))
    yield ether(0x0800, ipv4(17, b"\0\x35"))  # too short for ports
    yield ether(0x0800, b"\x44" + ipv4(17, l4(53, 53))[1:])  # header length below 20
    yield ether(0x0800, b"\x65" + ipv4(17, l4(53, 53))[1:])  # version 6 in IPv4
    yield ether(0x86DD, b"\x45" + ipv6(17, l4(53, 53))[1:])
    yield ether(0x88CC, bytes(46))
    yield MACS + struct.pack("!H", 46) + bytes(46)  # 802.3 length
    yield ether(0x0800, ipv4(17, l4(53, 1000, MTU - 24)))


def noise(count, seed=1):
    """Shapes with a few bytes changed or cut off."""
    rng = random.Random(seed)
    base = [p for p in shapes() if len(p) < 2000]
    for _ in range(count):
        p = bytearray(rng.choice(base))
        for _ in range(rng.randrange(4)):
            p[rng.randrange(12, len(p))] = rng.randrange(256)
        yield bytes(p[:rng.randrange(20, len(p) + 1)] if rng.random() < 0.3 else p)


def generated():
    return list(shapes()) + list(noise(1500))


def captured():
    """All packets of the real captures that can cross the link, in order."""
    packets = []
    for path in harness.traffic_files():
        capture = pcap.read(path)
        if capture.link_type == 1:
            packets += [p.data for p in capture.packets if sendable(p.data)]
    return packets


def untaggable(data):
    """The kernel takes a tag off before any hook or socket sees the packet, and drops
    one that ends inside it."""
    return data[12:14] in (b"\x81\x00", b"\x88\xa8") and len(data) < 18


def sendable(data):
    return 14 <= len(data) <= LONGEST and not untaggable(data)
