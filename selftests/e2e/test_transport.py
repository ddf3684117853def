#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Collectors that come, go, hang and run out of disk: what was captured is in the files
once, or in the ledger as lost, to the packet."""
import contextlib
import hashlib
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import threading
import time

import harness
import pcap
from checks import (AFTER_HOOK, AFTER_RING, SIZE, check_complete, check_notes, check_once_each,
                    check_same, check_sums, numbers, records, told, traffic, wait_records)

GUEST = bool(os.environ.get("PS_GUEST"))
PLAIN = "tls:\n  enable: false\n"
def sha256(path, size=-1):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read(size)).hexdigest()


# Collectors that come and go.

def packets_wait_for_a_collector_that_comes_late(lab):
    agent = lab.agent()
    agent.wait_for("Connection refused")
    assert lab.blast(5000) == 5000
    collector = lab.collector()
    wait_records(lab.path("dump.pcap"), 5000)
    assert agent.stop() == 0 and collector.stop() == 0
    check_once_each(numbers(lab.path("dump.pcap")), 5000)
    check_complete(agent, collector)
    check_same(agent, collector)
    assert len(re.findall("no connection to the collector", agent.text())) == 1
    check_notes(collector)
    assert {x["interface"] for x in told(collector, "interface")} >= {"ps1"}


def an_agent_that_stops_waits_for_a_collector(lab):
    agent = lab.agent()
    # Long enough for pauses between attempts that are longer than what is left.
    agent.wait_for("Connection refused")
    time.sleep(3)
    assert lab.blast(100) == 100
    agent.signal(signal.SIGTERM)
    agent.wait_for(" stopping$")
    collector = lab.collector()
    begin = time.monotonic()
    assert agent.proc.wait(20 * harness.PATIENCE) == 0
    assert time.monotonic() - begin < 2.5 * harness.PATIENCE
    assert collector.stop() == 0
    check_once_each(numbers(lab.path("dump.pcap")), 100)
    check_complete(agent, collector)


def a_collector_restarted_under_traffic_loses_and_repeats_nothing(lab):
    """The file goes on where the collector before had stopped, byte for byte."""
    count, path = 40000, lab.path("dump.pcap")
    collector, agent = lab.collector(), lab.agent()
    with traffic(lab, count, 8000):
        for n in range(3):
            wait_records(path, 2000 * (n + 1))
            assert collector.stop() == 0
            size, before = os.path.getsize(path), sha256(path)
            collector = lab.collector()
            assert sha256(path, size) == before
    assert agent.stop() == 0 and collector.stop() == 0
    check_once_each(numbers(path), count)
    assert not os.path.exists(lab.path("dump.1.pcap"))
    check_complete(agent, collector)
    check_same(agent, collector)


def a_collector_killed_under_traffic_loses_and_repeats_nothing(lab):
    count, path = 30000, lab.path("dump.pcap")
    collector, agent = lab.collector(), lab.agent()
    with traffic(lab, count, 8000):
        for n in range(3):
            wait_records(path, 3000 * (n + 1))
            collector.kill()
            collector = lab.collector()
    assert agent.stop() == 0 and collector.stop() == 0
    check_once_each(numbers(path), count)
    assert not os.path.exists(lab.path("dump.1.pcap"))
    check_complete(agent, collector)
    check_same(agent, collector)


def a_file_that_is_not_the_collectors_own_is_left_alone(lab):
    """Moved away, made anew by somebody, and again: each time the next free number."""
    path, count = lab.path("dump.pcap"), 100
    for n in range(3):
        collector, agent = lab.collector(), lab.agent()
        assert lab.blast(count) == count
        assert agent.stop() == 0 and collector.stop() == 0
        if n < 2:
            os.rename(lab.path(f"dump.{n}.pcap") if n else path, lab.path(f"moved{n}.pcap"))
            with open(path, "wb") as f:
                f.write(b"somebody else's")
    assert open(path, "rb").read() == b"somebody else's"
    for name in ("moved0", "moved1", "dump.1"):
        check_once_each(numbers(lab.path(f"{name}.pcap")), count)


class Cutter:
    """A relay that cuts each connection after so many bytes from the agent."""

    def __init__(self, lab, port, to, limits):
        self.limits, self.to, self.lab, self.cuts = list(limits), to, lab, 0
        self.listener = harness.make_socket(lab.rx, socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", port))
        self.listener.listen()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                a = self.listener.accept()[0]
                b = harness.make_socket(self.lab.rx, socket.AF_INET, socket.SOCK_STREAM)
                b.connect(("127.0.0.1", self.to))
                limit = self.limits.pop(0) if self.limits else None
                back = threading.Thread(target=self.pump, args=(b, a, None), daemon=True)
                back.start()
                self.pump(a, b, limit)
                self.cuts += limit is not None
                back.join()
                a.close()
                b.close()

    @staticmethod
    def pump(a, b, limit):
        with contextlib.suppress(OSError):
            while limit is None or limit > 0:
                data = a.recv(4096 if limit is None else min(limit, 4096))
                if not data:
                    break
                b.sendall(data)
                limit = None if limit is None else limit - len(data)
        for s in (a, b):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.close()


def connections_cut_anywhere_lose_and_repeat_nothing(lab):
    count, rng = 30000, random.Random(3)
    limits = [700, 40000] + [rng.randrange(3000, 120000) for _ in range(3)]
    relay = Cutter(lab, 8082, 8081, limits)
    collector, agent = lab.collector(), lab.agent(port=8082)
    with traffic(lab, count, 6000):
        pass
    wait_records(lab.path("dump.pcap"), count, 40)
    assert relay.cuts == len(limits), f"{relay.cuts} cuts"
    assert agent.stop() == 0 and collector.stop() == 0
    relay.close()
    check_notes(collector)
    check_once_each(numbers(lab.path("dump.pcap")), count)
    check_complete(agent, collector)
    check_same(agent, collector)


def a_collector_that_hangs_delays_and_loses_nothing(lab):
    count = 40000
    collector, agent = lab.collector(), lab.agent()
    with traffic(lab, count, 8000):
        wait_records(lab.path("dump.pcap"), 1000)
        collector.signal(signal.SIGSTOP)
        time.sleep(3)
        before = records(lab.path("dump.pcap"))
        collector.signal(signal.SIGCONT)
    assert before < count
    assert agent.stop() == 0 and collector.stop() == 0
    check_once_each(numbers(lab.path("dump.pcap")), count)
    check_complete(agent, collector)
    check_same(agent, collector)


# Losses, to the packet.

def a_queue_that_overflows_counts_what_it_loses(lab):
    size, count = 1400, 20000
    agent = lab.agent("queueSize: 4MB\n")
    # Bytes that do not shrink fill a queue.
    rng = random.Random(5)
    pcap.write(lab.path("in.pcap"), [
        bytes.fromhex("020000000001020000000002" "88b5") + rng.randbytes(size - 14)
        for _ in range(count // 4)])
    for _ in range(4):
        lab.replay(lab.path("in.pcap"), pps=20000)
    harness.wait_until("the queue to be full", lambda: "the queue is full" in agent.text())
    collector = lab.collector()
    agent.wait_for("connected to the collector")
    assert agent.stop() == 0 and collector.stop() == 0
    check_sums(agent, collector)
    check_same(agent, collector)
    total = {c: agent.total(c) for c in ("seen", "committed", "lost_queue", "lost_ring")}
    assert total["seen"] == count and total["lost_queue"] > 0 and total["committed"] > 0, total
    assert agent.total("seen_bytes") == count * size
    written = [p.data for p in pcap.read(lab.path("dump.pcap")).packets]
    assert len(written) == total["committed"] == count - total["lost_queue"] - total["lost_ring"]
    sent = [p.data for p in pcap.read(lab.path("in.pcap")).packets]
    # What is there is in order, with what was lost left out.
    at = 0
    for data in written:
        while sent[at % len(sent)] != data:
            at += 1
        at += 1
    assert at <= count, "packets are out of order"
    assert {x["verdict"] for x in agent.ledgers() + collector.ledgers() if x["lost_queue"]} \
        == {"incomplete"}
    assert agent.text().count("the queue is full") == 1
    print(f"# {total}")


def a_ring_that_overflows_counts_what_it_loses(lab):
    count = 50000
    collector, agent = lab.collector(), lab.agent("ringSize: 1MB\n")
    agent.signal(signal.SIGSTOP)
    assert lab.blast(count) == count
    agent.signal(signal.SIGCONT)
    assert lab.blast(100) == 100
    assert agent.stop() == 0 and collector.stop() == 0
    check_sums(agent, collector)
    check_same(agent, collector)
    lost, committed = agent.total("lost_ring"), agent.total("committed")
    assert lost > 0 and lost + committed == count + 100 == agent.total("seen")
    got = numbers(lab.path("dump.pcap"))
    assert len(got) == committed and got[-100:] == list(range(100))
    assert all(a < b for a, b in zip(got, got[1:-100])), "packets are twice or out of order"
    assert "incomplete" in {x["verdict"] for x in collector.ledgers()}
    print(f"# {committed} committed, {lost} lost")


def full_speed_adds_up_to_the_packet(lab):
    count = 100000 if GUEST else 1000000
    collector, agent = lab.collector(), lab.agent()
    assert lab.blast(count) == count
    assert agent.stop() == 0 and collector.stop() == 0
    check_sums(agent, collector)
    check_same(agent, collector)
    lost = {c: agent.total(c) for c in AFTER_HOOK + AFTER_RING if c.startswith("lost_")}
    committed = agent.total("committed")
    assert agent.total("seen", "ps1", "ingress") == count == committed + sum(lost.values())
    got = numbers(lab.path("dump.pcap"))
    assert len(got) == committed
    assert all(a < b for a, b in zip(got, got[1:])), "packets are twice or out of order"
    print(f"# {count} packets, {committed} committed, lost {lost}")


# More than one.

def several_agents_share_a_file(lab):
    count = 3000
    collector = lab.collector()
    agents = [lab.agent("ringSize: 8MB\n", name=f"agent-{i}") for i in range(3)]
    assert lab.blast(count) == count
    assert [a.stop() for a in agents] == [0, 0, 0] and collector.stop() == 0
    assert sorted(numbers(lab.path("dump.pcap"))) == sorted(list(range(count)) * 3)
    for a in agents:
        check_same(a, collector)
    check_complete(collector, *agents)
    assert {x["agent"] for x in collector.ledgers()} == {a.name for a in agents}
    assert collector.total("committed") == 3 * count


def sigusr1_prints_ledgers_while_running(lab):
    collector, agent = lab.collector(), lab.agent()
    assert lab.blast(100) == 100
    wait_records(lab.path("dump.pcap"), 100)
    for d in (agent, collector):
        # The agent's counters reach the collector every second.
        def counted(d=d):
            d.signal(signal.SIGUSR1)
            time.sleep(0.1)
            return d.ledgers() and d.total("committed") == 100 == d.total("seen")
        harness.wait_until(f"the ledger of {d.name}", counted)
        for x in d.ledgers():
            assert x["agent"] == "agent" and x["interface"] == "ps1"
            assert x["verdict"] == "complete" and x["direction"] in ("ingress", "egress")
            assert json.dumps(x)
        assert d.proc.poll() is None
    assert all(x["file"] == lab.path("dump.pcap") for x in collector.ledgers())
    assert lab.blast(50) == 50
    assert agent.stop() == 0 and collector.stop() == 0
    assert agent.total("committed") == 150 == collector.total("committed")


# How they end.

def status(lab, *argv):
    done = harness.run("ip", "netns", "exec", lab.rx, "timeout", "20", *argv, check=False,
                       stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout.decode()


def exit_statuses_tell_usage_from_failure(lab):
    pki = lab.pki()
    listen = "input:\n  address: 127.0.0.1\n  port: 8081\n"
    reached = lab.collector(name="reached", output=lab.path("reached.pcap"))
    for program, good in (
            (harness.AGENT, "interfaces: [ps1]\noutput:\n  server:\n    address: 127.0.0.1\n"
                            f"    port: 8081\n{lab.tls('agent')}"),
            (harness.COLLECTOR, f"{listen}output:\n  file:\n    path: {lab.path('x.pcap')}\n"
                                f"{lab.tls('collector')}")):
        config = lab.file("good.yaml", good)
        assert status(lab, program, "--help")[0] == 0
        assert status(lab, program, "--version")[0] == 0
        assert status(lab, program, "--config", config, "--check")[0] == 0
        for bad in ([], ["--nonsense"], ["--config"], ["--config", config, "surplus"],
                    ["--config", lab.path("missing.yaml")],
                    ["--config", lab.file("bad.yaml", good + "nonsense: 1\n")]):
            got, said = status(lab, program, *bad)
            assert got == 2 and said, (program, bad, got, said)
        assert re.search(r"bad\.yaml:\d+:\d+: nonsense: ", said), said
        missing = lab.file("nokey.yaml", good.replace(pki, "/nonexistent"))
        got, said = status(lab, program, "--config", missing)
        assert got == 1 and "tls.certfile" in said and said.count("\n") == 1, (got, said)
        assert status(lab, program, "--config", missing, "--check")[0] == 1
    assert not os.path.exists(lab.path("x.pcap"))
    assert reached.stop() == 0
    first = lab.collector()
    got, said = status(lab, harness.COLLECTOR, "--config", lab.file("second.yaml", (
        f"{listen}output:\n  file:\n    path: {lab.path('y.pcap')}\n{PLAIN}")))
    assert got == 1 and "Address already in use" in said, (got, said)
    assert not os.path.exists(lab.path("y.pcap"))
    got, said = status(lab, harness.COLLECTOR, "--config", lab.path("second.yaml"), "--check")
    assert got == 0 and "port 8081 (in use now" in said, (got, said)
    first.signal(signal.SIGINT)
    assert first.proc.wait(10 * harness.PATIENCE) == 0
    got, said = status(lab, harness.COLLECTOR, "--config", lab.file("nodir.yaml", (
        f"{listen}output:\n  file:\n    path: /nonexistent/y.pcap\n{PLAIN}")))
    assert got == 1 and "/nonexistent/y.pcap" in said, (got, said)
    got, said = status(lab, harness.COLLECTOR, "--config", lab.file("elsewhere.yaml", (
        f"{listen}output:\n  file:\n    path: {lab.path('y.pcap')}\n{PLAIN}").replace(
            "127.0.0.1", "203.0.113.9")), "--check")
    assert got == 1 and re.search("listen +FAILED.*203.0.113.9", said), (got, said)


def an_agent_stops_in_time_without_a_collector(lab):
    def stop(agent, why):
        assert lab.blast(10) == 10
        begin = time.monotonic()
        assert agent.stop() == 0
        took = time.monotonic() - begin
        print(f"# {why}: stopped after {took:.1f} s")
        assert took < 1 + 1.5 * harness.PATIENCE, why
        assert agent.total("committed") + agent.total("in_flight") == agent.total("captured")
        assert "has not acknowledged everything" in agent.text()

    agent = lab.agent("shutdownTimeout: 1s\n")
    agent.wait_for("Connection refused")
    stop(agent, "nobody listens")

    collector, agent = lab.collector(), lab.agent("shutdownTimeout: 1s\n")
    agent.wait_for("connected to the collector")
    collector.signal(signal.SIGSTOP)
    stop(agent, "the collector hangs")

    agent = lab.agent("shutdownTimeout: 1s\n")
    stop(agent, "the collector hangs before it says hello")
    collector.signal(signal.SIGCONT)
    assert collector.stop() == 0

    # 192.0.2.0/24 is nowhere: no answer at all comes.
    harness.run("ip", "-n", lab.rx, "addr", "add", "192.0.2.1/24", "dev", "ps1")
    agent = lab.agent("shutdownTimeout: 1s\n", host="192.0.2.9")
    stop(agent, "the network swallows it")


# Where packets go.

def an_agent_alone_writes_a_file(lab):
    agent = lab.agent(output=lab.path("alone.pcap"))
    assert lab.blast(3000) == 3000
    assert agent.stop() == 0
    check_once_each(numbers(lab.path("alone.pcap")), 3000)
    check_complete(agent)
    assert agent.total("committed") == 3000
    before = sha256(lab.path("alone.pcap"))
    agent = lab.agent(output=lab.path("alone.pcap"))
    assert lab.blast(10) == 10
    assert agent.stop() == 0
    assert sha256(lab.path("alone.pcap")) == before
    check_once_each(numbers(lab.path("alone.1.pcap")), 10)


def stdout_feeds_tcpdump(lab):
    collector = lab.collector(output="stdout", stdout=subprocess.PIPE)
    with open(lab.path("read.txt"), "wb") as out:
        reader = subprocess.Popen(["tcpdump", "-n", "-r", "-"], stdin=collector.proc.stdout,
                                  stdout=out, stderr=subprocess.STDOUT)
    collector.proc.stdout.close()
    agent = lab.agent()
    assert lab.blast(2000) == 2000
    assert agent.stop() == 0 and collector.stop() == 0
    assert reader.wait(20 * harness.PATIENCE) == 0
    with open(lab.path("read.txt")) as f:
        lines = f.readlines()
    assert len([x for x in lines if "192.0.2.1.1111 > 192.0.2.2.2222: UDP" in x]) == 2000, lines[:5]
    check_complete(agent, collector)


def an_agent_whose_reader_is_stuck_stops_in_time_and_counts(lab):
    stuck, out = os.pipe()
    agent = lab.agent("shutdownTimeout: 500ms\n", output="stdout", stdout=out)
    os.close(out)
    assert lab.blast(1000, 1000) == 1000
    begin = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - begin < 5 * harness.PATIENCE
    os.close(stuck)
    for counter in ("seen", "captured"):
        assert agent.total(counter) == 1000
    assert agent.total("lost_output") > 0 and agent.total("in_flight") == 0
    assert agent.total("lost_output") + agent.total("committed") == 1000
    assert "do not add up" not in agent.text()


def a_collector_whose_reader_is_gone_ends_with_an_error(lab):
    collector = lab.collector(output="stdout", stdout=subprocess.PIPE)
    collector.proc.stdout.close()
    agent = lab.agent("shutdownTimeout: 500ms\n")
    assert lab.blast(10) == 10
    assert collector.proc.wait(20 * harness.PATIENCE) == 1
    assert collector.text().count("the reader of") == 1
    assert agent.stop() == 0
    assert (agent.total("committed"), agent.total("in_flight")) == (0, 10)


def micro_time_stamps_are_those_of_the_clock(lab):
    collector = lab.collector("timestampPrecision: micro\n")
    agent = lab.agent()
    alone = lab.agent("timestampPrecision: micro\n", name="alone", output=lab.path("alone.pcap"))
    exact = lab.agent(name="exact", output=lab.path("exact.pcap"))
    begin = time.time_ns()
    assert lab.blast(500) == 500
    end = time.time_ns()
    assert [d.stop() for d in (agent, alone, exact, collector)] == [0, 0, 0, 0]
    for name in ("dump.pcap", "alone.pcap"):
        capture = pcap.read(lab.path(name))
        assert not capture.nano and len(capture.packets) == 500
        assert all(begin - 10**6 <= p.time <= end + 10**6 for p in capture.packets)
    exact = pcap.read(lab.path("exact.pcap"))
    assert exact.nano and any(p.time % 1000 for p in exact.packets)


@contextlib.contextmanager
def small_disk(lab, size):
    path = lab.path("disk")
    os.mkdir(path)
    harness.run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path)
    try:
        yield path
    finally:
        # Namespaces that processes were started in keep copies of the mount.
        harness.run("umount", "-l", path)


def a_full_disk_is_waited_out(lab):
    count = 12000
    with small_disk(lab, "1m") as disk:
        collector, agent = lab.collector(output=f"{disk}/dump.pcap"), lab.agent()
        assert lab.blast(count) == count
        collector.wait_for("the disk is full")
        pcap.read(f"{disk}/dump.pcap")
        # Until after the fourth attempt, and before the fifth.
        time.sleep(2.25)
        assert collector.text().count("the disk is full") == 1
        numbers(f"{disk}/dump.pcap")
        harness.run("mount", "-o", "remount,size=64m", disk)
        wait_records(f"{disk}/dump.pcap", count)
        collector.wait_for("the output takes packets again")
        assert agent.stop() == 0 and collector.stop() == 0
        check_once_each(numbers(f"{disk}/dump.pcap"), count)
        check_complete(agent, collector)
        check_same(agent, collector)
        assert collector.text().count("the output takes packets again") == 1


def an_agent_with_a_full_disk_counts_what_it_loses(lab):
    count = 12000
    with small_disk(lab, "1m") as disk:
        agent = lab.agent(output=f"{disk}/alone.pcap")
        assert lab.blast(count) == count
        agent.wait_for("No space left on device")
        harness.run("mount", "-o", "remount,size=64m", disk)
        assert lab.blast(100) == 100
        agent.wait_for("can be written again")
        assert agent.stop() == 0
        check_sums(agent)
        assert agent.text().count("No space left on device") == 1
        assert 0 < agent.total("lost_output") < count
        got = numbers(f"{disk}/alone.pcap")
        assert len(got) == agent.total("committed") == count + 100 - agent.total("lost_output")
        assert got[-100:] == list(range(100))


def a_packet_on_a_quiet_link_comes_soon(lab):
    collector, agent = lab.collector(), lab.agent()
    agent.wait_for("connected to the collector")
    took = []
    for n in range(20):
        begin = time.monotonic()
        assert lab.blast(1) == 1
        wait_records(lab.path("dump.pcap"), n + 1)
        took.append((time.monotonic() - begin) * 1000)
    print(f"# latency {statistics.median(took):.0f} ms, at most {max(took):.0f} ms, with the "
          "start of the sender")
    assert agent.stop() == 0 and collector.stop() == 0
    check_complete(agent, collector)


if __name__ == "__main__":
    harness.main([
        packets_wait_for_a_collector_that_comes_late,
        an_agent_that_stops_waits_for_a_collector,
        a_collector_restarted_under_traffic_loses_and_repeats_nothing,
        a_collector_killed_under_traffic_loses_and_repeats_nothing,
        a_file_that_is_not_the_collectors_own_is_left_alone,
        connections_cut_anywhere_lose_and_repeat_nothing,
        a_collector_that_hangs_delays_and_loses_nothing,
        a_queue_that_overflows_counts_what_it_loses,
        a_ring_that_overflows_counts_what_it_loses,
        full_speed_adds_up_to_the_packet,
        several_agents_share_a_file,
        sigusr1_prints_ledgers_while_running,
        exit_statuses_tell_usage_from_failure,
        an_agent_stops_in_time_without_a_collector,
        an_agent_alone_writes_a_file,
        stdout_feeds_tcpdump,
        an_agent_whose_reader_is_stuck_stops_in_time_and_counts,
        a_collector_whose_reader_is_gone_ends_with_an_error,
        micro_time_stamps_are_those_of_the_clock,
        a_full_disk_is_waited_out,
        an_agent_with_a_full_disk_counts_what_it_loses,
        a_packet_on_a_quiet_link_comes_soon])
