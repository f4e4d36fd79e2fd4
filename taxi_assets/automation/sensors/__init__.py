"""Sensors, which Dagster's daemon evaluates every few seconds or minutes.

Belongs here: the Dagster definitions of the sensors, one module per purpose. Does not belong here: deciding which
months need a run (`automation/publication/`), the conditions of `automation_conditions` (`automation/conditions.py`),
and the delivery of notifications (`notifications/`).
"""
