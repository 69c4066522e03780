"""Time our binary and its peers at the same job, side by side, and print a Markdown table for each model.

The contestants take turns (A B C A B C …), each in a process of its own, so that a machine that drifts hits all alike.
Every result is compared with the plain loop's. See README.md for how to call it.
"""

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from common import THREADS

HERE = Path(__file__).parent
REFERENCE = "plain_loop"
IN_MEMORY = "ort_in_memory"
OURS = "ours"
SCAN = "ours-scan"
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Peer:
    """A script of this folder."""

    label: str  # in the table; the version goes before the comma
    package: str
    heavy: bool = False  # needs requirements-heavy.txt

    def __str__(self) -> str:
        name, _, rest = self.label.partition(",")
        return f"{name} {metadata.version(self.package)}{',' if rest else ''}{rest}"


PEERS = {
    REFERENCE: Peer("ONNX Runtime, a plain loop with pyarrow", "onnxruntime"),
    "polars_map_batches": Peer("Polars, `map_batches`", "polars"),
    "duckdb_arrow_udf": Peer("DuckDB, Arrow UDF", "duckdb"),
    "datafusion_python_udf": Peer("datafusion-python, Arrow UDF", "datafusion"),
    "daft_batch_udf": Peer("Daft, batch UDF", "daft"),
    IN_MEMORY: Peer("ONNX Runtime, data already in memory", "onnxruntime"),
    "spark_map_in_pandas": Peer("Spark, `mapInPandas`", "pyspark", heavy=True),
    "ray_data": Peer("Ray Data, `map_batches`", "ray", heavy=True),
}


@dataclass
class Times:
    """What the rounds measured of one contestant at one model."""

    seconds: list[float] = field(default_factory=list)
    settings: dict[str, list[float]] = field(default_factory=dict)

    def median(self) -> float:
        """Take the median of the rounds."""
        return statistics.median(self.seconds)

    def best_setting(self) -> tuple[str, float]:
        """Find the setting with the lowest median, and that median."""
        medians = {setting: statistics.median(seconds) for setting, seconds in self.settings.items()}
        return min(medians.items(), key=lambda item: item[1])


