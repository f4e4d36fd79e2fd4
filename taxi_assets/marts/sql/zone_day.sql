/*
description: |
  Trips of every service by day and pickup zone.

  The view zone_day_ratios has averages per trip: miles, minutes, fare and revenue.
key: [data_month, service, pickup_date, pickup_location_id]
columns:
  pickup_borough:
  pickup_zone:
measures: [trips, passengers, miles, seconds, timed_trips, fare, tips, revenue]
*/
SELECT
  t.data_month,
  t.service,
  t.pickup_date,
  t.pickup_location_id,
  COALESCE(NULLIF(z.borough, 'N/A'), z.zone, 'Unknown') AS pickup_borough,
  COALESCE(NULLIF(z.zone, 'N/A'), 'Unknown') AS pickup_zone,
  SUM(t.trips) AS trips,
  SUM(t.passengers) AS passengers,
  SUM(t.miles) AS miles,
  SUM(t.seconds) AS seconds,
  SUM(t.timed_trips) AS timed_trips,
  SUM(t.fare) AS fare,
  SUM(t.tips) AS tips,
  SUM(t.revenue) AS revenue
FROM all_trips AS t
LEFT JOIN taxi_zones AS z ON z.location_id = t.pickup_location_id
GROUP BY
  t.data_month,
  t.service,
  t.pickup_date,
  t.pickup_location_id,
  COALESCE(NULLIF(z.borough, 'N/A'), z.zone, 'Unknown'),
  COALESCE(NULLIF(z.zone, 'N/A'), 'Unknown');

CREATE VIEW zone_day_ratios AS
SELECT
  data_month, service, pickup_date, pickup_location_id, pickup_borough, pickup_zone, trips,
  CAST(miles AS DOUBLE) / NULLIF(trips, 0) AS miles_per_trip,
  CAST(seconds AS DOUBLE) / 60 / NULLIF(timed_trips, 0) AS minutes_per_trip,
  CAST(fare AS DOUBLE) / NULLIF(trips, 0) AS fare_per_trip,
  CAST(revenue AS DOUBLE) / NULLIF(trips, 0) AS revenue_per_trip
FROM zone_day
