"""Errors a person can do something about. Each message is a plain sentence shown as it stands.

    DiffspectError
    ├── InputError          a file, folder or archive that cannot be used
    │   └── ImageError      one image that cannot be used; the rest of its batch goes on
    ├── ConfigError         a setting outside its range, or settings that do not fit together
    ├── NotFoundError       no such dataset, model, run or image
    ├── FormatError         what a newer version of this program wrote
    ├── StoreError          the database cannot be opened or written now
    ├── ResourceError       out of memory, disk or device
    └── AccessError         somebody who is not signed in, or whose role does not go so far

`Canceled` is no error: `report()` raises it to unwind a recipe that a person stopped.
Programming mistakes stay `assert`s and ordinary exceptions.
"""


class DiffspectError(Exception):
    """Base of all errors worded for the person who meets them."""


class InputError(DiffspectError):
    """A file, folder or archive cannot be used."""


class ImageError(InputError):
    """One image cannot be used; the message is the reason shown beside its name."""


class ConfigError(DiffspectError):
    """A setting is outside its range, or settings do not fit together."""


class NotFoundError(DiffspectError):
    """No such dataset, model, run or image."""


class FormatError(DiffspectError):
    """A newer version of this program wrote it; it is left as it is."""


class StoreError(DiffspectError):
    """The database cannot be opened or written now."""


class ResourceError(DiffspectError):
    """Out of memory, disk or device."""


class AccessError(DiffspectError):
    """Nobody is signed in, the sign-in failed, or the person's role does not go so far."""


class Canceled(Exception):
    """Raised by `report()` when a person canceled the run."""
