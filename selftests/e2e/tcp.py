# SPDX-License-Identifier: Apache-2.0
"""A TCP transfer over the lab's veth: what was sent, and what a capture of it comes to."""
import hashlib
import os
import socket
import struct
import threading

import harness
from harness import run

PORT = 5001
# (that of tx, that of rx)
ADDRESSES = {socket.AF_INET: ("192.0.2.1", "192.0.2.2"),
             socket.AF_INET6: ("2001:db8::1", "2001:db8::2")}
VOLUME = 2_000_000 if harness.GUEST else 20_000_000


def connect(lab, family=socket.AF_INET, mtu=None):
    there, here = ADDRESSES[family]
    ends = ((lab.tx, "ps0", there, lab.rx, "ps1", here), (lab.rx, "ps1", here, lab.tx, "ps0", there))
    if mtu:
        for ns, dev, *_ in ends:
            run("ip", "-n", ns, "link", "set", dev, "mtu", mtu)
    if family == socket.AF_INET:
        lab.address((lab.tx, "ps0", there), (lab.rx, "ps1", here))
        return
    for ns, dev, own, peer_ns, peer_dev, peer in ends:
        run("ip", "netns", "exec", ns, "sh", "-c", f"echo 0 >/proc/sys/net/ipv6/conf/{dev}/disable_ipv6;"
            f"echo 0 >/proc/sys/net/ipv6/conf/{dev}/router_solicitations")
        run("ip", "-n", ns, "addr", "add", f"{own}/64", "dev", dev, "nodad")
        run("ip", "-n", ns, "neigh", "replace", peer, "lladdr", lab.mac(peer_ns, peer_dev),
            "dev", dev, "nud", "permanent")


def offload(lab, on):
    for ns, dev in ((lab.tx, "ps0"), (lab.rx, "ps1")):
        for feature in ("tso", "gso", "gro"):
            run("ip", "netns", "exec", ns, "ethtool", "-K", dev, feature, "on" if on else "off")


def transfer(lab, volume=VOLUME, family=socket.AF_INET):
    """From tx to rx; what was sent."""
    data, got = os.urandom(1 << 20) * (volume >> 20 or 1), []
    here = ADDRESSES[family][1]
    with harness.make_socket(lab.rx, family, socket.SOCK_STREAM) as listener, \
            harness.make_socket(lab.tx, family, socket.SOCK_STREAM) as s:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((here, PORT))
        listener.listen()

        def serve():
            with listener.accept()[0] as c:
                while block := c.recv(1 << 20):
                    got.append(block)
        server = threading.Thread(target=serve)
        server.start()
        s.connect((here, PORT))
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        server.join()
        assert s.recv(1) == b""
    assert hashlib.sha256(b"".join(got)).digest() == hashlib.sha256(data).digest()
    return data


def segment(frame):
    """(sequence number, flags, payload) of a frame of TCP to PORT, else None."""
    kind = frame[12:14]
    if kind == b"\x08\x00" and frame[23] == 6:
        at, end = 14 + 4 * (frame[14] & 15), 14 + struct.unpack_from("!H", frame, 16)[0]
    elif kind == b"\x86\xdd":
        at, end = 54, 54 + struct.unpack_from("!H", frame, 18)[0]
        # Longer than 64 KiB: some kernels put a jumbo payload option into it.
        if frame[20] == 0:
            assert frame[54] == 6 and frame[56:58] == b"\xc2\x04"
            at += 8
        elif frame[20] != 6:
            return None
    else:
        return None
    if end in (14, 54):
        # There is no padding at these sizes.
        end = len(frame)
    port, = struct.unpack_from("!H", frame, at + 2)
    seq, = struct.unpack_from("!I", frame, at + 4)
    if port != PORT:
        return None
    return seq, frame[at + 13], frame[at + 4 * (frame[at + 12] >> 4):end]


def reassembled(frames, size):
    """The stream by its sequence numbers; every byte has to be there."""
    stream, there, start = bytearray(size), bytearray(size), None
    for frame in frames:
        seg = segment(frame)
        if not seg:
            continue
        seq, flags, payload = seg
        if flags & 2:
            start = seq + 1
            continue
        to = (seq - start) & 0xFFFFFFFF
        stream[to:to + len(payload)] = payload
        there[to:to + len(payload)] = b"\1" * len(payload)
    assert len(stream) == size and there == b"\1" * size, f"{there.count(0)} bytes are missing"
    return stream


def statistics(ns, *names):
    """Counters of a namespace, as `nstat` names them."""
    out = run("ip", "netns", "exec", ns, "cat", "/proc/net/snmp", "/proc/net/netstat").stdout.decode()
    found, lines = {}, out.splitlines()
    for keys, values in zip(lines[::2], lines[1::2]):
        kind = keys.split(":")[0]
        for key, value in zip(keys.split()[1:], values.split()[1:]):
            found[kind + key] = int(value)
    return [found[name] for name in names]
