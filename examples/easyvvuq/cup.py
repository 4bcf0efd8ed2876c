"""The solver: a cup of tea cools by Newton's law, dT/dt = -cooling (T - room); temperatures in degrees Celsius."""

import json
import sys
from pathlib import Path

STEP = 0.1  # minutes


def cool(tea: float, room: float, cooling: float, minutes: float) -> float:
    """Return the temperature after `minutes`, by the classical Runge-Kutta method."""
    steps = max(1, round(minutes / STEP))
    step = minutes / steps

    def slope(temperature: float) -> float:
        return -cooling * (temperature - room)

    for _ in range(steps):
        k1 = slope(tea)
        k2 = slope(tea + step / 2 * k1)
        k3 = slope(tea + step / 2 * k2)
        k4 = slope(tea + step * k3)
        tea += step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return tea


if __name__ == "__main__":
    temperature = cool(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    Path("out.json").write_text(json.dumps({"temperature": temperature}), encoding="utf-8")
