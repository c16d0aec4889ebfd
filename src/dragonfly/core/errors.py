"""The root of every error that a caller may see; its HTTP shape is given once, at the surface."""


class DragonflyError(Exception):
    """Expected refusals. `code` is stable and documented; the message says what to do next.

    An error that a caller may meet declares its HTTP status as the class attribute `status` (400 without one) and,
    when waiting helps, has an attribute `retry_after_s`.

    The message is a fixed sentence plus numbers: never input, never an upstream's words.
    """

    code = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
