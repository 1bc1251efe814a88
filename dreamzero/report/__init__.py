"""Results: run records, notebook reports, figures, and the page that joins them.

`record` (metrics.json, standard library only) may be imported from every room; `style`, `video`
and `notebook_report` are for notebooks; `notebooks` and `html` run and join them.
"""

from dreamzero.report.notebook_report import NotebookReport
from dreamzero.report.record import Metric, RunRecord, load

__all__ = ["Metric", "NotebookReport", "RunRecord", "load"]
