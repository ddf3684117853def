#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Figures, beside tcpdump and dumpcap on the same traffic in the same run.

One `name value unit` line per figure; where a peer is installed also
`name ratio-to-peer` (ours divided by the peer's, below 1 is better for us). CPU is what
the kernel's scheduler charged to the process (/proc/PID/task/*/schedstat), so it leaves
out what the hooks and packet sockets cost in the sender's context; that is given by
`kernel_*`, by `filter_*` (a packet that the expression rejects: ours by test runs, `_sender` as
what a sender's CPU takes longer) and by `host_throughput_*` (of a TCP connection, by that without
any program). Rounds of the programs alternate, the median is shown.
"""
import contextlib
import glob
import json
import os
import re
import resource
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
import harness  # noqa: E402
import pcap  # noqa: E402
import tcp  # noqa: E402
import tcprog  # noqa: E402
import traffic  # noqa: E402

QUICK = bool(os.environ.get("PS_QUICK"))
ROUNDS = 1 if QUICK else 3
SECONDS = 3 if QUICK else 6
PPS = 40000
SO_MAX_PACING_RATE = 47


def show(name, value, unit):
    print(f"{name} {value:.4g} {unit}", flush=True)


def ratio(name, ours, peer_name, theirs):
    if theirs:
        print(f"{name} {ours / theirs:.3g} ratio-to-{peer_name}", flush=True)


def pid_of(daemon, program):
    """`ip netns exec` becomes the program, so its pid is the daemon's."""
    with open(f"/proc/{daemon.pid}/comm") as f:
        assert f.read().strip() == os.path.basename(program)[:15]
    return daemon.pid


def cpu_ns(pid):
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        with open(path) as f:
            total += int(f.read().split()[0])
    return total


def rss(pid, field="VmHWM"):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(field + r":\s+(\d+) kB", f.read()).group(1)) * 1024


def replayed(path):
    """Packets and bytes of a capture."""
    packets = pcap.read(path).packets
    return len(packets), sum(p.len for p in packets)


class Programs:
    """Each starts what is measured and gives {name: pid} and a function that stops it."""

    @staticmethod
    def ours(lab):
        path = lab.path("ours.pcap")
        collector, agent = lab.collector(output=path), lab.agent()
        agent.wait_for("connected to")

        def stop():
            agent.stop()
            collector.stop()
            lost = sum(d["captured"] - d["committed"] + d["lost_ring"] for d in agent.ledgers())
            seen = agent.total("seen", "ps1", "ingress")
            for f in glob.glob(lab.path("ours*.pcap")):
                os.unlink(f)
            return seen, lost
        return {"agent": pid_of(agent, harness.AGENT),
                "collector": pid_of(collector, harness.COLLECTOR)}, stop

    @staticmethod
    def tcpdump(lab):
        return Programs.peer(lab, ["tcpdump", "-i", "ps1", "-B", "32768", "-w"])

    @staticmethod
    def dumpcap(lab):
        return Programs.peer(lab, ["dumpcap", "-q", "-i", "ps1", "-B", "32", "-w"])

    @staticmethod
    def peer(lab, argv):
        path = lab.path(argv[0] + ".out")
        d = lab.spawn(argv[0], argv + [path], ns=lab.rx)
        d.wait_for("listening on|Capturing on|File:")

        def stop():
            d.stop()
            os.unlink(path)
            text = d.text()
            seen = re.findall(r"(\d+) packets received by filter|Packets captured: (\d+)|"
                              r"received/dropped on interface \S+: (\d+)/", text)
            dropped = re.findall(r"(\d+) packets dropped by kernel|/(\d+) \(pcap:", text)
            os.unlink(d.log)
            return (int(next(filter(None, seen[-1]))) if seen else 0,
                    int(next(filter(None, dropped[-1]))) if dropped else 0)
        return {argv[0]: pid_of(d, argv[0])}, stop


