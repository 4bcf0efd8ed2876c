"""What the campaign asks, and the answer of calculus."""

import math
from typing import Dict

TEA, MINUTES = 95.0, 20.0  # its temperature at first, degrees Celsius, and when it is asked again
COOLING, ROOM = (0.025, 0.075), (15.0, 25.0)  # both are uniform between these: 1/minute, degrees Celsius


def exact() -> Dict[str, float]:
    """Return the statistics of T = room + (TEA - room) f with f = exp(-cooling MINUTES), by integrals over both."""
    (low, high), (cold, warm) = COOLING, ROOM

    def mean_of_power(n: int) -> float:
        return (math.exp(-n * low * MINUTES) - math.exp(-n * high * MINUTES)) / (n * MINUTES * (high - low))

    f, variance_of_f = mean_of_power(1), mean_of_power(2) - mean_of_power(1) ** 2
    room, variance_of_room = (cold + warm) / 2, (warm - cold) ** 2 / 12
    by_cooling, by_room = (TEA - room) ** 2 * variance_of_f, (1 - f) ** 2 * variance_of_room
    variance = by_cooling + by_room + variance_of_f * variance_of_room
    return {
        "mean": room + (TEA - room) * f,
        "deviation": math.sqrt(variance),
        "of cooling": by_cooling / variance,
        "of room": by_room / variance,
    }
