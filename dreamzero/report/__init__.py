"""Results: run records, notebook reports, figures, sweeps, the site, comparisons.

`record` (metrics.json, standard library only) may be imported from every room; `style`, `video`
and `notebook_report` are for notebooks; `notebooks` and `sweep` run them, `site` and `compare` show
what came of it.
"""

from dreamzero.report.notebook_report import NotebookReport
from dreamzero.report.record import Metric, RunRecord, load

__all__ = ["Metric", "NotebookReport", "RunRecord", "load"]
