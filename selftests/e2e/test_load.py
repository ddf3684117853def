#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A crowd of agents on one collector: all come back soon after it restarted or was killed,
everything they sent is in the file once, and the memory stays within the budget."""
import contextlib
import os
import re
import resource
import time

import chaos
import harness

AGENTS = 1000 if os.environ.get("PS_LONG") else 200
PACKETS = 10
# Each sends a message every so many ms: long enough for two restarts in between.
INTERVAL = 1500 if AGENTS > 200 else 1000
LOAD = os.path.join(harness.BUILD, "selftests/tools/load")
BUDGET = 512  # MiB: memoryBudget
with open(harness.COLLECTOR, "rb") as f:
    SANITIZED = b"__asan_init" in f.read() or bool(harness.WRAP)


def memory(daemon):
    """The most that the daemon ever had, in MiB."""
    with open(f"/proc/{daemon.pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM:")) / 1024


class Crowd:
    """The load program. Its output is a list of times and events."""

    def __init__(self, lab, agents, *options, host="127.0.0.1", port=8081):
        pki = lab.pki()
        self.daemon = lab.spawn("load", [
            LOAD, "-n", str(agents), "-p", str(PACKETS), "-k", f"{pki}/agent.key", "-c",
            f"{pki}/agent.crt", "-a", f"{pki}/ca.crt", "-N", "localhost", *map(str, options), host,
            str(port)], ns=lab.rx)

    def connected(self, times, seconds):
        """Wait until all are connected for the n-th time; returns when that was."""
        return [float(t) for t in self.daemon.wait_for(r"^([\d.]+) all connected$", seconds,
                                                       times)][times - 1]

    def apart(self, times):
        """When they were not all connected any more, for the n-th time."""
        return [float(t) for t in self.daemon.wait_for(r"^([\d.]+) not all connected$", 20,
                                                       times)][times - 1]

    def done(self, seconds):
        text = self.daemon.wait_for(r" done: .*", seconds)[0]
        assert self.daemon.proc.wait(10) == 0
        return text


@contextlib.contextmanager
def many_descriptors():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 16384), max(before[1], 16384)))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def verdicts(collector):
    """What is said of each agent, its directions taken together."""
    out = {}
    for x in collector.ledgers():
        out.setdefault(x["agent"], set()).add(x["verdict"])
    return out


def crowd_comes_back(lab, messages, interval, *options):
    bound, polite, most = 30, 90, 0.0
    path = lab.path("dump.pcap")

    def start():
        return lab.collector(f"memoryBudget: {BUDGET}MB\n")

    collector = start()
    crowd = Crowd(lab, AGENTS, "-m", messages, "-i", interval, "-b", polite, *options)
    took = [crowd.connected(1, bound)]
    for n, stop in enumerate((collector.stop, None), 1):
        # Some traffic between two restarts.
        size = os.path.getsize(path)
        harness.wait_until("traffic", lambda size=size: os.path.getsize(path) > size + 100000, 30)
        most = max(most, memory(collector))
        if stop:
            assert stop() == 0
        else:
            collector.kill()
        apart = crowd.apart(n)
        collector = start()
        took.append(crowd.connected(n + 1, bound) - apart)
    said = crowd.done(messages * interval / 1000 + 60)
    most = max(most, memory(collector))
    assert collector.stop() == 0
    each = messages * PACKETS
    count = chaos.Count(chaos.outputs(path), {a: each for a in range(AGENTS)})
    print(f"# {AGENTS} agents: all connected in {took[0]:.1f} s; again {took[1]:.1f} s after a "
          f"restart, {took[2]:.1f} s after a kill; the collector had {most:.0f} MiB of {BUDGET}")
    print(f"#{said}; files: {count.text()}", flush=True)
    assert (count.all_missing, count.extra, count.duplicate, count.disorder) == (0, 0, 0, 0)
    assert max(took) < bound
    assert SANITIZED or most < BUDGET, most
    got = verdicts(collector)
    assert len(got) == AGENTS
    for n in range(AGENTS):
        want = "complete" if n % 100 < polite else "unknown"
        assert got[f"load-{n}"] == {want}, (n, got[f"load-{n}"], want)
    assert collector.total("committed") == AGENTS * each
    return collector


def a_crowd_comes_back_after_restart_and_kill(lab):
    with many_descriptors():
        crowd_comes_back(lab, 30, INTERVAL, "-l")


def a_crowd_behind_one_address_comes_back_too(lab):
    """Network address translation makes one of them."""
    with many_descriptors():
        crowd_comes_back(lab, 30, INTERVAL)


def a_crowd_that_arrives_at_once_does_not_starve_an_agent(lab):
    with many_descriptors():
        collector, agent = lab.collector(f"memoryBudget: {BUDGET}MB\n"), lab.agent()
        agent.wait_for("connected to the collector")
        begin = time.monotonic()
        crowd = Crowd(lab, AGENTS, "-s", 100, "-m", 3, "-l")
        assert lab.blast(5000, 64, "ps0", None, 5000, 7) == 5000
        crowd.done(60)
        took = time.monotonic() - begin
        assert agent.stop() == 0 and collector.stop() == 0
    sent = {100 + n: 3 * PACKETS for n in range(AGENTS)} | {7: 5000}
    count = chaos.Count(chaos.outputs(lab.path("dump.pcap")), sent)
    print(f"# {took:.1f} s; files: {count.text()}")
    assert (count.all_missing, count.extra, count.duplicate, count.disorder) == (0, 0, 0, 0)
    assert len(re.findall("no connection to the collector", agent.text())) == 0


if __name__ == "__main__":
    harness.main([
        a_crowd_comes_back_after_restart_and_kill,
        a_crowd_behind_one_address_comes_back_too,
        a_crowd_that_arrives_at_once_does_not_starve_an_agent], any_kernel=True)
