/*
description: |
  Trips of every service by weekday and hour of the pickup, over the whole month.

  The view hour_of_week_ratios has the average demand in each of these hours: the trips that began within the month,
  divided by the number of such weekdays. A few trips of a month's file began in a neighboring month.
key: [data_month, service, pickup_isodow, pickup_hour]
columns:
  days: {type: integer, unit: days, description: Days of the month with this weekday on which the service had trips.}
  trips_within_month: {type: integer, unit: trips, description: Trips that began within the month.}
measures: [trips_within_month, trips, passengers, miles, seconds, fare, tips, revenue]
*/
SELECT
  t.data_month,
  t.service,
  t.pickup_isodow,
  t.pickup_hour,
  MAX(d.days) AS days,
  SUM(
    CASE
      WHEN EXTRACT(YEAR FROM t.pickup_date) = EXTRACT(YEAR FROM t.data_month)
        AND EXTRACT(MONTH FROM t.pickup_date) = EXTRACT(MONTH FROM t.data_month) THEN t.trips
      ELSE 0
    END
  ) AS trips_within_month,
  SUM(t.trips) AS trips,
  SUM(t.passengers) AS passengers,
  SUM(t.miles) AS miles,
  SUM(t.seconds) AS seconds,
  SUM(t.fare) AS fare,
  SUM(t.tips) AS tips,
  SUM(t.revenue) AS revenue
FROM all_trips AS t
LEFT JOIN (
  SELECT service, pickup_isodow, COUNT(DISTINCT pickup_date) AS days
  FROM all_trips
  WHERE trips > 0
    AND EXTRACT(YEAR FROM pickup_date) = EXTRACT(YEAR FROM data_month)
    AND EXTRACT(MONTH FROM pickup_date) = EXTRACT(MONTH FROM data_month)
  GROUP BY service, pickup_isodow
) AS d ON d.service = t.service AND d.pickup_isodow = t.pickup_isodow
GROUP BY t.data_month, t.service, t.pickup_isodow, t.pickup_hour;

CREATE VIEW hour_of_week_ratios AS
SELECT
  data_month, service, pickup_isodow, pickup_hour, trips, trips_within_month, days,
  CAST(trips_within_month AS DOUBLE) / NULLIF(days, 0) AS trips_per_hour,
  CAST(miles AS DOUBLE) / NULLIF(trips, 0) AS miles_per_trip,
  CAST(miles AS DOUBLE) * 3600 / NULLIF(seconds, 0) AS miles_per_hour,
  CAST(revenue AS DOUBLE) / NULLIF(trips, 0) AS revenue_per_trip
FROM hour_of_week
