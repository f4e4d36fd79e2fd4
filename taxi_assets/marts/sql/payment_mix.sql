/*
description: |
  Trips, tips and revenue by payment type, for services that record it.

  The view payment_mix_ratios has each payment type's share of a service's trips, and its tips as a share of fares.
  Tips paid in cash are not recorded.
needs: [payment_type]
key: [data_month, service, payment_type]
columns:
  payment_type:
    type: integer
    description: "0 flex fare, 1 credit card, 2 cash, 3 no charge, 4 dispute, 5 unknown, 6 voided; -1 not recorded."
  payment: {type: text, description: "Name of the payment type."}
measures: [trips, passengers, miles, seconds, fare, tips, revenue]
*/
SELECT
  data_month,
  service,
  payment_type,
  CASE payment_type
    WHEN 0 THEN 'Flex fare'
    WHEN 1 THEN 'Credit card'
    WHEN 2 THEN 'Cash'
    WHEN 3 THEN 'No charge'
    WHEN 4 THEN 'Dispute'
    WHEN 5 THEN 'Unknown'
    WHEN 6 THEN 'Voided'
    WHEN -1 THEN 'Not recorded'
    ELSE 'Other'
  END AS payment,
  SUM(trips) AS trips,
  SUM(passengers) AS passengers,
  SUM(miles) AS miles,
  SUM(seconds) AS seconds,
  SUM(fare) AS fare,
  SUM(tips) AS tips,
  SUM(revenue) AS revenue
FROM (
  SELECT
    data_month, service, COALESCE(payment_type, -1) AS payment_type, trips, passengers, miles, seconds, fare, tips, revenue
  FROM all_trips
) AS t
GROUP BY data_month, service, payment_type;

CREATE VIEW payment_mix_ratios AS
SELECT
  data_month, service, payment_type, payment, trips,
  CAST(trips AS DOUBLE) / NULLIF(SUM(trips) OVER (PARTITION BY data_month, service), 0) AS share_of_trips,
  CAST(tips AS DOUBLE) / NULLIF(fare, 0) AS tips_per_fare
FROM payment_mix
