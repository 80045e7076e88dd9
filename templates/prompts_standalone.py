"""Segment 2 of tmp.py, standalone: the prompts are in the script."""

from collections.abc import Iterator

PROMPTS: list[str] = []
FIRST_SEED = 42
BATCH_SIZE = 5


def get_dataset() -> list[str]:
    """Return the fixed prompts, in order."""
    return list(PROMPTS)


def _speedtrap_batches(
    prompts: tuple[str, ...] = tuple(PROMPTS), first_seed: int = FIRST_SEED, size: int = BATCH_SIZE
) -> Iterator[tuple[int, list[str]]]:
    """Yield (seed, prompts) a batch. Defaults, so that the candidate's globals change nothing."""
    for start in range(0, len(prompts), size):
        yield first_seed + start // size, list(prompts[start : start + size])


# The candidate is loaded, not started: what it keeps under `if __name__ == "__main__":` stays off.
__name__ = "speedtrap_candidate"
__import__("sys").modules[__name__] = __import__("sys").modules["__main__"]
