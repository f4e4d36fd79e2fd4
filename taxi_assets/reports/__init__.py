"""Reports for people: the page of a month, and the quality of all months.

Belongs here: which figures a report has (`figures.py`, `quality.py`), how they are drawn (`charts.py`), and the page
around them (`page.py`, `page.html.j2`). Nothing here knows Dagster, a lake or a warehouse; what is asked of the latter
goes through the function that is given.
"""
