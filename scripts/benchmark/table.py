"""Timing several contenders side by side, and the table of it."""

import statistics
import time


class Contender:
    """A way to do the same work. What is done before and after a run is not timed."""

    def __init__(self, label, run, before=None, after=None):
        self.label, self.run, self.before, self.after = label, run, before, after


def race(name, contenders, rounds, goal=None, warm_up=True):
    """Runs all contenders in every round, in rotated order, after one round that does not count unless told otherwise.

    The first contender is what the others are compared with.
    """
    seconds = {contender.label: [] for contender in contenders}
    for number in range(-1 if warm_up else 0, rounds):
        turn = number % len(contenders)
        for contender in contenders[turn:] + contenders[:turn]:
            if contender.before:
                contender.before()
            start = time.perf_counter()
            contender.run()
            elapsed = time.perf_counter() - start
            if contender.after:
                contender.after()
            if number >= 0:
                seconds[contender.label].append(elapsed)
    return {"name": name, "rounds": rounds, "goal": goal, "baseline": contenders[0].label, "seconds": seconds}


def ratios(result, label):
    """Of each round: the time of `label` by that of the baseline."""
    return [a / b for a, b in zip(result["seconds"][label], result["seconds"][result["baseline"]])]


def duration(seconds):
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def cell(result, label):
    if label not in result["seconds"]:
        return "–"
    of = ratios(result, label)
    middle = statistics.median(result["seconds"][label])
    return f"{duration(middle)}, **{statistics.median(of):.2f}** ({min(of):.2f}–{max(of):.2f})"


def ways(result):
    """The rows of a race whose contenders are in no other."""
    for label, seconds in result["seconds"].items():
        span = f"{duration(statistics.median(seconds))} ({duration(min(seconds))}–{duration(max(seconds))})"
        ratio = "–" if label == result["baseline"] else cell(result, label).split(", ", 1)[1]
        yield f"| {result['name']} | {len(seconds)} | {label} | {span} | {ratio} | {result['goal'] or '–'} |"


def markdown(results, labels):
    """One table of the races in which the mounts of `labels` run, and one of all others."""
    mounted = [result for result in results if labels[0] in result["seconds"]]
    others = [result for result in results if result not in mounted]
    tables = [mounts_table(mounted, labels)] if mounted else []
    if others:
        head = ["| measured | n | way | seconds | of the first | goal |", "|---|---|---|---|---|---|"]
        tables.append("\n".join([*head, *(row for result in others for row in ways(result))]))
    return "\n\n".join(tables)


def mounts_table(results, labels):
    lines = [
        "| measured | n | compared with | " + " | ".join(labels) + " | goal |",
        "|---" * (len(labels) + 4) + "|",
    ]
    for result in results:
        base = result["seconds"][result["baseline"]]
        compared = f"{result['baseline']}: {duration(statistics.median(base))} ({duration(min(base))}–{duration(max(base))})"
        cells = [cell(result, label) for label in labels]
        lines.append(f"| {' | '.join([result['name'], str(result['rounds']), compared, *cells, result['goal'] or '–'])} |")
    return "\n".join(lines)
