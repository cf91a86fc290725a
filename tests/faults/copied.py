"""Copies a library until it kills itself at its n-th step; see `killed`.

Run as `python copied.py <from folder> <folder> <store> <catalog> <n>`.
"""

from __future__ import annotations

import os
import sys

from tests.faults.killed import KillingStore, Steps, kill_around_commits

from lazypix import Library
from lazypix.engine.idle import IdleEngine
from lazypix.stores.addresses import open_store
from lazypix.upkeep.copying import copy_library


def main() -> None:
    source, folder, store, catalog, last = sys.argv[1:]
    secrets = {"access_key": os.environ["TEST_ACCESS_KEY"], "secret_key": os.environ["TEST_SECRET_KEY"]}
    steps = Steps(int(last))
    opened = open_store(store, secrets=secrets if store.startswith("s3:") else {})
    with (
        Library.open(source, engine=IdleEngine(), tidies=False) as old,
        Library.open(folder, catalog=catalog, store=KillingStore(opened, steps), engine=IdleEngine()) as new,
    ):
        kill_around_commits(steps)
        report = copy_library(old, new, threads=2)
    assert not report.failed, report
    print(f"steps {steps.number}", flush=True)


if __name__ == "__main__":
    main()
