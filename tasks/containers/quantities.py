"""Quantities of Kubernetes: read, compared, and written as the API writes them."""

import re
from decimal import Decimal

from recovery.errors import BadInput

MEMORY = re.compile(r"(\d+)(Ki|Mi|Gi|Ti|k|M|G|T)?")
CPU = re.compile(r"(\d+)m|(\d+(?:\.\d{1,3})?)")
ANY = re.compile(r"([+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)([a-zA-Z]*)")
BINARY = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60}
DECIMAL = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
SMALL = {"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1)}
FACTORS: dict[str, Decimal] = {
    **{name: Decimal(value) for name, value in {**BINARY, **DECIMAL}.items()},
    **SMALL,
}


def amount(quantity: object) -> Decimal:
    """How much a quantity of the API is: bytes, or cores. `512Mi`, `250m`, `1.5`, `128974848`.

    Raises:
        BadInput: it is none.
    """
    found = ANY.fullmatch(str(quantity))
    if found is None or found[2] not in FACTORS:
        raise BadInput("quantity", f"{quantity!r} is none", "Write it as 512Mi, 2Gi, 500m or 2")
    return Decimal(found[1]) * FACTORS[found[2]]


def memory(field: str, given: str) -> str:
    """Memory as the API writes it: `1024Mi` is `1Gi`; bytes are taken only with a unit.

    Raises:
        BadInput: it is no amount of memory, or so little that its unit was forgotten.
    """
    found = MEMORY.fullmatch(given.strip())
    if found is None or found[2] is None or int(found[1]) == 0:
        raise BadInput(field, f"{given!r} is no amount of memory", "Write it as 512Mi or 2Gi")
    number, unit = int(found[1]), found[2]
    units = list(BINARY if unit in BINARY else DECIMAL)
    base = 1024 if unit in BINARY else 1000
    while number % base == 0 and unit != units[-1]:
        number, unit = number // base, units[units.index(unit) + 1]
    return f"{number}{unit}"


def cpu(field: str, given: str) -> str:
    """Cores as the API writes them: `0.5` is `500m`, `1000m` is `1`.

    Raises:
        BadInput: it is no amount of cores.
    """
    found = CPU.fullmatch(given.strip())
    thousandths = 0
    if found is not None:
        thousandths = int(found[1]) if found[1] else int(Decimal(found[2]) * 1000)
    if thousandths == 0:
        raise BadInput(field, f"{given!r} is no amount of CPU", "Write it as 500m, 1.5 or 2")
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"
