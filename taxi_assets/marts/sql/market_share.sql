/*
description: |
  Trips of each loaded service by day and borough of the pickup, to compare services.

  The view market_share_ratios has each service's share of the trips of a day and borough. A service whose month is
  not loaded has no rows and no share: check which services a month has before you compare.
key: [data_month, service, pickup_date, pickup_borough]
measures: [trips, miles, seconds, revenue]
*/
SELECT
  t.data_month,
  t.service,
  t.pickup_date,
  COALESCE(NULLIF(z.borough, 'N/A'), z.zone, 'Unknown') AS pickup_borough,
  SUM(t.trips) AS trips,
  SUM(t.miles) AS miles,
  SUM(t.seconds) AS seconds,
  SUM(t.revenue) AS revenue
FROM all_trips AS t
LEFT JOIN taxi_zones AS z ON z.location_id = t.pickup_location_id
GROUP BY t.data_month, t.service, t.pickup_date, COALESCE(NULLIF(z.borough, 'N/A'), z.zone, 'Unknown');

CREATE VIEW market_share_ratios AS
SELECT
  data_month, service, pickup_date, pickup_borough, trips,
  CAST(trips AS DOUBLE)
    / NULLIF(SUM(trips) OVER (PARTITION BY data_month, pickup_date, pickup_borough), 0) AS share_of_trips
FROM market_share
