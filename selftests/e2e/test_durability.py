#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is on a disk survives: agents that are killed, links that are down for long, and power
cuts, which take away what was not synced."""
import contextlib
import glob
import os
import random
import re
import time
import zlib

import chaos
import harness
import psstream as ps
from checks import check_notes, check_same, check_sums

LONG = bool(os.environ.get("PS_LONG"))
SEED = int(os.environ.get("PS_SEED", random.randrange(1 << 32)))


@contextlib.contextmanager
def one_node(lab):
    lab.pki("10.9.0.2")
    node = chaos.Node(lab, 0)
    try:
        yield node
    finally:
        node.close()


def spooled(folder, size=chaos.SIZE):
    """The numbers of all packets in the whole messages of a spool, and how many there are of
    each, read here without the code under test."""
    form, out = chaos.record(size), []
    for path in sorted(glob.glob(f"{folder}/*/*.seg")):
        try:
            with open(path, "rb") as f:
                raw = f.read()
        except FileNotFoundError:
            continue  # was acknowledged meanwhile
        for kind, payload in ps.parse(raw):
            if kind != ps.DATA:
                continue
            blocks = zlib.decompress(payload[40:], 31)
            # An Enhanced Packet Block has 28 bytes in front of the packet and 16 after it.
            step = 28 + (size + 3) // 4 * 4 + 16
            for at in range(0, len(blocks), step):
                packet = blocks[at + 28:at + 28 + size]
                out.append(form.unpack(bytes(8) + blocks[at + 20:at + 28] + packet)[2])
    return out


# Agents that are killed.

def epoch_verdicts(collector):
    """By epoch: the verdicts of its ledgers."""
    out = {}
    for x in collector.ledgers():
        out.setdefault(x["epoch"], set()).add(x["verdict"])
    return out


def killed_agents(lab, kills, reachable):
    """The agent is killed under load and started again, so often."""
    rng = random.Random(SEED)
    print(f"# seed {SEED}")
    with one_node(lab) as node:
        collector = lab.collector(host="0.0.0.0")
        config = node.spool(more="  segmentBytes: 64KB\n")
        agent, on_disk = node.start(config), []
        agent.wait_for("connected to the collector")
        node.load(7000)
        for _ in range(kills):
            if not reachable:
                node.link(False)
            time.sleep(rng.uniform(0.5, 1.5))
            agent.kill()
            on_disk.append(spooled(f"{node.disk.path}/spool"))
            if not reachable:
                node.link(True)
            agent = node.start(config)
            agent.wait_for("connected to the collector")
        harness.wait_until("an empty spool", lambda: len(glob.glob(
            f"{node.disk.path}/spool/????????????????")) <= 1, 30)
        time.sleep(0.3)
        sent = node.finish()
        assert agent.stop(60) == 0 and collector.stop() == 0
        count = chaos.Count(chaos.outputs(lab.path("dump.pcap")), {0: sent})
        for numbers in on_disk:
            assert len(numbers) == len(set(numbers)), "a packet is in the spool twice"
            gone = [n for n in numbers if not count.seen[0][n]]
            assert not gone, f"{len(gone)} of {len(numbers)} in the spool never came: {gone[:9]}"
        holes = count.holes(0)
        print(f"# in the spools {[len(n) for n in on_disk]}; files: {count.text()}; holes {holes}")
        assert (count.extra, count.duplicate, count.disorder) == (0, 0, 0), count.text()
        # What was in memory, and what came while nobody was there.
        assert len(holes) <= kills
        assert all(first > max(numbers, default=0) for (first, _), numbers in zip(holes, on_disk)
                   if len(holes) == kills)
        by_epoch = epoch_verdicts(collector)
        assert len(by_epoch) == kills + 1, by_epoch
        for n, epoch in enumerate(sorted(by_epoch)):
            want = {"complete"} if n == kills else {"unknown"}
            assert by_epoch[epoch] == want, by_epoch
        assert len(re.findall(r"unknown after \d{4}-", collector.text())) >= kills
        check_sums(agent)
        check_notes(collector, kills + 1)


def what_a_killed_agent_had_on_disk_arrives_once(lab):
    killed_agents(lab, 3, True)


def what_a_killed_agent_kept_from_a_collector_out_of_reach_arrives_once(lab):
    killed_agents(lab, 2, False)


def a_stopped_agent_leaves_the_rest_to_the_next_run(lab):
    """SIGTERM without a collector: the spool keeps it, and the old epoch is complete."""
    with one_node(lab) as node:
        config = node.spool(mode="overflow") + "shutdownTimeout: 500ms\n"
        agent = node.start(config)
        node.load(7000, 5000)
        sent = node.finish(False)
        assert agent.stop() == 0
        assert sorted(spooled(f"{node.disk.path}/spool")) == list(range(sent))
        collector = lab.collector(host="0.0.0.0")
        agent = node.start(config)
        harness.wait_until("an empty spool", lambda: not spooled(f"{node.disk.path}/spool"))
        assert agent.stop() == 0 and collector.stop() == 0
        count = chaos.Count([lab.path("dump.pcap")], {0: sent})
        assert (count.all_missing, count.extra, count.duplicate, count.disorder) == (0, 0, 0, 0)
        by_epoch = epoch_verdicts(collector)
        assert all(v == {"complete"} for v in by_epoch.values()), by_epoch
        check_notes(collector, 2)


# Links that are down.

def link_down(lab, spool, queue="4MB"):
    seconds, pps, size = 60 if LONG else 6, 5000, 500
    with one_node(lab) as node:
        collector = lab.collector(host="0.0.0.0")
        agent = node.start(f"queueSize: {queue}\nshutdownTimeout: 120s\n" +
                           node.spool(spool, "overflow"))
        agent.wait_for("connected to the collector")
        node.load(pps, pps * (seconds + 3), size, "noise")
        path = lab.path("dump.pcap")
        harness.wait_until("packets", lambda: os.path.getsize(path) > 1000 * (size + 16))
        node.link(False)
        time.sleep(seconds)
        node.link(True)
        sent = node.finish(False)
        assert agent.stop(200) == 0 and collector.stop() == 0
        count = chaos.Count(chaos.outputs(path), {0: sent}, size)
        lost = {c: agent.total(c) for c in chaos.LOSSES if agent.total(c)}
        holes = count.holes(0)
        print(f"# down for {seconds} s at {pps} packets/s: {count.text()}, holes {holes}, "
              f"ledger {lost}")
        assert (count.extra, count.duplicate, count.disorder) == (0, 0, 0)
        assert agent.total("seen") == sent and agent.total("in_flight") == 0
        assert count.all_missing == sum(lost.values()) == sent - agent.total("committed")
        check_sums(agent, collector)
        check_same(agent, collector)
        return sent, holes, lost


def a_link_that_is_down_loses_nothing_that_fits_the_spool(lab):
    sent, holes, _ = link_down(lab, "1GB")
    assert sent and not holes


def a_link_that_is_down_too_long_loses_the_oldest(lab):
    sent, holes, lost = link_down(lab, "40MB" if LONG else "4MB")
    assert set(lost) == {"lost_spool"}, lost
    # One range; but for what was under way when the link went down.
    assert 1 <= len(holes) <= 2, holes
    assert holes[0][0] < sent / 2 and holes[-1][1] < sent - 2000, (holes, sent)


# Power cuts.

TOOLS = os.path.join(harness.BUILD, "selftests/tools")
CUTS = 65536 if LONG else 300
PLAIN = "tls:\n  enable: false\n"


def watched(lab, name):
    """To run a daemon with what writes down its syncs."""
    with open(harness.COLLECTOR, "rb") as f:
        if b"__asan_init" in f.read() or harness.WRAP:
            raise harness.Skip("another library is to be loaded first")
    return ("env", f"LD_PRELOAD={TOOLS}/synclog.so", f"SYNCLOG={lab.path(name)}.sync")


def durable(lab, name, folder):
    """What a power cut leaves of each file below the folder, as (path, size)."""
    sizes = {}
    with open(f"{lab.path(name)}.sync") as f:
        for line in f:
            kind, *words = line.split()
            if kind in "ST":
                size, path = int(words[0]), words[1]
                sizes[path] = size if kind == "S" else min(size, sizes.get(path, 0))
            elif kind == "R":
                sizes[words[1]] = sizes.get(words[0], 0)
            elif kind == "U":
                sizes.pop(words[0], None)
    out = []
    for d, _, files in os.walk(folder):
        for path in (os.path.join(d, f) for f in sorted(files)):
            out.append((path, min(sizes.get(path, 0), os.path.getsize(path))))
    return out


def cut_everywhere(lab, what, *argv):
    done = harness.run(f"{TOOLS}/{what}", *argv, check=False)
    lines = done.stdout.decode(errors="replace").splitlines()
    print("\n".join(f"# {what}: {line}" for line in lines[-1 if not done.returncode else -30:]),
          flush=True)
    assert done.returncode == 0, f"{what} ended with {done.returncode}"


def a_power_cut_costs_the_collector_nothing_that_it_acknowledged(lab):
    rng, agents, packets, epoch = random.Random(SEED), 8, 10, 77
    print(f"# seed {SEED}")
    for n in range(2):
        disk = chaos.Disk(lab, f"out-{n}")
        try:
            out = f"{disk.path}/d/dump.pcap"
            os.mkdir(f"{disk.path}/d")
            collector = lab.collector("commitIntervalMs: 200\n" if n % 2 else "", tls=PLAIN,
                                      output=out, name=f"collector-{n}",
                                      wrap=watched(lab, f"collector-{n}"))
            load = lab.spawn("load", [
                f"{TOOLS}/load", "-n", str(agents), "-m", "1000000", "-p", str(packets), "-i", "4",
                "-e", str(epoch), "-f", lab.path("acks"), "127.0.0.1", "8081"], ns=lab.rx)
            harness.wait_until("packets", lambda out=out: os.path.getsize(out) > 100000)
            time.sleep(rng.uniform(0, 0.7))
            collector.kill()
            load.kill()
            files = durable(lab, f"collector-{n}", f"{disk.path}/d")
            print("# " + ", ".join(f"{os.path.basename(p)}: {s} of {os.path.getsize(p)} bytes "
                                   "durable" for p, s in files))
            cut_everywhere(lab, "powercut_collector", f"{disk.path}/d", lab.path("acks"), epoch,
                           agents, packets, CUTS, *(f"{p}={s}" for p, s in files))
        finally:
            disk.close()


def a_power_cut_costs_the_agent_nothing_that_it_had_synced(lab):
    rng = random.Random(SEED)
    with one_node(lab) as node:
        config = node.spool(more="  segmentBytes: 256KB\n")
        agent = node.start(config, wrap=watched(lab, "agent"))
        node.load(7000, 1 << 40, 200, "noise")
        spool = f"{node.disk.path}/spool"
        harness.wait_until("two segments", lambda: len(glob.glob(f"{spool}/*/*.seg")) > 2)
        time.sleep(rng.uniform(0, 0.3))
        agent.kill()
        node.finish()
        files = [(p, s) for p, s in durable(lab, "agent", spool)
                 if p.endswith(".seg") and s < os.path.getsize(p)]
        # The newest one, whatever was synced of it.
        newest = max(glob.glob(f"{spool}/*/*.seg"))
        files = files or [(newest, os.path.getsize(newest))]
        print("# " + ", ".join(f"{os.path.basename(p)}: {s} of {os.path.getsize(p)} bytes durable"
                               for p, s in files))
        assert len(files) == 1, "an older segment is not durable"
        cut_everywhere(lab, "powercut_spool", spool, CUTS, *(f"{p}={s}" for p, s in files))


def both_recover_from_a_power_cut_together(lab):
    """The daemons themselves: both are killed, what was not synced is cut somewhere, and they
    go on."""
    rng = random.Random(SEED)
    cuts = 12 if LONG else 4
    with one_node(lab) as node:
        disk = chaos.Disk(lab, "out")
        try:
            out, config = f"{disk.path}/dump.pcap", node.spool(more="  segmentBytes: 64KB\n")
            node.load(7000)
            for n in range(cuts + 1):
                wrapped = {"wrap": watched(lab, "run")}
                collector = lab.collector(host="0.0.0.0", output=out, **wrapped)
                agent = node.start(config, **wrapped)
                agent.wait_for("connected to the collector")
                if n == cuts:
                    break
                time.sleep(rng.uniform(0.3, 0.8))
                for d in rng.sample([agent, collector], 2):
                    d.kill()
                for folder in (disk.path, node.disk.path):
                    for path, size in durable(lab, "run", folder):
                        os.truncate(path, rng.randint(size, os.path.getsize(path)))
            harness.wait_until("an empty spool", lambda: len(glob.glob(
                f"{node.disk.path}/spool/????????????????")) <= 1, 30)
            sent = node.finish()
            assert agent.stop(60) == 0 and collector.stop() == 0
            count = chaos.Count(chaos.outputs(out), {0: sent})
            print(f"# {cuts} power cuts: {count.text()}, holes {count.holes(0)}")
            assert (count.extra, count.duplicate, count.disorder) == (0, 0, 0), count.text()
            # What was in memory or not synced, and what came while nobody was there.
            assert len(count.holes(0)) <= cuts + 1
            verdicts = epoch_verdicts(collector)
            newest = max(verdicts)
            assert verdicts[newest] == {"complete"}, verdicts
            assert all("unknown" in v for e, v in verdicts.items() if e != newest), verdicts
            check_sums(agent)
        finally:
            disk.close()


if __name__ == "__main__":
    harness.main([
        what_a_killed_agent_had_on_disk_arrives_once,
        what_a_killed_agent_kept_from_a_collector_out_of_reach_arrives_once,
        a_stopped_agent_leaves_the_rest_to_the_next_run,
        a_link_that_is_down_loses_nothing_that_fits_the_spool,
        a_link_that_is_down_too_long_loses_the_oldest,
        a_power_cut_costs_the_collector_nothing_that_it_acknowledged,
        a_power_cut_costs_the_agent_nothing_that_it_had_synced,
        both_recover_from_a_power_cut_together], any_kernel=True)
