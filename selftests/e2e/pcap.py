# SPDX-License-Identifier: Apache-2.0
"""Classic pcap in and out, for tests. A reader of our own that trusts nothing."""
import struct
from collections import Counter, namedtuple

Packet = namedtuple("Packet", "time len data")  # nanoseconds, bytes on the wire, bytes kept
Capture = namedtuple("Capture", "link_type nano packets")

MAGICS = {
    b"\xd4\xc3\xb2\xa1": ("<", False), b"\x4d\x3c\xb2\xa1": ("<", True),
    b"\xa1\xb2\xc3\xd4": (">", False), b"\xa1\xb2\x3c\x4d": (">", True),
}


def parse(raw):
    order, nano = MAGICS[raw[:4]]
    link_type = struct.unpack(order + "I", raw[20:24])[0]
    packets, at = [], 24
    while at < len(raw):
        if at + 16 > len(raw):
            raise ValueError(f"torn record header at {at}")
        sec, frac, caplen, length = struct.unpack(order + "IIII", raw[at:at + 16])
        at += 16
        if at + caplen > len(raw):
            raise ValueError(f"torn record at {at}")
        time = sec * 10**9 + (frac if nano else frac * 1000)
        packets.append(Packet(time, length, raw[at:at + caplen]))
        at += caplen
    return Capture(link_type, nano, packets)


def read(path):
    with open(path, "rb") as f:
        return parse(f.read())


def write(path, packets, link_type=1):
    with open(path, "wb") as f:
        f.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, link_type))
        for i, p in enumerate(packets):
            data = p if isinstance(p, bytes) else p.data
            length = len(data) if isinstance(p, bytes) else p.len
            f.write(struct.pack("<IIII", 1 + i // 1000, i % 1000 * 10**6, len(data), length))
            f.write(data)


def compare(want, got):
    """(missing, extra, out of order) of two lists of bytes."""
    missing, extra = Counter(want) - Counter(got), Counter(got) - Counter(want)
    m, x = sum(missing.values()), sum(extra.values())
    disorder = sum(a != b for a, b in zip(want, got)) if not m and not x else 0
    return m, x, disorder
