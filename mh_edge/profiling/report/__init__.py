"""A Profile as one HTML page that needs nothing else: `write(profile, path)`, or `page(profile)` -> the text of it."""

from mh_edge.profiling.report.page import check_target, page, write

__all__ = ["check_target", "page", "write"]
