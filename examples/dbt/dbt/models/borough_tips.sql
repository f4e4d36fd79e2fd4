-- Tips of trips with green taxis that were paid by card, by borough of the pickup. Cash tips are not recorded.
select
    trips.data_month,
    coalesce(zones.borough, 'Unknown') as pickup_borough,
    sum(case when trips.is_reversal then 0 else 1 end) as trips,
    sum(trips.fare_amount) as fares,
    sum(trips.tip_amount) as tips
from {{ source('taxi', 'green_trips') }} as trips
left join {{ source('taxi', 'taxi_zones') }} as zones
    on trips.pickup_location_id = zones.location_id
where {{ in_month('trips.data_month') }}
    and trips.payment_type = 1
group by trips.data_month, coalesce(zones.borough, 'Unknown')
