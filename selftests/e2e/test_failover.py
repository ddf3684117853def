#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Collectors that stand in for each other: a list of them, addresses of IPv6, names that
stand for several addresses or change."""
import os
import re
import subprocess
import time

import chaos
import harness

PORTS = (8081, 8082)
SENDER = 7


def collector(lab, port, **kw):
    return lab.collector(port=port, name=f"collector-{port}", output=output(lab, port), **kw)


def output(lab, port):
    return lab.path(f"dump-{port}.pcap")


def agent_with(lab, servers, extra="", **kw):
    """An agent with output.servers."""
    text = ("agentName: agent\ninterfaces: [ps1]\noutput:\n  servers:\n" +
            "".join(f"    - {s}\n" for s in servers) + lab.tls("agent") + extra)
    return lab.start("agent", harness.AGENT, text, lab.rx, **kw).ready()


def connections(agent):
    """The ports it connected to, in order."""
    return [int(p) for p in re.findall(r'connected to the collector.*?:(\d+)', agent.text())]


def wait_for_connection(agent, port, seconds, after):
    """Until it is connected to the port, by a connection after so many others."""
    harness.wait_until(f"a connection to port {port}",
                       lambda: port in connections(agent)[after:], seconds)


class Load:
    """Packets with numbers all the while."""

    def __init__(self, lab, pps=3000):
        self.proc = subprocess.Popen(
            ["ip", "netns", "exec", lab.tx, harness.BLAST, "ps0", str(1 << 40), str(chaos.SIZE),
             str(pps), str(SENDER)], stdout=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.proc.terminate()
        self.sent = int(self.proc.communicate(timeout=30 * harness.PATIENCE)[0].split()[0])


def failover(lab, stop, returns=True):
    """The agent's favourite goes away and comes back. Returns what is in both files."""
    collectors = {p: collector(lab, p) for p in PORTS}
    agent = agent_with(lab, [f"127.0.0.1:{p}" for p in PORTS])
    agent.wait_for("connected to the collector")
    first = connections(agent)[0]
    other = PORTS[first == PORTS[0]]
    with Load(lab) as load:
        time.sleep(0.5)
        before = len(connections(agent))
        begin = time.monotonic()
        stop(collectors[first])
        wait_for_connection(agent, other, 20, before)
        away = time.monotonic() - begin
        harness.wait_until("packets at the other one",
                           lambda: os.path.getsize(output(lab, other)) > 100000)
        begin, before = time.monotonic(), len(connections(agent))
        collectors[first] = collector(lab, first)
        if returns:
            wait_for_connection(agent, first, 90, before)
            print(f"# to the other one after {away:.1f} s, back after "
                  f"{time.monotonic() - begin:.1f} s")
        time.sleep(0.5)
    assert agent.stop() == 0
    assert [c.stop() for c in collectors.values()] == [0, 0]
    counts = {p: chaos.Count(chaos.outputs(output(lab, p)), {SENDER: load.sent}) for p in PORTS}
    for p, c in counts.items():
        # Each of them has no packet twice.
        assert (c.extra, c.duplicate, c.disorder) == (0, 0, 0), (p, c.text())
    both = [sum(x) for x in zip(*(c.seen[SENDER] for c in counts.values()))]
    assert min(both) == 1, f"{both.count(0)} of {load.sent} are in neither file"
    assert agent.total("seen") == load.sent == agent.total("committed")
    return both


def a_collector_that_stops_hands_over_and_gets_the_agent_back(lab):
    both = failover(lab, lambda c: c.stop())
    assert max(both) == 1, f"{both.count(2)} packets went to both"


def a_collector_that_is_killed_is_replaced(lab):
    """It may have written what it had no time to acknowledge: that is in both files then."""
    both = failover(lab, lambda c: c.kill(), returns=bool(os.environ.get("PS_LONG")))
    print(f"# {both.count(2)} of {len(both)} packets went to both")
    # A commit is never more than a moment away.
    assert both.count(2) < 3000


def a_list_whose_first_servers_are_dead_costs_no_packet(lab):
    """Nobody listens, no such name, no such address: the one that works is found."""
    c = collector(lab, 8081)
    agent = agent_with(lab, ["127.0.0.1:9", "nowhere.invalid:8081", '"[::1]:9"',
                             "127.0.0.1:8081"])
    agent.wait_for("connected to the collector", 30)
    with Load(lab) as load:
        time.sleep(0.5)
    assert agent.stop() == 0 and c.stop() == 0
    count = chaos.Count([output(lab, 8081)], {SENDER: load.sent})
    assert (count.all_missing, count.extra, count.duplicate) == (0, 0, 0), count.text()


def packets_arrive_over_ipv6(lab):
    lab.pki("::1")
    harness.run("ip", "netns", "exec", lab.rx, "sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=0")
    c = collector(lab, 8081, host='"::1"')
    for servers in (["\"[::1]:8081\""], ["{address: \"::1\", port: 8081}"]):
        agent = agent_with(lab, servers)
        agent.wait_for(r"connected to the collector.*\[::1\]:8081")
        assert agent.stop() == 0
    agent = lab.agent(host='"::1"')
    agent.wait_for(r"connected to the collector.*\[::1\]:8081")
    with Load(lab) as load:
        time.sleep(0.5)
    assert agent.stop() == 0 and c.stop() == 0
    count = chaos.Count([output(lab, 8081)], {SENDER: load.sent})
    assert (count.all_missing, count.extra, count.duplicate) == (0, 0, 0), count.text()


class Hosts:
    """/etc/hosts of a namespace: `ip netns exec` mounts it over the machine's."""

    def __init__(self, ns):
        self.folder = f"/etc/netns/{ns}"
        self.path = f"{self.folder}/hosts"
        os.makedirs(self.folder)

    def write(self, name, *addresses):
        # The same file: a mount does not follow a rename.
        with open(self.path, "w") as f:
            f.write("".join(f"{a} {name}\n" for a in addresses))

    def close(self):
        os.unlink(self.path)
        os.rmdir(self.folder)


def a_name_may_stand_for_several_addresses_and_change(lab):
    lab.pki("collector.test")
    hosts = Hosts(lab.rx)
    try:
        hosts.write("collector.test", "127.0.0.9", "127.0.0.8", "127.0.0.1")
        c = collector(lab, 8081)
        agent = lab.agent(host="collector.test")
        agent.wait_for(r"connected to the collector.*8081")
        with Load(lab) as load:
            time.sleep(0.3)
            # The service moves to another address.
            hosts.write("collector.test", "127.0.0.7")
            assert c.stop() == 0
            c = collector(lab, 8081, host="127.0.0.7")
            agent.wait_for(r"connected to the collector", 30, 2)
            time.sleep(0.3)
        assert agent.stop() == 0 and c.stop() == 0
        count = chaos.Count(chaos.outputs(output(lab, 8081)), {SENDER: load.sent})
        assert (count.all_missing, count.extra, count.duplicate) == (0, 0, 0), count.text()
    finally:
        hosts.close()


if __name__ == "__main__":
    harness.main([
        a_collector_that_stops_hands_over_and_gets_the_agent_back,
        a_collector_that_is_killed_is_replaced,
        a_list_whose_first_servers_are_dead_costs_no_packet,
        packets_arrive_over_ipv6,
        a_name_may_stand_for_several_addresses_and_change], any_kernel=True)
