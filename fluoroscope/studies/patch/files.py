"""Files that users give to a sweep: what cannot be read is said, not traced."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polars.exceptions import PolarsError

from fluoroscope.core.errors import ConfigError


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Inside the `with` block `path` is read; what goes wrong is a `ConfigError` that names it."""
    try:
        yield
    except (OSError, UnicodeDecodeError, PolarsError) as error:
        raise ConfigError(f"{path} cannot be read: {str(error).splitlines()[0]}.") from None
