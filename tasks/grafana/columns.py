"""The columns of a table on the server, and what does not fit into one."""

from dataclasses import dataclass
from enum import StrEnum

Cell = int | float | bytes | None  # as SQLite gives it with text_factory=bytes

INTEGER_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
TEXT_TYPES = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})
BYTES_TYPES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})


class Kind(StrEnum):
    """What a column holds, as far as conversion goes."""

    INTEGER = "integer"
    BOOLEAN = "boolean"
    MOMENT = "moment"
    TEXT = "text"
    BYTES = "bytes"
    FLOAT = "float"
    DOUBLE = "double"
    DECIMAL = "decimal"
    JSON = "json"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True)
class Column:
    """One column of a table on the server, as information_schema has it."""

    name: str
    data_type: str  # varchar
    column_type: str  # varchar(190)
    is_nullable: bool
    has_default: bool
    length_max: int = 0  # characters of CHAR and VARCHAR, bytes of the others
    charset: str = ""
    collation: str = ""
    precision: int = 0  # digits of a fraction of a second
    digits: int = 0
    scale: int = 0
    is_automatic: bool = False
    is_generated: bool = False

    @property
    def kind(self) -> Kind:
        """What it holds."""
        simple = {
            "datetime": Kind.MOMENT, "timestamp": Kind.MOMENT, "float": Kind.FLOAT,
            "double": Kind.DOUBLE, "decimal": Kind.DECIMAL, "json": Kind.JSON,
        }  # fmt: skip
        if self.column_type.startswith("tinyint(1)"):
            return Kind.BOOLEAN
        if self.data_type in INTEGER_BITS:
            return Kind.INTEGER
        if self.data_type in TEXT_TYPES:
            return Kind.TEXT
        if self.data_type in BYTES_TYPES:
            return Kind.BYTES
        return simple.get(self.data_type, Kind.UNSUPPORTED)

    @property
    def number_range(self) -> tuple[int, int]:
        """The least and the greatest whole number it holds."""
        bits = INTEGER_BITS[self.data_type]
        if "unsigned" in self.column_type:
            return 0, 2**bits - 1
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


class Misfit(Exception):
    """The column cannot hold the cell. Fields: kind, a stable word; why, for a person."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(kind, why)
        self.kind, self.why = kind, why

    def __str__(self) -> str:
        """Why."""
        return self.why
