#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Agents and a collector under load while everything between and below them breaks, at moments
that a seed chooses; then every packet is looked for by its number.

`make chaos` runs this file: chaos.py [--events N] [--seed N] [--rate PPS] [--small]. The same
seed breaks the same things in the same order and for as long. test_chaos.py runs a shorter form.
"""
import argparse
import contextlib
import glob
import heapq
import os
import random
import struct
import subprocess
import sys
import time

import harness
from checks import AFTER_HOOK, AFTER_RING, check_same, check_sums

SIZE = 64  # of a packet, unless said otherwise
LOSSES = [c for c in AFTER_HOOK + AFTER_RING if c.startswith("lost_")]
PLENTY = "1GB"
SMALL = {"spool": "1MB", "queue": "4MB", "size": 600}  # full within a second


def record(size):
    """In a file: lengths, blast's number at byte 42 of the packet, the sender's at byte 50."""
    return struct.Struct(f"<8xII42xQI{size - 54}x")


class Count:
    """What is in the files of what was sent, sender by sender and number by number."""

    def __init__(self, paths, sent, size=SIZE):
        """@sent: how many numbers each sender used, from 0 on."""
        form = record(size)
        self.sent = sent
        self.seen = {s: bytearray(n) for s, n in sent.items()}
        self.extra = self.duplicate = self.disorder = 0
        last = {}
        for path in paths:
            with open(path, "rb") as f:
                raw = f.read()
            assert len(raw) >= 24 and (len(raw) - 24) % form.size == 0, f"{path} is torn"
            for caplen, length, number, sender in form.iter_unpack(memoryview(raw)[24:]):
                if caplen != size or length != size or number >= sent.get(sender, 0):
                    self.extra += 1
                    continue
                seen = self.seen[sender]
                if seen[number]:
                    self.duplicate += 1
                    continue
                seen[number] = 1
                self.disorder += number < last.get(sender, 0)
                last[sender] = number

    def missing(self, sender):
        return self.seen[sender].count(0)

    def holes(self, sender):
        """The missing numbers as (first, after the last) of each range."""
        out, seen, at = [], self.seen[sender], 0
        while (first := seen.find(0, at)) >= 0:
            at = seen.find(1, first)
            if at < 0:
                at = len(seen)
            out.append((first, at))
        return out

    @property
    def all_missing(self):
        return sum(self.missing(s) for s in self.sent)

    def text(self):
        return (f"{sum(self.sent.values())} sent, {self.all_missing} missing, {self.extra} extra, "
                f"{self.duplicate} duplicate, {self.disorder} out of order")


def outputs(path):
    """A collector's output file, and those with a number that it made beside it."""
    stem = path[:-len(".pcap")]
    return sorted(p for p in glob.glob(f"{stem}*.pcap")
                  if p == path or p[len(stem) + 1:-len(".pcap")].isdigit())


