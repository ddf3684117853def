# SPDX-License-Identifier: Apache-2.0
"""Namespaces, daemons and TAP for the end-to-end tests.

Everything that a test makes is taken down by Lab.close(), also after a failure.
Waits are for events, with a bound; nothing sleeps for luck.
"""
import atexit
import contextlib
import ctypes
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("PS_BUILD", os.path.join(ROOT, "build")))
AGENT = os.path.join(BUILD, "ps-agent")
COLLECTOR = os.path.join(BUILD, "ps-collector")
BLAST = os.path.join(BUILD, "selftests/tools/blast")
# Under valgrind, a sanitizer or in an emulated guest everything takes longer.
PATIENCE = float(os.environ.get("PS_PATIENCE", "1"))
WRAP = os.environ.get("PS_WRAP", "").split()
GUEST = bool(os.environ.get("PS_GUEST"))
LIBC = ctypes.CDLL(None, use_errno=True)
KERNEL = tuple(map(int, os.uname().release.split(".")[:2]))
# Before Linux 5.11 BPF memory counts against a limit that only CAP_SYS_RESOURCE raises.
MEMLOCK_COUNTS = KERNEL < (5, 11)


def traffic_files():
    """Real captures, where there are any: PS_TRAFFIC, else beside the project."""
    folder = os.environ.get("PS_TRAFFIC", os.path.join(ROOT, "../shared/traffic"))
    if not os.path.isdir(folder):
        return []
    return [os.path.join(folder, f) for f in sorted(os.listdir(folder))
            if f.endswith((".pcap", ".cap"))]


def run(*args, check=True, **kw):
    kw.setdefault("stdout", subprocess.PIPE)
    kw.setdefault("stderr", subprocess.STDOUT)
    done = subprocess.run([str(a) for a in args], **kw)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, args))}: {done.returncode}\n"
                           f"{(done.stdout or b'').decode(errors='replace')}")
    return done


@contextlib.contextmanager
def inside(ns):
    """This thread in a network namespace; sockets made there stay there."""
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{ns}") as there:
        if LIBC.setns(there.fileno(), 0):
            raise OSError(ctypes.get_errno(), f"cannot enter {ns}")
        try:
            yield
        finally:
            LIBC.setns(home.fileno(), 0)


def make_socket(ns, *args):
    with inside(ns):
        return socket.socket(*args)


def wait_until(what, condition, seconds=10):
    """Poll for an event that has no descriptor to wait on."""
    end = time.monotonic() + seconds * PATIENCE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.002)
    raise TimeoutError(f"gave up waiting for {what}")


def as_user(uid):
    """The command that runs another one as that user, with no more rights than an agent needs."""
    caps = "+bpf,+net_admin,+perfmon" + ",+sys_resource" * MEMLOCK_COUNTS
    return ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", "--inh-caps", caps,
            "--ambient-caps", caps, "--bounding-set", f"-all,{caps}"]