def cpu_per_packet(lab, path, packets, size):
    loops = max(1, PPS * SECONDS // packets)
    results, memory = {}, {}
    programs = [p for p in ("ours", "tcpdump", "dumpcap") if p == "ours" or shutil.which(p)]
    for _ in range(ROUNDS):
        for program in programs:
            pids, stop = getattr(Programs, program)(lab)
            before = {n: cpu_ns(p) for n, p in pids.items()}
            harness.run("ip", "netns", "exec", lab.tx, "tcpreplay", "-q", "--preload-pcap",
                        "--pps", PPS, "--loop", loops, "-i", "ps0", path)
            time.sleep(0.3)  # the last batch is part of the cost; nothing waits for this
            for n, p in pids.items():
                results.setdefault(n, []).append((cpu_ns(p) - before[n]) / (loops * packets))
                memory[n] = max(memory.get(n, 0), rss(p))
            seen, lost = stop()
            if lost:
                print(f"# {program} lost {lost} of {seen}")
    median = {n: statistics.median(v) for n, v in results.items()}
    for n, ns in median.items():
        show(f"cpu_{n}_per_packet", ns, "ns")
        show(f"cpu_{n}_per_byte", ns * packets / size, "ns")
    for n in ("agent", "collector"):
        for peer in ("tcpdump", "dumpcap"):
            ratio(f"cpu_{n}", median[n], peer, median.get(peer))
    for n, b in memory.items():
        show(f"resident_{n}", b / 2**20, "MiB")


def kernel_cost(lab, path, packets):
    """What the program at the hook costs per captured packet, as the kernel counts it."""
    def stats(on):
        with open("/proc/sys/kernel/bpf_stats_enabled", "w") as f:
            f.write("1" if on else "0")
    collector, agent = lab.collector(output=lab.path("k.pcap")), lab.agent()
    agent.wait_for("connected to")
    stats(True)
    try:
        lab.replay(path, PPS)
        out = harness.run("bpftool", "prog", "show", "name", "ps_tc_ingress").stdout.decode()
    finally:
        stats(False)
    agent.stop()
    collector.stop()
    runs = [(int(a), int(b)) for a, b in re.findall(r"run_time_ns (\d+) run_cnt (\d+)", out)]
    if runs and sum(c for _, c in runs):
        show("kernel_captured_packet", sum(t for t, _ in runs) / sum(c for _, c in runs), "ns")


def kernel_not_wanted():
    test = os.path.join(harness.BUILD, "selftests/bpf/test_bpf_tc")
    out = harness.run(test, check=False).stdout.decode()
    for name, ns in re.findall(r"# (not wanted[^:]*): (\d+(?:\.\d+)?) ns", out):
        show("kernel_" + name.replace(" ", "_").replace(",", ""), float(ns), "ns")


def latency(lab):
    """A packet on a quiet link, from its time stamp until it is in the file."""
    path = lab.path("l.pcap")
    collector, agent = lab.collector(output=path), lab.agent()
    agent.wait_for("connected to")
    samples = []
    for _ in range(5 if QUICK else 20):
        size = os.path.getsize(path)
        lab.blast(1)
        harness.wait_until("the packet", lambda: os.path.getsize(path) > size)
        now = time.time_ns()
        samples.append(now - pcap.read(path).packets[-1].time)
    agent.stop()
    collector.stop()
    show("latency_quiet_link_median", statistics.median(samples) / 1e6, "ms")
    show("latency_quiet_link_worst", max(samples) / 1e6, "ms")


def highest_rate(lab, program, count):
    """The highest rate of 200-byte packets at which nothing is lost, by halving."""
    low, high = 0, 1_600_000
    for _ in range(4 if QUICK else 6):
        pps = (low + high) // 2
        _, stop = getattr(Programs, program)(lab)
        out = harness.run("ip", "netns", "exec", lab.tx, harness.BLAST, "ps0",
                          min(count, 2 * pps), 200, pps).stdout.decode()
        reached = int(out.split()[0]) / float(out.split()[-2])
        time.sleep(0.3)
        seen, lost = stop()
        if lost or reached < 0.9 * pps:
            high = pps
        else:
            low = pps
        if reached < 0.9 * pps and not lost:
            low = max(low, int(reached))
            break
    return low


# On blast's packets, UDP from port 1111 to 2222, all of them have to look at addresses or ports or
# behind them before they say no.
FILTERS = {
    "port": "udp port 443",
    "ports": "udp and not (port 2222 or port 53 or portrange 8000-9000)",
    "net": "net 198.51.0.0/16 or net 203.0.113.0/24 or src net 172.16.0.0/12",
    "host_and_port": "(host 192.0.2.7 and tcp port 443) or (udp port 53 and less 100)",
    "bytes": "udp[8:4] = 0x12345678 and ip[8] > 200",
}


@contextlib.contextmanager
def watching(lab, program, expression=None, extra=""):
    """With ours, a peer or nothing on ps1, writing to a file."""
    path = lab.path("watching.pcap")
    if program == "none":
        yield
        return
    if program == "ours":
        config = "backend: tc\n" + (f"filter: '{expression}'\n" if expression else "") + extra
        d = lab.agent(config, output=path)
    else:
        d = lab.spawn("tcpdump", ["tcpdump", "-i", "ps1", "-B", "32768", "-w", path] +
                      (["-s", "66"] if extra else []) + ([expression] if expression else []),
                      ns=lab.rx)
        d.wait_for("listening on")
    try:
        yield
    finally:
        d.stop()
        os.unlink(path)
        kept = re.findall(r"(\d+) packets seen, (\d+) captured|"
                          r"(\d+) packets captured\s+(\d+) packets received", d.text())
        if kept and not expression:
            numbers = sorted(int(n) for n in kept[-1] if n)
            print(f"# {program} captured {numbers[0]} of {numbers[1]} packets")


def at_the_hook(lab):
    """What all of our programs at ps1's ingress take for one packet."""
    data, ctx = lab.path("packet"), lab.path("ctx")
    index = json.loads(harness.run("ip", "-n", lab.rx, "-j", "link", "show", "ps1").stdout)[0]["ifindex"]
    with open(data, "wb") as f:
        f.write(traffic.ether(0x0800, traffic.ipv4(17, traffic.l4(1111, 2222, 154))))
    with open(ctx, "wb") as f:  # struct __sk_buff up to ifindex
        f.write(struct.pack("=40xI", index))
    with harness.inside(lab.rx):
        programs = tcprog.tcx_ids(index, tcprog.TCX_INGRESS)
    runs = [harness.run("ip", "netns", "exec", lab.rx, "bpftool", "prog", "run", "id", programs[0],
                        "data_in", data, "ctx_in", ctx, "repeat", 100000).stdout.decode()
            for _ in range(5)] if programs else []
    return min((int(re.search(r"duration \(average\): (\d+)ns", r)[1]) for r in runs), default=None)


def filters(lab):
    """One and the same sender, in whose context the hooks run, so what it takes longer is the
    filter's. CPU time, and the best of each: who else was on the machine only adds."""
    count, rounds = (100_000, 2) if QUICK else (400_000, 4)
    programs = ["none", "ours"] + ["tcpdump"] * bool(shutil.which("tcpdump"))
    for name, expression in FILTERS.items():
        times, hook = {p: [] for p in programs}, None
        for _ in range(rounds):
            for p in programs:
                with watching(lab, p, expression):
                    before = resource.getrusage(resource.RUSAGE_CHILDREN)
                    sent = lab.blast(count)
                    after = resource.getrusage(resource.RUSAGE_CHILDREN)
                    if p == "ours" and not hook:
                        hook = at_the_hook(lab)
                times[p].append((after.ru_utime + after.ru_stime - before.ru_utime -
                                 before.ru_stime) / sent * 1e9)
        if hook:
            show(f"filter_{name}", hook, "ns")
        cost = {p: min(t) - min(times["none"]) for p, t in times.items()}
        for p in programs[1:]:
            show(f"filter_{name}_sender_{p}", cost[p], "ns")
        if min(cost["ours"], cost.get("tcpdump", 0)) > 0:
            ratio(f"filter_{name}_sender", cost["ours"], "tcpdump", cost["tcpdump"])


def pump(lab, volume, pace):
    """Bytes per second of one connection; @pace: the most it sends of them, 0 for all it can."""
    family, block = socket.AF_INET, bytes(1 << 20)
    with harness.make_socket(lab.rx, family, socket.SOCK_STREAM) as listener, \
            harness.make_socket(lab.tx, family, socket.SOCK_STREAM) as s:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((tcp.ADDRESSES[family][1], tcp.PORT))
        listener.listen()
        if pace:
            s.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, pace)
        s.connect((tcp.ADDRESSES[family][1], tcp.PORT))

        def send():
            for _ in range(volume >> 20):
                s.sendall(block)
            s.shutdown(socket.SHUT_WR)
        sender, start = threading.Thread(target=send), time.monotonic()
        with listener.accept()[0] as c:
            sender.start()
            room = bytearray(1 << 20)
            while c.recv_into(room):
                pass
        sender.join()
    return volume / (time.monotonic() - start)


