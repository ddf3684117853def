#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The hooks leave the host's traffic, other programs and, after kill -9, the host alone;
and super-packets, jumbo frames and VLAN tags come out of them whole."""
import contextlib
import hashlib
import json
import os
import socket
import struct
import threading

import harness
import pcap
import tcprog
import traffic
from harness import run

HERE, THERE, PORT = "192.0.2.2", "192.0.2.1", 5001
VOLUME = 2_000_000 if harness.GUEST else 20_000_000
WHOLE = "inputPacketLen: 262144\nringSize: 64MB\n"


def mode(agent):
    """tcx or clsact, as the agent says."""
    return agent.wait_for(r"ready: capturing \d+ interfaces by (\w+)")[0]


def ifindex(lab, dev="ps1"):
    return json.loads(run("ip", "-n", lab.rx, "-j", "link", "show", dev).stdout)[0]["ifindex"]


def our_filters(lab, direction):
    """Their programs' numbers."""
    out = run("tc", "-n", lab.rx, "-j", "filter", "show", "dev", "ps1", direction, check=False).stdout
    options = [f["options"] for f in json.loads(out or b"[]") if "options" in f]
    return [o["prog"]["id"] for o in options if o.get("bpf_name", "").startswith("ps_tc_")]


def filters(lab):
    return [our_filters(lab, direction) for direction in ("ingress", "egress")]


def tcx_programs(lab):
    index = ifindex(lab)
    with harness.inside(lab.rx):
        return [tcprog.tcx_count(index, where) for where in (tcprog.TCX_INGRESS, tcprog.TCX_EGRESS)]


def seen_by_leftover(lab):
    """The counters of the program that is still attached."""
    prog, = our_filters(lab, "ingress")
    ids = json.loads(run("bpftool", "-j", "prog", "show", "id", prog).stdout)["map_ids"]
    maps = [json.loads(run("bpftool", "-j", "map", "show", "id", i).stdout) for i in ids]
    counters = next(m["id"] for m in maps if m.get("name") == "counters")
    return run("bpftool", "map", "lookup", "id", counters, "key", *"0 0 0 0".split()).stdout


def nothing_works_on_after_kill_9(lab):
    collector, agent = lab.collector(), lab.agent()
    how = mode(agent)
    lab.blast(100)
    harness.wait_until("the packets to be committed", lambda: agent.snapshot()["committed"] == 100)
    agent.kill()
    if how == "tcx":
        harness.wait_until("the links to be gone", lambda: tcx_programs(lab) == [0, 0])
    else:
        left = filters(lab)
        assert list(map(len, left)) == [1, 1], left

        def inert():
            before = seen_by_leftover(lab)
            lab.blast(10)
            return before == seen_by_leftover(lab)
        harness.wait_until("the filter to go inert", inert, 30)
    again = lab.agent(name="again")
    if how == "tcx":
        assert tcx_programs(lab) == [1, 1]
    else:
        now = filters(lab)
        assert list(map(len, now)) == [1, 1] and now[0] != left[0] and now[1] != left[1], now
    assert lab.blast(50) == 50
    assert again.stop() == 0
    assert collector.stop() == 0
    assert again.total("captured", "ps1", "ingress") == 50
    assert tcx_programs(lab) == [0, 0] if how == "tcx" else filters(lab) == [[], []]
    assert len(pcap.read(lab.path("dump.pcap")).packets) == 150
    verdicts = {(x["agent"], x["verdict"]) for x in collector.ledgers()}
    assert verdicts == {("agent", "unknown"), ("again", "complete")}, verdicts


def connected(lab):
    lab.address((lab.tx, "ps0", THERE), (lab.rx, "ps1", HERE))


def receive(s, arrived):
    with contextlib.suppress(BlockingIOError):
        while True:
            arrived[s.recv(100)[0]] += 1


def datagrams(lab, n=20):
    """Send n that others drop and n that they let pass; how many arrived of each."""
    arrived = [0, 0]
    with harness.make_socket(lab.rx, socket.AF_INET, socket.SOCK_DGRAM) as to, \
            harness.make_socket(lab.tx, socket.AF_INET, socket.SOCK_DGRAM) as s:
        to.bind((HERE, PORT))
        to.setblocking(False)
        for i in range(2 * n):
            s.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0 if i % 2 else tcprog.DROPPED_TOS)
            s.sendto(bytes([i % 2]) * 50, (HERE, PORT))

        def last_is_there():
            receive(to, arrived)
            return arrived[1] >= n
        harness.wait_until("the datagrams", last_is_there, 5)
    return arrived


@contextlib.contextmanager
def other_filter(lab, prog, pref):
    """As a clsact filter."""
    folder = lab.path("bpffs")
    os.makedirs(folder, exist_ok=True)
    run("mount", "-t", "bpf", "bpf", folder)
    try:
        prog.pin(os.path.join(folder, "other"))
        run("tc", "-n", lab.rx, "qdisc", "add", "dev", "ps1", "clsact", check=False)
        run("tc", "-n", lab.rx, "filter", "add", "dev", "ps1", "ingress", "pref", pref, "bpf", "da",
            "object-pinned", os.path.join(folder, "other"))
        yield
    finally:
        run("umount", folder)


