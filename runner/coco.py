"""Print the first captions of COCO 2017's validation split as JSON; a process of its own.

The data set is `phiyodr/coco2017`, read through `datasets` from the user's cache and never
fetched here; another of the same layout (a `captions` list a row) can be named.
"""

from __future__ import annotations

import json
import os
import sys

DATASET = "phiyodr/coco2017"


def captions(count: int, dataset: str = DATASET) -> list[str]:
    """Return the first caption of each of the first `count` validation samples.

    `dataset` is a name in the cache or a local folder of the same layout. Raises `ValueError`
    where it holds fewer samples, and whatever `datasets` raises where it cannot be read.
    """
    from datasets import load_dataset  # deferred: seconds, and 200 MB

    rows = load_dataset(dataset, split="validation")
    if len(rows) < count:
        message = f"{dataset} has {len(rows)} validation samples, not {count}"
        raise ValueError(message)
    first = [" ".join(row["captions"][0].split()) for row in rows.select(range(count))]
    if not all(first):
        message = f"{dataset}: sample {first.index('')} has a blank caption"
        raise ValueError(message)
    return first


def main() -> None:
    """Print a JSON list for `python -m runner.coco COUNT [DATASET]`; failures: a line on stderr."""
    os.environ |= {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    count, dataset = int(sys.argv[1]), (sys.argv[2:] or [DATASET])[0]
    try:
        print(json.dumps(captions(count, dataset)))
    except ValueError as error:
        sys.exit(str(error))
    except Exception as error:  # noqa: BLE001  (any failure of the library is told in one line)
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        remedy = f"""get it with: python -c 'import datasets; datasets.load_dataset("{dataset}")'"""
        sys.exit(f"{detail}; {remedy}")


if __name__ == "__main__":
    main()
