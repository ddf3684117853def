#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The hooks leave the host's traffic, other programs and, after kill -9, the host alone;
and super-packets, jumbo frames and VLAN tags come out of them whole."""
import contextlib
import json
import os
import signal
import socket
import time

import harness
import pcap
import tcp
import tcprog
import traffic
from harness import run

HERE, THERE, PORT = "192.0.2.2", "192.0.2.1", 5001
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
        if seen_by_agent < 40:
            agent.wait_for(r'another TCX program \(id \d+\) runs first on ingress of ps1: packets')
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


def a_transfer_is_whole(lab, mtu, on):
    tcp.connect(lab, mtu=mtu)
    tcp.offload(lab, on)
    collector, agent = lab.collector(), lab.agent(WHOLE)
    data = tcp.transfer(lab)
    assert agent.stop() == 0
    assert collector.stop() == 0
    packets = pcap.read(lab.path("dump.pcap")).packets
    assert tcp.reassembled([p.data for p in packets], len(data)) == data
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
    tcp.offload(lab, True)
    collector = lab.collector()
    whole = lab.agent(WHOLE, name="whole", output=lab.path("whole.pcap"))
    cut = lab.agent("inputPacketLen: 100\n", name="cut")
    tcp.transfer(lab)
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


def a_process_that_stood_still_does_not_call_itself_complete(lab):
    """Its filter outlives it, so it lets packets pass when the heart has not beaten for 10 s."""
    collector, agent = lab.collector(), lab.agent()
    if mode(agent) != "clsact":
        raise harness.Skip("hooks end with the process here")
    assert lab.blast(10) == 10
    harness.wait_until("10 packets", lambda: agent.snapshot()["captured"] == 10)
    agent.signal(signal.SIGSTOP)
    time.sleep(11)
    assert lab.blast(5) == 5
    agent.signal(signal.SIGCONT)
    agent.wait_for("stood still for more than 10 s")
    assert lab.blast(10) == 10
    assert agent.stop() == 0 and collector.stop() == 0
    assert agent.total("seen", direction="ingress") == 20
    for ledger in agent.ledgers() + collector.ledgers():
        assert ledger["verdict"] == "unknown" and ledger["unknown_after"], ledger
    assert "stood still for more than 10 s" in collector.text()


def take_hooks_away(lab, agent):
    if mode(agent) == "clsact":
        run("tc", "-n", lab.rx, "qdisc", "del", "dev", "ps1", "clsact")
        return
    # Both, before it attaches others.
    agent.freeze()
    folder = f"/proc/{agent.pid}/fdinfo"
    for fd in os.listdir(folder):
        with open(os.path.join(folder, fd)) as f:
            info = dict(line.split(":", 1) for line in f.read().splitlines() if ":" in line)
        if info.get("link_type", "").strip() == "tcx":
            tcprog.detach_link(int(info["link_id"]))
    agent.signal(signal.SIGCONT)


def hooks_that_somebody_takes_away_come_back_and_what_was_missed_is_unknown(lab):
    collector, agent = lab.collector(), lab.agent()
    assert lab.blast(10) == 10
    harness.wait_until("10 packets", lambda: agent.snapshot()["captured"] == 10)
    take_hooks_away(lab, agent)
    agent.wait_for("somebody removed the hooks")
    agent.wait_for('capturing interface "ps1"', count=2)
    assert lab.blast(10) == 10
    assert agent.stop() == 0 and collector.stop() == 0
    assert agent.total("seen", direction="ingress") == 20
    # It has come back as another one, of which nothing is missing.
    for d in (agent, collector):
        verdicts = [(x["verdict"], "unknown_after" in x) for x in d.ledgers()]
        assert sorted(verdicts) == 2 * [("complete", False)] + 2 * [("unknown", True)], verdicts
    assert "somebody removed the hooks" in collector.text()
    collector.wait_for(r"unknown between \S+ and \S+: 20 packets")


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
                  vlan_devices_show_tags_below_and_none_above,
                  hooks_that_somebody_takes_away_come_back_and_what_was_missed_is_unknown,
                  a_process_that_stood_still_does_not_call_itself_complete])
