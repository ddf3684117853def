#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How much is captured: slices, samples, rate limits, budgets. Rates are measured by the packets'
own time stamps or by what passed an interface, never by how long something was waited for."""
import itertools
import os
import subprocess
import time

import checks
import harness
import pcap
import reference
import test_filter
import traffic

CPUS = os.cpu_count()
# A stamp is made a little after the limit was asked, longer when the CPU was taken away meanwhile.
LATE = 1.1


def spans(times, seconds):
    """The most packets in any so many seconds."""
    span, start, most = seconds * 10 ** 9, 0, 0
    for end, t in enumerate(times):
        while times[start] + span <= t:
            start += 1
        most = max(most, end - start + 1)
    return most


def check_limit(path, rate, interface_packets=None):
    """@rate packets a second, with a burst of 100 ms."""
    times = [p.time for p in pcap.read(path).packets]
    assert times == sorted(times)
    length = (times[-1] - times[0]) / 10 ** 9
    assert len(times) <= rate * (length + 0.1) * LATE + 2, (len(times), length)
    for seconds in (1, 2):
        most = spans(times, seconds)
        assert most <= rate * (seconds + 0.1) * LATE + 2, (seconds, most)
    return len(times), length


def limit_notes(collector):
    return [n for n in checks.told(collector, "note") if n["kind"] == "limit"]


def check_limited(agent, collector, seen):
    assert agent.stop() == 0 and collector.stop() == 0
    checks.check_complete(agent, collector)
    checks.check_same(agent, collector)
    assert agent.total("seen", direction="ingress") == seen
    assert agent.total("rate_limited") == agent.total("sampled_out") > 0


def limit_of_the_agent(lab, key, value, rate):
    collector = lab.collector()
    agent = lab.agent(f"{key}: {value}\n")
    sent = lab.blast(30 * rate, checks.SIZE, "ps0", None, 10 * rate)
    harness.wait_until("the note", lambda: limit_notes(collector))
    check_limited(agent, collector, sent)
    got, length = check_limit(lab.path("dump.pcap"), rate)
    assert got > rate * length / 2
    notes = limit_notes(collector)
    assert [(n["interface"], "takes effect" in n["text"]) for n in notes] == [("ps1", True)], notes
    print(f"# {key} {value}: {got} of {sent} packets in {length:.1f} s")


def packets_per_second_hold_under_ten_times_as_many(lab):
    limit_of_the_agent(lab, "packetsPerSecond", 500, 500)


def bits_per_second_hold_under_ten_times_as_many(lab):
    limit_of_the_agent(lab, "bitsPerSecond", f"{checks.SIZE * 8 * 500}", 500)


def interfaces_and_agent_have_limits_together(lab):
    """ps1 may have 200 packets a second, ps3 any, both together 600."""
    lab.veth(lab.rx, "ps3", lab.tx, "ps2")
    collector = lab.collector()
    agent = lab.agent("packetsPerSecond: 600\nperInterface:\n  ps1: {packetsPerSecond: 200}\n",
                      interfaces="[ps1, ps3]")
    with subprocess.Popen(["ip", "netns", "exec", lab.tx, harness.BLAST, "ps2", "18000",
                           str(checks.SIZE), "6000"], stdout=subprocess.PIPE) as other:
        sent = lab.blast(18000, checks.SIZE, "ps0", None, 6000)
        sent += int(other.communicate()[0].split()[0])
    check_limited(agent, collector, sent)
    got, length = check_limit(lab.path("dump.pcap"), 600)
    assert got > 300 * length
    assert agent.total("captured", "ps1") <= 200 * (length + 0.1) + 1
    assert agent.total("captured", "ps3") > agent.total("captured", "ps1") > 0
    assert {n["interface"] for n in limit_notes(collector)} <= {"ps1", "ps3"}


def a_limit_of_an_interface_changes_live(lab):
    agent = lab.agent("perInterface: {ps1: {packetsPerSecond: 1}}\n", output=lab.path("out.pcap"))
    lab.blast(100)
    harness.wait_until("100 packets", lambda: agent.snapshot()["seen"] == 100)
    assert agent.snapshot()["captured"] <= 3
    before = agent.snapshot()["captured"]
    test_filter.reconfigure(lab, agent, perInterface="{}")
    agent.wait_for("the configuration was read again")
    lab.blast(100)
    harness.wait_until("packets", lambda: agent.snapshot()["captured"] == before + 100)
    assert agent.stop() == 0
    checks.check_complete(agent)


class Wire:
    """A collector behind a veth of its own, and what the agent's end of that has sent."""

    def __init__(self, lab):
        there = lab.namespace(lab.tag + "c")
        lab.veth(lab.rx, "up0", there, "up1")
        lab.address((lab.rx, "up0", "198.51.100.1"), (there, "up1", "198.51.100.2"))
        lab.pki("198.51.100.2")
        self.collector = lab.collector(ns=there, host="198.51.100.2")
        self.ns, self.samples = lab.rx, []

    def sent(self):
        with harness.inside(self.ns), open("/proc/thread-self/net/dev") as f:
            return next(int(line.split()[9]) for line in f if "up0:" in line)

    def watch(self, until):
        """Look all the time: (before, bytes, after)."""
        while not until():
            before = time.monotonic()
            self.samples.append((before, self.sent(), time.monotonic()))
            time.sleep(0.02)

    def worst(self, seconds, skip):
        """The highest rate over at least so many seconds, in bits per second."""
        begin, most = self.samples[0][0] + skip, 0.0
        kept = [s for s in self.samples if s[0] >= begin]
        for a, b in itertools.combinations(kept[::5], 2):
            if seconds <= b[2] - a[0] <= 2 * seconds:
                most = max(most, 8 * (b[1] - a[1]) / (b[2] - a[0]))
        return most


