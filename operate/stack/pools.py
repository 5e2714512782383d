"""The work pools that the deployments name, as `deployments/work-pools.yaml` describes them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recovery.errors import BadInput

REMEDY = "See the file of this release for its shape"


@dataclass(frozen=True)
class Pool:
    """A work pool: the danger of what runs there. Its queues are the sites it runs at."""

    name: str
    description: str
    queues: dict[str, str]


def read_pools(file: Path) -> list[Pool]:
    """Read the work pools, each with its queues.

    Raises:
        BadInput: the file cannot be read, or is of another shape; names it.
    """
    try:
        read: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        return [
            Pool(str(name), str(pool["description"]), dict(pool["queues"]))
            for name, pool in read["work_pools"].items()
        ]
    except OSError as error:
        raise BadInput(str(file), f"it cannot be read: {error.strerror}", REMEDY) from error
    except yaml.YAMLError as error:
        raise BadInput(str(file), "it is no valid YAML", REMEDY) from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadInput(str(file), f"it lacks {error}", REMEDY) from error
