"""A reproduction study of Xue et al. 2019 (DOI 10.12086/oee.2019.180468); `README.md` says how to run it."""


class StudyError(Exception):
    """Bad input or state, told in one sentence: what was found, where, and what mends it."""

    def _render_traceback_(self) -> list[str]:  # which notebooks show in place of all calls
        return [f"StudyError: {self}"]


class NotFiniteError(StudyError):
    """A loss or gradient that is not finite."""
