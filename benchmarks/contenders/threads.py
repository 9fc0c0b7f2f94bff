"""Work shared by threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def in_threads(publish: Callable[[int], object], threads: int) -> Callable[[range], None]:
    """Return what publishes the messages of a range from so many threads at the same time."""

    def work(numbers: range) -> None:
        left = iter(numbers)

        def one() -> None:
            for number in left:
                publish(number)

        with ThreadPoolExecutor(threads) as executor:
            for done in [executor.submit(one) for _ in range(threads)]:
                done.result()

    return work
