"""The ten questions of docs/questions.md, answered from the trips of yellow instead of the marts, in a DuckDB client.

The measurement includes opening the database. The client has DuckDB's default settings.
"""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

from benchmarks.measure import measure_here

QUESTIONS = {
    "1. When is the city busiest?": """
        SELECT isodow(pickup_datetime), hour(pickup_datetime), count(*) FILTER (NOT is_reversal) AS trips
        FROM trips GROUP BY ALL ORDER BY trips DESC LIMIT 10""",
    "2. How many trips begin at the airports?": """
        SELECT pickup_location_id, count(*) FILTER (NOT is_reversal), sum(total_amount)
        FROM trips WHERE pickup_location_id IN (1, 132, 138) GROUP BY ALL""",
    "3. Who tips, and how much?": """
        SELECT payment_type, count(*) FILTER (NOT is_reversal), sum(tip_amount) / sum(fare_amount)
        FROM trips GROUP BY ALL""",
    "4. What are the shares of the vendors?": """
        SELECT vendor_id, count(*) AS trips, count(*) / sum(count(*)) OVER () FROM trips GROUP BY ALL""",
    "5. Where do most trips begin?": """
        SELECT pickup_location_id, count(*) FILTER (NOT is_reversal) AS trips
        FROM trips GROUP BY ALL ORDER BY trips DESC LIMIT 10""",
    "6. How many trips go from one zone to another?": """
        SELECT pickup_location_id, dropoff_location_id, count(*) FILTER (NOT is_reversal),
          avg(date_diff('second', pickup_datetime, dropoff_datetime))
        FROM trips GROUP BY ALL""",
    "7. What are the averages of a trip?": """
        SELECT avg(total_amount), avg(trip_distance), avg(date_diff('second', pickup_datetime, dropoff_datetime))
        FROM trips""",
    "8. How did trips and revenue develop?": """
        SELECT data_month, count(*) FILTER (NOT is_reversal), sum(total_amount) FROM trips GROUP BY ALL""",
    "9. How fast is traffic?": """
        SELECT hour(pickup_datetime), sum(trip_distance) * 3600
          / sum(date_diff('second', pickup_datetime, dropoff_datetime))
        FROM trips WHERE isodow(pickup_datetime) <= 5 GROUP BY ALL""",
    "10. What is each vendor's share by zone?": """
        SELECT pickup_location_id, vendor_id, count(*),
          count(*) / sum(count(*)) OVER (PARTITION BY pickup_location_id)
        FROM trips GROUP BY pickup_location_id, vendor_id""",
}


def main(file: str, number: int, months: str) -> None:
    """Measure a question on one month, or on all of them."""
    condition = "WHERE data_month = DATE '2021-01-01'" if months == "one" else ""
    trips = f"SELECT * FROM taxi.yellow_trips {condition}"  # noqa: S608  (constants)
    question = list(QUESTIONS.values())[number]

    def work() -> None:
        with duckdb.connect(file, read_only=True) as client:
            client.execute(f"WITH trips AS ({trips}) {question}").fetchall()

    measure_here(work, written=[Path(file)])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
