"""The exceptions of ecofm: each message says what was found, what was expected, and what to do."""


class EcofmError(Exception):
    """Bad data or a bad artifact: the command line prints the message and exits with 1."""


class UsageError(EcofmError, ValueError):
    """A command, an option or an argument that cannot be used: the command line exits with 2.

    Python callers may catch it as the ValueError that it is.
    """


class ArtifactError(EcofmError):
    """A folder is not the artifact that the reader needs, or must not be written."""


class ContractError(EcofmError):
    """Pixels or archives break the radiometric contract that they are used under."""


class SceneError(EcofmError):
    """One scene or chip cannot be used; the others go on without it."""


class ComparisonError(EcofmError):
    """Comparisons or orderings cannot be read, or name items that do not exist."""


class MissingExtraError(EcofmError):
    """An optional dependency is not installed."""
