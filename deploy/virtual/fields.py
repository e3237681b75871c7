"""Objects with typed attributes, as strict as the vendor's driver: configurations and events are made of them.

An attribute that does not exist is an AttributeError, a value of the wrong type, or too large for the register, a
TypeError. Sub-objects can be assigned as dicts; they are copied in, and read as references. Arrays are copied both
ways. Source: the driver is C++ behind pybind11, so these are its conversion rules.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray


class Field:
    """A typed attribute of a ``Struct``; ``default`` is what a new object holds."""

    name = ""
    owner = ""
    place = 0

    def __init__(self, default: Any) -> None:
        self.default = default

    def __get__(self, struct: Struct | None, _: type | None = None) -> Any:
        return self if struct is None else self._shown(struct._values[self.place])

    def __set__(self, struct: Struct, value: Any) -> None:
        struct._values[self.place] = self._checked(value)
        struct._after(self.name)

    def _fresh(self) -> Any:
        """Return the default, not shared with any other object."""
        return self.default

    def _checked(self, value: Any) -> Any:
        """Return ``value`` as it is kept.

        Raises: TypeError where the driver would refuse it.
        """
        raise NotImplementedError

    def _shown(self, kept: Any) -> Any:
        """Return a kept value as the attribute reads."""
        return kept

    def _plain(self, kept: Any) -> Any:
        """Return a kept value made of what JSON knows."""
        return kept

    def refuse(self, value: Any, expected: str) -> TypeError:
        """Return the error for a value that is not what the attribute holds."""
        return TypeError(
            f"virtual samna: {self.owner}.{self.name}: expected {expected}, found {value!r:.60} "
            f"({type(value).__name__}). Try a value of that type."
        )


class Integer(Field):
    """A whole number within the bounds of its C++ type."""

    def __init__(self, default: int, low: int, high: int) -> None:
        super().__init__(default)
        self.low, self.high = low, high

    def _checked(self, value: Any) -> int:
        if type(value) is not int:
            value = self._converted(value)
        if not self.low <= value <= self.high:
            raise self.refuse(value, f"a whole number of {self.low}..{self.high}")
        return int(value)

    def _converted(self, value: Any) -> int:
        """Return what pybind11 makes of it: anything but a float that has ``__index__`` or ``__int__``."""
        if not isinstance(value, (float, str, bytes)):
            try:
                return operator.index(value)
            except TypeError:
                if hasattr(value, "__int__"):
                    return int(value)
        raise self.refuse(value, f"a whole number of {self.low}..{self.high}")


class Flag(Field):
    """True or False; anything with a truth value of its own is converted, as pybind11 does."""

    def _checked(self, value: Any) -> bool:
        if value is None or hasattr(type(value), "__bool__"):
            return bool(value)
        raise self.refuse(value, "True or False")


class Real(Field):
    """A number."""

    def _checked(self, value: Any) -> float:
        if isinstance(value, (str, bytes)) or not hasattr(type(value), "__float__"):
            raise self.refuse(value, "a number")
        return float(value)


class Text(Field):
    """A string."""

    def _checked(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self.refuse(value, "text")
        return value


class Part(Field):
    """A sub-object of one class; a dict of its attributes is taken too."""

    def __init__(self, kind: type[Struct], **changes: Any) -> None:
        super().__init__(None)
        self.kind, self.changes = kind, changes

    def _fresh(self) -> Struct:
        return self.kind(**self.changes)

    def _checked(self, value: Any) -> Struct:
        if isinstance(value, self.kind):
            return value.copied()
        if isinstance(value, Mapping):
            return self.kind.from_dict(value)
        raise self.refuse(value, f"a {self.kind.__name__} or a dict of its attributes")

    def _plain(self, kept: Struct) -> Any:
        return kept.to_dict()


class Parts(Field):
    """A fixed number of sub-objects of one class."""

    def __init__(self, kind: type[Struct], count: int) -> None:
        super().__init__(None)
        self.part, self.count = Part(kind), count

    def _fresh(self) -> Structs:
        return Structs(self.part, [self.part._fresh() for _ in range(self.count)])

    def _checked(self, value: Any) -> Structs:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence) or len(value) != self.count:
            raise self.refuse(value, f"a list of {self.count} {self.part.kind.__name__}")
        self.part.owner, self.part.name = self.owner, self.name
        return Structs(self.part, [self.part._checked(item) for item in value])

    def _plain(self, kept: Structs) -> Any:
        return [item.to_dict() for item in kept]


class Structs(Sequence["Struct"]):
    """The sub-objects of a ``Parts`` attribute: read as references, assigned as copies, never more or fewer."""

    def __init__(self, part: Part, items: list[Struct]) -> None:
        self._part, self._items = part, items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def __setitem__(self, index: int, value: Any) -> None:
        self._items[operator.index(index)] = self._part._checked(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._items)


class Tensor(Field):
    """Whole numbers in nested lists of a fixed depth; it reads as nested lists that are copies."""

    def __init__(self, depth: int, low: int, high: int) -> None:
        super().__init__(np.zeros((0,) * depth, np.int64))
        self.depth, self.low, self.high = depth, low, high

    def _fresh(self) -> NDArray[np.int64]:
        return np.array(self.default)

    def _checked(self, value: Any) -> NDArray[np.int64]:
        expected = f"lists of whole numbers of {self.low}..{self.high}, {self.depth} deep"
        try:
            array = np.array(value)
        except ValueError:  # lists of unequal length
            raise self.refuse(value, expected) from None
        if array.size == 0 and array.ndim <= self.depth:
            return self._fresh()
        if array.ndim != self.depth or array.dtype.kind not in "iub":
            raise self.refuse(value, expected)
        if array.min() < self.low or array.max() > self.high:
            raise self.refuse(f"values of {array.min()}..{array.max()}", expected)
        return array.astype(np.int64)

    def _shown(self, kept: NDArray[np.int64]) -> Any:
        return kept.tolist() if kept.size else []

    def _plain(self, kept: NDArray[np.int64]) -> Any:
        return self._shown(kept)


class Things(Field):
    """A list of objects of given classes."""

    def __init__(self, *kinds: type) -> None:
        super().__init__(())
        self.kinds = kinds

    def _checked(self, value: Any) -> tuple[Any, ...]:
        names = " or ".join(kind.__name__ for kind in self.kinds)
        if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
            raise self.refuse(value, f"a list of {names}")
        for item in value:
            if not isinstance(item, self.kinds) or (isinstance(item, bool) and bool not in self.kinds):
                raise self.refuse(item, f"a list of {names}")
        return tuple(value)

    def _shown(self, kept: tuple[Any, ...]) -> list[Any]:
        return list(kept)

    def _plain(self, kept: tuple[Any, ...]) -> Any:
        return [item.to_dict() if isinstance(item, Struct) else item for item in kept]


class Struct:
    """An object of typed attributes, given by position or name; subclasses declare them as ``Field``.

    Law: ``other.from_json(one.to_json())`` makes two objects of a class equal; equal objects give equal text.
    """

    __slots__ = ("_values",)
    _fields: ClassVar[dict[str, Field]] = {}
    _kind: ClassVar[str] = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Field)}
        cls._fields = {**cls._fields, **own}
        for place, (name, field) in enumerate(cls._fields.items()):
            if name in own:
                field.name, field.owner, field.place = name, cls.__name__, place

    def __init__(self, *values: Any, **named: Any) -> None:
        self._values: list[Any] = [field._fresh() for field in self._fields.values()]
        if len(values) > len(self._fields):
            raise TypeError(
                f"virtual samna: {type(self).__name__}: expected at most {len(self._fields)} values "
                f"({', '.join(self._fields)}), found {len(values)}. Try fewer."
            )
        for field, value in zip(self._fields.values(), values, strict=False):
            self._values[field.place] = field._checked(value)
        for name, value in named.items():
            if name not in self._fields:
                raise TypeError(
                    f"virtual samna: {type(self).__name__}: expected {', '.join(self._fields)}, found '{name}'. "
                    "Try one of these names."
                )
            self._values[self._fields[name].place] = self._fields[name]._checked(value)

    @classmethod
    def made(cls, values: list[Any]) -> Self:
        """Return an object of values that are known to be right, in the order of the attributes."""
        struct = cls.__new__(cls)
        struct._values = values
        return struct

    def _after(self, name: str) -> None:
        """Let a subclass act on the attribute that was just set."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return a new object with the given attributes; the others keep their defaults.

        Raises: AttributeError for a name that the class does not have, TypeError for a value of the wrong type.
        """
        struct = cls()
        struct._take(values)
        return struct

    def _take(self, values: Mapping[str, Any]) -> None:
        for name in values:
            if name not in self._fields:
                raise AttributeError(
                    f"virtual samna: {type(self).__name__} has no attribute '{name}'. "
                    f"Try one of {', '.join(self._fields)}."
                )
        for name, value in values.items():
            self._values[self._fields[name].place] = self._fields[name]._checked(value)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values, in the order of their declaration."""
        return {name: field._plain(self._values[field.place]) for name, field in self._fields.items()}

    def to_json(self) -> str:
        """Return the object as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def from_json(self, text: str) -> None:
        """Take the attributes from JSON; those that the text leaves out stay.

        Raises: ValueError for text that is no JSON object, AttributeError and TypeError as assignment does.
        """
        try:
            values = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as cause:
            raise ValueError(f"virtual samna: {type(self).__name__}: expected JSON, found: {cause}.") from cause
        if not isinstance(values, dict):
            raise ValueError(
                f"virtual samna: {type(self).__name__}: expected a JSON object, found {type(values).__name__}."
            )
        self._take(values)

    def copied(self) -> Self:
        """Return an equal object that shares nothing with this one."""
        copy = type(self)()
        copy._values = [field._checked(value) for field, value in zip(self._fields.values(), self._values, strict=True)]
        return copy

    def __deepcopy__(self, _: Any) -> Self:
        return self.copied()

    __copy__ = copied

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Struct) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._fields)
        return f"virtual {self._kind or type(self).__name__}({shown if len(shown) < 200 else shown[:200] + '...'})"
