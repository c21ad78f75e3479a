"""The errors that Facedex raises on purpose: one small tree, each saying what to do.

An error without a message speaks its docstring. The command line turns the three branches into
exit statuses: `UsageError` 2, everything else 3. Messages never carry a vector, a picture or a
person's name: faces are biometric data, and errors end up in logs.
"""

import inspect


class FacedexError(Exception):
    """Something went wrong in Facedex."""

    def __str__(self) -> str:
        """Give the message, or the docstring where there is none."""
        return super().__str__() or inspect.cleandoc(type(self).__doc__ or "").replace("\n", " ")


class UsageError(FacedexError):
    """The request itself is wrong. Change it and send it again."""


class FilterError(UsageError):
    """The filter cannot be read. The message points at the word that is wrong."""


class SettingError(UsageError):
    """A setting has a value that cannot be used. `facedex config show` names its origin."""


class UnknownNameError(UsageError):
    """No collection, space, face or person of that name exists. The message lists what does."""


class LimitExceededError(UsageError):
    """A declared limit (retrieval/limits.py) was exceeded. The message names it."""


class UnusableVectorError(UsageError):
    """A vector holds NaN or infinity, has length zero, or the wrong dimension."""


class SchemaMismatchError(UsageError):
    """A file's columns do not fit. The message lists every problem; nothing was written."""


class SpaceMismatchError(UsageError):
    """Vectors of two models were about to be compared. Ask in the space of the gallery."""


class RefusedWordsError(UsageError):
    """A sentence asks what no picture of a face can tell. The message names the words."""


class UndoRefusedError(UsageError):
    """Something was built on this event since. The message says what to undo first."""


class RefusedImageError(FacedexError):
    """A picture cannot become faces. The rest of the batch goes on; the message is the reason."""


class ModelUnavailableError(FacedexError):
    """Model weights were not found, or are not the pinned ones. `facedex doctor` shows both."""


class DeviceUnavailableError(FacedexError):
    """The GPU that was asked for is not there. Install `facedex[gpu]`, or ask for the processor."""


class LicenceError(UsageError):
    """These weights may not be used commercially. Choose `--models sface`."""


class CalibrationMissingError(UsageError):
    """How alike strangers are in this space is not known. `facedex evaluate` can measure it."""


class StoreUnavailableError(FacedexError):
    """The database did not answer. Run the command again: writes are idempotent."""


class StoreVersionError(FacedexError):
    """The database's tables are older or newer than this program. Run `facedex upgrade`."""


class StoreConflictError(FacedexError):
    """Another writer changed the same rows. Run the command again."""


class SnapshotUnusableError(FacedexError):
    """An index snapshot is damaged or of another database. Run `facedex index build`."""


class TokenTimeoutError(FacedexError):
    """The index did not reach the write within the time allowed. Is its transaction still open?"""


class CursorTooOldError(FacedexError):
    """The change log no longer reaches back to this reader's cursor. Open the index anew."""


class BuildFailedError(FacedexError):
    """The index was not built; the one before stays in use. The message says why."""