def ladder(collector):
    return [n["text"] for n in checks.told(collector, "note") if n["kind"] == "degrade"]


def bandwidth_budget_holds_under_ten_times_as_much(lab):
    budget, size, seconds = 4000000, 1000, 5 if harness.GUEST else 12
    pps = 10 * budget // 8 // size
    wire = Wire(lab)
    agent = lab.agent(f"bandwidthBudget: {budget // 1000000}Mbit\nqueueSize: 4MB\n",
                      host="198.51.100.2")
    agent.wait_for("connected to the collector")
    with subprocess.Popen(["ip", "netns", "exec", lab.tx, harness.BLAST, "ps0",
                           str(pps * seconds), str(size), str(pps), "1", "noise", "500"],
                          stdout=subprocess.PIPE) as blast:
        wire.watch(lambda: blast.poll() is not None)
        sent = int(blast.communicate()[0].split()[0])
    down = agent.wait_for("to stay inside the budget, .*")
    agent.wait_for(r"captured from now on: whole packets \(step 0 of 12\)$", 60)
    assert agent.stop() == 0 and wire.collector.stop() == 0
    checks.check_complete(agent, wire.collector)
    checks.check_same(agent, wire.collector)
    assert agent.total("seen", direction="ingress") == sent
    sliced, out = agent.total("sliced"), agent.total("sampled_out")
    assert sliced > 0 and out > 0
    worst = {n: wire.worst(n, 1) / budget for n in (1, 3)}
    assert max(worst.values()) <= 1.05, worst
    told = ladder(wire.collector)
    assert down and "whole packets" in told[-1] and "headers" in "".join(told), told
    print(f"# {sent} packets offered, {agent.total('captured')} captured, {sliced} of them sliced; "
          + ", ".join(f"at most {100 * w:.0f} % of the budget in {n} s" for n, w in worst.items()))
    for text in told:
        print(f"# {text}")


