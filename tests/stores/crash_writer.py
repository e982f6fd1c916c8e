"""Writes to a database until it is killed, and says on stdout what has been acknowledged.

    python -m tests.stores.crash_writer FOLDER SEED

Each line is one acknowledged operation: "upsert BATCH ID..." or "delete BATCH ID...". Batches are
numbered on from what the database holds. Small limits make it seal, merge and rotate all the time.
"""

import random
import sys

import numpy as np

from stores import Database, Options

DIM = 8
OPTIONS = Options(seal_rows=40, rotate_bytes=4096, graph_rows=60)


def vector_of(batch: int, id: str) -> np.ndarray:
    return np.array([batch, int(id), *range(DIM - 2)], np.float32)


def main(folder: str, seed: int) -> None:
    chance = random.Random(seed)
    with Database.open(folder, options=OPTIONS) as database:
        rows = database.collection("rows", dim=DIM, metric="l2")
        batch = max((row.metadata["batch"] for row in rows), default=0)
        print("ready", flush=True)
        while True:
            batch += 1
            ids = [str(id) for id in chance.sample(range(200), chance.randint(1, 12))]
            if chance.random() < 0.25:
                print("trying delete", batch, *ids, flush=True)
                rows.delete(ids)
                print("delete", batch, *ids, flush=True)
                continue
            print("trying upsert", batch, *ids, flush=True)
            metadata = [{"batch": batch}] * len(ids)
            texts = [f"row {id} of batch {batch}" for id in ids]
            rows.upsert(ids, [vector_of(batch, id) for id in ids], metadata=metadata, texts=texts)
            print("upsert", batch, *ids, flush=True)
            if chance.random() < 0.02:
                rows.compact()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