class Daemon:
    def __init__(self, lab, name, argv, ns=None, stdout=None, wrap=True):
        self.name, self.log = name, os.path.join(lab.dir, f"{name}.log")
        wrap = WRAP if wrap is True else list(wrap or ())
        self.cmd = (["ip", "netns", "exec", ns] if ns else []) + wrap + argv
        self.err = open(self.log, "ab")
        # One that is started again goes on in the log of the one before, but is read alone.
        self.log_start = self.err.tell()
        self.proc = subprocess.Popen(self.cmd, stdin=subprocess.DEVNULL, stderr=self.err,
                                     stdout=stdout if stdout is not None else self.err)

    @property
    def pid(self):
        return self.proc.pid

    def text(self):
        with open(self.log, errors="replace") as f:
            f.seek(self.log_start)
            return f.read()

    def freeze(self):
        """SIGSTOP, and every thread of it stands still."""
        def states():
            for task in glob.glob(f"/proc/{self.pid}/task/*/stat"):
                with open(task) as f:
                    yield f.read().rpartition(")")[2].split()[0]
        self.signal(signal.SIGSTOP)
        wait_until(f"{self.name} to stand still", lambda: set(states()) == {"T"})

    def story(self):
        """Its log by lines, of the ledgers that it printed only the last ones."""
        lines = self.text().splitlines()
        ends = [i for i, line in enumerate(lines) if " packets seen, " in line]
        last = ends[-2] if len(ends) > 1 else -1
        return [line for i, line in enumerate(lines)
                if i > last or not (" ledger {" in line or i in ends)]

    def wait_for(self, pattern, seconds=20, count=1):
        def found():
            hits = re.findall(pattern, self.text(), re.M)
            if len(hits) >= count:
                return hits
            if self.proc.poll() is not None:
                hits = re.findall(pattern, self.text(), re.M)
                if len(hits) >= count:
                    return hits
                raise RuntimeError(f"{self.name} ended with {self.proc.returncode}:\n{self.text()}")
            return None
        try:
            return wait_until(f"{self.name} to say {pattern!r}", found, seconds)
        except TimeoutError as e:
            raise TimeoutError(f"{e}\n{self.text()}") from None

    def ready(self):
        try:
            self.wait_for(r"\bready\b", 30)
        except RuntimeError:
            if KERNEL < (5, 18) and "bpf_xdp_load_bytes() (Linux 5.18)" in self.text():
                raise Skip("no capture at XDP before Linux 5.18") from None
            raise
        return self

    def signal(self, number):
        self.proc.send_signal(number)

    def stop(self, seconds=30):
        if self.proc.poll() is None:
            self.proc.terminate()
        try:
            return self.proc.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"{self.name} did not stop:\n{self.text()}") from None

    def kill(self):
        if self.proc.poll() is None:
            self.proc.kill()
        self.proc.wait()

    def ledgers(self):
        """What was printed at the end, else the last line of every agent, interface and
        direction. An interface may have come and gone several times under one name."""
        last = {}
        text = self.text()
        stops = [m.end() for m in re.finditer(r" stopping( on \w+)?$", text, re.M)]
        ended = stops[-1] if stops else 0
        for n, line in enumerate(text[ended:].splitlines()):
            if " ledger {" in line:
                d = json.loads(line[line.index("{"):])
                last[d["agent"], d["epoch"], d["interface"], d["direction"], n * (ended > 0)] = d
        return list(last.values())

    def snapshot(self):
        """The agent's ledgers now, in one number per counter."""
        before = len(re.findall(r" packets seen, ", self.text()))
        self.signal(signal.SIGUSR1)
        self.wait_for(r" packets seen, ", count=before + 1)
        lines = self.text().splitlines()
        ends = [i for i, line in enumerate(lines) if " packets seen, " in line]
        first = ends[-2] + 1 if len(ends) > 1 else 0
        totals = {}
        for line in lines[first:ends[-1]]:
            if " ledger {" in line:
                for key, value in json.loads(line[line.index("{"):]).items():
                    if isinstance(value, int):
                        totals[key] = totals.get(key, 0) + value
        return totals

    def total(self, counter, interface=None, direction=None):
        return sum(d[counter] for d in self.ledgers()
                   if interface in (None, d["interface"]) and direction in (None, d["direction"]))


