"""Scores by SQL what the other scripts have made: equal to the framework's own predict, wherever Python's onnxruntime is.

Usage: python compare.py OUT [--only SUBSTRING] [--verbose]
Fails if SQL refuses or differs, or if an exporter's fault is not among those of faults.py, or no longer there.
"""

import argparse
import pickle
import sys
from collections import Counter
from pathlib import Path

from pyarrow.parquet import read_table

sys.path.append(str(Path(__file__).resolve().parents[1] / "zoo"))

import shell
from shell import Job, differences, identifier, score_all

from faults import FAULTS

EQUAL, REFUSED, WRONG, FAULT, UNLISTED = "equal", "refused", "wrong", "exporter's fault", "fault not listed"


def as_sql(case, values):
    """One value for each row, as a call gives it: the one output, or of several a dictionary for SQL's struct."""
    chosen = case.options.get("output")
    if chosen or len(values) == 1:
        return values[case.outputs.index(chosen or case.outputs[0])]
    return [dict(zip(case.outputs, row)) for row in zip(*values, strict=True)]


def exporters_fault(case):
    """Why Python's onnxruntime does not give what the framework gives, or None."""
    if case.not_exported or case.not_run:
        return case.not_exported or f"onnxruntime: {case.not_run}"
    if len(case.expected) != len(case.runtime):
        return f"{len(case.runtime)} outputs for {len(case.expected)}"
    for name, expected, runtime, few in zip(case.outputs, case.expected, case.runtime, case.few):
        if case.options.get("output", name) != name:
            continue
        if expected is not None and (text := differences(runtime, expected)):
            return f"{name}: {text}"
        if text := differences(few, runtime[: len(few)]):
            return f"{name} of {len(few)} rows: {text}"
    return None


def judge(case, answer, fault):
    """The kind of outcome, and what there is to say about it. Of a fault SQL gives what onnxruntime does, or a proper error."""
    if answer and answer.error and (not fault or "panicked" in answer.error):
        return REFUSED, f"{answer.failed}: {answer.error}"
    if answer and not answer.error and (not fault or has_rows(case.runtime, len(answer.values))):
        # Where the framework has no such output, onnxruntime's.
        wanted = [runtime if expected is None else expected for expected, runtime in zip(case.expected, case.runtime)]
        if text := differences(answer.values, as_sql(case, case.runtime if fault else wanted)):
            return WRONG, text
    if fault:
        return (FAULT, FAULTS[key(case)]) if key(case) in FAULTS else (UNLISTED, fault)
    return EQUAL, ""


def has_rows(outputs, count):
    return outputs and all(len(values) == count for values in outputs)


class Group(str):
    """`input (column, column)` among the names for FEATURES, which is not quoted."""


shell.identifier = lambda name: name if isinstance(name, Group) else identifier(name)


def features(case):
    """The names for FEATURES: of one matrix its columns, of several inputs each with its columns."""
    if len(case.features) == 1:
        return next(iter(case.features.values()))
    columns = lambda names: f" ({', '.join(map(identifier, names))})" if names else ""
    return [Group(identifier(name) + columns(names)) for name, names in case.features.items()]


def key(case):
    return f"{case.framework}/{case.name}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--verbose", action="store_true", help="the SQL and the fault as found, too")
    arguments = parser.parse_args()
    files = sorted(arguments.out.glob("*/cases.pickle"))
    cases = [case for file in files for case in pickle.loads(file.read_bytes()) if arguments.only in key(case)]

    faults = {key(case): exporters_fault(case) for case in cases}
    exported = [case for case in cases if not case.not_exported]
    place = lambda case: arguments.out / case.framework / case.name
    jobs = [
        Job(
            place(case).with_suffix(".onnx"),
            read_table(place(case).with_suffix(".parquet")),
            features=features(case),
            options=case.options,
        )
        for case in exported
    ]
    answers = dict(zip(map(key, exported), score_all(jobs, folder=arguments.out / "scores")))

    counts, failed = {}, False
    for case in cases:
        answer, fault = answers.get(key(case)), faults[key(case)]
        outcome, text = judge(case, answer, fault)
        counts.setdefault(case.framework, Counter())[outcome] += 1
        if outcome != EQUAL:
            print(f"{outcome}: {key(case)}: {text}")
            if arguments.verbose:
                print(f"    {fault}\n    {answer and answer.sql}")
        failed |= outcome in (REFUSED, WRONG, UNLISTED)
        if outcome == EQUAL and key(case) in FAULTS:
            print(f"no fault any more: {key(case)}")
            failed = True
    for unknown in set(FAULTS) - set(map(key, cases)) if not arguments.only else ():
        if unknown.split("/")[0] in counts:
            print(f"no such case: {unknown}")
            failed = True
    for framework, outcomes in counts.items():
        print(f"{framework}: {', '.join(f'{count} {outcome}' for outcome, count in sorted(outcomes.items()))}")
    print(f"{sum(counts.values(), Counter())[EQUAL]} of {len(cases)} exports equal")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
