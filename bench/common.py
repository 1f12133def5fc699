"""What the parts of compare.py share: the driver (this module's side), the clock, and taking turns."""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Run:
    """One run of compare.py: its options, its folder of scratch files, and the driver."""

    def __init__(self, options, folder):
        self.options, self.folder = options, pathlib.Path(folder)
        self.clock = time.process_time if options.cpu else time.perf_counter
        self.driver = None

    def start(self):
        """Builds and starts the driver, and says what it runs on."""
        binary = self.build("./bench/driver", "driver")
        self.driver = subprocess.Popen([binary, f"-cpu={self.options.cpu}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        print("ours:", self.driver.stdout.readline().strip(), flush=True)

    def ask(self, *job):
        """Answers of the driver to one job, as floats."""
        print(*job, file=self.driver.stdin, flush=True)
        answer = self.driver.stdout.readline().split()
        if not answer:
            sys.exit(f"the driver gave no answer to {job}")
        return [float(x) for x in answer]

    def build(self, package, name):
        """Builds a command of the module into the scratch folder and returns its path."""
        binary = self.folder / name
        if not binary.exists():
            subprocess.run(["go", "build", "-o", binary, package], cwd=ROOT, check=True)
        return binary

    def timed(self, job):
        """Seconds of a job, and its result."""
        start = self.clock()
        result = job()
        return self.clock() - start, result

    def close(self):
        if self.driver is not None:
            self.driver.stdin.close()
            self.driver.wait()


def take_turns(rounds, *sides):
    """Calls the sides in turn, so that what disturbs the machine disturbs all; the results of each side, by rounds."""
    results = [[] for _ in sides]
    for _ in range(rounds):
        for side, out in zip(sides, results):
            out.append(side())
            time.sleep(0.06)  # OpenBLAS's threads spin for a while before they sleep
    return results


def report(name, theirs, ours, what="torch", form="{:.3f} s"):
    """Prints the fastest and the median of two lists of seconds, and the ratio of the medians, above 1 where ours is faster."""
    shown = [f"{label} {form.format(min(x))} (median {form.format(statistics.median(x))})" for label, x in ((what, theirs), ("ours", ours))]
    print(f"{name:44} {', '.join(shown)}, ratio {statistics.median(theirs) / statistics.median(ours):.2f}", flush=True)


def child(command, processors, **kwargs):
    """Starts a command on the given processors only."""
    return subprocess.Popen([str(x) for x in command], preexec_fn=lambda: os.sched_setaffinity(0, processors), **kwargs)


def wall(command, **kwargs):
    """Seconds that a command takes, and the JSON object that it prints."""
    start = time.perf_counter()
    done = subprocess.run([str(x) for x in command], stdout=subprocess.PIPE, check=True, **kwargs)
    return time.perf_counter() - start, json.loads(done.stdout)


def peak_memory():
    """The largest resident size of this process, in bytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0