class Disk:
    """A file system of its own that can be filled to the last byte and emptied again."""

    def __init__(self, lab, name, size="1g"):
        self.path = lab.path(name)
        os.mkdir(self.path)
        harness.run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", self.path)
        self.ballast = os.path.join(self.path, "ballast")

    def fill(self):
        with open(self.ballast, "ab") as f:
            for piece in (16 << 20, 1 << 20, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(f.fileno(), f.seek(0, os.SEEK_END), piece)

    def empty(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.ballast)

    def close(self):
        # Namespaces that processes were started in keep copies of the mount.
        harness.run("umount", "-l", self.path, check=False)


class Node:
    """An agent's machine: packets come in on a veth of their own, and leave for the collector's
    namespace on another one, the uplink."""

    def __init__(self, lab, number, collector_ns=None):
        self.lab, self.number, self.name = lab, number, f"agent-{number}"
        self.there = collector_ns or lab.rx
        self.tx, self.ns = lab.namespace(f"{lab.tag}t{number}"), lab.namespace(f"{lab.tag}r{number}")
        lab.veth(self.tx, "ps0", self.ns, "ps1")
        self.address, self.collector = f"10.9.{number}.1", f"10.9.{number}.2"
        self.up, self.down = "up0", f"dn{number}"
        harness.run("ip", "-n", self.ns, "link", "add", self.up, "type", "veth", "peer", "name",
                    self.down, "netns", self.there)
        for ns, dev, address in ((self.ns, self.up, self.address),
                                 (self.there, self.down, self.collector)):
            harness.run("ip", "-n", ns, "addr", "add", f"{address}/24", "dev", dev)
            harness.run("ip", "-n", ns, "link", "set", dev, "up")
        self.disk = self.agent = self.blast = None
        self.sent = 0

    def spool(self, max_bytes=PLENTY, mode="always", more=""):
        self.disk = self.disk or Disk(self.lab, f"spool-{self.number}", "2g")
        return (f"spool:\n  path: {self.disk.path}/spool\n  mode: {mode}\n  maxBytes: {max_bytes}\n"
                f"  minFree: 0\n{more}")

    def start(self, extra, **kw):
        self.agent = self.lab.agent(extra, name=self.name, ns=self.ns, host=self.collector, **kw)
        return self.agent

    def load(self, pps, count=1 << 40, size=SIZE, *more):
        """Traffic until it is stopped, or so many packets."""
        self.blast = subprocess.Popen(
            ["ip", "netns", "exec", self.tx, harness.BLAST, "ps0", str(count), str(size), str(pps),
             str(self.number), *more], stdout=subprocess.PIPE)

    def finish(self, early=True):
        """Ends the traffic (or waits for its end) and returns how many packets there were."""
        if self.blast:
            if early:
                self.blast.terminate()
            self.sent += int(self.blast.communicate(timeout=300 * harness.PATIENCE)[0].split()[0])
            self.blast = None
        return self.sent

    def link(self, up):
        harness.run("ip", "-n", self.there, "link", "set", self.down, "up" if up else "down")

    def close(self):
        if self.blast:
            self.blast.kill()
            self.blast.communicate()
            self.blast = None
        if self.disk:
            self.disk.close()


class Chaos:
    """The setup, and what may happen to it. An event takes a resource for a while; events of
    different resources overlap."""

    def __init__(self, lab, seed, rate=21000, agents=3, spool=PLENTY, queue="64MB", size=SIZE):
        self.lab, self.seed, self.rate, self.size = lab, seed, rate, size
        lab.pki(*(f"10.9.{n}.2" for n in range(agents)))
        self.disk = Disk(lab, "out", "6g")
        self.output = f"{self.disk.path}/dump.pcap"
        self.nodes = [Node(lab, n) for n in range(agents)]
        self.collector = None
        self.extra = f"queueSize: {queue}\nshutdownTimeout: 90s\nringSize: 32MB\n"
        self.spool_size = spool
        self.pending, self.counts, self.order = [], {}, 0

    def start_collector(self):
        self.collector = self.lab.collector(host="0.0.0.0", output=self.output)

    def begin(self):
        self.start_collector()
        for n in self.nodes:
            n.start(self.extra + n.spool(self.spool_size))
        for n in self.nodes:
            n.agent.wait_for("connected to the collector")
        for n in self.nodes:
            # Packets of another size are there to fill spools, so nothing makes them smaller.
            n.load(self.rate // len(self.nodes), 1 << 40, self.size,
                   *(["noise"] if self.size != SIZE else []))

    def later(self, seconds, resource, undo):
        """The resource is taken for so long, then @undo is called."""
        self.order += 1
        heapq.heappush(self.pending, (time.monotonic() + seconds, self.order, resource, undo))

    def taken(self):
        return {resource for _, _, resource, _ in self.pending}

    def run_due(self):
        while self.pending and self.pending[0][0] <= time.monotonic():
            undo = heapq.heappop(self.pending)[3]
            undo()

    # The events, each with random numbers of its own.

    def killed(self, rng):
        self.collector.kill()
        self.later(rng.uniform(0, 1), "collector", self.start_collector)

    def hangs(self, rng):
        held = self.collector
        held.signal(harness.signal.SIGSTOP)
        self.later(rng.uniform(1, self.longest), "collector",
                   lambda: held.signal(harness.signal.SIGCONT))

    def link_down(self, rng):
        for n in self.some(rng):
            n.link(False)
            self.later(rng.uniform(0.1, self.longest / 2), "links", lambda n=n: n.link(True))

    def reset(self, rng):
        which = " or ".join(f"src {n.collector}" for n in self.some(rng))
        harness.run("ip", "netns", "exec", self.lab.rx, "ss", "-K", "state", "established",
                    f"( sport = :8081 ) and ( {which} )", check=False)

    def output_full(self, rng):
        self.disk.fill()
        self.later(rng.uniform(0.3, self.longest), "output", self.disk.empty)

    def spool_full(self, rng):
        n = rng.choice(self.nodes)
        n.disk.fill()
        self.later(rng.uniform(0.3, self.longest), "spool", n.disk.empty)

    def some(self, rng):
        return rng.sample(self.nodes, rng.choice((1, len(self.nodes))))

    # How often, and the resource that is taken.
    EVENTS = {"killed": (5, "collector"), "hangs": (2, "collector"), "link_down": (4, "links"),
              "reset": (4, None), "output_full": (3, "output"), "spool_full": (3, "spool")}

    def run(self, events, longest=5.0, pause=1.0):
        """So many events, none longer than @longest, @pause seconds apart on average."""
        self.longest = longest
        rng = random.Random(self.seed)
        for _ in range(events):
            name = rng.choices(list(self.EVENTS), [often for often, _ in self.EVENTS.values()])[0]
            own, due = random.Random(rng.random()), time.monotonic() + rng.uniform(0, 2 * pause)
            resource = self.EVENTS[name][1]
            while time.monotonic() < due or resource in self.taken():
                self.run_due()
                self.alive()
                time.sleep(0.005)
            getattr(self, name)(own)
            self.counts[name] = self.counts.get(name, 0) + 1
        while self.pending:
            self.run_due()
            time.sleep(0.005)

    def alive(self):
        for n in self.nodes:
            assert n.agent.proc.poll() is None, f"{n.name} ended:\n{n.agent.text()[-3000:]}"
        if "collector" not in self.taken():
            assert self.collector.proc.poll() is None, \
                f"the collector ended:\n{self.collector.text()[-3000:]}"

    def end(self):
        """Stop the traffic and the daemons: whatever is still on its way arrives."""
        for n in self.nodes:
            n.finish()
        for n in self.nodes:
            n.agent.signal(harness.signal.SIGTERM)
        self.statuses = [n.agent.stop(120) for n in self.nodes]
        self.statuses.append(self.collector.stop())

    def check(self, none_lost=True):
        """Everything that was sent is in the files once, or counted as lost, to the packet."""
        count = Count(outputs(self.output), {n.number: n.sent for n in self.nodes},
                      self.size)
        for n in self.nodes:
            a = n.agent
            lost = {c: a.total(c) for c in LOSSES if a.total(c)}
            print(f"# {n.name}: sent {n.sent}, seen {a.total('seen')}, committed "
                  f"{a.total('committed')}, in flight {a.total('in_flight')}, lost {lost}; files: "
                  f"{n.sent - count.missing(n.number)}, missing {count.missing(n.number)}")
        print(f"# files: {count.text()}")
        print("# " + "; ".join(f"{v} {k}" for k, v in sorted(self.counts.items())) +
              f"; seed {self.seed}", flush=True)
        assert (count.extra, count.duplicate, count.disorder) == (0, 0, 0), count.text()
        for n in self.nodes:
            a, missing = n.agent, count.missing(n.number)
            check_sums(a)
            lost = sum(a.total(c) for c in LOSSES)
            assert a.total("seen") == n.sent, (n.name, a.total("seen"), n.sent)
            assert a.total("in_flight") == 0, (n.name, a.ledgers())
            assert n.sent == a.total("committed") + lost, (n.name, a.ledgers())
            assert missing == lost, (n.name, missing, lost, count.holes(n.number)[:20])
            if none_lost:
                assert missing == 0, (n.name, missing, count.holes(n.number)[:20])
            check_same(a, self.collector)
        check_sums(self.collector)
        assert not any(self.statuses), self.statuses
        if none_lost:
            assert {x["verdict"] for x in self.collector.ledgers()} == {"complete"}
        return count

    def close(self):
        for n in self.nodes:
            n.close()
        self.disk.close()


@contextlib.contextmanager
def chaos(lab, seed, **kw):
    c = Chaos(lab, seed, **kw)
    print(f"# seed {seed}", flush=True)
    try:
        yield c
    finally:
        c.close()


def campaign(lab, events, seed, rate=21000, none_lost=True, longest=5.0, pause=1.0, **kw):
    with chaos(lab, seed, rate=rate, **kw) as c:
        begin = time.monotonic()
        c.begin()
        c.run(events, longest, pause)
        c.end()
        took = time.monotonic() - begin
        sent = sum(n.sent for n in c.nodes)
        print(f"# {events} events in {took:.0f} s, {sent / took:.0f} packets/s")
        return c.check(none_lost)


def main():
    parser = argparse.ArgumentParser(description="Breaks things, and counts packets.")
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--rate", type=int, default=21000, help="packets/s of all agents")
    parser.add_argument("--small", action="store_true",
                        help="spools that are too small: losses are to be exact")
    args = parser.parse_args()
    small = {**SMALL, "none_lost": False} if args.small else {}

    def packets_survive_chaos(lab):
        campaign(lab, args.events, args.seed, args.rate, **small)
    sys.argv = sys.argv[:1]
    harness.main([packets_survive_chaos])


if __name__ == "__main__":
    main()