class Failure(Exception):
    """A contestant that did not finish, or whose scores are not the plain loop's."""


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    light = [name for name, peer in PEERS.items() if not peer.heavy]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--data", required=True, type=Path, metavar="DATA.parquet")
    parser.add_argument("--ours", metavar="CMD", help="our command for the job, with {model}, {data} and {out}")
    parser.add_argument("--ours-scan", metavar="CMD", help="the same without the model, with {data} and {out}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=light, help="default: all but Spark and Ray")
    parser.add_argument("--all", action="store_true", help="Spark and Ray too")
    options = parser.parse_args()
    if options.all:
        options.peers = list(PEERS)
    if REFERENCE not in options.peers:
        options.peers.insert(0, REFERENCE)
    return options


def child(command: list[str]) -> str:
    """Run a command to its end and give its standard output."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Failure(str(error)) from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise Failure(f"exit status {done.returncode}: {last}")
    return done.stdout


def run_peer(name: str, model: Path, data: Path, out: Path, times: Times) -> None:
    """One round of a peer, which times its own job."""
    output = child([sys.executable, str(HERE / f"{name}.py"), str(model), str(data), str(out)])
    line = json.loads(output.splitlines()[-1])
    times.seconds.append(line["seconds"])
    for setting, seconds in line.get("settings", {}).items():
        times.settings.setdefault(setting, []).append(seconds)


def run_ours(template: str, model: Path, data: Path, out: Path, times: Times) -> None:
    """One round of our binary, timed as a whole process."""
    command = shlex.split(template)
    # Not str.format: SQL has braces of its own.
    for name, value in (("{model}", model), ("{data}", data), ("{out}", out)):
        command = [word.replace(name, str(value)) for word in command]
    start = time.perf_counter()
    child(command)
    times.seconds.append(time.perf_counter() - start)


def remove(out: Path) -> None:
    """Remove what an earlier round wrote: a file, or the folder of Spark and Ray."""
    if out.is_dir():
        shutil.rmtree(out)
    else:
        out.unlink(missing_ok=True)


def read_scores(out: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the ids in ascending order, and their scores."""
    table = pq.read_table(out, columns=["id", "score"])
    ids, scores = table["id"].to_numpy(), table["score"].to_numpy()
    order = np.argsort(ids, kind="stable")
    return ids[order], scores[order]


def check(out: Path, reference: Path) -> None:
    """Fail unless `out` has the same ids as `reference` and the same scores, to the tolerance."""
    (ids, scores), (expected_ids, expected) = read_scores(out), read_scores(reference)
    if not np.array_equal(ids, expected_ids):
        raise Failure(f"expected the plain loop's {len(expected_ids)} ids, found {len(ids)} that differ")
    if not np.allclose(scores, expected, rtol=0, atol=TOLERANCE, equal_nan=True):
        raise Failure(f"a score differs by {np.nanmax(np.abs(scores - expected)):.3g} from the plain loop's")


def measure(model: Path, options: argparse.Namespace, folder: Path) -> tuple[dict[str, Times], dict[str, str]]:
    """All rounds of one model: the times, and why those failed that did."""
    reference = folder / f"{REFERENCE}.parquet"
    turns = {name: lambda out, t, name=name: run_peer(name, model, options.data, out, t) for name in options.peers}
    for name, template in ((OURS, options.ours), (SCAN, options.ours_scan)):
        if template:
            turns[name] = lambda out, t, template=template: run_ours(template, model, options.data, out, t)
    # The first turn writes what the others are compared with.
    turns = {REFERENCE: turns[REFERENCE]} | turns
    times = {name: Times() for name in turns}
    failures: dict[str, str] = {}
    for turn in range(1, options.rounds + 1):
        for name in turns:
            if name in failures:
                continue
            print(f"{model.stem}: round {turn} of {options.rounds}: {name}", file=sys.stderr)
            out = folder / f"{name}.parquet"
            remove(out)
            try:
                turns[name](out, times[name])
                if name != SCAN:
                    check(out, reference)
            except Failure as failure:
                if name == REFERENCE:
                    raise SystemExit(f"{name}: {failure}") from failure
                failures[name] = str(failure)
                del times[name]
    return times, failures


def report(model: Path, times: dict[str, Times], failures: dict[str, str], rounds: int) -> None:
    """Print a model's table and what follows from it."""
    ours = times[OURS].median() if OURS in times else None

    def row(label: str, seconds: float) -> str:
        ratio = f"{seconds / ours:.2f}" if ours else "–"
        return f"| {label} | {seconds:.3f} | {ratio} |"

    print(f"\n## {model.stem}\n\n| who | seconds, median of {rounds} | ÷ ours |\n|---|---|---|")
    if ours:
        print(row("**ours**, the whole process", ours))
    for name, peer in PEERS.items():
        if name in times and name != IN_MEMORY:
            print(row(str(peer), times[name].median()))
    if IN_MEMORY in times:
        for setting, seconds in times[IN_MEMORY].settings.items():
            print(row(f"{PEERS[IN_MEMORY]}, {setting}", statistics.median(seconds)))
    if SCAN in times:
        print(row("ours, scan and write without the model", times[SCAN].median()))
    print()
    if ours and SCAN in times and IN_MEMORY in times:
        added = ours - times[SCAN].median()
        setting, bar = times[IN_MEMORY].best_setting()
        print(
            f"What the model adds to our query (ours − scan): {added:.3f} s, {added / bar:.2f} × ONNX Runtime in memory"
            f" at its best ({bar:.3f} s, {setting}).\n"
        )
    for name, why in failures.items():
        print(f"- {name} failed: {why}")


def processor() -> str:
    """Name the processor, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown processor"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")


def main() -> int:
    """Measure and report each model; 1 if anything failed."""
    options = arguments()
    if hasattr(os, "sched_setaffinity"):  # inherited by every child, ours too
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    options.data.read_bytes()  # into the page cache
    rows = pq.ParquetFile(options.data).metadata.num_rows
    print(f"{rows:,} rows, {THREADS} cores of {processor()}, load {os.getloadavg()[0]:.1f} at the start.")
    failed = False
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        for model in options.models:
            times, failures = measure(model, options, Path(folder))
            report(model, times, failures, options.rounds)
            failed |= bool(failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
