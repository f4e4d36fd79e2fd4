"""Automation: jobs, and the schedules, sensors and conditions that launch, retry and monitor their runs.

Belongs here: jobs, schedules, sensors, automation conditions, and retry and freshness policies. Does not belong here:
the assets themselves (`assets/`), and the policies' values that users set (`settings.py`).
"""
