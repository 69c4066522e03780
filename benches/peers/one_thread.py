"""One thread, the rows already in memory: what the best there is does with a model on one core, in rows a second.

A script that calls `main` takes MODEL DATA.parquet [--rows N] [--rounds N] and prints one JSON line: `rows_per_second`
is the best of `settings`, each the best of its rounds. `busy` is the share of a core that the best had; if it is not
close to 1, something else ran on the machine, and the figure is too low.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

BATCHES = (1024, 8192, 65_536)

# The setting's name, what cuts the rows into batches of a size, and what runs the model on a batch.
Setting = tuple[str, Callable[[int], Sequence], Callable]


def clock(run: Callable, batches: Sequence) -> tuple[float, float]:
    """Seconds for all batches, and the share of them that this thread was running."""
    start, used = time.perf_counter(), time.thread_time()
    for batch in batches:
        run(batch)
    seconds = time.perf_counter() - start
    return seconds, (time.thread_time() - used) / seconds


def main(
    system: str,
    prepare: Callable[[Path, Path, int | None], tuple[int, Iterable[Setting]]],
    words: Sequence[str] | None = None,
) -> None:
    """Time the settings that `prepare(model, data, rows)` gives along with the number of rows.

    `words` are the command line's, all but the script's name.
    """
    parser = argparse.ArgumentParser(description=system)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, metavar="DATA.parquet")
    parser.add_argument("--rows", type=int, help="default: all")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(words)

    rows, settings = prepare(options.model, options.data, options.rows)
    times = {}
    for name, split, run in settings:
        for size in BATCHES:
            batches = split(size)
            run(batches[0])  # the first run of a size allocates
            times[f"{size:,} rows{name}"] = min(clock(run, batches) for _ in range(options.rounds))
    best, (seconds, busy) = min(times.items(), key=lambda item: item[1])
    line = {
        "system": system,
        "model": options.model.stem,
        "rows": rows,
        "rows_per_second": round(rows / seconds),
        "best": best,
        "busy": round(busy, 2),
        "settings": {name: round(rows / seconds) for name, (seconds, _) in times.items()},
    }
    print(json.dumps(line), flush=True)