# What is captured of a connection, and how fast it sends (bytes per second, 0: as fast as it can).
TRANSFERS = {
    "all": (None, "", 0),
    "headers": (None, "slice: headers\n", 0),
    "nothing": ("udp port 9", "", 0),
    "all_paced": (None, "", 100_000_000),
}


def host_throughput(name, expression, extra, pace):
    """What the host keeps of its throughput."""
    lab = harness.Lab(mtu=1500)
    try:
        tcp.connect(lab)
        volume, rounds = (64 << 20, 3) if QUICK else (512 << 20, 4)
        programs = ["none", "ours"] + ["tcpdump"] * bool(shutil.which("tcpdump"))
        rates = {p: [] for p in programs}
        for _ in range(rounds):
            for p in programs:
                with watching(lab, p, expression, extra):
                    rates[p].append(pump(lab, volume, pace))
        kept = {p: statistics.median(r) / statistics.median(rates["none"]) for p, r in rates.items()}
        show(f"host_throughput_{name}", statistics.median(rates["none"]) * 8 / 1e9, "Gbit/s")
        show(f"host_throughput_{name}_ratio", kept["ours"], "of-none")
        if "tcpdump" in kept:
            show(f"host_throughput_{name}_ratio_tcpdump", kept["tcpdump"], "of-none")
            ratio(f"host_throughput_{name}", kept["ours"], "tcpdump", kept["tcpdump"])
    finally:
        lab.close()