class Lab:
    """A pair of namespaces joined by a veth: `tx` (end ps0, to send from) and `rx` (end
    ps1, where agent and collector run and talk over lo)."""

    def __init__(self, veth=True, mtu=9000):
        self.dir = tempfile.mkdtemp(prefix="ps-e2e-")
        self.tag = f"ps{os.getpid()}x{os.urandom(2).hex()}"
        self.tx, self.rx = self.tag + "t", self.tag + "r"
        self.daemons, self.namespaces = [], []
        self.every_agent = ""  # what each has in its configuration besides
        if os.environ.get("PS_GUEST"):
            # What an emulated processor cannot take in at once must not be lost before
            # it comes to the hook.
            with open("/proc/sys/net/core/netdev_max_backlog", "w") as f:
                f.write("100000")
        atexit.register(self.close)
        for ns in (self.tx, self.rx):
            self.namespace(ns)
        if veth:
            self.veth(self.tx, "ps0", self.rx, "ps1", mtu)

    def namespace(self, name):
        run("ip", "netns", "add", name)
        self.namespaces.append(name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        # Interfaces that speak on their own would add packets to a capture.
        run("ip", "netns", "exec", name, "sh", "-c",
            "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6", check=False)
        return name

    def veth(self, ns, dev, peer_ns, peer, mtu=1500):
        run("ip", "-n", ns, "link", "add", dev, "mtu", mtu, "type", "veth", "peer", "name", peer,
            "netns", peer_ns, "mtu", mtu)
        self.quiet(ns, dev)
        self.quiet(peer_ns, peer)

    def mac(self, ns, dev):
        return json.loads(run("ip", "-n", ns, "-j", "link", "show", dev).stdout)[0]["address"]

    def address(self, one, two):
        """Let the two (namespace, device, IPv4 address) of a subnet talk, without ARP."""
        for (ns, dev, ip), (to_ns, to_dev, to_ip) in ((one, two), (two, one)):
            run("ip", "-n", ns, "addr", "add", f"{ip}/24", "dev", dev)
            run("ip", "-n", ns, "neigh", "replace", to_ip, "lladdr", self.mac(to_ns, to_dev),
                "dev", dev, "nud", "permanent")

    def quiet(self, ns, dev):
        run("ip", "-n", ns, "link", "set", dev, "arp", "off", "multicast", "off", "up")

    def sends(self, ns, dev):
        """A veth's end does a while after the other one came up; what is sent before is dropped."""
        wait_until(f"{dev} to be up", lambda: b'"operstate":"UP"' in run(
            "ip", "-n", ns, "-j", "link", "show", dev).stdout)
        # Its queue comes after that, under the same lock as any change.
        run("ip", "-n", ns, "link", "set", dev, "alias", "up")

    def path(self, name):
        return os.path.join(self.dir, name)

    def file(self, name, text):
        with open(self.path(name), "w") as f:
            f.write(text)
        return self.path(name)

    def pki(self, *names):
        if not os.path.isdir(self.path("pki")):
            run(COLLECTOR, "--init-pki", self.path("pki"), *names)
        return self.path("pki")

    def tls(self, who, pki=None):
        pki = pki or self.pki()
        return (f"tls:\n  enable: true\n  certfile: {pki}/{who}.crt\n  keyfile: {pki}/{who}.key\n"
                f"  cafile: {pki}/ca.crt\n")

    def collector(self, extra="", tls=None, port=8081, name="collector", output=None, ns=None,
                  host="127.0.0.1", **kw):
        text = (f"input:\n  address: {host}\n  port: {port}\n"
                f"output:\n  file:\n    path: {output or self.path('dump.pcap')}\n"
                f"{self.tls('collector') if tls is None else tls}{extra}")
        return self.start(name, COLLECTOR, text, ns or self.rx, **kw).ready()

    def agent(self, extra="", tls=None, port=8081, name="agent", interfaces="[ps1]", output=None,
              ready=True, ns=None, host="127.0.0.1", **kw):
        text = f"agentName: {name}\n" + (f"interfaces: {interfaces}\n" if interfaces else "")
        if output:
            text += f"output:\n  file:\n    path: {output}\n"
        else:
            text += (f"output:\n  server:\n    address: {host}\n    port: {port}\n"
                     f"{self.tls('agent') if tls is None else tls}")
        daemon = self.start(name, AGENT, text + self.every_agent + extra, ns or self.rx, **kw)
        return daemon.ready() if ready else daemon

    def start(self, name, program, config, ns, **kw):
        path = self.file(f"{name}.yaml", config)
        d = Daemon(self, name, [program, "--config", path], ns, **kw)
        self.daemons.append(d)
        return d

    def spawn(self, name, argv, ns=None, **kw):
        d = Daemon(self, name, argv, ns, wrap=False, **kw)
        self.daemons.append(d)
        return d

    def replay(self, path, pps=5000, dev="ps0", ns=None):
        # On one processor: packets are not in order between the backlogs of two.
        return run("ip", "netns", "exec", ns or self.tx, "taskset", "-c",
                   min(os.sched_getaffinity(0)), "tcpreplay", "-q", "--pps", pps,
                   "--preload-pcap", "-i", dev, path)

    def blast(self, count, size=200, dev="ps0", ns=None, *more):
        out = run("ip", "netns", "exec", ns or self.tx, BLAST, dev, count, size, *more).stdout
        return int(out.split()[0])

    def close(self):
        atexit.unregister(self.close)
        for d in self.daemons:
            d.kill()
            d.err.close()
        for ns in self.namespaces:
            run("ip", "netns", "del", ns, check=False)
        self.daemons, self.namespaces = [], []
        self.every_agent = ""  # what each has in its configuration besides
        if os.environ.get("PS_KEEP"):
            print(f"# kept {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)


class Skip(Exception):
    pass


def main(tests, any_kernel=False):
    """Run the functions, print TAP; each gets a Lab of its own. Arguments select by name.
    With @any_kernel they say nothing about a kernel, and are too much for an emulated one."""
    chosen = [t for t in tests if len(sys.argv) < 2 or t.__name__ in sys.argv[1:]]
    unknown = set(sys.argv[1:]) - {t.__name__ for t in tests}
    if unknown:
        sys.exit(f"no such test: {' '.join(sorted(unknown))}")
    failed = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"1..{len(chosen)}")
    for n, test in enumerate(chosen, 1):
        name, start = test.__name__.replace("_", " "), time.monotonic()
        lab = None
        try:
            if os.geteuid() != 0:
                raise Skip("needs root")
            if any_kernel and GUEST:
                raise Skip("the same with any kernel")
            lab = Lab()
            test(lab)
            print(f"ok {n} - {name} ({time.monotonic() - start:.1f} s)", flush=True)
        except Skip as s:
            print(f"ok {n} - {name} # SKIP {s}", flush=True)
        except Exception:
            failed += 1
            print(f"not ok {n} - {name}", flush=True)
            for line in traceback.format_exc().splitlines():
                print(f"# {line}")
            for d in lab.daemons if lab else []:
                print("\n".join(f"# [{d.name}] {line}" for line in d.story()[-40:]))
            sys.stdout.flush()
        finally:
            if lab:
                lab.close()
    sys.exit(1 if failed else 0)