def beside(lab, agent, other, seen):
    """With the agent at work the other program sees all 40, its verdict counts, and the
    agent gets @seen of them."""
    before, was = other.count(), agent.snapshot()["captured"]
    assert datagrams(lab) == [0, 20]
    assert other.count() - before == 40
    harness.wait_until(f"{seen} captured packets",
                       lambda: agent.snapshot()["captured"] - was == seen, 5)


def other_programs_keep_working(lab, attach, seen_by_agent, verdict, first):
    connected(lab)
    collector = lab.collector()
    other = tcprog.Program(verdict)
    with contextlib.ExitStack() as stack:
        stack.callback(other.close)
        if first:
            attach(stack, other)
        agent = lab.agent()
        if not first:
            attach(stack, other)
        beside(lab, agent, other, seen_by_agent)
        assert agent.stop() == 0
        before = other.count()
        assert datagrams(lab) == [0, 20]
        assert other.count() - before == 40
    assert collector.stop() == 0


def by_tcx(lab, flags):
    def attach(_, other):
        index = ifindex(lab)
        with harness.inside(lab.rx):
            try:
                other.attach_tcx(index, flags)
            except OSError as e:
                raise harness.Skip(f"no TCX: {e}") from e
    return attach


def by_clsact(lab, pref):
    return lambda stack, other: stack.enter_context(other_filter(lab, other, pref))


def a_tcx_program_that_was_there_before_works_on(lab):
    other_programs_keep_working(lab, by_tcx(lab, tcprog.AFTER), 40, 0, True)


def a_tcx_program_that_comes_later_works_too(lab):
    other_programs_keep_working(lab, by_tcx(lab, tcprog.AFTER), 40, 0, False)


def a_tcx_program_ahead_of_ours_decides_first(lab):
    other_programs_keep_working(lab, by_tcx(lab, tcprog.BEFORE), 20, -1, False)


def a_filter_that_was_there_before_works_on(lab):
    other_programs_keep_working(lab, by_clsact(lab, 60000), 40, 0, True)


def a_filter_that_comes_later_works_too(lab):
    other_programs_keep_working(lab, by_clsact(lab, 60000), 40, 0, False)


def transfer(lab, volume=VOLUME):
    """From tx to rx over TCP; what was sent."""
    data, got = os.urandom(1 << 20) * (volume >> 20 or 1), []
    with harness.make_socket(lab.rx, socket.AF_INET, socket.SOCK_STREAM) as listener, \
            harness.make_socket(lab.tx, socket.AF_INET, socket.SOCK_STREAM) as s:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HERE, PORT))
        listener.listen()

        def serve():
            with listener.accept()[0] as c:
                while block := c.recv(1 << 20):
                    got.append(block)
        server = threading.Thread(target=serve)
        server.start()
        s.connect((HERE, PORT))
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        server.join()
        assert s.recv(1) == b""
    assert hashlib.sha256(b"".join(got)).digest() == hashlib.sha256(data).digest()
    return data


def reassembled(packets, size):
    """The stream to PORT by its sequence numbers; every byte has to be there."""
    stream, there, start = bytearray(size), bytearray(size), None
    for p in packets:
        f = p.data
        if f[12:14] != b"\x08\x00" or f[23] != 6:
            continue
        at = 14 + 4 * (f[14] & 15)
        dport, seq, flags = struct.unpack_from("!H", f, at + 2)[0], \
            struct.unpack_from("!I", f, at + 4)[0], f[at + 13]
        if dport != PORT:
            continue
        if flags & 2:
            start = seq + 1
            continue
        # In a super-packet above 64 KiB the IP length is 0; there is no padding at these sizes.
        length = struct.unpack_from("!H", f, 16)[0] or len(f) - 14
        payload = f[at + 4 * (f[at + 12] >> 4):14 + length]
        to = (seq - start) & 0xFFFFFFFF
        stream[to:to + len(payload)] = payload
        there[to:to + len(payload)] = b"\1" * len(payload)
    assert len(stream) == size and there == b"\1" * size, f"{there.count(0)} bytes are missing"
    return stream


def offload(lab, on):
    for ns, dev in ((lab.tx, "ps0"), (lab.rx, "ps1")):
        for feature in ("tso", "gso", "gro"):
            run("ip", "netns", "exec", ns, "ethtool", "-K", dev, feature, "on" if on else "off")


