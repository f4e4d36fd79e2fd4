"""Asset checks: what can be told about a month from outside, once it is published."""
