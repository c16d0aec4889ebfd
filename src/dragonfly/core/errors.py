"""The root of every error that a caller may see; its HTTP shape is given once, at the surface."""


class DragonflyError(Exception):
    """Expected refusals. `code` is stable and documented; the message says what to do next.

    The message is a fixed sentence plus numbers: never input, never an upstream's words.
    """

    code = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