def a_transfer_is_whole(lab, mtu, on):
    connected(lab)
    for ns, dev in ((lab.tx, "ps0"), (lab.rx, "ps1")):
        run("ip", "-n", ns, "link", "set", dev, "mtu", mtu)
    offload(lab, on)
    collector, agent = lab.collector(), lab.agent(WHOLE)
    data = transfer(lab)
    assert agent.stop() == 0
    assert collector.stop() == 0
    packets = pcap.read(lab.path("dump.pcap")).packets
    assert reassembled(packets, len(data)) == data
    assert all(p.len == len(p.data) for p in packets)
    longest = max(p.len for p in packets)
    assert longest > max(mtu + 14, 9014) if on else longest == mtu + 14, longest
    for d in (agent, collector):
        assert {x["verdict"] for x in d.ledgers()} == {"complete"}, d.ledgers()
        assert d.total("captured") == d.total("seen") == len(packets)
        assert d.total("captured_bytes") == sum(p.len for p in packets)
    print(f"# {len(packets)} packets, the longest of {longest} bytes")


def super_packets_are_captured_whole(lab):
    a_transfer_is_whole(lab, 1500, True)


def packets_without_offloads_are_captured_whole(lab):
    a_transfer_is_whole(lab, 1500, False)


def jumbo_frames_are_captured_whole(lab):
    a_transfer_is_whole(lab, 9000, False)


def what_is_cut_off_is_still_counted_in_the_length(lab):
    connected(lab)
    offload(lab, True)
    collector = lab.collector()
    whole = lab.agent(WHOLE, name="whole", output=lab.path("whole.pcap"))
    cut = lab.agent("inputPacketLen: 100\n", name="cut")
    transfer(lab)
    for d in (cut, whole, collector):
        assert d.stop() == 0
    full = pcap.read(lab.path("whole.pcap")).packets
    short = pcap.read(lab.path("dump.pcap")).packets
    assert max(p.len for p in full) > 9014
    assert sorted((p.len, p.data[:100]) for p in full) == sorted((p.len, p.data) for p in short)


def tagged_frames_that_leave_have_their_tags(lab):
    """Out of rx: tags in the data and, with VLAN devices, in the metadata."""
    frames = [traffic.ether(0x0800, traffic.ipv4(17, traffic.l4(1, i)), tags)
              for i, tags in enumerate([(), ((0x8100, 5),), ((0x88A8, 7), (0x8100, 9)),
                                        ((0x8100, 0x6005),), ((0x8100, 1), (0x8100, 2))] * 10)]
    collector, agent = lab.collector(), lab.agent()
    with harness.make_socket(lab.rx, socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind(("ps1", 0))
        for f in frames:
            s.send(f)
    assert agent.stop() == 0
    assert collector.stop() == 0
    got = pcap.read(lab.path("dump.pcap")).packets
    assert [p.data for p in got] == frames
    assert all(p.len == len(p.data) for p in got)
    assert agent.total("captured", "ps1", "egress") == len(frames)


def vlan_devices_show_tags_below_and_none_above(lab):
    for ns, dev in ((lab.tx, "ps0"), (lab.rx, "ps1")):
        done = run("ip", "-n", ns, "link", "add", "link", dev, "name", "vl5", "type", "vlan", "id", "5",
                   check=False)
        if done.returncode:
            raise harness.Skip("this kernel has no VLAN devices")
        lab.quiet(ns, "vl5")
    plain = [traffic.ether(0x0800, traffic.ipv4(17, traffic.l4(1, i))) for i in range(20)]
    tagged = [f[:12] + b"\x81\x00\x00\x05" + f[12:] for f in plain]
    collector, agent = lab.collector(), lab.agent(interfaces="[ps1, vl5]")
    for ns in (lab.tx, lab.rx):
        with harness.make_socket(ns, socket.AF_PACKET, socket.SOCK_RAW) as s:
            s.bind(("vl5", 0))
            for f in plain:
                s.send(f)
    assert agent.stop() == 0
    assert collector.stop() == 0
    got = [p.data for p in pcap.read(lab.path("dump.pcap")).packets]
    assert pcap.compare(2 * plain + 2 * tagged, got)[:2] == (0, 0)
    for dev, size in (("ps1", len(tagged[0])), ("vl5", len(plain[0]))):
        for direction in ("ingress", "egress"):
            assert agent.total("captured", dev, direction) == 20
            assert agent.total("captured_bytes", dev, direction) == 20 * size


if __name__ == "__main__":
    harness.main([nothing_works_on_after_kill_9,
                  a_tcx_program_that_was_there_before_works_on,
                  a_tcx_program_that_comes_later_works_too,
                  a_tcx_program_ahead_of_ours_decides_first,
                  a_filter_that_was_there_before_works_on,
                  a_filter_that_comes_later_works_too,
                  super_packets_are_captured_whole,
                  packets_without_offloads_are_captured_whole,
                  jumbo_frames_are_captured_whole,
                  what_is_cut_off_is_still_counted_in_the_length,
                  tagged_frames_that_leave_have_their_tags,
                  vlan_devices_show_tags_below_and_none_above])