def main():
    if os.geteuid():
        sys.exit("bench: run as root, namespaces and BPF need it")
    lab = harness.Lab()
    try:
        packets = traffic.captured() or [p for p in traffic.generated() if traffic.sendable(p)]
        path = lab.path("in.pcap")
        pcap.write(path, packets)
        n, size = replayed(path)
        print(f"# {n} packets of {size / n:.0f} bytes on average, {PPS} packets/s, "
              f"{SECONDS} s, {ROUNDS} rounds")
        cpu_per_packet(lab, path, n, size)
        kernel_cost(lab, path, n)
        kernel_not_wanted()
        filters(lab)
        for name, (expression, extra, pace) in TRANSFERS.items():
            host_throughput(name, expression, extra, pace)
        latency(lab)
        rates = {p: highest_rate(lab, p, 1_000_000) for p in ("ours", "tcpdump", "dumpcap")
                 if p == "ours" or shutil.which(p)}
        for p, r in rates.items():
            show(f"rate_without_loss_{p}", r, "packets/s")
        for peer in ("tcpdump", "dumpcap"):
            ratio("rate_without_loss", rates["ours"], peer, rates.get(peer))
    finally:
        lab.close()
    print("1 passed, 0 failed, 0 skipped")


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, TimeoutError, AssertionError, subprocess.SubprocessError) as e:
        print(f"# {e}\n0 passed, 1 failed, 0 skipped")
        sys.exit(1)
