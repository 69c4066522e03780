"""Real texts: the descriptions of Debian's packages, where apt knows them, which are short where it keeps the long ones apart; and
what Python's modules say of themselves, which is long."""

import pydoc
import random
import shutil
import subprocess
import sys


def descriptions():
    text = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    found = []
    for package in text.split("\n\n"):
        lines = package.split("\n")
        start = next((i for i, line in enumerate(lines) if line.startswith("Description")), None)
        if start is None:
            continue
        long = [line.strip(" .") for line in lines[start + 1:] if line.startswith(" ")]
        found.append("\n".join([lines[start].split(": ", 1)[-1], *long]).strip())
    return found


def docstrings():
    found = []
    for name in sorted(sys.stdlib_module_names):
        if name.startswith("_") or name in ("antigravity", "this", "idlelib"):
            continue
        module = pydoc.locate(name)
        for value in [module, *vars(module).values()] if module else []:
            if isinstance(getattr(value, "__doc__", None), str):
                found.append(value.__doc__.strip())
    return found


def texts(count):
    """`count` texts that differ, short and long ones mixed."""
    differ = lambda found: list(dict.fromkeys(text for text in found if text))  # noqa: E731
    short, long = differ(descriptions() if shutil.which("apt-cache") else []), differ(docstrings())
    of_short = min(len(short), count // 2)
    assert len(long) >= count - of_short, f"{len(long)} texts were found, {count - of_short} are needed"
    chosen = short[::max(len(short) // max(of_short, 1), 1)][:of_short]
    chosen += long[::len(long) // (count - of_short)][:count - of_short]
    random.Random(7).shuffle(chosen)
    return chosen
