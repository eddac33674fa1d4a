"""The exceptions that a caller may want to catch.

    FluoroscopeError
    └── UserError             the user can mend it: shown without a traceback, exit code 2
        ├── ConfigError       a setting that does not exist, or whose value is not allowed
        ├── ModelError        a model that cannot be found, read, or hooked as asked
        ├── CorpusError       text that is missing, empty, or not text
        ├── InterventionError an edit that is not allowed, or was not applied where it should be
        ├── MismatchError     an artefact used with another model, layer or SAE than its own
        ├── DamagedError      a file that is not what its checksum says
        ├── NumericsError     a NaN or an infinity where a number must be
        ├── RunError          a run folder that cannot be continued as asked
        │   └── RunLockedError  another process works on the same run
        └── DoesNotFitError   not enough disk or memory, found before or while working

Each message says what was expected, what came, and what to do.
"""


class FluoroscopeError(Exception):
    """Root of everything raised here on purpose."""


class UserError(FluoroscopeError):
    """The user can mend it; the command line prints it without a traceback."""


class ConfigError(UserError, ValueError):
    """A setting that does not exist, or whose value is not allowed."""


class ModelError(UserError):
    """A model that cannot be found, read, or hooked as asked."""


class CorpusError(UserError):
    """Text that is missing, empty, or not text."""


class InterventionError(UserError):
    """An edit that cannot be made as asked, or that was not applied where it should have been."""


class MismatchError(UserError):
    """An artefact used with another model, layer or SAE than the one it was made for."""


class DamagedError(UserError):
    """A file whose content is not what its checksum says."""


class NumericsError(UserError):
    """A NaN or an infinity where a number must be."""


class RunError(UserError):
    """A run folder that cannot be started, continued or read as asked."""


class RunLockedError(RunError):
    """Another process works on the same run."""


class DoesNotFitError(UserError):
    """Not enough disk or memory."""
