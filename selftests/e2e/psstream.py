# SPDX-License-Identifier: Apache-2.0
"""ps-stream(7) from the manual page, for tests: made here without the code under test."""
import struct
import zlib

HELLO, WELCOME, ERROR, META, DATA, GAP, STATS, ACK, PING, PONG, BYE = range(1, 12)
NOTE = 14
HEADER = 32
LINK_ETHERNET, LINK_RAW = 1, 101
NUMBERED = (META, DATA, GAP, STATS, NOTE)


def header(kind, payload_len, payload_crc, seq=0, flags=0, raw_len=0, version=1, magic=b"PS"):
    head = magic + struct.pack("<BBHHIIQI", version, kind, flags, 0, payload_len, raw_len, seq,
                               payload_crc)
    return head + struct.pack("<I", zlib.crc32(head))


def message(kind, payload=b"", **fields):
    return header(kind, len(payload), zlib.crc32(payload), **fields) + payload


def field(number, value):
    return struct.pack("<HH", number, len(value)) + value


def u32(number, value):
    return field(number, struct.pack("<I", value))


def u64(number, value):
    return field(number, struct.pack("<Q", value))


def interface(ident, name=b"eth0", link_type=LINK_ETHERNET, snaplen=65535, gone=0):
    return (u32(1, ident) + u32(2, ident + 1) + u64(3, 1) + u32(4, link_type) + u32(5, snaplen) +
            u32(6, 1000) + field(7, bytes(6)) + field(8, bytes([gone])) + field(9, name))


def hello(agent_id, epoch=1, first=1, following=1, name=b"guest", interfaces=()):
    return message(HELLO, field(1, agent_id) + field(2, bytes(16)) + u64(3, epoch) + u64(4, first) +
                   u64(5, following) + u64(6, 1) + u64(7, 1) + field(8, name) + field(9, b"0") +
                   b"".join(field(64, i) for i in interfaces))


def meta(seq, *args, more=b"", **kw):
    return message(META, interface(*args, **kw) + more, seq=seq)


def how_captured(hook=b"tcx", netns=b"blue", text=b"tcp port 443"):
    """META's optional fields."""
    return field(14, hook) + field(15, netns) + field(16, text)


def note(seq, text, kind=1, iface=None):
    about = b"" if iface is None else u32(4, iface)
    return message(NOTE, u64(1, 10**18) + field(2, bytes([kind])) + field(3, text) + about, seq=seq)


def offload(gso_size=1448, gso_segs=45, csum=2, pen=32473, version=1):
    """The option that a block may have."""
    return struct.pack("<HHIHHBBH", 2989, 12, pen, gso_size, gso_segs, csum, version, 0)


def block(ident, data, time=10**18, length=None, direction=1, option=b""):
    pad = -len(data) % 4
    total = 32 + len(data) + pad + len(option) + 12
    return struct.pack("<IIIIIII", 6, total, ident, time >> 32, time & 0xffffffff, len(data),
                       len(data) if length is None else length) + data + bytes(pad) + option + \
        struct.pack("<HHIII", 2, 4, direction, 0, total)


def gzipped(raw, level=1):
    c = zlib.compressobj(level, zlib.DEFLATED, 31)
    return c.compress(raw) + c.flush()


def data_head(packets, wire_bytes, first_iface=0, last_iface=0):
    return struct.pack("<IIQQIB3xQ", first_iface, last_iface, 10**18, 10**18, packets, 1,
                       wire_bytes)


def data(seq, raw, packets, wire_bytes, body=None, raw_len=None):
    payload = data_head(packets, wire_bytes) + (gzipped(raw) if body is None else body)
    return message(DATA, payload, seq=seq, raw_len=len(raw) if raw_len is None else raw_len)


def gap(seq, last, parts=()):
    return message(GAP, u64(1, seq) + u64(2, last) + u32(3, 1) + b"".join(
        field(64, u32(1, i) + field(2, bytes([d])) + u64(3, 1) + u64(4, 2) + u64(5, p) + u64(6, b))
        for i, d, p, b in parts), seq=seq)


def stats(seq, parts=()):
    return message(STATS, u64(1, 1) + b"".join(
        field(64, u32(1, i) + field(2, bytes([d])) + b"".join(
            field(64, struct.pack("<HQQ", *c)) for c in counters))
        for i, d, counters in parts), seq=seq)


def welcome(resume=1, credit=1 << 22, heartbeat_ms=10000):
    return message(WELCOME, u64(1, 1) + u64(2, resume) + u64(3, credit) + u32(4, 4 << 20) +
                   u32(5, 4 << 20) + u32(6, heartbeat_ms) + u64(7, 1))


def ack(written, credit=0, durable=0):
    return message(ACK, u64(1, written) + u64(2, durable) + u64(3, credit))


def error(code, text, retry_after_ms=0):
    return message(ERROR, u32(1, code) + u32(2, retry_after_ms) + field(3, text))


def ping():
    return message(PING, u64(1, 1) + u64(2, 0))


def bye(last):
    return message(BYE, u32(1, 1) + u64(2, last))


def parse(raw):
    """The (type, payload) of each whole message."""
    out = []
    while len(raw) >= HEADER:
        kind, size = raw[3], struct.unpack("<I", raw[8:12])[0]
        if raw[:2] != b"PS" or len(raw) < HEADER + size:
            break
        out.append((kind, raw[HEADER:HEADER + size]))
        raw = raw[HEADER + size:]
    return out


def fields(payload):
    out, at = {}, 0
    while at < len(payload):
        number, size = struct.unpack("<HH", payload[at:at + 4])
        out[number] = payload[at + 4:at + 4 + size]
        at += 4 + size
    return out
