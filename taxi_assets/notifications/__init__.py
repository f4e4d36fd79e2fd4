"""Sending notifications to the services named in `TAXI_NOTIFY_URLS`.

What belongs here: parsing the URLs and delivering a message.

What does not belong here: when to send a message and its text
(`automation/sensors/notification_sensors.py`).
"""
