"""Reports: the page of a month with its charts, and the quality of all months.

Belongs here: the metrics of a report (`metrics.py`, `quality_metrics.py`), its charts (`charts.py`,
`quality_chart.py`), and the page that shows them (`page.py`, `page.html.j2`).
Does not belong here: anything that imports Dagster, or that reads a lake or a warehouse. Queries run through the
function that the caller passes.
"""
