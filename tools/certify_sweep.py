"""Compares cards of worse servers, and of one with noise: `python -m tools.certify_sweep [--noise N] [--seed N]`.

Each regression of `tests/support/certified/good.py` must be found in its row, and nothing else may be reported. Of so
many cards of an unchanged model whose responses are spoiled by chance, at most one of twenty may show a change.
"""

import argparse
import random
import time
from typing import Any

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.types.cards import Card, Change
from tests.support.certified.good import KEY, REGRESSIONS, ChangedEngine, entry, noisy


def certify(
    engine: ChangedEngine | None, against: Card | None = None, *, temperature: float = 0.0, **model: Any
) -> Card:
    """Return the card of the good model on an engine."""
    engines = {"scripted": engine} if engine else None
    with Emulator([entry(**model)], engines=engines) as server, lms.Client(server.address) as client:
        return client.certify(KEY, against=against, temperature=temperature)


def changes_of(card: Card) -> list[Change]:
    """Return what has really changed."""
    return [change for change in card.changes or () if change.verdict in {"worse", "better", "changed"}]


def show(name: str, changes: list[Change], seconds: float) -> None:
    """Print what was found."""
    texts = [f"{each.verdict} {each.name}: {each.before}, now {each.now} ({each.repetitions}x)" for each in changes]
    print(f"{seconds:5.1f} s  {name}: {'; '.join(texts) or 'nothing'}", flush=True)


def main() -> None:
    """Run the sweep.

    Raises:
        SystemExit: If a regression was missed, something else was reported, or noise was too often.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--noise", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    good = certify(None)
    print(good)
    wrong = []
    for name, regression in REGRESSIONS.items():
        began = time.perf_counter()
        changes = changes_of(certify(regression.engine, good, **regression.model))
        show(name, changes, time.perf_counter() - began)
        if {change.row for change in changes} != {regression.row}:
            wrong.append(name)
    chance = random.Random(options.seed)
    alarms = 0
    for number in range(options.noise):
        began = time.perf_counter()
        engine = noisy(chance)
        changes = changes_of(certify(engine, certify(engine, temperature=0.7), temperature=0.7))
        show(f"noise {number + 1}", changes, time.perf_counter() - began)
        alarms += bool(changes)
    print(
        f"{len(REGRESSIONS) - len(wrong)} of {len(REGRESSIONS)} regressions; {alarms} alarms in {options.noise} cards"
    )
    if wrong or alarms > options.noise / 20:
        raise SystemExit(f"wrong: {', '.join(wrong) or 'too many alarms'}")


if __name__ == "__main__":
    main()
