"""Factors of whole numbers, computed by other processes, here or on a cluster.

    everserve run examples/factors.py:Factors=tcp://127.0.0.1:9999 --executor processes:4
Or with Dask, whose workers have to find this file:
    dask scheduler --port 8786
    PYTHONPATH=examples dask worker tcp://127.0.0.1:8786 --nthreads 1
    everserve run examples/factors.py:Factors=tcp://127.0.0.1:9999 --executor dask://127.0.0.1:8786
"""

from math import gcd
from random import randrange

import everserve


def is_prime(n: int) -> bool:
    small = all(n % d for d in range(2, min(n, 999)))
    return small and all(pow(b, n, n) == b % n for b in (2, 3, 5))


def factors(n: int) -> list[int]:
    """Pollard's rho, with Fermat's test: some 200 ms for a product of two primes of 10 digits."""
    if n < 2 or is_prime(n):
        return [n]
    divisor = next((d for d in range(2, 1000) if n % d == 0), n)
    while divisor == n:
        slow, step, divisor = randrange(n), randrange(1, n), 1
        fast = slow
        while divisor == 1:
            slow, fast = (slow * slow + step) % n, ((fast * fast + step) ** 2 + step) % n
            divisor = gcd(slow - fast, n)
    return sorted(factors(divisor) + factors(n // divisor))


class Factors(everserve.LineRequestHandler):
    idempotent = True  # where a worker dies, another one computes it

    @staticmethod
    def handle_message(line: bytes) -> bytes:
        return b" ".join(b"%d" % factor for factor in factors(int(line)))
