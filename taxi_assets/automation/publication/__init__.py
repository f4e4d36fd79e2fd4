"""Which published months need a run: logic that the publication sensors, schedules and check share.

How the modules work together for one month:

1. `published_versions.py` asks the publisher which version of the month it has now.
2. `instance_state.py` reads the state of the month from the Dagster instance: its `MonthState`.
3. `decision.py` decides from these two whether the month needs a run. It is a pure function.
4. `run_requests.py` builds the Dagster run request.

`status.py` applies this to all months of a service, and `scan.py` to the months that one sensor tick checks.

Belongs here: everything that these automations decide. Does not belong here: the Dagster definitions of the sensors and
schedules (`automation/sensors/`, `automation/schedules.py`), and HTTP or file access to a publisher (`tlc/sources/`).
"""
