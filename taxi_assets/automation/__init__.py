"""Automation: the jobs, and what launches, retries and watches their runs without a person.

Belongs here: jobs, schedules, sensors, automation conditions, and retry and freshness policies. Does not belong here:
the assets themselves (`assets/`), and the policies' values that users set (`settings.py`).
"""
