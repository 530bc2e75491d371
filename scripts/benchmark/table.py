"""Timing several contenders side by side, and the table of it."""

import statistics
import time


class Contender:
    """A way to do the same work. What is done before and after a run is not timed."""

    def __init__(self, label, run, before=None, after=None):
        self.label, self.run, self.before, self.after = label, run, before, after


def race(name, contenders, rounds, goal=None):
    """Runs all contenders in every round, in rotated order, after one round that does not count.

    The first contender is what the others are compared with.
    """
    seconds = {contender.label: [] for contender in contenders}
    for number in range(-1, rounds):
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


def markdown(results, labels):
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
