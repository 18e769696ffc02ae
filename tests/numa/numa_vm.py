"""numa_vm.py - emulated machines with any number of unequal NUMA nodes: QEMU in software emulation (no KVM, no root, no network), Debian's cloud kernel, and an
initramfs of busybox, the programs to run, the libraries they need, and their files. Timings inside mean nothing; placement of pages, pinning and what the kernel
says about the topology are real.

The commands' output comes back through a second serial port, apart from the kernel's messages; both are kept in build/logs. Every machine has a deadline that
holds even when this process is killed. What is missing here (QEMU, busybox, the kernel) raises Missing with the remedy. Standard library only.
"""
import glob
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import threading

SRC = os.environ.get("KT_SRCDIR", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
BUILD = os.environ.get("KT_BUILDDIR", os.path.join(SRC, "build"))
LOGS = os.path.join(BUILD, "logs")

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs tmp /tmp; ip link set lo up
stty -F /dev/ttyS1 raw -echo
exec </dev/null >/dev/ttyS1 2>&1
"""


class Missing(Exception):
    """Something that emulation needs is not installed."""


class Failed(Exception):
    """The machine did not start, or stopped before its commands had ended."""


def kernel():
    """KT_VM_KERNEL, or what quickstart unpacked, or the host's own if it is Debian's."""
    named = os.environ.get("KT_VM_KERNEL")
    if named:
        return named
    for pattern in (os.path.join(BUILD, "vm/boot/vmlinuz-*"), os.path.join(SRC, "build/vm/boot/vmlinuz-*"), "/boot/vmlinuz-*-amd64"):
        found = sorted(f for f in glob.glob(pattern) if os.access(f, os.R_OK))
        if found:
            return found[-1]
    raise Missing(
        "no kernel for emulated machines: mkdir -p build/vm && cd build/vm && "
        "apt-get download $(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ {print $2}') && dpkg-deb -x linux-image-*.deb ."
    )


def tools():
    """Paths of QEMU, busybox and the kernel, or Missing."""
    if platform.machine() != "x86_64":
        raise Missing(f"the emulated machines are x86_64, these programs are {platform.machine()}")
    found = []
    for program, package in (("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static")):
        path = shutil.which(program)
        if path is None:
            raise Missing(f"{program} is missing: apt-get install {package}")
        found.append(path)
    return found + [kernel()]


def libraries(program):
    """Shared libraries of a program, the loader included."""
    out = subprocess.run(["ldd", program], capture_output=True, text=True, timeout=60).stdout
    return sorted(set(re.findall(r"(/\S+) \(0x", out)))


class Archive:
    """An initramfs in cpio's "newc" form."""

    def __init__(self, f):
        self.f, self.made, self.n = f, set(), 0

    def _entry(self, name, mode, data=b"", size=None):
        self.n += 1
        raw = name.encode() + b"\0"
        size = len(data) if size is None else size
        fields = [self.n, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(raw), 0]
        head = b"070701" + b"".join(b"%08X" % v for v in fields) + raw
        self.f.write(head + b"\0" * (-len(head) % 4))
        self.f.write(data)

    def _pad(self, size):
        self.f.write(b"\0" * (-size % 4))

    def directory(self, path):
        path = path.strip("/")
        if path and path not in self.made:
            self.directory(os.path.dirname(path))
            self.made.add(path)
            self._entry(path, 0o040755)

    def text(self, path, data, mode=0o100755):
        self.directory(os.path.dirname(path.strip("/")))
        self._entry(path.strip("/"), mode, data)
        self._pad(len(data))

    def file(self, path, source):
        if path in self.made:
            return
        self.made.add(path)
        self.directory(os.path.dirname(path.strip("/")))
        size = os.path.getsize(source)
        self._entry(path.strip("/"), 0o100755 if os.access(source, os.X_OK) else 0o100644, size=size)
        with open(source, "rb") as s:
            shutil.copyfileobj(s, self.f)
        self._pad(size)

    def end(self):
        self._entry("TRAILER!!!", 0)


def stripped(program, folder):
    """The program without debug information, which would fill the machine's memory; itself where strip is absent."""
    to = os.path.join(folder, os.path.basename(program))
    if shutil.which("strip") and subprocess.run(["strip", "-o", to, program], capture_output=True, timeout=60).returncode == 0:
        return to
    return program


def build_initramfs(path, folder, programs, files, script):
    with open(path, "wb") as f:
        a = Archive(f)
        for d in ("dev", "proc", "sys", "tmp", "bin"):
            a.directory(d)
        a.file("bin/busybox", shutil.which("busybox"))
        for p in programs:
            a.file(os.path.join("bin", os.path.basename(p)), stripped(p, folder))
            for lib in libraries(p):
                a.file(lib, lib)
        for at, source in files.items():
            a.file(at, source)
        a.text("init", script.encode())
        a.end()


class Machine:
    """nodes: [(MiB, "0-2" or "" for a node without CPUs)]; distances: {(from, to): value}, all pairs or none; kernel: words for the kernel's command line; cpu: QEMU's
    name of the processor (without AVX512 in any case: the emulation has none)."""

    def __init__(self, name, nodes, distances=None, kernel_args="", cpu="max", timeout=120):
        self.name, self.nodes, self.distances, self.kernel_args, self.cpu, self.timeout = name, nodes, distances or {}, kernel_args, cpu, timeout

    def cpus(self):
        """CPU numbers of each node."""
        out = []
        for _, text in self.nodes:
            cpus = []
            for part in text.split(",") if text else []:
                a, _, b = part.partition("-")
                cpus += range(int(a), int(b or a) + 1)
            out.append(cpus)
        return out

    def qemu_args(self):
        args = []
        for i, (mib, text) in enumerate(self.nodes):
            cpus = "".join(f",cpus={part}" for part in text.split(",")) if text else ""
            args += ["-object", f"memory-backend-ram,id=m{i},size={mib}M", "-numa", f"node,nodeid={i},memdev=m{i}{cpus}"]
        for (a, b), value in self.distances.items():
            args += ["-numa", f"dist,src={a},dst={b},val={value}"]
        return args + ["-m", f"{sum(m for m, _ in self.nodes)}M", "-smp", str(1 + max(c for node in self.cpus() for c in node))]

    def run(self, commands, programs, files):
        """commands: {label: shell text}. Gives {label: (exit code, output)}; raises Failed when a label did not end."""
        qemu, _, image = tools()
        os.makedirs(LOGS, exist_ok=True)
        console, results = (os.path.join(LOGS, f"numa-{self.name}.{end}") for end in ("console.log", "out.log"))
        script = INIT + "".join(f"echo; echo '@@begin {label}'; {text}\ncode=$?; echo; echo \"@@end {label} $code\"\n" for label, text in commands.items())
        script += "echo @@done; sync; poweroff -f\n"
        with tempfile.TemporaryDirectory(prefix="kt-numa-") as folder:
            initrd = os.path.join(folder, "initrd")
            build_initramfs(initrd, folder, programs, files, script)
            for f in (console, results):
                open(f, "wb").close()
            cmd = ["timeout", "-k", "2", str(self.timeout), qemu, "-accel", "tcg,thread=multi", "-cpu", self.cpu, *self.qemu_args(), "-kernel", image, "-initrd", initrd,
                   "-append", f"console=ttyS0 quiet panic=-1 no_timer_check {self.kernel_args}", "-display", "none", "-monitor", "none", "-net", "none", "-no-reboot",
                   "-serial", f"file:{console}", "-serial", f"file:{results}"]
            p = subprocess.run(cmd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=self.timeout + 10)
        with open(results, errors="replace") as f:
            text = f.read().replace("\r", "")
        out = {}
        for label in commands:
            m = re.search(rf"@@begin {re.escape(label)}\n(.*)\n@@end {re.escape(label)} (\d+)\n", text, re.S)
            if m is None:
                why = "ran past its time" if p.returncode in (124, 137) else f"stopped (QEMU exit {p.returncode}: {p.stderr.strip()[-300:]})"
                raise Failed(f"{self.name}: '{label}' did not end: the machine {why}; see {console} and {results}")
            out[label] = (int(m.group(2)), m.group(1))
        return out


def in_parallel(jobs, at_once):
    """Run functions, at most `at_once` at a time; gives their results or exceptions in order."""
    results, gate = [None] * len(jobs), threading.Semaphore(at_once)

    def one(i):
        with gate:
            try:
                results[i] = jobs[i]()
            except Exception as e:  # pylint: disable=broad-except
                results[i] = e

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(jobs))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return results
