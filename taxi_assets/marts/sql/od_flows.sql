/*
description: |
  Trips of every service from borough to borough.

  The view od_flows_ratios has averages per trip, and each destination's share of the trips that start in a borough.
key: [data_month, service, pickup_borough, dropoff_borough]
measures: [trips, passengers, miles, seconds, timed_trips, fare, tips, revenue]
*/
SELECT
  t.data_month,
  t.service,
  COALESCE(NULLIF(p.borough, 'N/A'), p.zone, 'Unknown') AS pickup_borough,
  COALESCE(NULLIF(d.borough, 'N/A'), d.zone, 'Unknown') AS dropoff_borough,
  SUM(t.trips) AS trips,
  SUM(t.passengers) AS passengers,
  SUM(t.miles) AS miles,
  SUM(t.seconds) AS seconds,
  SUM(t.timed_trips) AS timed_trips,
  SUM(t.fare) AS fare,
  SUM(t.tips) AS tips,
  SUM(t.revenue) AS revenue
FROM all_trips AS t
LEFT JOIN taxi_zones AS p ON p.location_id = t.pickup_location_id
LEFT JOIN taxi_zones AS d ON d.location_id = t.dropoff_location_id
GROUP BY
  t.data_month,
  t.service,
  COALESCE(NULLIF(p.borough, 'N/A'), p.zone, 'Unknown'),
  COALESCE(NULLIF(d.borough, 'N/A'), d.zone, 'Unknown');

CREATE VIEW od_flows_ratios AS
SELECT
  data_month, service, pickup_borough, dropoff_borough, trips,
  CAST(trips AS DOUBLE)
    / NULLIF(SUM(trips) OVER (PARTITION BY data_month, service, pickup_borough), 0) AS share_of_pickups,
  CAST(miles AS DOUBLE) / NULLIF(trips, 0) AS miles_per_trip,
  CAST(seconds AS DOUBLE) / 60 / NULLIF(timed_trips, 0) AS minutes_per_trip,
  CAST(revenue AS DOUBLE) / NULLIF(trips, 0) AS revenue_per_trip
FROM od_flows