def cpu_of(daemon):
    """Seconds, of all its threads."""
    with open(f"/proc/{daemon.pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def share_of_cpu(agent, seconds):
    """Of one CPU, over so many seconds."""
    start, before = time.monotonic(), cpu_of(agent)
    harness.wait_until("time to pass", lambda: time.monotonic() - start >= seconds, 2 * seconds)
    return (cpu_of(agent) - before) / (time.monotonic() - start)


def cpu_budget_holds_at_full_speed(lab):
    """First without, then with a tenth of what it took: the budget can be changed live."""
    collector = lab.collector()
    agent = lab.agent("cpuBudget: 10000%\nqueueSize: 512MB\nringSize: 128MB\n")
    agent.wait_for("connected to the collector")
    with subprocess.Popen(["ip", "netns", "exec", lab.tx, harness.BLAST, "ps0", str(10 ** 9),
                           "1400", "0", "1", "noise", "500"], stdout=subprocess.PIPE) as blast:
        free = share_of_cpu(agent, 3)
        budget = max(2, round(10 * free))
        test_filter.reconfigure(lab, agent, cpuBudget=f"{budget}%")
        agent.wait_for("the configuration was read again")
        first = share_of_cpu(agent, 1.5)
        # What was captured without it has to be sent all the same.
        harness.wait_until("the backlog to be away", lambda: agent.snapshot()["in_flight"] < 10000, 30)
        # Without one it may have been too much for agent or collector.
        lost = agent.snapshot()
        # The hooks count too, so that the process has less than all of it.
        with_budget = share_of_cpu(agent, 10)
        blast.terminate()
        sent = int(blast.communicate()[0].split()[0])
    test_filter.reconfigure(lab, agent, cpuBudget="10000%")
    agent.wait_for("the configuration was read again", count=2)
    assert agent.stop() == 0 and collector.stop() == 0
    checks.check_sums(agent, collector)
    checks.check_same(agent, collector)
    assert agent.total("seen", direction="ingress") == sent
    for counter in ("lost_ring", "lost_queue", "lost_error"):
        assert agent.total(counter) == lost[counter], counter
    told = ladder(collector)
    print(f"# without {100 * free:.1f} % of a CPU; budget {budget} %: {100 * first:.1f} % in its "
          f"first 1.5 s, then {100 * with_budget:.1f} % over 10 s; {sent} packets, "
          f"{agent.total('captured')} captured, {agent.total('sliced')} sliced")
    for text in told:
        print(f"# {text}")
    # In ticks of 10 ms.
    assert with_budget <= 1.1 * budget / 100 + 0.002, with_budget
    if 100 * free > 2 * budget:
        assert told and agent.total("sampled_out") + agent.total("sliced") > 0


def header_end(data):
    """Where layer 4 begins in a plain IPv4 or IPv6 packet, and its protocol; None: ask others."""
    at = 14
    while data[at - 2:at] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    if data[at - 2:at] == b"\x08\x00" and len(data) >= at + 20 and data[at] >> 4 == 4:
        size = (data[at] & 15) * 4
        if size >= 20 and not int.from_bytes(data[at + 6:at + 8], "big") & 0x3FFF:
            return at + size, data[at + 9]
    if data[at - 2:at] == b"\x86\xdd" and len(data) >= at + 40 and data[at] >> 4 == 6:
        return at + 40, data[at + 6]
    return None


def slice_of(data, text):
    """How much is kept; None: not one of the plain ones."""
    if text.isdigit():
        return min(int(text), len(data))
    more, found = int(text[3:]) if text.startswith("l4+") else 0, header_end(data)
    if not found or found[1] not in (6, 17):
        return None
    at, proto = found
    if proto == 6 and len(data) < at + 13:
        return None
    return min(at + (max(20, (data[at + 12] >> 4) * 4) if proto == 6 else 8) + more, len(data))


def slices_are_prefixes(lab, slices, backend):
    """As many agents as slices, at the same time."""
    packets = [p for p in traffic.generated() if traffic.sendable(p)] + traffic.captured()
    pcap.write(lab.path("in.pcap"), packets)
    agents = [lab.agent(f"slice: {s}\nringSize: 8MB\ninputPacketLen: 1000\n{backend}\n",
                        name=f"agent{i}", output=lab.path(f"out{i}.pcap"))
              for i, s in enumerate(slices)]
    lab.replay(lab.path("in.pcap"), test_filter.PPS)
    for agent in agents:
        assert agent.stop() == 0
    checks.check_complete(*agents)
    for i, (text, agent) in enumerate(zip(slices, agents)):
        got, known, cut = pcap.read(lab.path(f"out{i}.pcap")).packets, 0, 0
        assert len(got) == len(packets), (text, len(got))
        for want, p in zip(packets, got):
            assert p.len == len(want) and p.data == want[:len(p.data)], text
            keep = slice_of(want, text)
            cut += len(p.data) < min(len(want), 1000)
            if keep is not None:
                known += 1
                assert len(p.data) == min(keep, 1000), (text, want.hex(), len(p.data))
        assert agent.total("sliced") == cut > 0
        assert known > 50
        print(f"# {text}: {cut} of {len(got)} packets cut, the length of {known} computed")


def slices_are_prefixes_of_what_was_sent(lab):
    slices_are_prefixes(lab, ["headers", "l4+16", "14", "200"], "backend: tc")


def slices_by_xdp_are_too(lab):
    slices_are_prefixes(lab, ["headers"], "backend: xdp")


def slices_by_the_pcap_back_end_are_too(lab):
    slices_are_prefixes(lab, ["headers", "l4+16"], "backend: pcap")


def samples_of_packets_and_of_flows(lab):
    packets = [p for p in traffic.generated() if traffic.sendable(p)] + traffic.captured()
    pcap.write(lab.path("in.pcap"), packets)
    agents = [lab.agent(f"{key}: {n}\nringSize: 8MB\n", name=key,
                        output=lab.path(f"{key}.pcap"))
              for key, n in (("sample", 7), ("sampleFlows", 3))]
    lab.replay(lab.path("in.pcap"), test_filter.PPS)
    for agent in agents:
        assert agent.stop() == 0
        assert agent.total("captured") + agent.total("sampled_out") == agent.total("seen")
        assert agent.total("rate_limited") == 0
    checks.check_complete(*agents)
    got = [p.data for p in pcap.read(lab.path("sample.pcap")).packets]
    assert pcap.compare(packets, got)[1] == 0
    assert len(packets) / 7 <= len(got) <= len(packets) / 7 + CPUS, (len(packets), len(got))

    kept = [p.data for p in pcap.read(lab.path("sampleFlows.pcap")).packets]
    assert pcap.compare(packets, kept)[1] == 0
    flows, whole, ports = {}, {}, reference.Ports()
    for data in packets:
        found = header_end(data)
        if found and found[1] in (6, 17) and ports.of(data):
            at, proto = found
            size = 4 if data[at - 20] >> 4 == 4 else 16
            ends = {data[at - 2 * size:at - size] + data[at:at + 2],
                    data[at - size:at] + data[at + 2:at + 4]}
            flows[data] = (proto, frozenset(ends))
    # Equal packets are of one flow, so a packet says which.
    kept = set(kept)
    for data, flow in flows.items():
        whole.setdefault(flow, set()).add(data in kept)
    assert all(len(w) == 1 for w in whole.values()), "a flow was taken in part"
    taken = sum(True in w for w in whole.values())
    print(f"# {len(got)} of {len(packets)} packets; {taken} of {len(whole)} flows")
    assert 0 < taken < len(whole)


if __name__ == "__main__":
    harness.main([slices_are_prefixes_of_what_was_sent,
                  slices_by_xdp_are_too,
                  slices_by_the_pcap_back_end_are_too,
                  samples_of_packets_and_of_flows,
                  packets_per_second_hold_under_ten_times_as_many,
                  bits_per_second_hold_under_ten_times_as_many,
                  interfaces_and_agent_have_limits_together,
                  a_limit_of_an_interface_changes_live,
                  bandwidth_budget_holds_under_ten_times_as_much,
                  cpu_budget_holds_at_full_speed])
