"""How long does the search for near duplicates take? `python -m tests.data.near_duplicates_speed [NUM]`.

Words are drawn with Zipf's frequencies from 30,000; lengths are log-normal. `copies`: a tenth of the texts
are others with one word in forty changed. `templates`: a hundred texts with a number in every tenth place.
"""

import random
import resource
import sys
import time

from apriel_mcore.data.near_duplicates import Asked, near_duplicates

VOCABULARY = [f"w{number}" for number in range(30_000)]
WEIGHTS = [1 / (number + 1) for number in range(30_000)]


def sentence(rng: random.Random) -> list[str]:
    """Median 71 words."""
    return rng.choices(VOCABULARY, WEIGHTS, k=int(rng.lognormvariate(4.2, 0.7)) + 5)


def copies(num: int, rng: random.Random) -> list[str]:
    """Nine tenths of the texts are new."""
    base = [sentence(rng) for _ in range(num * 9 // 10)]
    changed = [
        [word if rng.random() > 1 / 40 else "changed" for word in rng.choice(base)]
        for _ in range(num - len(base))
    ]
    return [" ".join(words) for words in rng.sample(base + changed, num)]


def templates(num: int, rng: random.Random) -> list[str]:
    """Each of a hundred texts many times, with other numbers in it."""
    base = [sentence(rng) for _ in range(100)]
    return [
        " ".join(str(rng.randrange(1000)) if place % 10 == 3 else word for place, word in enumerate(words))
        for words in (rng.choice(base) for _ in range(num))
    ]


def main() -> None:
    """A line for each kind of texts and setting."""
    num = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    for make in (copies, templates):
        texts = make(num, random.Random(0))
        for ngram, threshold in ((5, 0.8), (5, 0.5), (13, 0.8), (1, 0.8)):
            start = time.process_time()
            found = near_duplicates([Asked("", text) for text in texts], ngram=ngram, threshold=threshold)
            spent, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            words = sum(text.count(" ") + 1 for text in texts) / num
            print(
                f"{num} {make.__name__} of {words:.0f} words, ngram {ngram}, threshold {threshold}: "
                f"{len(found)} dropped, {spent:.1f} s of CPU, {peak // 1024} MiB at most",
                flush=True,
            )


if __name__ == "__main__":
    main()
