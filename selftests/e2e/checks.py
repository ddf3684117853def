# SPDX-License-Identifier: Apache-2.0
"""That files and ledgers are right to the packet: blast numbers what it sends."""
import contextlib
import json
import os
import struct
import subprocess

import harness

AFTER_HOOK = ("ruled_out", "expression_out", "sampled_out", "captured", "lost_ring", "lost_error")
AFTER_RING = ("committed", "in_flight", "lost_queue", "lost_spool", "lost_output")
# Parts of others, in no sum.
PART_OF = {"duplicates": "ruled_out", "rate_limited": "sampled_out", "sliced": "captured"}
SIZE = 200  # of a packet of blast's, unless said otherwise


def numbers(*paths, size=SIZE):
    """The numbers that blast put into its packets, in the order of the files."""
    out = []
    for path in paths:
        with open(path, "rb") as f:
            raw = f.read()
        assert len(raw) >= 24 and (len(raw) - 24) % (16 + size) == 0, f"{path} is torn"
        for caplen, length, number in struct.iter_unpack(f"<8xII42xQ{size - 50}x", raw[24:]):
            assert caplen == length == size
            out.append(number)
    return out


def check_once_each(got, count):
    """Nothing missing, nothing twice, in order."""
    if got != list(range(count)):
        found = set(got)
        raise AssertionError(f"{count - len(found & set(range(count)))} of {count} missing, "
                             f"{len(got) - len(found)} twice, order {got == sorted(got)}")


def check_sums(*daemons):
    """DESIGN, section 6, in packets and bytes."""
    for d in daemons:
        assert d.ledgers(), f"{d.name} has no ledger"
        for x in d.ledgers():
            for unit in ("", "_bytes"):
                assert x["seen" + unit] == sum(x[c + unit] for c in AFTER_HOOK), (d.name, x)
                assert x["captured" + unit] == sum(x[c + unit] for c in AFTER_RING), (d.name, x)
                assert all(x[p + unit] <= x[c + unit] for p, c in PART_OF.items()), (d.name, x)
        assert "add up" not in d.text()


def check_same(agent, collector):
    """Both sides say the same of every interface and direction."""
    counters = [c + unit for c in ("seen",) + AFTER_HOOK + AFTER_RING + tuple(PART_OF)
                for unit in ("", "_bytes")]

    def of(daemon):
        return {(x["epoch"], x["interface"], x["direction"]): [x[c] for c in counters]
                for x in daemon.ledgers() if x["agent"] == agent.name}
    assert of(agent) == of(collector), f"\n{of(agent)}\n{of(collector)}"


def check_complete(*daemons):
    check_sums(*daemons)
    for d in daemons:
        assert {x["verdict"] for x in d.ledgers()} == {"complete"}, d.ledgers()


def told(collector, what):
    """What agents said in words: the objects of the lines `note ` or `interface `."""
    return [json.loads(line.split(f" info {what} ", 1)[1])
            for line in collector.text().splitlines() if f" info {what} {{" in line]


def check_notes(collector, epochs=1):
    """What captures was told once for each run of each agent, and is what its interfaces say."""
    notes = [x for x in told(collector, "note") if x["kind"] == "backend"]
    runs = {(x["agent_id"], x["epoch"]) for x in notes}
    assert len(notes) == len(runs) == epochs, notes
    assert all("interface" not in x and x["time"].endswith("Z") for x in notes), notes
    hooks = {x["text"].split(" (")[0] for x in notes}
    interfaces = told(collector, "interface")
    assert {(x["agent_id"], x["epoch"]) for x in interfaces} == runs, interfaces
    assert {x["hook"] for x in interfaces} == hooks <= {"tcx", "clsact"}, (interfaces, notes)


@contextlib.contextmanager
def traffic(lab, count, pps):
    """Packets all the while; at the end all were sent."""
    with subprocess.Popen(["ip", "netns", "exec", lab.tx, harness.BLAST, "ps0", str(count),
                           str(SIZE), str(pps)], stdout=subprocess.PIPE) as blast:
        try:
            yield blast
            assert int(blast.communicate(timeout=60 * harness.PATIENCE)[0].split()[0]) == count
        finally:
            blast.kill()


def records(path, size=SIZE):
    with contextlib.suppress(FileNotFoundError):
        return max(0, (os.path.getsize(path) - 24) // (16 + size))
    return 0


def wait_records(path, count, seconds=20, size=SIZE):
    harness.wait_until(f"{count} packets in {path}", lambda: records(path, size) >= count, seconds)
